"""The one loop: chains of stages over the in-memory link, one step at a time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from pipeline.errors import ModelError, SinkError, StaleSlotError
from pipeline.messages import (
    Blob,
    EndOfStream,
    Frame,
    LetterboxMap,
    Lost,
    Message,
    ModelInput,
    ModelOutput,
    ModelSpec,
)
from pipeline.runtime.agent import ORPHANED
from pipeline.runtime.control import PeerDied, Stop
from pipeline.runtime.worker import Worker
from pipeline.stages.base import Stage
from pipeline.transport.base import ViewArray
from pipeline.transport.memory import MemoryInlet, MemoryOutlet, memory_link
from pipeline.transport.shm import Pools, SlotPool
from tests.helpers import (
    Orders,
    leased_frame,
    make_frame,
    make_result,
)


class Relay:
    """A stage that does what the test says."""

    def __init__(self, do: Callable[[Message], list[Message]] = lambda m: [m], name: str = "relay") -> None:
        self.name = name
        self.do = do
        self.seen: list[Message] = []

    def open(self) -> None:
        return None

    def begin(self, spec: ModelSpec) -> None:
        return None

    def process(self, message: Message, view: ViewArray) -> Iterable[Message]:
        self.seen.append(message)
        return self.do(message)

    def tick(self) -> None:
        return None

    def summary(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        return None


class Bench:
    """A worker between two in-memory links."""

    def __init__(
        self, *stages: Stage, window: int = 4, out_window: int = 4, pools: Pools | None = None
    ) -> None:
        self.pools = pools or Pools()
        self.orders = Orders()
        (self.source,), inlet = memory_link(window=window)
        (outlet,), self.sink = memory_link(window=out_window, pools=self.pools)
        self.inlet: MemoryInlet = inlet
        self.outlet: MemoryOutlet = outlet
        self.worker = Worker(
            stages=stages, inlet=inlet, outlet=outlet, pools=self.pools, commands=self.orders
        )

    def steps(self) -> int:
        count = 0
        while self.worker.step():
            count += 1
            assert count < 1000
        assert self.worker.idle
        return count

    def out(self) -> list[Message]:
        made = []
        while (delivery := self.sink.receive()) is not None:
            made.append(delivery.message)
            self.sink.done(delivery)
        return made


def fail(error: Exception) -> Callable[[Message], list[Message]]:
    """Raises for frames; passes what stands for one that has failed."""

    def do(message: Message) -> list[Message]:
        if isinstance(message, Lost | EndOfStream):
            return [message]
        raise error

    return do


def test_one_message_a_step_and_the_credit_comes_back() -> None:
    bench = Bench(Relay())
    for seq in range(4):
        bench.source.send(make_frame(seq))
    assert not bench.source.ready()
    assert bench.worker.step()
    assert bench.source.ready()
    assert bench.steps() == 3
    assert [m.header.seq for m in bench.out() if isinstance(m, Frame)] == [0, 1, 2, 3]


def test_nothing_is_received_without_credit_for_what_comes_of_it() -> None:
    relay = Relay()
    bench = Bench(relay, out_window=1)
    for seq in range(3):
        bench.source.send(make_frame(seq))
    bench.steps()
    assert len(relay.seen) == 1
    assert bench.inlet.waiting() == 2
    assert len(bench.out()) == 1
    bench.steps()
    assert len(relay.seen) == 2


def test_several_products_wait_in_the_outbox_for_credit() -> None:
    bench = Bench(Relay(lambda m: [make_frame(seq) for seq in range(5)]), out_window=2)
    bench.source.send(make_frame())
    bench.source.send(make_frame())
    bench.orders.give(Stop("end of run"))
    seen: list[int] = []
    while len(seen) < 10:
        bench.steps()
        assert bench.sink.waiting() <= 2
        assert not bench.worker.finished or len(seen) >= 8, "what waits must still go out"
        seen += [m.header.seq for m in bench.out() if isinstance(m, Frame)]
    assert seen == [0, 1, 2, 3, 4] * 2
    bench.steps()
    assert bench.worker.finished


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ModelError("the network refused it"), "relay: the network refused it"),
        (ValueError("odd"), "relay: ValueError: odd"),
        (ZeroDivisionError(), "relay: ZeroDivisionError: "),
    ],
)
def test_a_stage_that_raises_fails_the_frame_not_the_run(
    error: Exception, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    frame = make_frame(3)
    box = LetterboxMap(1, 1, 0, 0, 64, 48)
    table: list[Message] = [frame, ModelInput(frame, frame.spans, box, Blob((1,), "u1", "", 0)),
                            ModelOutput(frame, frame.spans, box, ())]  # fmt: skip
    bench = Bench(Relay(fail(error)))
    with caplog.at_level(logging.WARNING):
        for message in table:
            bench.source.send(message)
            bench.steps()
    for lost in bench.out():
        assert isinstance(lost, Lost)
        assert (lost.header, lost.frame, lost.spans) == (frame.header, frame, frame.spans)
        assert (lost.cause, lost.reason) == ("", words)
    assert len(caplog.records) == 3
    assert bench.source.ready(), "its credit came back"


@pytest.mark.parametrize("message", [make_result(), EndOfStream("gate", 0, 0, "ended", "", 0.0)])
def test_what_is_no_frame_cannot_fail_as_one(message: Message) -> None:
    def broken(_: Message) -> list[Message]:
        raise ValueError("odd")

    bench = Bench(Relay(broken))
    bench.source.send(message)
    with pytest.raises(ValueError, match="odd"):
        bench.worker.step()


def test_a_sink_that_fails_ends_the_worker() -> None:
    bench = Bench(Relay(fail(SinkError("the disk is full"))))
    bench.source.send(make_frame())
    with pytest.raises(SinkError):
        bench.worker.step()


def test_a_stale_slot_is_dropped_and_counted() -> None:
    bench = Bench(Relay(fail(StaleSlotError("recycled"))))
    bench.source.send(make_frame())
    bench.source.send(EndOfStream("gate", 0, 1, "ended", "", 0.0))
    bench.steps()
    assert bench.worker.stale == 1
    assert [type(m) for m in bench.out()] == [EndOfStream]
    assert bench.source.ready()


def test_a_slot_recycled_while_it_was_read_takes_what_came_of_it_along() -> None:
    pools = Pools()
    frames = pools.add(SlotPool.in_memory("frames", 1, 48 * 64 * 3))
    tensors = pools.add(SlotPool.in_memory("tensors", 2, 16), owned=True)
    frame = leased_frame(frames, 0)

    def recycle(message: Message) -> list[Message]:
        with tensors.writing() as slot:
            blob = tensors.blob(slot, (4,), "uint8")
        frames.release(frame.lease)
        leased_frame(frames, 1)
        return [ModelInput(frame, (), LetterboxMap(1, 1, 0, 0, 64, 48), blob)]

    bench = Bench(Relay(recycle), pools=pools)
    bench.source.send(frame)
    bench.steps()
    assert bench.worker.stale == 1
    assert bench.out() == []
    assert tensors.free() == 2, "the tensor made of it is given back"


def test_busy_while_working_and_only_then() -> None:
    busy: list[float | None] = []

    def look(message: Message) -> list[Message]:
        busy.append(bench.orders.busy_since)
        return [message]

    bench = Bench(Relay(look))
    bench.source.send(make_frame())
    bench.steps()
    assert busy[0] is not None
    assert bench.orders.busy_since is None


def test_stop_lets_what_is_here_finish() -> None:
    bench = Bench(Relay())
    for seq in range(3):
        bench.source.send(make_frame(seq))
    bench.steps()
    assert not bench.worker.finished, "nobody said that no more will come"
    bench.source.send(make_frame(3))
    bench.orders.give(Stop("end of run"))
    bench.out()
    assert bench.steps() == 1
    assert len(bench.out()) == 1
    assert bench.worker.finished


def test_orphaned_is_finished_at_once() -> None:
    bench = Bench(Relay(), out_window=1)
    for seq in range(3):
        bench.source.send(make_frame(seq))
    bench.steps()
    bench.worker.obey(Stop(ORPHANED))
    assert bench.worker.finished


def test_a_dead_peer_takes_nothing_with_it() -> None:
    pools = Pools()
    tensors = pools.add(SlotPool.in_memory("tensors", 2, 16), owned=True)

    def produce(message: Message) -> list[Message]:
        assert isinstance(message, Frame)
        with tensors.writing() as slot:
            blob = tensors.blob(slot, (4,), "uint8")
        return [ModelInput(message, (), LetterboxMap(1, 1, 0, 0, 64, 48), blob)]

    bench = Bench(Relay(produce), pools=pools, out_window=2)
    for seq in range(4):
        bench.source.send(make_frame(seq))
    bench.steps()
    assert tensors.free() == 0
    bench.orders.give(PeerDied("infer-0", "infer_died"))
    bench.steps()
    assert tensors.free() == 0, "the window of the new one is used again"
    assert [m.frame.header.seq for m in bench.out() if isinstance(m, ModelInput)] == [2, 3]
