"""The objects that are open, and which events all sinks have: one file of the run, replaced as a whole.

It outlives ``publish``. Objects of a tracker that is killed, or of a camera that is lost, get their end from
it; and because what is open and what is sent are written in one step, a frame that comes again after a kill
either finds all as it was before it, or that nothing is left to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from pipeline.messages import Event
from pipeline.stages.numbering import Ticket

__all__ = ["OpenObjects"]


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

    def known(self, source: str, events: Iterable[Event]) -> tuple[Event, ...]:
        """The events without those of objects that have ended already, because their source was lost."""
        objects = self._content.objects.get(source, {})
        return tuple(e for e in events if e.type == "start" or e.track_id in objects)

    def remember(self, events: Iterable[Event]) -> None:
        """Keep the last word on each open object."""
        for event in events:
            if event.track_id is None:
                continue
            objects = self._content.objects.setdefault(event.source, {})
            if event.type == "end":
                objects.pop(event.track_id, None)
            else:
                objects[event.track_id] = event

    def end(self, source: str, at: float, reason: str) -> tuple[Event, ...]:
        """End all objects of a source that nobody follows any more."""
        objects = self._content.objects.pop(source, {})
        return tuple(
            msgspec.structs.replace(event, type="end", at=at, reason=reason) for event in objects.values()
        )

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
