"""Whose turn it is: live sources share few places in the pipeline; the one that waited longest goes first.

What waits in a queue grows old, so a live frame is admitted only when the model can soon take it. All live
sources of a run share as many places as keep the replicas of ``infer`` busy, and one more. Each capture
decides for itself, from the books that all share; two may decide at the same moment and take one place too
many, which costs a frame of age and nothing else. A source with nothing to admit takes no turn, nor does a
dead one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from pipeline.transport.ledger import Ledger

__all__ = ["Turns", "waiting"]

_ALIVE_NS = 1_500_000_000


class Turns:
    """The turns of one source.

    Args:
        mine: Its books.
        books: Gives the books of all sources of the run, its own among them.
        places: Frames of live sources that may be under way at once.
        now_ns: Monotonic clock, nanoseconds.
    """

    def __init__(
        self,
        mine: Ledger,
        books: Callable[[], Iterable[Ledger]],
        *,
        places: int,
        now_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._mine = mine
        self._books = books
        self._places = places
        self._now_ns = now_ns

    def want(self, wanted: bool) -> None:
        """Say that a picture waits to be admitted, or that none does."""
        if not wanted:
            self._mine["wants_ns"] = 0
        elif not self._mine["wants_ns"]:
            self._mine["wants_ns"] = self._now_ns()

    def granted(self) -> bool:
        """Whether a picture may be admitted now."""
        now_ns = self._now_ns()
        # What a dead one had under way may stay unbooked until it is back.
        live = [ledger for ledger in self._books() if ledger["live"] and _alive(ledger, now_ns)]
        free = self._places - sum(max(0, ledger.in_flight()) for ledger in live)
        if free <= 0:
            return False
        mine = self._mine["turn_ns"]
        before = sum(1 for ledger in waiting(live, now_ns) if ledger["turn_ns"] < mine)
        return before < free

    def taken(self) -> None:
        """A picture was admitted."""
        self._mine["turn_ns"] = self._now_ns()


def waiting(books: Iterable[Ledger], now_ns: int) -> list[Ledger]:
    """The books of living sources that have a picture waiting, the longest without a turn first."""
    wanting = [ledger for ledger in books if ledger["wants_ns"] and _alive(ledger, now_ns)]
    return sorted(wanting, key=lambda ledger: ledger["turn_ns"])


def _alive(ledger: Ledger, now_ns: int) -> bool:
    return now_ns - ledger["alive_ns"] < _ALIVE_NS
