"""Small event drafts for tests of the log."""

from __future__ import annotations

from typing import Any

__all__ = ["draft"]


def draft(kind: str = "update", source: str = "gate", **fields: Any) -> dict[str, Any]:
    """A record that has no number yet."""
    if kind in ("start", "update", "end", "zone", "line"):
        fields = {"label": "car", "track_id": 1} | fields
    return {
        "schema": f"framewire.{kind}/1",
        "sequence": -1,
        "id": "",
        "type": kind,
        "source": source,
    } | fields
