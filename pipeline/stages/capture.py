"""capture: a source's pictures -> admitted frames in leased slots. The one place that drops.

A file is lossless: the next picture is decoded only when a slot is free. A live source keeps the newest
picture that has not been admitted; the one that it replaces is dropped here and counted `superseded`. What
`Admission` does not want (rate, age, schedule, nothing moves) is dropped here too, and counted by cause.

Everything needed to go on after ``kill -9`` lies in shared memory (the books, and in each slot the message
that goes with it), so a restarted capture sends again what was under way and loses no frame.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Literal

import numpy as np

from pipeline.errors import PoolError, SourceError, StaleSlotError
from pipeline.messages import Blob, EndOfStream, Frame, FrameHeader, Lost, Message
from pipeline.sources.base import Picture, Source
from pipeline.sources.live.camera import LiveSource
from pipeline.stages.base import passed
from pipeline.stages.framepools import FramePools, MakeFramePool
from pipeline.stages.newest import Newest
from pipeline.stages.telling import StateTeller
from pipeline.stages.turns import Turns
from pipeline.transport import codec
from pipeline.transport.ledger import Ledger
from pipeline.transport.shm import SlotPool

__all__ = ["CaptureStage", "Judge"]

log = logging.getLogger(__name__)

#: (picture, presentation time of the last one that was wanted) -> cause for which it is dropped, or None.
Judge = Callable[[Picture, int | None], str | None]

_MAX_ATTEMPTS = 3
_UNWANTED_MAX = 16


class CaptureStage:
    """Admits the frames of one source.

    Args:
        source: The source, not yet opened.
        ledger: Its books.
        make_pool: Makes a frame pool.
        attach_pool: Maps the frame pool of that number, made by an earlier incarnation.
        slots: Frames that may be under way at once.
        in_flight: For a live source, how many of them may be admitted; the rest is for the newest.
        wake: Called (from another thread) when a live source has something new.
        on_error: Told when the source breaks.
        judge: Says why a decoded picture is not wanted, given the time of the last one that was (None before
            the first): a cause of the books, or None; called in the thread that reads.
        turns: For a live source, when it may admit; None when it shares with no other.
        abandon: Ends this process: a library holds the reading thread and will not give it back.
    """

    name = "capture"

    def __init__(
        self,
        *,
        source: Source,
        ledger: Ledger,
        make_pool: MakeFramePool,
        attach_pool: Callable[[int], SlotPool],
        slots: int = 8,
        in_flight: int = 2,
        wake: Callable[[], None] = lambda: None,
        on_error: Callable[[SourceError], None] = lambda _: None,
        judge: Judge = lambda _picture, _wanted_ns: None,
        turns: Turns | None = None,
        abandon: Callable[[], None] = lambda: None,
    ) -> None:
        self.source = source
        self.ledger = ledger
        self._pools = FramePools(ledger, make_pool, attach_pool, slots=slots)
        self._in_flight = in_flight
        self._wake = wake
        self._on_error = on_error
        self._wanted = judge
        self._turns = turns
        self._abandon = abandon
        self._states = StateTeller(ledger, source)
        self._wanted_ns: int | None = None
        self._counted = (ledger["decode_errors"], ledger["skipped"])
        self._again: deque[Message] = deque()
        self._newest: Newest | None = None
        self._ending: EndOfStream | None = None
        self._stop_reason = ""
        self._source_epoch: int | None = None

    @property
    def finished(self) -> bool:
        """Whether the stream has ended and all of it is published."""
        return self._ending is not None and bool(self.ledger["ended"])

    def open(self) -> None:
        """Recover what an earlier incarnation left, then open the source where it was.

        A source that cannot be opened ends as failed; `on_error` hears why.
        """
        ledger = self.ledger
        self._recover()
        ledger["live"] = int(self.source.live)
        self._wanted_ns = ledger["last_pts_ns"] if ledger["admitted"] else None
        before = ledger.journal.last()
        over = before is not None and before.state in ("ended", "failed")
        if before is not None and ledger["closing"] and over:
            # Killed after it had ended: what is left is to say so, for it may not have been heard.
            failed = before.state == "failed"
            self._say_end("failed" if failed else "ended", before.message if failed else before.reason)
            return
        ledger["closing"] = 0
        crashed = before is not None and not over
        taken = ledger["admitted"] + sum(ledger.dropped().values())
        if over:  # It was removed, and is back: perhaps as something else, so it begins at the beginning.
            ledger["taken_before"] = taken
        if over or (self.source.live and crashed):
            ledger["epoch"] += 1  # Whatever went by meanwhile, tracks do not go on over it.
        self._states.first_epoch = ledger["epoch"]
        skip = taken - ledger["taken_before"]
        goes_on = bool(skip or (self.source.live and taken))
        if crashed:
            self._states.say("reconnecting", "crashed", "the process that read it died")
        if isinstance(self.source, LiveSource):
            self.source.on_change = self._states.changed
        elif not crashed:
            self._states.say("connecting")
        try:
            self.source.open(skip=skip, after_pts_ns=ledger["last_pts_ns"] if goes_on else None)
        except SourceError as error:
            self._fail(error)
            return
        ledger["expected"] = self.source.expected_frames or 0
        if not isinstance(self.source, LiveSource):
            self._states.say("running")
        self.watch()
        if self.source.live:
            self._newest = Newest(self.source, self._wake, judge=self._judge)
            self._states.on_lost = self._newest.forget

    def _recover(self) -> None:
        """Set the books right after a kill, and send again what was under way."""
        ledger = self.ledger
        unresolved = ledger["decoded"] - ledger["admitted"] - sum(ledger.dropped().values())
        if ledger["pool"]:
            self._pools.recover()
            headers = [frame.header for _, _, frame in self._pools.leased()]
            newest = max(headers, key=lambda header: header.seq, default=None)
            if newest is not None and newest.seq >= ledger["admitted"]:
                # Killed between leasing the slot and booking it.
                ledger["last_pts_ns"] = newest.pts_ns
                ledger["admitted"] = newest.seq + 1
                unresolved = max(0, unresolved - 1)
            self.resend("capture_died")
        if unresolved > 0:
            if self.source.live:
                ledger["dropped_crashed"] += unresolved
            else:  # It will be decoded once more.
                ledger["decoded"] -= unresolved

    def receive(self) -> Message | None:
        """The next message to send, or None when there is nothing to send now.

        Call it only with credit in hand: what it returns is admitted.
        """
        if self._again:
            message = self._again.popleft()
            if isinstance(message, Frame):
                self._pools.of(message).attempt(message.lease.slot)
            return message
        if self._ending is not None:
            return None
        try:
            return self._live() if self._newest is not None else self._lossless()
        except SourceError as error:
            self._fail(error)
        except PoolError as error:
            if not self.source.live:
                raise
            # One camera that has grown too large must not end the others.
            self.ledger["dropped_crashed"] += 1
            self._fail(SourceError(error.message, hint=error.hint, source=self.source.name))
        return self._again.popleft()

    def stop(self, reason: str) -> None:
        """Read no more; the end of the stream follows the last admitted frame."""
        if self._ending is None and not self._stop_reason:
            self._stop_reason = reason

    def resend(self, cause: str) -> None:
        """A later stage died: send again what is under way; for a live source count it lost instead."""
        frames: list[Message] = []
        for pool, slot, frame in self._pools.leased():
            if frame.header.seq < self.ledger["next_publish"]:
                pool.release(frame.lease)
                continue
            attempts = pool.attempts(slot)
            if self.source.live or attempts >= _MAX_ATTEMPTS:
                stage = cause.removesuffix("_died")
                reason = f"{stage} died" + (f" {attempts} times with it" if attempts > 1 else "")
                frames.append(Lost(frame.header, frame.spans, frame, cause, reason))
            else:
                frames.append(frame)
        frames.sort(key=lambda m: m.header.seq if isinstance(m, Frame | Lost) else 0)
        self._again = deque(frames)
        if self._ending is not None:
            self._again.append(self._ending)

    def watch(self) -> None:
        """Look around: is the camera silent, is its thread stuck? To be called a few times a second."""
        ledger, source = self.ledger, self.source
        ledger["alive_ns"] = time.monotonic_ns()
        if self._newest is not None:
            self._book(*self._newest.dropped())
            if self._turns is not None:
                self._turns.want(self._ending is None and self._newest.waiting)
        self._count()
        if not isinstance(source, LiveSource) or self._ending is not None:
            return
        source.check()
        ledger["heard_ns"] = source.heard_ns
        clock = source.clock
        ledger["clocked"] = int(clock is not None)
        if clock is not None:
            ledger["clock_offset_us"] = round(clock[0] * 1e6)
            ledger["drift_ppb"] = round((clock[1] or 0.0) * 1000)
        if source.stuck() and not self._stop_reason:
            self._states.say(
                "reconnecting", "timeout", "the camera's library or driver hangs; its process is replaced"
            )
            log.error("[%s] the library that reads it hangs: replacing this process", source.name)
            self._abandon()

    def close(self) -> None:
        """Stop reading and close the source; one whose reading thread does not come back is left to it."""
        if self._newest is None or self._newest.stop():
            self.source.close()

    def _fail(self, error: SourceError) -> None:
        self._on_error(error)
        self._end("failed", error.message, error.reason)

    def _end(self, state: Literal["ended", "failed"], reason: str, word: str = "") -> None:
        ledger = self.ledger
        self._count()
        if self._newest is not None:
            self._newest.ask()
        if self._turns is not None:
            self._turns.want(False)
        ledger["closing"] = 1  # Once the end is told, a restarted process only says so again.
        if state == "failed":
            self._states.end(state, word, reason)
        else:
            self._states.end(state, reason)
        self._say_end(state, reason)

    def _say_end(self, state: Literal["ended", "failed"], reason: str) -> None:
        self._ending = EndOfStream(
            self.source.name, self.ledger["epoch"], self.ledger["admitted"], state, reason, time.time()
        )
        self._again.append(self._ending)

    def _count(self) -> None:
        """Book what the source itself counts, on top of what it counted in earlier incarnations."""
        errors, skipped = self._counted
        self.ledger["decode_errors"] = errors + self.source.decode_errors
        if isinstance(self.source, LiveSource):
            self.ledger["skipped"] = skipped + self.source.skipped

    def _judge(self, picture: Picture) -> str | None:
        """Why a decoded picture is not wanted, as a cause of the books; None if it is."""
        cause = self._wanted(picture, self._wanted_ns)
        if cause is None:
            self._wanted_ns = picture.pts_ns
        return cause

    def _book(self, decoded: int, dropped: dict[str, int]) -> None:
        # First what comes in, then where it went: killed in between, the difference is what was dropped.
        if decoded:
            self.ledger["decoded"] += decoded
        for cause, count in dropped.items():
            self.ledger[f"dropped_{cause}"] += count

    def _lossless(self) -> Message | None:
        if self._stop_reason:
            self._end("ended", self._stop_reason)
            return self._again.popleft()
        if self._pools.full:
            return None
        for _ in range(_UNWANTED_MAX):
            start_ns = time.monotonic_ns()
            picture = self.source.read()
            if picture is None:
                self._end("ended", "end_of_file")
                return self._again.popleft()
            self.ledger["decoded"] += 1
            cause = self._judge(picture)
            if cause is None:
                return self._admit(picture, start_ns)
            self.ledger[f"dropped_{cause}"] += 1
        self._wake()  # There is more to read, once commands have been heard.
        return None

    def _live(self) -> Message | None:
        assert self._newest is not None
        newest = self._newest
        if self._stop_reason:
            newest.stop()
            left = newest.take()
            decoded, dropped = newest.dropped()
            if left is not None:
                decoded, dropped["stopped"] = decoded + 1, 1
            self._book(decoded, dropped)
            self._end("ended", self._stop_reason)
            return self._again.popleft()
        if self._pools.in_use >= self._in_flight or self._pools.full:
            return None  # The reading thread goes on and keeps the newest.
        if self._turns is not None:
            self._turns.want(newest.waiting)
            if newest.waiting and not self._turns.granted():
                return None
        ended = newest.ended  # Read before `take`: what came before the end is taken first.
        picture = newest.take()
        self._book(*newest.dropped())
        if picture is not None:
            self.ledger["decoded"] += 1
            return self._admit(picture, time.monotonic_ns())
        if ended:
            newest.raise_error()
            self._end("ended", "end_of_file")
            return self._again.popleft()
        return None

    def _admit(self, picture: Picture, start_ns: int) -> Frame:
        ledger = self.ledger
        self._track_epoch(picture)
        size = sum(plane.nbytes for plane in picture.planes)
        pool = self._pools.fitting(size)
        slot = pool.acquire()
        if slot is None:
            raise StaleSlotError(f"no free slot in {pool.name}")
        blobs: list[Blob] = []
        offset = 0
        for plane in picture.planes:
            np.copyto(pool.array(slot, plane.shape, "uint8", offset), plane)
            blobs.append(pool.blob(slot, plane.shape, "uint8", offset))
            offset += plane.nbytes
        header = FrameHeader(
            self.source.name, ledger["epoch"], ledger["admitted"], picture.pts_ns, picture.captured_ns,
            picture.captured_at, picture.clock, picture.width, picture.height,
        )  # fmt: skip
        lease = pool.blob(slot, (0,), "uint8")
        spans = passed(self.name, (), picture.captured_ns, start_ns)
        frame = Frame(header, spans, lease, tuple(blobs), picture.pixel_format)
        pool.commit(slot, codec.encode(frame))
        pool.attempt(slot)
        ledger["last_pts_ns"] = picture.pts_ns
        ledger["admitted"] += 1
        if self._turns is not None:
            self._turns.taken()
            self._turns.want(False)
        return frame

    def _track_epoch(self, picture: Picture) -> None:
        ledger = self.ledger
        size = (picture.width, picture.height)
        if isinstance(self.source, LiveSource):  # It counts by itself, also what is dropped in between.
            ledger["epoch"] = self._states.first_epoch + picture.epoch
            ledger["width"], ledger["height"] = size
            return
        changed = ledger["admitted"] > 0 and size != (ledger["width"], ledger["height"])
        if changed or (self._source_epoch is not None and picture.epoch != self._source_epoch):
            ledger["epoch"] += 1
        self._source_epoch = picture.epoch
        ledger["width"], ledger["height"] = size
