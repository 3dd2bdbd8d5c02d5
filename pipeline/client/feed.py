"""The feed: puts live and replayed events into one sequence without gaps. Decides all, and does no I/O.

A feed is told what was heard (`live`, `heartbeat`, `reply`), says what to ask next (`ask`), and gives the
records in order (`take`). ``docs/stream.md`` describes the messages.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec

from pipeline.client.received import MalformedError, Received, event_of
from pipeline.client.start import Place
from pipeline.errors import MessageError

__all__ = ["RETRY_S", "Feed", "Heartbeat", "Reply", "Wanted"]

#: An answer that has not come after so long is asked for again.
RETRY_S = 1.0
_LIMIT = 1000

_logger = logging.getLogger(__name__)


class Heartbeat(msgspec.Struct, frozen=True):
    """What the publisher says every second."""

    schema: Literal["framewire.heartbeat/1"]
    log: str
    next: int
    at: datetime
    replay: str = ""


class Reply(msgspec.Struct, frozen=True):
    """The header of an answer; ``from`` is a word of Python."""

    schema: Literal["framewire.replay/1"]
    id: int
    log: str = ""
    oldest: int = 0
    next: int = 0
    first: int = msgspec.field(name="from", default=0)
    to: int = 0
    continued: bool = False
    error: str = ""


class Wanted(msgspec.Struct, frozen=True):
    """Which records are wanted; what is empty lets all through.

    Attributes:
        sources: Names of sources.
        types: Kinds of records.
        labels: Labels of objects.
        zones: Zones that an event is about or that its object is in.
    """

    sources: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    labels: frozenset[str] = frozenset()
    zones: frozenset[str] = frozenset()

    @property
    def frames(self) -> bool:
        """Whether frames are among them."""
        return not self.labels and not self.zones and (not self.types or "frame" in self.types)

    @property
    def events(self) -> bool:
        """Whether events are among them."""
        return self.types != {"frame"}

    def matches(self, item: Received) -> bool:
        """Whether a record is one of them."""
        return (
            (not self.sources or item.source in self.sources)
            and (not self.types or item.kind in self.types)
            and (not self.labels or item.label in self.labels)
            and (not self.zones or item.zone in self.zones or not self.zones.isdisjoint(item.zones))
        )

    def asked(self) -> dict[str, list[str]]:
        """The same as fields of a request."""
        given = {
            "sources": self.sources, "types": self.types - {"frame"},
            "labels": self.labels, "zones": self.zones,
        }  # fmt: skip
        return {name: sorted(words) for name, words in given.items() if words}


_Item = Received | MessageError


class Feed:
    """Gives every committed event that is wanted exactly once and in order.

    Args:
        wanted: Which.
        start: A place in the log, UTC seconds, or None for the moment it was made.
        snapshot: Begin with the last values instead, then go on from there.
        born: What the clock of ``now`` (monotonic seconds) says as it is made.
        born_at: The UTC seconds then.
        pending_limit: Live events that may wait here while a gap before them is being filled.

    Attributes:
        settled: Where to go on so that nothing is lost which the consumer has not done with; None before the
            first answer.
        lost: Numbers that are gone for ever, for the log no longer keeps them.
        duplicates: Live events that came again, and were given once.
        refilled: Events that were missed live and brought by replay.
        resets: How often another log took the place of ours without continuing it.
        malformed: Records that were not events.
    """

    def __init__(
        self, wanted: Wanted, start: Place | float | None, *, snapshot: bool = False,
        born: float = 0.0, born_at: float = 0.0, pending_limit: int = 10_000,
    ) -> None:  # fmt: skip
        self.lost = self.duplicates = self.refilled = self.resets = self.malformed = 0
        self.settled: Place | None = None
        self._wanted, self._start, self._snapshot = wanted, start, snapshot
        self._born, self._born_at, self._pending_limit = born, born_at, pending_limit
        self._log = start.log if isinstance(start, Place) else ""
        self._next = start.next if isinstance(start, Place) else -1  # the first number that was not given
        self._started = False
        self._level = False  # caught up with the log once, so what is replayed now was missed
        self._target = 0  # the log has what is before
        self._pending: dict[tuple[str, int], _Item | None] = {}
        self._ready: deque[tuple[_Item, Place | None]] = deque()
        self._last: Place | None = None
        self._met = False
        self._beat = ("", 0)  # where the publisher was when it said so last
        self._refusal = ""
        self._doubt = False  # what was heard does not fit to our log: only an answer can tell
        self._checked_at = float("-inf")
        self._id = 0
        self._waiting: dict[int, int] = {}  # where we were when we asked, by the number of the question
        self._asked_at: float | None = None
        self._waits_since: float | None = None

    @property
    def caught_up(self) -> bool:
        """Whether all that the log is known to have was taken."""
        return self._started and self._next >= self._target and not self._ready

    def waits_s(self, now: float) -> float:
        """For how long an answer has been missing, in seconds."""
        return 0.0 if self._waits_since is None else now - self._waits_since

    def take(self) -> _Item | None:
        """The next record, or the error that stands in its place; None when there is none yet."""
        if not self._ready:
            return None
        item, after = self._ready.popleft()
        self._last = after or self._last
        return item

    def settle(self) -> None:
        """The consumer has done with all that was taken."""
        if self._started and not self._ready:
            self._last = Place(self._next, self._log)
        self.settled = self._last or self.settled

    def frame(self, item: Received) -> None:
        """A frame was heard: it is given after the events that were heard before it."""
        if self._wanted.matches(item):
            self._ready.append((item, None))

    def live(self, log: str, record: Any) -> None:
        """An event was heard."""
        read = self._read(record, log)
        if read is None:
            return
        number, item = read
        if not self._started or log != self._log:
            self._doubt |= self._started
            self._keep(log, number, item)
        elif number < self._next:
            self.duplicates += 1
        elif number == self._next:
            self._give(number, item)
            self._give_pending()
        else:
            self._target = max(self._target, number + 1)
            self._keep(log, number, item)

    def heartbeat(self, beat: Heartbeat, now: float) -> None:
        """The publisher said where it is."""
        if not self._met:
            self._met = True
            if self._start is None:
                # From the moment we were made, on the publisher's clock: it may have begun to talk before
                # our subscription reached it. The clocks of two hosts may differ, so not before we lived.
                self._start = max(self._born_at, beat.at.timestamp() - (now - self._born) - 1.0)
        self._beat = (beat.log, beat.next)
        if not self._started:
            return
        if beat.log != self._log or beat.next < self._next:
            self._doubt = True
        else:
            self._target = max(self._target, beat.next)

    def ask(self, now: float) -> dict[str, Any] | None:
        """The request to send now, if one is due."""
        due = self.due()
        if due is None or now < due:
            return None
        if self._doubt:
            self._checked_at = now
        self._id += 1
        self._waiting[self._id] = self._next
        self._asked_at = now
        self._waits_since = now if self._waits_since is None else self._waits_since
        request: dict[str, Any] = {"schema": "framewire.replay/1", "id": self._id}
        if self._snapshot and not self._started:
            return request | {"do": "latest"} | self._wanted.asked()
        request |= {"do": "events", "limit": _LIMIT} | self._wanted.asked()
        if self._next >= 0:
            return request | {"from": self._next} | ({"log": self._log} if self._log else {})
        return request | {"since": self._start}

    def due(self) -> float | None:
        """When `ask` will have a request to send; None while nothing is missing."""
        if not self._met or (self._started and self._next >= self._target and not self._doubt):
            return None
        due = float("-inf") if self._asked_at is None else self._asked_at + RETRY_S
        if self._started and self._next >= self._target:  # old messages may wait in a queue: no hurry
            due = max(due, self._checked_at + RETRY_S)
        return due

    def disconnected(self) -> None:
        """What was asked will not be answered: ask anew."""
        self._waiting.clear()
        self._asked_at = None

    def reply(self, header: Reply, records: Sequence[Any], now: float) -> None:
        """An answer came; one that nobody waits for is passed over."""
        asked = self._waiting.get(header.id)
        if asked is None:
            return
        # A late answer to the same question is as good as the last one, so all of them are waited for.
        self._waiting.clear()
        self._waits_since = None
        if header.error:
            self._asked_at = now
            if not self._started:
                error = MessageError(f"the publisher does not replay: {header.error}")
                self._ready.append((error, None))
            elif header.error != self._refusal:
                _logger.warning("the publisher does not replay now: %s", header.error)
            self._refusal = header.error
            return
        if not header.log or not 0 <= header.first <= header.to:
            self.malformed += 1
            return
        self._asked_at = None
        self._refusal = ""
        self._doubt = False
        before = self._next
        if self._snapshot and not self._started:
            self._take_snapshot(header, records)
        elif self._find_place(header, asked):
            self._take_page(header, records)
        self._target = max(self._target, header.next)
        self._started = True
        self._pending = {
            key: item for key, item in self._pending.items() if key[0] == self._log and key[1] >= self._next
        }
        self._give_pending()
        if self._pending:
            self._target = max(self._target, 1 + max(number for _, number in self._pending))
        if before == self._next < self._target:
            self._asked_at = now  # nothing gained: not again at once
        self._level |= self._next >= self._target

    def _find_place(self, header: Reply, asked: int) -> bool:
        """Where the answer begins, and what was lost on the way there; whether we can go on with it."""
        same = header.log == self._log
        if self._log and not same and not header.continued:
            self.resets += 1
            self.lost += header.first  # the numbers of the new log that it no longer keeps
            self._next = header.first
        elif (
            max(header.next, self._beat[1]) < asked
            and self._beat[0] == header.log
            and (same or not header.continued)
        ):
            # A log that ends before our place is not what it was: a copy was put back, or it is another one.
            # While its disk is full, answers end before what was broadcast; heartbeats do not.
            self.resets += 1
            self._next, self._target = header.oldest, 0
        elif self._next < 0 or not same:
            self.lost += max(0, header.first - self._next) if self._next >= 0 else 0
            self._next = header.first
        else:
            self.lost += max(0, header.first - self._next)
            self._next = max(self._next, header.first)
        if not same:
            self._target = 0
        self._log = header.log
        if not self._started:
            self.settled = Place(self._next, self._log)
        return self._next >= header.first

    def _take_page(self, header: Reply, records: Sequence[Any]) -> None:
        for record in records:
            read = self._read(record, header.log)
            if read is None:
                continue
            number, item = read
            if self._next <= number < header.to:
                self.refilled += self._level and item is not None
                self._give(number, item)
        self._next = max(self._next, min(header.to, header.next))

    def _take_snapshot(self, header: Reply, records: Sequence[Any]) -> None:
        items: list[_Item] = []
        for record in records:
            try:
                item = event_of(record, header.log, snapshot=True)
            except MalformedError:
                self.malformed += 1
                continue
            except MessageError as error:
                items.append(error)
                continue
            if self._wanted.matches(item):
                items.append(item)
        self._log, self._next = header.log, header.to
        place = Place(self._next, self._log)
        # The snapshot counts as done when its last value is.
        self._ready += [(item, place if item is items[-1] else None) for item in items]

    def _read(self, record: Any, log: str) -> tuple[int, _Item | None] | None:
        """Number and content of an event, None in place of one that is not wanted; None for what is none."""
        number = record.get("sequence") if isinstance(record, dict) else None
        if type(number) is not int or number < 0:
            self.malformed += 1
            return None
        try:
            item = event_of(record, log)
        except MalformedError:
            self.malformed += 1
            return None
        except MessageError as error:
            return number, error
        return number, item if self._wanted.matches(item) else None

    def _keep(self, log: str, number: int, item: _Item | None) -> None:
        if len(self._pending) < self._pending_limit:  # else replay brings it
            self._pending[log, number] = item

    def _give_pending(self) -> None:
        while self._pending and (self._log, self._next) in self._pending:
            self._give(self._next, self._pending.pop((self._log, self._next)))

    def _give(self, number: int, item: _Item | None) -> None:
        self._next = number + 1
        if item is not None:
            self._ready.append((item, Place(self._next, self._log)))
