"""The loop with a stage that takes several frames at once, one step at a time."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from pipeline.errors import ModelError, SinkError, StaleSlotError
from pipeline.messages import (
    Blob,
    EndOfStream,
    LetterboxMap,
    Lost,
    Message,
    ModelInput,
    ModelOutput,
    ModelSpec,
    Span,
)
from pipeline.runtime.agent import ORPHANED
from pipeline.runtime.control import Stop
from pipeline.runtime.worker import Worker
from pipeline.transport.base import ViewArray
from pipeline.transport.memory import memory_link
from pipeline.transport.shm import Pools, SlotPool
from tests.helpers import Orders, make_frame

BOX = LetterboxMap(1, 1, 0, 0, 64, 48)
#: Two are done before one would be, and a run takes an age: what is due soon is worth waiting for. That the
#: network below takes no time at all is learned, but not within the few runs of a test.
GAINS = {1: 4 * 10**15, 2: 10**15, 4: 10**15, 8: 10**15}


class Network:
    """Takes ``batch`` frames; refuses those whose number is in ``bad``, alone or among others."""

    name = "infer"

    def __init__(
        self,
        *,
        batch: int = 8,
        service_ns: dict[int, int] = GAINS,
        bad: Iterable[int] = (),
        error: Exception | None = None,
    ) -> None:
        self.batch = batch
        self.service_ns = service_ns
        self.bad = set(bad)
        self.error = error or ModelError("refused")
        self.runs: list[list[tuple[str, int]]] = []
        self.before: Callable[[], None] = lambda: None

    def open(self) -> None:
        return None

    def begin(self, spec: ModelSpec) -> None:
        return None

    def process(self, message: Message, view: ViewArray) -> Iterable[Message]:
        return self._run([message]) if isinstance(message, ModelInput) else [message]

    def process_batch(self, inputs: Sequence[tuple[ModelInput, ViewArray]]) -> Sequence[Message]:
        return self._run([message for message, _ in inputs])

    def _run(self, messages: Sequence[ModelInput]) -> list[Message]:
        self.before()
        headers = [message.frame.header for message in messages]
        if any(header.seq in self.bad for header in headers):
            raise self.error
        self.runs.append([(header.source, header.seq) for header in headers])
        return [ModelOutput(message.frame, message.spans, BOX, ()) for message in messages]

    def tick(self) -> None:
        return None

    def summary(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        return None


def an_input(
    seq: int, source: str = "gate", *, ended_ns: int | None = None, tensor: Blob | None = None
) -> Message:
    frame = make_frame(seq, source=source)
    spans = (Span("preprocess", 0, 0, ended_ns),) if ended_ns is not None else ()
    return ModelInput(frame, spans, BOX, tensor or Blob((1,), "uint8", "", 0))


class Bench:
    """A worker with that network between two in-memory links."""

    def __init__(
        self, network: Network, *, window: int = 16, out_window: int = 16, pools: Pools | None = None
    ) -> None:
        self.pools = pools or Pools()
        self.orders = Orders()
        (self.source,), self.inlet = memory_link(window=window, pools=self.pools)
        (outlet,), self.sink = memory_link(window=out_window, pools=self.pools)
        self.worker = Worker(
            stages=(network,), inlet=self.inlet, outlet=outlet, pools=self.pools, commands=self.orders
        )

    def steps(self) -> int:
        count = 0
        while self.worker.step():
            count += 1
            assert count < 1000
        return count

    def out(self) -> list[Message]:
        made = []
        while (delivery := self.sink.receive()) is not None:
            made.append(delivery.message)
            self.sink.done(delivery)
        return made


def test_what_is_ready_goes_together_and_every_credit_comes_back() -> None:
    network = Network(batch=4)
    bench = Bench(network, window=8)
    for seq in range(8):
        bench.source.send(an_input(seq))
    assert not bench.source.ready()
    assert bench.steps() == 2
    assert [len(run) for run in network.runs] == [4, 4]
    assert [m.frame.header.seq for m in bench.out() if isinstance(m, ModelOutput)] == list(range(8))
    for seq in range(8):
        assert bench.source.ready()
        bench.source.send(an_input(seq))


def test_where_batches_gain_nothing_frames_go_one_by_one() -> None:
    network = Network(batch=4, service_ns={1: 10, 2: 20, 4: 40})
    bench = Bench(network)
    # What is measured here is less than a nanosecond's work: only the first choice is certain.
    for seq in range(4):
        bench.source.send(an_input(seq))
    assert bench.worker.step()
    assert network.runs == [[("gate", 0)]]
    assert bench.inlet.waiting() == 0, "the others are held, for all sources to be seen"


def test_no_source_fills_the_batch_while_another_waits() -> None:
    network = Network(batch=4)
    bench = Bench(network)
    for seq in range(6):
        bench.source.send(an_input(seq, "fast"))
    for source in ("slow", "slower"):
        bench.source.send(an_input(0, source))
    assert bench.worker.step()
    assert sorted(network.runs[0]) == [("fast", 0), ("fast", 1), ("slow", 0), ("slower", 0)]


def test_leases_come_back_in_the_order_of_the_messages_whatever_goes_first() -> None:
    """The second frame of a source that has to let another go first keeps its slot meanwhile."""
    pools = Pools()
    tensors = pools.add(SlotPool.in_memory("tensors", 4, 16), owned=True)
    network = Network(batch=2)
    bench = Bench(network, pools=pools, window=5)
    blobs = []
    for seq, source in enumerate(("fast", "fast", "fast", "slow")):
        with tensors.writing() as slot:
            blobs.append(tensors.blob(slot, (4,), "uint8"))
        bench.source.send(an_input(seq, source, tensor=blobs[-1]))
    bench.source.send(EndOfStream("slow", 0, 4, "ended", "", 0.0))
    leased = []
    while bench.worker.step():
        bench.source.pump()
        leased.append([tensors.valid(blob) and blob.slot in dict(tensors.leased()) for blob in blobs])
    assert network.runs == [[("fast", 0), ("slow", 3)], [("fast", 1), ("fast", 2)]]
    assert leased == [[True] * 4, [False, True, True, True], [False] * 4]
    assert len(bench.out()) == 5
    assert bench.worker.stale == 0


@pytest.mark.parametrize("error", [ModelError("the network refused it"), ValueError("odd")])
def test_a_frame_that_fails_fails_alone(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    network = Network(bad=[2], error=error)
    bench = Bench(network)
    for seq in range(4):
        bench.source.send(an_input(seq))
    with caplog.at_level(logging.WARNING):
        bench.steps()
    made = bench.out()
    assert [type(m) for m in made] == [ModelOutput, ModelOutput, Lost, ModelOutput]
    assert isinstance(made[2], Lost)
    assert made[2].header.seq == 2
    assert str(error).partition("\n")[0] in made[2].reason
    assert network.runs == [[("gate", 0)], [("gate", 1)], [("gate", 3)]]
    assert "a batch of 4 failed, its frames go one by one" in caplog.text


def test_an_error_that_is_no_frames_ends_the_worker() -> None:
    bench = Bench(Network(bad=[1], error=SinkError("the disk is full")))
    for seq in range(2):
        bench.source.send(an_input(seq))
    with pytest.raises(SinkError):
        bench.worker.step()


def test_a_stale_slot_in_a_batch_is_dropped_and_counted() -> None:
    network = Network(bad=[1], error=StaleSlotError("recycled"))
    bench = Bench(network)
    for seq in range(3):
        bench.source.send(an_input(seq))
    bench.steps()
    assert [m.frame.header.seq for m in bench.out() if isinstance(m, ModelOutput)] == [0, 2]
    assert bench.worker.stale == 1


def test_a_slot_recycled_while_the_batch_ran_takes_its_result_along() -> None:
    pools = Pools()
    tensors = pools.add(SlotPool.in_memory("tensors", 2, 16))
    blobs = []
    for _ in range(2):
        with tensors.writing() as slot:
            blobs.append(tensors.blob(slot, (4,), "uint8"))
    network = Network()

    def recycle() -> None:
        tensors.release(blobs[0])
        with tensors.writing():
            network.before = lambda: None

    network.before = recycle
    bench = Bench(network, pools=pools)
    for seq, blob in enumerate(blobs):
        bench.source.send(an_input(seq, tensor=blob))
    bench.steps()
    assert [m.frame.header.seq for m in bench.out() if isinstance(m, ModelOutput)] == [1]
    assert bench.worker.stale == 1


def expecting(network: Network, **options: Any) -> Bench:
    """A bench that holds a frame of a source whose next one, a hundred seconds after it, is due in fifty."""
    bench = Bench(network, **options)
    now_ns = time.monotonic_ns()
    for seq, back_s in enumerate((250, 150, 50)):
        bench.source.send(an_input(seq, "yard", ended_ns=now_ns - back_s * 10**9))
        bench.steps()
    assert network.runs == [[("yard", 0)], [("yard", 1)]], "nothing was known of its rhythm"
    assert len(bench.out()) == 2
    network.runs.clear()
    return bench


def test_it_waits_for_a_source_in_its_rhythm_and_says_how_long() -> None:
    network = Network(batch=2)
    bench = expecting(network)
    assert network.runs == []
    assert bench.worker.idle
    assert 0 < bench.worker.wait_s <= 50
    assert not bench.worker.finished
    bench.source.send(an_input(0, "gate"))
    assert bench.steps() == 1
    assert sorted(network.runs[0]) == [("gate", 0), ("yard", 2)]
    assert bench.worker.wait_s == math.inf
    assert len(bench.out()) == 2


def test_while_it_waits_the_credit_and_the_lease_stay_with_the_message() -> None:
    pools = Pools()
    tensors = pools.add(SlotPool.in_memory("tensors", 1, 16), owned=True)
    with tensors.writing() as slot:
        blob = tensors.blob(slot, (4,), "uint8")
    bench = expecting(Network(), pools=pools, window=2)
    bench.source.send(an_input(0, tensor=blob))
    bench.steps()
    assert bench.inlet.waiting() == 0
    assert not bench.source.ready()
    bench.source.pump()
    assert tensors.free() == 0
    bench.inlet.kill()  # As by kill -9: what was held dies with it, and its lease comes home.
    bench.source.pump()
    assert tensors.free() == 1
    assert bench.source.ready()


def test_told_that_no_more_comes_it_waits_no_longer() -> None:
    network = Network()
    bench = expecting(network)
    bench.orders.give(Stop("end of run"))
    assert bench.steps() == 1
    assert network.runs == [[("yard", 2)]]
    assert bench.worker.finished


def test_a_source_that_has_ended_is_not_waited_for() -> None:
    network = Network()
    bench = expecting(network)
    bench.source.send(EndOfStream("yard", 0, 3, "ended", "", 0.0))
    bench.steps()
    assert [type(m) for m in bench.out()] == [EndOfStream, ModelOutput]


def test_orphaned_is_finished_at_once_whatever_it_holds() -> None:
    bench = expecting(Network())
    bench.worker.obey(Stop(ORPHANED))
    assert bench.worker.finished


def test_what_is_no_input_passes_those_that_wait() -> None:
    network = Network()
    bench = expecting(network)
    lost = Lost(make_frame(7).header, (), None, "", "preprocess: odd")
    end = EndOfStream("gate", 0, 8, "ended", "", 0.0)
    bench.source.send(lost)
    bench.source.send(end)
    bench.steps()
    assert bench.out() == [lost, end]
    assert network.runs == [], "yard is still due"


def test_results_wait_for_credit_and_nothing_is_run_meanwhile() -> None:
    network = Network(batch=4)
    bench = Bench(network, out_window=3)
    for seq in range(8):
        bench.source.send(an_input(seq))
    bench.steps()
    assert [len(run) for run in network.runs] == [4]
    assert not bench.worker.finished
    assert len(bench.out()) == 3
    bench.steps()
    assert [len(run) for run in network.runs] == [4, 4]
    assert len(bench.out()) == 3


def test_what_is_held_without_credit_is_still_to_be_done() -> None:
    network = Network(batch=2)
    bench = Bench(network, out_window=2)
    for seq in range(4):
        bench.source.send(an_input(seq))
    bench.worker.step()
    bench.orders.give(Stop("end of run"))
    bench.steps()
    assert len(network.runs) == 1
    assert not bench.worker.finished
    bench.out()
    bench.steps()
    assert len(bench.out()) == 2
    assert bench.worker.finished


def test_busy_all_through_the_batch() -> None:
    network = Network()
    bench = Bench(network)
    busy: list[float | None] = []
    network.before = lambda: busy.append(bench.orders.busy_since)
    for seq in range(3):
        bench.source.send(an_input(seq))
    bench.steps()
    assert len(busy) == 1
    assert busy[0] is not None
    assert bench.orders.busy_since is None


def test_a_limit_of_one_is_no_batching() -> None:
    network = Network(batch=1, service_ns={})
    bench = Bench(network)
    for seq in range(3):
        bench.source.send(an_input(seq))
    assert bench.worker.step()
    assert bench.inlet.waiting() == 2
    assert bench.worker.wait_s == math.inf
