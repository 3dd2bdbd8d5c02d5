"""The loop looks around a few times a second, whether it works, waits for credit, or has nothing to do."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from pipeline.errors import SinkError
from pipeline.messages import Message
from pipeline.runtime.worker import Worker
from pipeline.transport.memory import MemoryInlet, MemoryOutlet, memory_link
from pipeline.transport.shm import Pools
from tests.helpers import ListSource, Orders, make_frame, make_picture
from tests.runtime.test_worker import Relay
from tests.stages.rig import Rig


class Clock:
    """Stands for the module ``time`` in the worker."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def monotonic_ns(self) -> int:
        return round(self.now * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("pipeline.runtime.worker.time", made)
    return made


class Looks(Relay):
    """A stage that notes when it looked around."""

    def __init__(self, clock: Clock, do: Callable[[Message], list[Message]] = lambda m: [m]) -> None:
        super().__init__(do)
        self.clock = clock
        self.looks: list[float] = []

    def tick(self) -> None:
        self.looks.append(round(self.clock.now - 1000, 3))


class Bench:
    def __init__(self, clock: Clock, *, window: int = 1000) -> None:
        self.stages = [Looks(clock), Looks(clock)]
        self.rig = Rig(lambda: ListSource([make_picture(n) for n in range(500)]), slots=200)
        self.capture = self.rig.capture()
        self.watched: list[float] = []
        self.capture.watch = lambda: self.watched.append(round(clock.now - 1000, 3))  # type: ignore[method-assign]
        pools = Pools()
        (outlet,), self.behind = memory_link(window=window, pools=pools)
        self.outlet: MemoryOutlet = outlet
        self.worker = Worker(
            stages=self.stages, captures=[self.capture], inlet=None, outlet=outlet, pools=pools,
            commands=Orders(),
        )  # fmt: skip


@pytest.mark.parametrize("state", ["busy", "idle", "without credit"])
def test_stages_and_captures_look_around_every_fifth_of_a_second(clock: Clock, state: str) -> None:
    bench = Bench(clock, window=0 if state == "without credit" else 1000)
    if state == "idle":
        bench.capture.receive = lambda: None  # type: ignore[method-assign]
    moved = 0
    for step in range(65):
        clock.now = 1000 + step / 64
        moved += bench.worker.step()
    assert moved == (65 if state == "busy" else 0)
    assert len(bench.watched) == 5
    assert all(0.2 <= after - before < 0.22 for before, after in itertools.pairwise(bench.watched))
    assert [stage.looks for stage in bench.stages] == [bench.watched] * 2


def test_a_long_step_is_not_made_up_for(clock: Clock) -> None:
    bench = Bench(clock)
    for now in (1000.0, 1009.0, 1009.1, 1009.3):
        clock.now = now
        bench.worker.step()
    assert bench.watched == [0.0, 9.0, 9.3]


def test_what_a_look_cannot_write_ends_the_worker(clock: Clock) -> None:
    stage = Looks(clock)

    def full() -> None:
        raise SinkError("the disk is full")

    stage.tick = full  # type: ignore[method-assign]
    (source,), inlet = memory_link(window=4)
    made: MemoryInlet = inlet
    worker = Worker(stages=[stage], captures=(), inlet=made, outlet=None, pools=Pools(), commands=Orders())
    source.send(make_frame(0))
    with pytest.raises(SinkError):
        worker.step()
