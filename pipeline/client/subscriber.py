"""The subscriber: a context manager and an iterator, plain or asynchronous, of what is published."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from pipeline.client.feed import Feed, Heartbeat, Reply, Wanted
from pipeline.client.received import MalformedError, Received, parse
from pipeline.client.start import Cursor, Place, utc_seconds
from pipeline.client.wire import HEARTBEAT, Wire, decode, read_keys, replay_address
from pipeline.errors import ConfigError, MessageError
from pipeline.schemas import LOG_ROOT, TOPIC_ROOT, topic

__all__ = ["Subscriber"]

#: Messages handled before the time is looked at again.
_BATCH = 100
#: How long a replay may stay silent until that is said.
_SILENT_S = 5.0
#: Where the cursor is moved on past events that were not asked for, so often.
_MOVE_ON_S = 1.0

_log = logging.getLogger(__name__)


class Subscriber:
    """Receive events, each once and in order, and live frames.

    Every event has a number in the publisher's log, so a gap shows, and what is missing is asked for and put
    in its place: whether the publisher was not there yet, went and came back, or this side was too slow.
    Frames are live only; what this side misses of them is gone.

    Belongs to one thread or one event loop: ``for event in subscriber``, ``async for event in subscriber``,
    `receive` or `areceive`.

    Args:
        address: Where the pipeline publishes, such as ``tcp://127.0.0.1:5556``.
        sources: Only these sources; empty for all.
        types: Only these kinds (``frame``, ``start``, ``update``, ``end``, ``source``, …); empty for all.
        labels: Only events of objects with these class names; frames have no label and then stay out.
        timeout_s: Iteration ends after that much silence; None waits for ever.
        queue_limit: Messages that may wait here until they are read, and events that may wait while others
            before them are fetched.
        zones: Only events about these zones, or of objects that are in them; frames then stay out.
        since: Begin with what was committed at that time or later: UTC seconds, a datetime with a zone, or
            ISO 8601 text.
        from_sequence: Begin with the event of this number.
        log: Id of the log that ``from_sequence`` counts in (`Received.log`).
        cursor: A file that holds how far this subscriber has come; it goes on from there. A new one begins as
            the other arguments say. One subscriber at a time may use it.
        snapshot: Begin with the last values: the state of each source, the objects that are there, the counts
            of zones; then go on from there. With a cursor: only as long as it is new.
        follow: Without it, iteration ends as soon as all that the log has was received; by default from its
            oldest event on, and without frames.
        keys: Key file of this client, for a publisher with CURVE.
        replay: Where to ask for what was missed, when the publisher's own word for it does not lead there
            from here.

    Attributes:
        malformed: How many messages were passed over because they were not ours.

    Raises:
        ConfigError: an argument is wrong, or the cursor or the keys cannot be read.
    """

    def __init__(
        self,
        address: str,
        sources: Sequence[str] = (),
        types: Sequence[str] = (),
        labels: Sequence[str] = (),
        timeout_s: float | None = None,
        queue_limit: int = 10_000,
        *,
        zones: Sequence[str] = (),
        since: float | str | datetime | None = None,
        from_sequence: int | None = None,
        log: str = "",
        cursor: str | os.PathLike[str] | None = None,
        snapshot: bool = False,
        follow: bool = True,
        keys: str | os.PathLike[str] | None = None,
        replay: str | None = None,
    ) -> None:
        self.malformed = 0
        self._wanted = Wanted(frozenset(sources), frozenset(types), frozenset(labels), frozenset(zones))
        self._address, self._timeout_s, self._follow, self._replay = address, timeout_s, follow, replay
        self._cursor = None if cursor is None else Cursor(Path(cursor))
        start = _start(since, from_sequence, log, snapshot)
        if self._cursor is not None and self._cursor.place is not None:
            start, snapshot = self._cursor.place, False
        if not self._wanted.events and (start is not None or snapshot or cursor or not follow):
            raise ConfigError("frames are not kept, so there is no going back to them", hint="ask for events")
        if start is None and not snapshot and not follow:
            start = 0.0
        self._feed = Feed(
            self._wanted, start, snapshot=snapshot, born=time.monotonic(), born_at=time.time(),
            pending_limit=queue_limit,
        )  # fmt: skip
        self._written_at = time.monotonic()
        self._given = 0
        self._taken = False
        self._warned = False
        self._wire = Wire(
            address,
            _prefixes(self._wanted, follow),
            queue_limit,
            None if keys is None else read_keys(Path(keys)),
        )
        if replay is not None:
            try:
                self._wire.ask_at(replay_address(replay, address))
            except MalformedError as error:
                self._wire.close()
                raise ConfigError(str(error), hint="write an address such as tcp://127.0.0.1:5557") from error

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Subscriber:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Subscriber:
        return self

    def __aiter__(self) -> Subscriber:
        return self

    def __next__(self) -> Received:
        """Wait for the next record.

        Raises:
            StopIteration: ``timeout_s`` of silence, or all was received and ``follow`` is False.
            MessageError: the publisher speaks a version that this subscriber does not know.
        """
        item = self.receive(self._timeout_s)
        if item is None:
            raise StopIteration
        return item

    async def __anext__(self) -> Received:
        """Wait for the next record; as `__next__`."""
        item = await self.areceive(self._timeout_s)
        if item is None:
            raise StopAsyncIteration
        return item

    @property
    def lost(self) -> int:
        """Numbers of events that the log no longer kept when they were asked for, wanted or not."""
        return self._feed.lost

    @property
    def duplicates(self) -> int:
        """Events that came more than once, and were given once."""
        return self._feed.duplicates

    @property
    def refilled(self) -> int:
        """Events that were missed live and fetched."""
        return self._feed.refilled

    @property
    def resets(self) -> int:
        """How often the publisher came back with another log, which does not continue ours."""
        return self._feed.resets

    @property
    def caught_up(self) -> bool:
        """Whether everything that the log is known to have was received."""
        return self._feed.caught_up

    @property
    def place(self) -> Place | None:
        """Where to go on later so that nothing is lost: what the consumer has come back from is before it."""
        return self._feed.settled

    def receive(self, timeout_s: float | None = None) -> Received | None:
        """Wait for the next record that was asked for; None after ``timeout_s`` without one.

        With ``follow=False`` also None as soon as all was received.

        Raises:
            MessageError: the publisher speaks a version that this subscriber does not know.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._come_back()
        while True:
            item, idle = self._step()
            if item is not None:
                return item
            wait_s = self._wait_s(deadline)
            if wait_s is not None and wait_s < 0:
                return None
            if idle:
                self._wire.wait(wait_s)

    async def areceive(self, timeout_s: float | None = None) -> Received | None:
        """As `receive`, without holding the event loop up. To cancel it loses nothing."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._come_back()
        self._given += 1
        if not self._given % _BATCH:  # with all that waits here, others of the loop would have no turn
            await asyncio.sleep(0)
        while True:
            item, idle = self._step()
            if item is not None:
                return item
            wait_s = self._wait_s(deadline)
            if wait_s is not None and wait_s < 0:
                return None
            await self._wait(wait_s if idle else 0.0)

    def commit(self) -> None:
        """Say that all that was received is done with, and write the cursor, if there is one.

        Coming back for the next record says the same of the one before.
        """
        self._feed.settle()
        self._taken = False
        if self._cursor is not None and self._feed.settled is not None:
            self._cursor.write(self._feed.settled)
            self._written_at = time.monotonic()

    def close(self) -> None:
        """Disconnect. Does not commit the last record: leaving a loop by an error must not."""
        self._wire.close()

    def _come_back(self) -> None:
        """The consumer wants the next record, so it has done with the last."""
        if self._taken or time.monotonic() - self._written_at >= _MOVE_ON_S:
            self.commit()

    def _step(self) -> tuple[Received | None, bool]:
        """Handle what has come until there is a record to give; it, and whether all had been handled."""
        for _ in range(_BATCH):
            item = self._feed.take()
            if isinstance(item, MessageError):
                self._taken = True
                raise item
            if item is not None:
                self._taken = True
                return item, False
            now = time.monotonic()
            if not self._ended():
                request = self._feed.ask(now)
                if request is not None:
                    self._wire.send(request)
            # Last of all, and until there is nothing: the descriptors tell only of what comes after that.
            answer = self._wire.answer()
            if answer is not None:
                self._answered(answer, now)
                continue
            message = self._wire.message()
            if message is None:
                return None, True
            self._heard(message, now)
        return None, False

    def _ended(self) -> bool:
        return not self._follow and self._feed.caught_up

    def _wait_s(self, deadline: float | None) -> float | None:
        """How long to wait, None for ever; below 0 when it is over."""
        now = time.monotonic()
        if self._ended() or (deadline is not None and now >= deadline):
            return -1.0
        if self._feed.waits_s(now) >= _SILENT_S and not self._warned:
            self._warned = True
            _log.warning(
                "no answer from the replay endpoint of %s: missed events, and those after them, wait for it",
                self._address,
            )
        dues = [due for due in (deadline, self._feed.due()) if due is not None]
        if self._cursor is not None:
            dues.append(self._written_at + _MOVE_ON_S)
            if now >= dues[-1]:
                self.commit()
                dues[-1] = now + _MOVE_ON_S
        return max(0.0, min(dues) - now) if dues else None

    async def _wait(self, timeout_s: float | None) -> None:
        """Wait until something may have come. Readers are there only meanwhile, so cancelling leaves none."""
        loop = asyncio.get_running_loop()
        woken = loop.create_future()

        def wake() -> None:
            if not woken.done():
                woken.set_result(None)

        timer = None if timeout_s is None else loop.call_later(timeout_s, wake)
        descriptors = self._wire.descriptors()
        for descriptor in descriptors:
            loop.add_reader(descriptor, wake)
        try:
            await woken
        finally:
            for descriptor in descriptors:
                loop.remove_reader(descriptor)
            if timer is not None:
                timer.cancel()

    def _heard(self, parts: list[bytes], now: float) -> None:
        name = parts[0].decode(errors="replace")
        try:
            if name == HEARTBEAT:
                beat = msgspec.convert(_payload(parts), Heartbeat)
                at = replay_address(beat.replay, self._address) if beat.replay and not self._replay else None
                if at is not None and self._wire.ask_at(at):
                    self._feed.disconnected()
                self._feed.heartbeat(beat, now)
            elif name.startswith(LOG_ROOT):
                self._feed.live(name.removeprefix(LOG_ROOT).removesuffix("/"), _payload(parts))
            elif not self._wanted.events or _is_frame(name):
                self._feed.frame(parse(parts))
        except (MalformedError, msgspec.ValidationError):
            self.malformed += 1
        self._count_malformed()

    def _answered(self, parts: list[bytes], now: float) -> None:
        parts = parts[1:] if parts and not parts[0] else parts
        try:
            header = msgspec.convert(decode(parts[0]) if parts else None, Reply)
            self._feed.reply(header, [_decoded(part) for part in parts[1:]], now)
        except (MalformedError, msgspec.ValidationError):
            self.malformed += 1
        self._warned = False
        self._count_malformed()
        if self._cursor is not None and self._cursor.place is None and self._feed.settled is not None:
            self._cursor.write(
                self._feed.settled
            )  # A new one begins here, also if we die on the first event.

    def _count_malformed(self) -> None:
        self.malformed += self._feed.malformed
        self._feed.malformed = 0


def _start(
    since: float | str | datetime | None, from_sequence: int | None, log: str, snapshot: bool
) -> Place | float | None:
    if sum((since is not None, from_sequence is not None, snapshot)) > 1:
        raise ConfigError("there can be one start only", hint="give one of since, from_sequence and snapshot")
    if log and from_sequence is None:
        raise ConfigError("log says which log from_sequence counts in", hint="give from_sequence, too")
    if from_sequence is not None:
        if from_sequence < 0:
            raise ConfigError(f"from_sequence is {from_sequence}", hint="numbers begin with 0")
        return Place(from_sequence, log)
    return None if since is None else utc_seconds(since)


def _payload(parts: list[bytes]) -> object:
    if len(parts) != 2:
        raise MalformedError(f"{len(parts)} parts instead of topic and payload")
    return decode(parts[1])


def _decoded(part: bytes) -> object:
    try:
        return decode(part)
    except MalformedError:
        return None  # The feed counts it.


def _is_frame(name: str) -> bool:
    """Whether it is the topic of a frame; the events under their own topics come by the log, too."""
    return name.endswith("/frame/") and name.count("/") == 3


def _prefixes(wanted: Wanted, follow: bool) -> list[str]:
    """Topics that ask for no more than is needed."""
    if not follow:
        return [HEARTBEAT]
    prefixes = [LOG_ROOT] if wanted.events else []
    if wanted.frames:
        prefixes += [topic(source, "frame") for source in sorted(wanted.sources)] or [TOPIC_ROOT]
    return prefixes
