"""What the last value of something is: for subscribers who come later. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

__all__ = ["Value", "value_of"]


class Value(NamedTuple):
    """What an event is the newest word on.

    Attributes:
        key: Of what: a source, an object, a zone.
        gone: Whether there is no such thing any more.
    """

    key: str
    gone: bool


def value_of(record: dict[str, Any]) -> Value | None:
    """What an event record is the newest word on; None for what only happened, and is over."""
    kind, source = record["type"], record["source"]
    if kind in ("start", "update", "end", "zone", "line", "closing"):
        # A classifier's events are about a class, which has no track.
        thing = record["track_id"] if "track_id" in record else f"class/{record.get('label', '')}"
        return Value(f"object/{source}/{thing}", kind == "end")
    if kind in ("occupancy", "crowd"):
        return Value(f"{kind}/{source}/{record.get('zone', '')}", gone=False)
    if kind in ("source", "camera", "log"):
        return Value(f"{kind}/{source}", gone=False)
    return None
