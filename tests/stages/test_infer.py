"""infer: tensors in, raw outputs out, each in its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import ModelError, PoolError
from pipeline.messages import Blob, EndOfStream, LetterboxMap, Lost, ModelInput, ModelOutput, ModelSpec
from pipeline.stages.infer import InferStage
from pipeline.transport.base import ViewArray
from pipeline.transport.shm import Pools, SlotPool
from tests.helpers import SPEC, make_frame, no_view


class TwoOutputs:
    """A network with outputs of odd sizes; the first number of the input tells what it writes."""

    def __init__(self) -> None:
        self.spec = SPEC
        self.output_shapes: tuple[tuple[int, ...], ...] = ((1, 3, 7), (1, 5))
        self.output_dtypes: tuple[str, ...] = ("float16", "float32")
        self.service_ns = {1: 1000, 2: 1500, 3: 2000}
        self.sizes: list[int] = []
        self.closed = 0

    def open(self) -> ModelSpec:
        return self.spec

    def forward(self, tensors: NDArray[Any], outputs: Sequence[NDArray[Any]]) -> None:
        self.sizes.append(len(tensors))
        if (tensors[:, 0, 0, 0] == 255).any():
            raise ModelError("the network refused it")
        for at, output in enumerate(outputs):
            for row, tensor in enumerate(tensors):
                output[row] = int(tensor.flat[0]) + at

    def close(self) -> None:
        self.closed += 1


def opened(batch: int = 1) -> tuple[InferStage, Pools, TwoOutputs]:
    pools, runner = Pools(), TwoOutputs()
    stage = InferStage(
        runner=runner,
        make_pool=lambda size: pools.add(SlotPool.in_memory("outputs", 3, size), owned=True),
        batch=batch,
    )
    assert stage.open() == SPEC
    stage.begin(SPEC)
    return stage, pools, runner


def an_input(seq: int = 0, shape: tuple[int, ...] = (1, 48, 64, 3)) -> ModelInput:
    frame = make_frame(seq)
    return ModelInput(frame, frame.spans, LetterboxMap(1, 1, 0, 0, 64, 48), Blob(shape, "uint8", "t", 0))


def filled(value: int) -> NDArray[Any]:
    return np.full((1, 48, 64, 3), value, np.uint8)


def test_outputs_lie_apart_in_one_slot() -> None:
    stage, pools, _ = opened()
    made = [next(iter(stage.process(an_input(n), lambda _, n=n: filled(n)))) for n in (10, 20)]  # type: ignore[misc]
    for value, output in zip((10, 20), made, strict=True):
        assert isinstance(output, ModelOutput)
        one, two = (pools.view(blob) for blob in output.outputs)
        assert (one.shape, one.dtype.name) == ((1, 3, 7), "float16")
        assert (two.shape, two.dtype.name) == ((1, 5), "float32")
        assert (set(one.ravel().tolist()), set(two.ravel().tolist())) == ({value}, {value + 1})
        assert output.frame.header.seq == value
        assert output.letterbox == LetterboxMap(1, 1, 0, 0, 64, 48)
        assert [span.stage for span in output.spans] == ["capture", "infer"]
        assert all(blob.offset % 64 == 0 for blob in output.outputs)


def test_other_messages_pass() -> None:
    stage, _, _ = opened()
    for message in (
        Lost(make_frame().header, (), None, "", "preprocess: failed"),
        EndOfStream("gate", 0, 3, "ended", "end_of_file", 1.0),
    ):
        assert list(stage.process(message, no_view)) == [message]


def test_an_input_of_another_shape_or_one_that_the_network_refuses() -> None:
    stage, pools, _ = opened()
    with pytest.raises(ModelError, match=r"shape \(1, 3, 48, 64\), the model takes \(1, 48, 64, 3\)"):
        list(stage.process(an_input(), lambda _: np.zeros((1, 3, 48, 64), np.uint8)))
    with pytest.raises(ModelError, match="refused"):
        list(stage.process(an_input(), lambda _: filled(255)))
    assert pools.get("outputs").free() == 3


def batch_of(*values: int) -> list[tuple[ModelInput, ViewArray]]:
    return [(an_input(value), lambda _, value=value: filled(value)) for value in values]  # type: ignore[misc]


def test_a_batch_is_one_run_and_each_frame_gets_its_own_outputs() -> None:
    stage, pools, runner = opened(batch=3)
    assert stage.service_ns == {1: 1000, 2: 1500, 3: 2000}
    for values in ((10, 20, 30), (40, 50)):
        made = stage.process_batch(batch_of(*values))
        assert [output.frame.header.seq for output in made] == list(values)
        for value, output in zip(values, made, strict=True):
            one, two = (pools.view(blob) for blob in output.outputs)
            assert (one.shape, one.dtype.name) == ((1, 3, 7), "float16")
            assert (two.shape, two.dtype.name) == ((1, 5), "float32")
            assert (set(one.ravel().tolist()), set(two.ravel().tolist())) == ({value}, {value + 1})
        assert len({output.outputs[0].slot for output in made}) == len(values)
        for output in made:
            pools.release(output.outputs[0])
    assert runner.sizes == [3, 2]


def test_a_batch_is_padded_to_a_size_that_is_warmed_up() -> None:
    stage, _, runner = opened(batch=3)
    runner.service_ns.pop(2)
    assert len(stage.process_batch(batch_of(1, 2))) == 2
    assert runner.sizes == [3]


def test_all_frames_of_a_batch_share_its_service_time() -> None:
    stage, _, _ = opened(batch=3)
    spans = [output.spans[-1] for output in stage.process_batch(batch_of(1, 2, 3))]
    assert {span.stage for span in spans} == {"infer"}
    starts = {span.end_ns - span.service_ns for span in spans}
    assert len(starts) == 1, "all of them waited until the batch began"


def test_a_batch_with_an_odd_one_in_it_is_refused_as_a_whole() -> None:
    stage, pools, _ = opened(batch=3)
    with pytest.raises(ModelError, match="refused"):
        stage.process_batch(batch_of(1, 255, 3))
    with pytest.raises(ModelError, match=r"an input has shape \(1, 3, 48, 64\)"):
        stage.process_batch([*batch_of(1), (an_input(2), lambda _: np.zeros((1, 3, 48, 64), np.uint8))])
    with pytest.raises(ModelError, match="an input is of float32, the model takes uint8"):
        stage.process_batch([*batch_of(1), (an_input(2), lambda _: np.zeros((1, 48, 64, 3), np.float32))])
    held = [stage.process_batch(batch_of(1, 2))]
    with pytest.raises(PoolError, match="all 3 slots"):
        stage.process_batch(batch_of(3, 4))
    assert len(held[0]) == 2
    assert pools.get("outputs").free() == 1


def test_close_frees_the_model() -> None:
    stage, _, runner = opened()
    stage.close()
    assert runner.closed == 1
    assert stage.summary() == {}
