"""One capture with its books and pools, what is behind it, and a way to kill it at any point."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from pipeline.errors import SourceError
from pipeline.messages import EndOfStream, Frame, Lost, Message
from pipeline.sources.base import Picture
from pipeline.stages.capture import CaptureStage
from pipeline.stages.ordering import InOrder
from pipeline.transport.journal import SourceState
from pipeline.transport.ledger import Ledger
from pipeline.transport.shm import Pools, SlotPool
from tests.helpers import Fuse, FusedLedger, FusedPool, ListSource, unique

__all__ = ["Downstream", "FusedSource", "Rig", "run_to_end"]


class FusedSource(ListSource):
    """A recording whose reader may be killed after each picture."""

    fuse = Fuse()

    def read(self) -> Picture | None:
        picture = super().read()
        self.fuse.burn()
        return picture


class Rig:
    """Makes captures over the same books and pools, one after the other."""

    def __init__(
        self,
        source: Callable[[], ListSource],
        *,
        slots: int = 4,
        in_flight: int = 2,
        fuse: Fuse | None = None,
    ) -> None:
        self.source = source
        self.slots = slots
        self.in_flight = in_flight
        self.fuse = fuse or Fuse()
        self.run = unique("rig")
        self.ledger: Ledger = self._ledger()
        self.errors: list[SourceError] = []
        self.woken: list[None] = []
        self.made: list[int] = []
        self.pools = Pools()

    def _ledger(self) -> Ledger:
        made = FusedLedger.named(f"{self.run}-books", create=True)
        assert isinstance(made, FusedLedger)
        made.fuse = self.fuse
        write = made.journal.write

        def fused_write(change: SourceState) -> None:
            self.fuse.burn()
            write(change)
            self.fuse.burn()

        made.journal.write = fused_write  # type: ignore[method-assign]
        return made

    def make_pool(self, number: int, slots: int, slot_bytes: int) -> SlotPool:
        self.fuse.burn()
        pool = FusedPool.create(f"{self.run}-frames-{number}", slots, slot_bytes)
        assert isinstance(pool, FusedPool)
        pool.fuse = self.fuse
        self.made.append(number)
        self.fuse.burn()
        return pool

    def attach_pool(self, number: int) -> SlotPool:
        pool = FusedPool.attach(f"{self.run}-frames-{number}")
        assert isinstance(pool, FusedPool)
        pool.fuse = self.fuse
        return pool

    def capture(self, *, opened: bool = True, **options: Any) -> CaptureStage:
        """A capture as a new process would make it; ``options`` are those of `CaptureStage`."""
        stage = CaptureStage(
            source=self.source(),
            ledger=self.ledger,
            make_pool=self.make_pool,
            attach_pool=self.attach_pool,
            slots=self.slots,
            in_flight=self.in_flight,
            wake=lambda: self.woken.append(None),
            on_error=self.errors.append,
            **options,
        )
        if opened:
            stage.open()
        return stage


class Downstream:
    """All the stages behind capture: handles frames in any order, publishes in order, gives leases back."""

    def __init__(self, ledger: Ledger, pools: Pools) -> None:
        self.ledger = ledger
        self.pools = pools
        self.waiting: deque[Message] = deque()
        self.published: list[Frame | Lost] = []
        self.pixels: list[int] = []
        self.ends: list[EndOfStream] = []
        self._order: InOrder[Message] = InOrder()

    def take(self, message: Message) -> None:
        self.waiting.append(message)

    def crash(self) -> None:
        """Everything under way is forgotten."""
        self.waiting.clear()
        self._order = InOrder(self.ledger["next_publish"])

    def work(self, *, newest_first: bool = False) -> bool:
        if not self.waiting:
            return False
        message = self.waiting.pop() if newest_first else self.waiting.popleft()
        seq = message.seq if isinstance(message, EndOfStream) else _seq(message)
        if not self._order.offer(seq, message) and isinstance(message, Frame) and seq < self._order.next_seq:
            self.pools.release(message.lease)
        for item in self._order.ready():
            self._publish(item)
        return True

    def drain(self) -> None:
        while self.work():
            pass

    def _publish(self, message: Message) -> None:
        if isinstance(message, EndOfStream):
            self.ends.append(message)
            Ledger.__setitem__(self.ledger, "ended", 1)
            return
        assert isinstance(message, Frame | Lost)
        self.published.append(message)
        frame = message if isinstance(message, Frame) else message.frame
        assert frame is not None
        self.pixels.append(int(self.pools.view(frame.pixels[0]).flat[0]))
        field = "published" if isinstance(message, Frame) else f"lost_{message.cause}"
        # The publisher is another process: what kills capture does not kill it.
        Ledger.__setitem__(self.ledger, field, self.ledger[field] + 1)
        Ledger.__setitem__(self.ledger, "next_publish", message.header.seq + 1)
        self.pools.release(frame.lease)

    @property
    def seqs(self) -> list[int]:
        return [message.header.seq for message in self.published]


def _seq(message: Message) -> int:
    assert isinstance(message, Frame | Lost)
    return message.header.seq


def run_to_end(capture: CaptureStage, behind: Downstream, *, depth: int = 3, turns: int = 300) -> None:
    """Turn until the stream is published; at most ``depth`` messages wait behind capture."""
    for _ in range(turns):
        if capture.finished:
            return
        message = capture.receive() if len(behind.waiting) < depth else None
        if message is not None:
            behind.take(message)
        else:
            behind.work()
    raise AssertionError(f"it hangs: {behind.seqs} published of {capture.ledger['admitted']} admitted")
