"""Numbers of events over all sources of a run: without gaps, and the same again when ``publish`` was killed.

A publisher that is killed is handed the same frame or change again. What it had begun to write is told by a
ticket in the books of the source: the key of the frame or change, and the first number given to its events.
Frames and changes of state have a ticket each, for they come in either order.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from pipeline.messages import Event
from pipeline.transport.ledger import Ledger

__all__ = ["EventNumbers", "Ticket"]

Ticket = Literal["event", "change"]

_TICKETS: tuple[Ticket, ...] = ("event", "change")


class EventNumbers:
    """Gives out numbers; for the one publisher of a run.

    Attributes:
        next: The next number that nobody has.
    """

    def __init__(self) -> None:
        self.next = 0

    def resume(self, books: Mapping[str, Ledger], on_file: int, sent: Callable[[str, Ticket], int]) -> None:
        """Go on where an earlier incarnation was killed.

        Args:
            books: The books of all sources.
            on_file: The first number that no file holds.
            sent: Given a source and a ticket, the last key whose events all sinks have.
        """
        numbers = [on_file]
        for source, ledger in books.items():
            numbers.append(ledger["event_next"])
            for ticket in _TICKETS:
                key, base = ledger[f"{ticket}_key"], ledger[f"{ticket}_base"]
                if not key:
                    continue
                if key == sent(source, ticket):
                    numbers.append(base + ledger[f"{ticket}_count"])
                    continue
                # It was killed on its way to the sinks. Its numbers stay its own, unless a file shows that
                # they were never used.
                if 0 < on_file <= base:
                    ledger[f"{ticket}_key"] = 0
                else:
                    numbers.append(base + ledger[f"{ticket}_count"])
        self.next = max(numbers)

    def give(self, ledger: Ledger, ticket: Ticket, key: int, events: Sequence[Event]) -> int:
        """The number of the first of these events.

        Args:
            ledger: The books of their source.
            ticket: Whether a frame or a change of state brought them.
            key: Which one; never 0, and the same again after a restart.
            events: The events, in order; what comes again after a restart must be equal.
        """
        if not events:
            return self.next
        digest = zlib.crc32(repr([_identity(e) for e in events]).encode())
        first = self.next
        if ledger[f"{ticket}_key"] == key and ledger[f"{ticket}_digest"] == digest:
            first = ledger[f"{ticket}_base"]
        else:
            ledger[f"{ticket}_key"] = 0  # Until all of it is written.
            ledger[f"{ticket}_base"], ledger[f"{ticket}_count"] = first, len(events)
            ledger[f"{ticket}_digest"] = digest
            ledger[f"{ticket}_key"] = key
        self.next = max(self.next, first + len(events))
        return first


def _identity(event: Event) -> tuple[object, ...]:
    """What tells an event from the others of a frame, and is the same when it comes again."""
    place = (event.zone, event.line, event.direction, event.action, event.severity, event.count)
    return (event.type, event.track_id, event.state, *place)
