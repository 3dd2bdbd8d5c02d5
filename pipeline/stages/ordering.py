"""Puts frames back in order, exactly once each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["InOrder"]

T = TypeVar("T")


class InOrder(Generic[T]):
    """Holds items that came early and gives all out in order of their numbers.

    Replicas finish out of order and a resent frame may come twice; trackers and subscribers must see
    neither. Bounded by the frames in flight, hence by the slots of the source.

    Args:
        next_seq: Number of the first item expected.
    """

    def __init__(self, next_seq: int = 0) -> None:
        self.next_seq = next_seq
        self._held: dict[int, T] = {}

    def __len__(self) -> int:
        return len(self._held)

    def fresh(self, seq: int) -> bool:
        """Whether an item of that number is still wanted."""
        return seq >= self.next_seq and seq not in self._held

    def offer(self, seq: int, item: T) -> bool:
        """Take an item in; False for one that is here or was given out already."""
        if not self.fresh(seq):
            return False
        self._held[seq] = item
        return True

    def ready(self) -> Iterator[T]:
        """Give out what is next in order, as far as it goes."""
        while (item := self._held.pop(self.next_seq, None)) is not None:
            self.next_seq += 1
            yield item
