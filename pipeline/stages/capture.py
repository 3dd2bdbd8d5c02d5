"""capture: a source's pictures -> admitted frames in leased slots. The one place that drops.

A file is lossless: the next picture is decoded only when a slot is free. A live source keeps the newest
picture that has not been admitted; the one that it replaces is dropped here and counted `superseded`.

Everything needed to go on after ``kill -9`` lies in shared memory (the books, and in each slot the message
that goes with it), so a restarted capture sends again what was under way and loses no frame.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np

from pipeline.errors import PoolError, SourceError, StaleSlotError
from pipeline.messages import Blob, EndOfStream, Frame, FrameHeader, Lost, Message
from pipeline.sources.base import Picture, Source
from pipeline.stages.base import passed
from pipeline.transport import codec
from pipeline.transport.ledger import STATES, Ledger
from pipeline.transport.shm import SlotPool

__all__ = ["CaptureStage", "MakeFramePool", "Newest"]

log = logging.getLogger(__name__)

#: (number of the pool, slots, bytes of a slot) -> a new pool.
MakeFramePool = Callable[[int, int, int], SlotPool]

_MAX_ATTEMPTS = 3


class Newest:
    """A mailbox for one picture, filled by a reading thread: the newest wins.

    Args:
        source: The opened source; only the thread reads it from now on.
        wake: Called from the thread when there is something new.
    """

    def __init__(self, source: Source, wake: Callable[[], None]) -> None:
        self._source = source
        self._wake = wake
        self._lock = threading.Lock()
        self._picture: Picture | None = None
        self._end = False
        self._error: SourceError | None = None
        self._stop = threading.Event()
        self.decoded = 0
        self.superseded = 0
        self._thread = threading.Thread(target=self._read, name=f"read-{source.name}", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            while not self._stop.is_set():
                picture = self._source.read()
                with self._lock:
                    if picture is None:
                        self._end = True
                        return
                    self.decoded += 1
                    self.superseded += self._picture is not None
                    self._picture = picture
                self._wake()
        except SourceError as error:
            with self._lock:
                self._error, self._end = error, True
        finally:
            self._wake()

    def take(self) -> tuple[Picture | None, bool, int, int]:
        """(picture, whether the stream has ended, newly decoded, newly superseded).

        Raises:
            SourceError: the source broke, and every picture before that was taken.
        """
        with self._lock:
            picture, self._picture = self._picture, None
            decoded, superseded = self.decoded, self.superseded
            self.decoded = self.superseded = 0
            if picture is None and self._error is not None:
                raise self._error
            return picture, self._end, decoded, superseded

    def stop(self) -> None:
        """Ask the thread to end after the picture that it is reading."""
        self._stop.set()
        self._thread.join(timeout=2.0)


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
    ) -> None:
        self.source = source
        self.ledger = ledger
        self._make_pool = make_pool
        self._attach_pool = attach_pool
        self._slots = slots
        self._in_flight = in_flight
        self._wake = wake
        self._on_error = on_error
        self._pool: SlotPool | None = None
        self._old_pools: list[SlotPool] = []
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
        unresolved = ledger["decoded"] - ledger["admitted"] - sum(ledger.dropped().values())
        if ledger["pool"]:
            self._attach_pools(ledger["pool"])
            headers = [frame.header for _, _, frame in self._leased()]
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
        ledger["state"] = STATES.index("connecting")
        skip = ledger["admitted"] + sum(ledger.dropped().values())
        try:
            self.source.open(skip=skip, after_pts_ns=ledger["last_pts_ns"] if skip else None)
        except SourceError as error:
            self._fail(error)
            return
        ledger["expected"] = self.source.expected_frames or 0
        ledger["state"] = STATES.index("running")
        if self.source.live:
            self._newest = Newest(self.source, self._wake)

    def receive(self) -> Message | None:
        """The next message to send, or None when there is nothing to send now.

        Call it only with credit in hand: what it returns is admitted.
        """
        if self._again:
            message = self._again.popleft()
            if isinstance(message, Frame):
                self._pool_of(message).attempt(message.lease.slot)
            return message
        if self._ending is not None:
            return None
        try:
            return self._live() if self._newest is not None else self._lossless()
        except SourceError as error:
            self._fail(error)
            return self._again.popleft()

    def stop(self, reason: str) -> None:
        """Read no more; the end of the stream follows the last admitted frame."""
        if self._ending is None and not self._stop_reason:
            self._stop_reason = reason

    def resend(self, cause: str) -> None:
        """A later stage died: send again what is under way; for a live source count it lost instead."""
        frames: list[Message] = []
        for pool, slot, frame in self._leased():
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

    @property
    def decode_errors(self) -> int:
        """Packets or pictures that could not be decoded and were skipped."""
        return int(getattr(self.source, "decode_errors", 0))

    def close(self) -> None:
        """Stop reading and close the source."""
        if self._newest is not None:
            self._newest.stop()
        self.source.close()

    def _attach_pools(self, newest: int) -> None:
        """Map what an earlier incarnation made: the pool in use, and older ones with frames under way."""
        for number in range(1, newest + 1):
            try:
                pool = self._attach_pool(number)
            except (StaleSlotError, PoolError):
                continue  # Drained and removed, or killed before it was complete: nothing lies in it.
            if number == newest:
                self._pool = pool
            else:
                self._old_pools.append(pool)

    def _leased(self) -> list[tuple[SlotPool, int, Frame]]:
        found = []
        for pool in (*self._old_pools, *([self._pool] if self._pool else [])):
            for slot, descriptor in pool.leased():
                frame = codec.decode(descriptor)
                assert isinstance(frame, Frame)
                found.append((pool, slot, frame))
        return found

    def _pool_of(self, frame: Frame) -> SlotPool:
        pools = (*self._old_pools, *([self._pool] if self._pool else []))
        return next(pool for pool in pools if pool.name == frame.lease.pool)

    def _fail(self, error: SourceError) -> None:
        self._on_error(error)
        self._end("failed", error.message)

    def _end(self, state: str, reason: str) -> None:
        ledger = self.ledger
        ledger["state"] = STATES.index(state)
        self._ending = EndOfStream(
            self.source.name,
            ledger["epoch"],
            ledger["admitted"],
            "failed" if state == "failed" else "ended",
            reason,
            time.time(),
        )
        self._again.append(self._ending)

    def _lossless(self) -> Message | None:
        if self._stop_reason:
            self._end("ended", self._stop_reason)
            return self._again.popleft()
        if self._pool is not None and not self._pool.free():
            return None
        start_ns = time.monotonic_ns()
        picture = self.source.read()
        if picture is None:
            self._end("ended", "end_of_file")
            return self._again.popleft()
        self.ledger["decoded"] += 1
        return self._admit(picture, start_ns)

    def _live(self) -> Message | None:
        assert self._newest is not None
        if not self._stop_reason and self._pool is not None:
            leased = self._pool.slots - self._pool.free()
            if leased >= self._in_flight or not self._pool.free():
                return None  # The reading thread goes on and keeps the newest.
        picture, ended, decoded, superseded = self._newest.take()
        # First what comes in, then where it went: killed in between, the difference is what was dropped.
        self.ledger["decoded"] += decoded
        self.ledger["dropped_superseded"] += superseded
        if self._stop_reason:
            self._newest.stop()
            late, _, more, replaced = self._newest.take()
            self.ledger["decoded"] += more
            dropped = replaced + (picture is not None) + (late is not None)
            self.ledger["dropped_stopped"] += dropped
            self._end("ended", self._stop_reason)
            return self._again.popleft()
        if picture is not None:
            return self._admit(picture, time.monotonic_ns())
        if ended:
            self._end("ended", "end_of_file")
            return self._again.popleft()
        return None

    def _admit(self, picture: Picture, start_ns: int) -> Frame:
        ledger = self.ledger
        self._track_epoch(picture)
        size = sum(plane.nbytes for plane in picture.planes)
        pool = self._fitting_pool(size)
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
        return frame

    def _track_epoch(self, picture: Picture) -> None:
        ledger = self.ledger
        size = (picture.width, picture.height)
        changed = ledger["admitted"] > 0 and size != (ledger["width"], ledger["height"])
        if changed or (self._source_epoch is not None and picture.epoch != self._source_epoch):
            ledger["epoch"] += 1
        self._source_epoch = picture.epoch
        ledger["width"], ledger["height"] = size

    def _fitting_pool(self, size: int) -> SlotPool:
        pool = self._pool
        if pool is None or pool.slot_bytes < size:
            if pool is not None:
                self._old_pools.append(pool)
            # Booked before it is made: killed in between, its number is passed over, not taken twice.
            number = self.ledger["pool"] = self.ledger["pool"] + 1
            pool = self._pool = self._make_pool(number, self._slots, size)
        for old in [p for p in self._old_pools if p.free() == p.slots]:
            self._old_pools.remove(old)
            old.unlink()
            old.close()
        return pool
