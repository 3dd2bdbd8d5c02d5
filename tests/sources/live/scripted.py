"""Scripted connections and the clock that only they and waits move."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

from pipeline.errors import SourceLostError
from pipeline.sources.base import Picture
from pipeline.sources.live.base import StreamFacts
from tests.helpers import make_picture

__all__ = ["FACTS", "SECOND", "Clock", "Pause", "Scripted", "Step"]

SECOND = 1_000_000_000
FACTS = StreamFacts("h264", 64, 48, 25.0)


class Clock:
    """Time that passes when somebody waits or a camera takes its time."""

    def __init__(self) -> None:
        self.ns = 5_000 * SECOND
        self.waits: list[float] = []

    def now_ns(self) -> int:
        return self.ns

    def now(self) -> float:
        return 1e9 + self.ns / 1e9

    def pass_s(self, seconds: float) -> None:
        self.ns += round(seconds * SECOND)


class Pause(threading.Event):
    """The event on which a live source waits to connect again; a wait moves the clock and nothing else."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        if timeout and not self.is_set():
            self.clock.waits.append(timeout)
            self.clock.pass_s(timeout)
        return self.is_set()


#: What a connection does next: a picture (pts in s, epoch), an error, the end, or seconds of silence.
Step = tuple[float, int] | Exception | None | float


class Scripted:
    """A connection that does what it is told."""

    def __init__(
        self, clock: Clock, steps: list[Step], *, refuse: Exception | None = None, **facts: Any
    ) -> None:
        self.clock, self.steps, self.refuse = clock, list(steps), refuse
        self.facts = replace(FACTS, **facts)
        self.heard_ns = self.skipped = self.decode_errors = 0
        self.clock_offset_s: float | None = None
        self.drift_ppm: float | None = None
        self.bound_s = 15.0
        self.index = 0
        self.calls: list[str] = []

    def open(self) -> StreamFacts:
        self.calls.append("open")
        if self.refuse is not None:
            raise self.refuse
        return self.facts

    def read(self) -> Picture | None:
        while True:
            step = self.steps.pop(0) if self.steps else SourceLostError("it fell silent", reason="timeout")
            if isinstance(step, float):
                self.clock.pass_s(step)
            elif isinstance(step, Exception):
                raise step
            elif step is None:
                return None
            else:
                break
        pts_s, epoch = step
        self.heard_ns = self.clock.ns
        index, self.index = self.index, self.index + 1
        picture = make_picture(index, epoch=epoch)
        return replace(picture, pts_ns=round(pts_s * SECOND), captured_ns=self.clock.ns)

    def interrupt(self) -> None:
        self.calls.append("interrupt")

    def close(self) -> None:
        self.calls.append("close")
