"""The frame pools of one source: the one in use, and older ones with frames still under way."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.errors import PoolError, StaleSlotError
from pipeline.messages import Frame
from pipeline.transport import codec
from pipeline.transport.ledger import Ledger
from pipeline.transport.shm import SlotPool

__all__ = ["FramePools", "MakeFramePool"]

#: (number of the pool, slots, bytes of a slot) -> a new pool.
MakeFramePool = Callable[[int, int, int], SlotPool]


class FramePools:
    """Slots of at least the size asked for; a larger frame brings a new pool.

    Args:
        ledger: The books, which hold the number of the pool in use.
        make: Makes a pool.
        attach: Maps the pool of that number, made by an earlier incarnation.
        slots: Slots of each pool.
    """

    def __init__(
        self, ledger: Ledger, make: MakeFramePool, attach: Callable[[int], SlotPool], *, slots: int
    ) -> None:
        self._ledger = ledger
        self._make = make
        self._attach = attach
        self._slots = slots
        self._old: list[SlotPool] = []
        self._newest: SlotPool | None = None

    @property
    def in_use(self) -> int:
        """Slots of the newest pool that are leased."""
        return self._newest.slots - self._newest.free() if self._newest is not None else 0

    @property
    def full(self) -> bool:
        """Whether the newest pool has no free slot."""
        return self._newest is not None and not self._newest.free()

    def recover(self) -> None:
        """Map what an earlier incarnation made."""
        newest = self._ledger["pool"]
        for number in range(1, newest + 1):
            try:
                pool = self._attach(number)
            except (StaleSlotError, PoolError):
                continue  # Drained and removed, or killed before it was complete: nothing lies in it.
            if number == newest:
                self._newest = pool
            else:
                self._old.append(pool)

    def leased(self) -> list[tuple[SlotPool, int, Frame]]:
        """(pool, slot, frame) of everything under way."""
        found = []
        for pool in self._all():
            for slot, descriptor in pool.leased():
                frame = codec.decode(descriptor)
                assert isinstance(frame, Frame)
                found.append((pool, slot, frame))
        return found

    def of(self, frame: Frame) -> SlotPool:
        """The pool in which a frame lies."""
        return next(pool for pool in self._all() if pool.name == frame.lease.pool)

    def fitting(self, size: int) -> SlotPool:
        """The pool for a frame of that many bytes; older ones that are drained go.

        Raises:
            PoolError: a larger one is needed and does not fit.
        """
        pool = self._newest
        if pool is None or pool.slot_bytes < size:
            if pool is not None:
                self._old.append(pool)
                self._newest = None
            # Booked before it is made: killed in between, its number is passed over, not taken twice.
            number = self._ledger["pool"] = self._ledger["pool"] + 1
            pool = self._newest = self._make(number, self._slots, size)
        for old in [p for p in self._old if p.free() == p.slots]:
            self._old.remove(old)
            old.unlink()
            old.close()
        return pool

    def _all(self) -> tuple[SlotPool, ...]:
        return (*self._old, *([self._newest] if self._newest is not None else []))
