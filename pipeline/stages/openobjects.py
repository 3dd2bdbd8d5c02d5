"""The objects that are open, and which events all sinks have: one file of the run, replaced as a whole.

It outlives ``publish``. Objects of a tracker that is killed, or of a camera that is lost, get their end from
it; and because what is open and what is sent are written in one step, a frame that comes again after a kill
either finds all as it was before it, or that nothing is left to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from pipeline.messages import Event

__all__ = ["OpenObjects", "Ticket"]

#: What brought events: a frame, or a change of state. They come in either order, so each has keys of its own.
Ticket = Literal["event", "change"]

#: What is said of one event, not of its object.
_OF_THE_MOMENT: dict[str, Any] = {
    "type": "update",
    **dict.fromkeys(("action", "zone", "dwell_s", "line", "direction", "severity", "ttc_s", "reason")),
}


class _Content(msgspec.Struct):
    """What the file holds, by source: the last event of each open object, and the last key by ticket."""

    objects: dict[str, dict[int, Event]] = {}
    sent: dict[str, dict[str, int]] = {}


class OpenObjects:
    """The open objects of all sources.

    Args:
        path: The file; None to keep all in memory only.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._content = _Content()
        if path is not None and path.exists():
            self._content = msgspec.msgpack.decode(path.read_bytes(), type=_Content)

    def sources(self) -> list[str]:
        """Sources with open objects."""
        return [source for source, objects in self._content.objects.items() if objects]

    def known(self, source: str, events: Sequence[Event]) -> tuple[Event, ...]:
        """The events without those of objects that have ended already, because their source was lost."""
        objects = self._content.objects.get(source, {})
        events = [self._shown(e, objects) for e in events]
        started = {e.track_id for e in events if e.type == "start"}
        return tuple(
            e for e in events if e.track_id is None or e.track_id in started or e.track_id in objects
        )

    @staticmethod
    def _shown(event: Event, objects: Mapping[int, Event]) -> Event:
        """The event with the picture of its object, where it has none of its own."""
        before = objects.get(event.track_id) if event.track_id is not None else None
        if event.snapshot is not None or before is None:
            return event
        return msgspec.structs.replace(event, snapshot=before.snapshot)

    def remember(self, events: Iterable[Event]) -> None:
        """Keep the last word on each open object."""
        for event in events:
            if event.track_id is None:
                continue
            objects = self._content.objects.setdefault(event.source, {})
            if event.type == "end":
                objects.pop(event.track_id, None)
            else:
                objects[event.track_id] = msgspec.structs.replace(event, **_OF_THE_MOMENT)

    def end(self, source: str, at: float, reason: str) -> tuple[Event, ...]:
        """End all objects of a source that nobody follows any more; first they exit their zones."""
        objects = self._content.objects.pop(source, {})
        events: list[Event] = []
        for event in objects.values():
            for zone in event.zones or ():
                exit_ = {"type": "zone", "zone": zone, "action": "exit", "zones": None}
                events.append(msgspec.structs.replace(event, at=at, reason=reason, **exit_))
            events.append(msgspec.structs.replace(event, type="end", at=at, reason=reason, zones=None))
        return tuple(events)

    def last_sent(self, source: str, ticket: Ticket) -> int:
        """Key of the last events of that ticket that all sinks have; 0 for none."""
        return self._content.sent.get(source, {}).get(ticket, 0)

    def sent(self, source: str, ticket: Ticket, key: int) -> None:
        """All sinks have the events of that key: write it down, with what is open now."""
        self._content.sent.setdefault(source, {})[ticket] = key
        if self._path is not None:
            scratch = self._path.with_suffix(".new")
            scratch.write_bytes(msgspec.msgpack.encode(self._content))
            scratch.replace(self._path)
