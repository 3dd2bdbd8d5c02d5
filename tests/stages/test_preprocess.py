"""preprocess: the right tensor, in place, in a leased slot."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from pipeline.errors import PoolError, StaleSlotError
from pipeline.messages import Blob, EndOfStream, Frame, Lost, ModelInput, ModelSpec
from pipeline.stages.preprocess import PreprocessStage
from pipeline.transport.shm import Pools, SlotPool
from tests.helpers import SPEC, leased_frame, make_frame, no_view


def begun(spec: ModelSpec = SPEC, slots: int = 2) -> tuple[PreprocessStage, Pools, SlotPool]:
    pools = Pools()
    frames = pools.add(SlotPool.in_memory("frames", 4, 48 * 64 * 3))
    stage = PreprocessStage(
        make_pool=lambda size: pools.add(SlotPool.in_memory("tensors", slots, size), owned=True)
    )
    stage.open()
    stage.begin(spec)
    return stage, pools, frames


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_a_frame_becomes_the_input_of_the_model(layout: str, dtype: str) -> None:
    stage, pools, frames = begun(replace(SPEC, input_layout=layout, input_dtype=dtype))
    frame = leased_frame(frames, 7)
    (made,) = stage.process(frame, pools.view)
    assert isinstance(made, ModelInput)
    tensor = pools.view(made.tensor)
    assert tensor.shape == ((1, 48, 64, 3) if layout == "nhwc" else (1, 3, 48, 64))
    assert tensor.dtype == dtype
    assert set(tensor.ravel().tolist()) == {7}
    assert made.frame == frame, "what publish will need passes through"
    assert [span.stage for span in made.spans] == ["capture", "preprocess"]
    assert (made.letterbox.scale_x, made.letterbox.pad_x, made.letterbox.width) == (1, 0, 64)


def test_other_messages_pass() -> None:
    stage, _, _ = begun()
    for message in (
        Lost(make_frame().header, (), None, "infer_died", "infer died"),
        EndOfStream("gate", 0, 3, "ended", "end_of_file", 1.0),
    ):
        assert list(stage.process(message, no_view)) == [message]


def test_pixels_that_came_inline_do_not_travel_on() -> None:
    stage, pools, _ = begun()
    frame = make_frame(pixels=(Blob((48, 64, 3), "uint8", "", 0),))
    (made,) = stage.process(frame, lambda _: np.full((48, 64, 3), 9, np.uint8))
    assert isinstance(made, ModelInput)
    assert made.frame.pixels == ()
    assert made.frame.lease == frame.lease
    assert set(pools.view(made.tensor).ravel().tolist()) == {9}


def test_a_frame_that_cannot_be_read_leaves_no_slot_taken() -> None:
    stage, pools, frames = begun()
    frame = leased_frame(frames, 1)
    frames.release(frame.lease)
    leased_frame(frames, 2)
    for _ in range(4):
        leased_frame(frames, 3) if frames.free() else None
    with pytest.raises(StaleSlotError):
        list(stage.process(frame, pools.view))
    wrong = leased_frame_of_wrong_planes()
    with pytest.raises(ValueError, match="planes"):
        list(stage.process(wrong, lambda _: np.zeros((48, 64), np.uint8)))
    assert pools.get("tensors").free() == 2


def leased_frame_of_wrong_planes() -> Frame:  # bgr24 with one plane of too few dimensions
    return make_frame(pixels=(Blob((48, 64), "uint8", "elsewhere", 0),))


def test_more_frames_than_the_credits_allow_are_our_mistake() -> None:
    stage, pools, frames = begun(slots=1)
    list(stage.process(leased_frame(frames, 0), pools.view))
    with pytest.raises(PoolError, match="all 1 slots of tensors are leased"):
        list(stage.process(leased_frame(frames, 1), pools.view))
    assert stage.summary() == {}
    stage.close()
