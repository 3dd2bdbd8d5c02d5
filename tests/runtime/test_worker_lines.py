"""The loop with captures in it, and whole pipelines in one thread."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.eventlog.log import EventLog
from pipeline.messages import (
    Frame,
    ModelSpec,
    Result,
)
from pipeline.runtime.control import PeerDied, Stop
from pipeline.runtime.worker import Worker
from pipeline.stages.base import Stage
from pipeline.stages.infer import InferStage
from pipeline.stages.postprocess import PostprocessStage
from pipeline.stages.preprocess import PreprocessStage
from pipeline.stages.publish import PublishStage
from pipeline.transport.ledger import Ledger
from pipeline.transport.memory import MemoryInlet, memory_link
from pipeline.transport.shm import Pools, SlotPool
from tests.helpers import (
    SPEC,
    ListSink,
    ListSource,
    Orders,
    make_picture,
)
from tests.stages.desk import kill, scratch_log
from tests.stages.rig import Rig

# --- captures --------------------------------------------------------------------------------------------


def capturing(*rigs: Rig, window: int = 4) -> tuple[Worker, MemoryInlet, Orders]:
    pools, orders = Pools(), Orders()
    (outlet,), inlet = memory_link(window=window, pools=pools)
    worker = Worker(
        stages=(), captures=[rig.capture() for rig in rigs], inlet=None, outlet=outlet, pools=pools,
        commands=orders,
    )  # fmt: skip
    return worker, inlet, orders


def rig_of(name: str, count: int, **options: Any) -> Rig:
    return Rig(lambda: ListSource((make_picture(n) for n in range(count)), name=name), **options)


def sources_in(inlet: MemoryInlet) -> list[str]:
    found = []
    while (delivery := inlet.receive()) is not None:
        message = delivery.message
        found.append(message.header.source if isinstance(message, Frame) else type(message).__name__)
        inlet.done(delivery)
    return found


def test_sources_of_one_process_take_turns() -> None:
    worker, inlet, _ = capturing(rig_of("gate", 9), rig_of("yard", 9), window=6)
    while worker.step():
        pass
    found = sources_in(inlet)
    assert found in (["gate", "yard"] * 3, ["yard", "gate"] * 3)


def test_capture_is_not_asked_without_credit() -> None:
    rig = rig_of("gate", 9, slots=8)
    worker, inlet, _ = capturing(rig, window=2)
    while worker.step():
        pass
    assert rig.ledger["admitted"] == 2, "what is admitted must be sent"
    sources_in(inlet)
    while worker.step():
        pass
    assert rig.ledger["admitted"] == 4


def test_a_capturing_worker_ends_when_all_of_it_is_published() -> None:
    rig = rig_of("gate", 1)
    worker, inlet, orders = capturing(rig)
    orders.give(Stop("interrupted"))
    while worker.step():
        pass
    assert sources_in(inlet) == ["EndOfStream"]
    assert not worker.finished
    rig.ledger["ended"] = 1
    assert worker.finished


def test_a_capturing_worker_sends_again_after_a_death() -> None:
    worker, inlet, orders = capturing(rig_of("gate", 2, slots=2))
    while worker.step():
        pass
    inlet.kill()
    orders.give(PeerDied("preprocess-0", "preprocess_died"))
    while worker.step():
        pass
    assert sources_in(inlet) == ["gate", "gate"]


# --- whole pipelines in one thread -----------------------------------------------------------------------


class Echo:
    """A network whose one detection tells the number of the frame."""

    spec = SPEC
    output_shapes: tuple[tuple[int, ...], ...] = ((1, 1, 6),)
    output_dtypes: tuple[str, ...] = ("float32",)

    def __init__(self) -> None:
        self.service_ns = {1: 1000, 2: 1000, 4: 1000}
        self.sizes: list[int] = []

    def open(self) -> ModelSpec:
        return self.spec

    def forward(self, tensors: NDArray[Any], outputs: Sequence[NDArray[Any]]) -> None:
        values = [float(tensor.flat[0]) for tensor in tensors]
        if 3 in values:
            raise ModelError("the network refused it")
        self.sizes.append(len(values))
        for value, output in zip(values, outputs[0], strict=True):
            output[...] = (value, 0, value + 10, 20, 0.9, 1)

    def close(self) -> None:
        return None


class Line:
    """capture .. publish, cut into workers at the given places."""

    def __init__(self, rig: Rig, *cuts: int, batch: int = 1) -> None:
        self.rig = rig
        self.batch = batch
        self.network = Echo()
        self.sink = ListSink()
        self.locals: list[SlotPool] = []
        ledgers: dict[str, Ledger] = {"gate": rig.ledger}
        self.pools = Pools()

        def make_pool(name: str) -> Callable[[int], SlotPool]:
            def make(size: int) -> SlotPool:
                self.locals.append(self.pools.add(SlotPool.in_memory(name, 6, size), owned=True))
                return self.locals[-1]

            return make

        def open_log(at_least: int) -> EventLog:
            log = EventLog(scratch_log(self), "run", at_least=at_least)
            weakref.finalize(self, kill, log)
            return log

        stages: list[Stage] = [
            PreprocessStage(make_pool=make_pool("tensors")),
            InferStage(runner=self.network, make_pool=make_pool("outputs"), batch=batch),
            PostprocessStage(ledger_of=ledgers.__getitem__, check=self.pools.check),
            PublishStage(
                sinks=(self.sink,), ledger_of=ledgers.__getitem__, pools=self.pools, ring=lambda _: None,
                sources=lambda: ("gate",), run_id="run",
                open_log=open_log,
            ),
        ]  # fmt: skip
        for stage in stages:
            stage.open()
        for stage in stages:
            stage.begin(SPEC)
        self.capture = rig.capture()
        self.workers: list[Worker] = []
        edges = [0, *cuts, len(stages)]
        inlet: MemoryInlet | None = None
        for at, (start, stop) in enumerate(itertools.pairwise(edges)):
            last = stop == len(stages)
            (outlet,), following = memory_link(window=2 * batch, pools=self.pools)
            self.workers.append(
                Worker(
                    stages=stages[start:stop], captures=() if at else (self.capture,), inlet=inlet,
                    outlet=None if last else outlet, pools=self.pools, commands=Orders(),
                )
            )  # fmt: skip
            inlet = following

    def run(self) -> None:
        for _ in range(500):
            # As many steps in a row as make a batch, or the next worker would never see more than one.
            moved = [sum(worker.step() for _ in range(self.batch)) for worker in self.workers]
            if not any(moved):
                return
        raise AssertionError("it does not come to rest")


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("cuts", [(), (1,), (2,), (3,), (0, 1, 2, 3), (0, 2), (2, 3)])
def test_the_same_comes_out_however_the_stages_share_processes(cuts: tuple[int, ...], batch: int) -> None:
    rig = rig_of("gate", 8, slots=3)
    line = Line(rig, *cuts, batch=batch)
    line.run()
    assert (max(line.network.sizes) > 1) == (batch > 1)
    assert line.sink.seqs == list(range(8))
    records = [item.frame for item in line.sink.items if item.frame is not None]
    assert [r["status"] for r in records] == ["ok"] * 3 + ["failed"] + ["ok"] * 4
    assert records[3]["reason"] == "infer: the network refused it"
    lefts = [r["detections"][0]["box_xyxy"][0] for r in records if r["detections"]]
    assert lefts == [0, 1, 2, 4, 5, 6, 7], "each result belongs to its own frame"
    assert rig.ledger.balanced()
    assert (rig.ledger["published"], rig.ledger["failed"]) == (8, 1)
    assert line.capture.finished
    assert all(worker.finished for worker in line.workers[:1])
    assert [pool.free() for pool in line.locals] == [6, 6], "every slot on the way is free again"
    assert rig.attach_pool(1).free() == 3
    assert not any(isinstance(m, Result) for m in (line.capture.receive(),))
    assert np.all(np.diff([e["sequence"] for e in line.sink.events]) == 1)
