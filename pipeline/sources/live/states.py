"""The states of a live source: what moves it from one to the next, without I/O."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from pipeline.errors import SourceError
from pipeline.messages import State

__all__ = ["Backoff", "Change", "StateMachine"]

#: A camera is stalled when it was silent for two frame periods, but not before so long.
_STALL_NS = 2_000_000_000
_SLOWEST_PERIOD_NS = 30_000_000_000
_WEIGHT = 0.1


@dataclass(frozen=True, slots=True)
class Change:
    """One change of state.

    Attributes:
        state: The new state.
        reason: Why, in one word; empty when nothing is wrong.
        message: Why, in a sentence.
        at: UTC seconds.
        at_ns: Monotonic time.
    """

    state: State
    reason: str
    message: str
    at: float
    at_ns: int


class Backoff:
    """How long to wait before the next try: from 1 s, doubling to 60 s, a fifth of it left to chance.

    The chance keeps cameras that went down together from coming back in step. A camera that refused the
    password is asked at longer intervals from the start: many lock the account after a few wrong ones.

    Args:
        first_s: Shortest wait, seconds.
        longest_s: Longest wait, seconds.
        chance: Gives a number from 0 to 1.
    """

    def __init__(
        self,
        first_s: float = 1.0,
        longest_s: float = 60.0,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._chance = chance
        self._tries = 0

    def next(self, reason: str) -> float:
        """Seconds to wait after one more failure."""
        self._tries += 1
        doublings = min(self._tries - 1 + (3 if reason == "auth" else 0), 30)
        wait_s = self._first_s * float(2**doublings) * (0.9 + 0.2 * self._chance())
        return min(max(wait_s, self._first_s), self._longest_s)

    def reset(self) -> None:
        """The stream has held: the next failure is a first one."""
        self._tries = 0


class StateMachine:
    """State of one live source.

    ::

        connecting ──▶ running ◀──▶ stalled
            │             │            │            ended, failed: from any, for good
            ▼             ▼            │
        reconnecting ◀────┴────────────┘
            └──▶ running

    The reading thread tells what happens, another one calls `check`; `on_change` is called by either, one
    call at a time.

    Args:
        on_change: Told each change.
        now_ns: Monotonic clock, nanoseconds.
        now: Wall clock, UTC seconds.
    """

    def __init__(
        self,
        on_change: Callable[[Change], None],
        *,
        now_ns: Callable[[], int] = time.monotonic_ns,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._on_change = on_change
        self._now_ns = now_ns
        self._now = now
        self._lock = threading.Lock()
        self._change: Change | None = None
        self._period_ns = 0.0
        self._picture_ns = 0

    @property
    def state(self) -> State | None:
        """The present state; None before the first."""
        change = self._change
        return None if change is None else change.state

    @property
    def silence_ns(self) -> int:
        """How long a silence makes the camera stalled."""
        return max(_STALL_NS, int(2 * min(self._period_ns, _SLOWEST_PERIOD_NS)))

    def begin(self) -> None:
        """The first connection is being made."""
        with self._lock:
            self._go("connecting")

    def connected(self, frame_rate: float | None) -> None:
        """A connection was made; pictures are still to come."""
        with self._lock:
            self._period_ns = 1e9 / frame_rate if frame_rate and frame_rate > 0 else 0.0
            self._picture_ns = 0

    def picture(self) -> None:
        """A picture has come."""
        with self._lock:
            now_ns = self._now_ns()
            if self._picture_ns:
                self._period_ns += _WEIGHT * (now_ns - self._picture_ns - self._period_ns)
            self._picture_ns = now_ns
            if self._final():
                return
            if self.state != "running":
                self._go("running")

    def lost(self, error: SourceError) -> None:
        """The connection broke or could not be made, and will be tried again."""
        with self._lock:
            if not self._final():
                self._go("reconnecting", error.reason, error.message)

    def end(self, state: State, reason: str, message: str = "") -> None:
        """It is over, for good."""
        with self._lock:
            if not self._final():
                self._go(state, reason, message)

    def check(self, heard_ns: int) -> None:
        """Compare with the time at which data last came; to be called a few times a second.

        Args:
            heard_ns: Monotonic time of that; 0 for never.
        """
        with self._lock:
            silent_ns = self._now_ns() - heard_ns if heard_ns else 0
            if self.state == "running" and silent_ns > self.silence_ns:
                self._go("stalled", "timeout", f"nothing has come for {silent_ns / 1e9:.1f} s")
            elif self.state == "stalled" and heard_ns and silent_ns < self.silence_ns:
                self._go("running")

    def _final(self) -> bool:
        return self.state in ("ended", "failed")

    def _go(self, state: State, reason: str = "", message: str = "") -> None:
        last = self._change
        if last is not None and (last.state, last.reason) == (state, reason):
            return
        self._change = Change(state, reason, message, self._now(), self._now_ns())
        self._on_change(self._change)
