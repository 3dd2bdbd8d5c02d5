"""Live captures without a thread and without time: they read when somebody looks, and die where told."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.sources.base import Picture
from pipeline.sources.live.camera import LiveSource
from pipeline.stages.newest import Newest
from tests.sources.live.scripted import Clock, Pause, Scripted, Step

__all__ = ["Stepwise", "read_stepwise", "scripted"]


class _IdleThread:
    """A thread that never runs: what it would do is done by `Stepwise`."""

    def __init__(self, **_: Any) -> None:
        pass

    def start(self) -> None:
        pass

    def join(self, timeout: float | None = None) -> None:
        pass

    def is_alive(self) -> bool:
        return False


class Stepwise(Newest):
    """A mailbox that reads three pictures whenever somebody looks, in the thread of whoever looks."""

    def __init__(self, source: Any, wake: Callable[[], None], **options: Any) -> None:
        self._over = self._stopped = False
        self._left = 0
        self._inner = source
        super().__init__(self, wake, **options)  # type: ignore[arg-type]

    name = "stepwise"

    def read(self) -> Picture | None:
        """Stands between the mailbox and its source."""
        self._left -= 1
        if self._left <= 0:
            self._stop.set()
        picture: Picture | None = self._inner.read()
        self._over = picture is None
        return picture

    def take(self) -> Picture | None:
        if not self._over and not self._stopped and self._error is None:
            self._stop.clear()
            self._left = 3
            self._read()
            self.ended = self._at_end()
        return super().take()

    def _at_end(self) -> bool:
        return self._over or self._error is not None

    def stop(self) -> bool:
        self._stopped = True
        return super().stop()

    def interrupt(self) -> None:
        getattr(self._inner, "interrupt", lambda: None)()


def scripted(*connections: list[Step]) -> Callable[[], LiveSource]:
    """Makes a camera with these connections, anew for each incarnation."""

    def make() -> LiveSource:
        clock = Clock()
        made = iter([Scripted(clock, steps) for steps in connections])
        source = LiveSource("gate", lambda: next(made), now_ns=clock.now_ns, now=clock.now)
        source._interrupted = Pause(clock)
        return source

    return make


def read_stepwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have captures use `Stepwise`."""
    threads = SimpleNamespace(Thread=_IdleThread, Lock=threading.Lock, Event=threading.Event)
    monkeypatch.setattr("pipeline.stages.newest.threading", threads)
    monkeypatch.setattr("pipeline.stages.capture.Newest", Stepwise)
