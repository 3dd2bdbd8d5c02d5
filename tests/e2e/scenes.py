"""A run with cameras as a scene: steps that wait for a fact and then do something to the world."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from pipeline.runtime.run import Run
from tests.e2e.running import lines

__all__ = ["Scene", "events_of", "states_of"]

_LONGEST_S = 60.0


class Scene:
    """Plays a generator beside a run: each condition that it yields is awaited, then it goes on.

    When the generator has ended the run is stopped. A condition that never comes true stops the run as well,
    and `failed` says which one it was.

    Args:
        play: Given the run, yields (what is awaited, condition).
    """

    def __init__(self, play: Callable[[Run], Iterator[tuple[str, Callable[[], bool]]]]) -> None:
        self._play = play
        self._steps: Iterator[tuple[str, Callable[[], bool]]] | None = None
        self._awaited: tuple[str, Callable[[], bool]] | None = None
        self._since = 0.0
        self._done = False
        self.failed = ""
        self.command_lines: set[str] = set()

    def __call__(self, run: Run) -> None:
        if self._done:
            return
        if self._steps is None:
            self._steps = self._play(run)
            self._next(run)
            return
        assert self._awaited is not None
        what, condition = self._awaited
        if condition():
            self._next(run)
        elif time.monotonic() - self._since > _LONGEST_S:
            self.failed = what
            self._end(run)

    def _next(self, run: Run) -> None:
        assert self._steps is not None
        self._awaited = next(self._steps, None)
        self._since = time.monotonic()
        if self._awaited is None:
            self._end(run)

    def _end(self, run: Run) -> None:
        self._done = True
        for pid in run.supervisor.pids().values():
            self.command_lines.add(" ".join(psutil.Process(pid).cmdline()))
        run.stop("the scene is over")


def events_of(out: Path, source: str) -> list[dict[str, Any]]:
    """Events of one source so far."""
    path = out / "events.jsonl"
    return [event for event in lines(path) if event["source"] == source] if path.exists() else []


def states_of(out: Path, source: str) -> list[tuple[str, str]]:
    """(state, reason) of one source so far, in the order in which they were published."""
    return [(e["state"], e.get("reason", "")) for e in events_of(out, source) if e["type"] == "source"]
