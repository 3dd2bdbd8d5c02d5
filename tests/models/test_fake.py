from __future__ import annotations

import subprocess
import sys
import threading
import time
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads import load_head
from pipeline.models.base import build_runner, is_fake, prepare
from pipeline.models.fake import MAX_OBJECTS, FakeRunner
from pipeline.vision.letterbox import to_input
from pipeline.vision.palette import BACKGROUND, LABELS, PALETTE
from pipeline.vision.tensor import TensorFiller

Box = tuple[int, int, int, int, int]


def scene(width: int, height: int, boxes: list[Box]) -> NDArray[np.uint8]:
    """A BGR frame with one solid rectangle per (x1, y1, x2, y2, class)."""
    frame = np.full((height, width, 3), BACKGROUND, np.uint8)
    for x1, y1, x2, y2, class_id in boxes:
        frame[y1:y2, x1:x2] = PALETTE[class_id]
    return frame


def run(frames: NDArray[np.uint8], runner: FakeRunner | None = None) -> NDArray[np.float32]:
    runner = runner or FakeRunner()
    rows = np.full((len(frames), MAX_OBJECTS, 6), 7, np.float32)  # every row must be written
    runner.forward(frames, [rows])
    return rows


def test_known_truth_in_its_own_size() -> None:
    boxes: list[Box] = [(10, 20, 90, 60, 0), (200, 100, 260, 180, 3), (100, 10, 112, 30, 5)]
    rows = run(scene(320, 192, boxes)[None])[0]
    assert {tuple(row[[0, 1, 2, 3, 5]].astype(int)) for row in rows[:3]} == set(boxes)
    np.testing.assert_array_equal(rows[:3, 4], 1)
    np.testing.assert_array_equal(rows[3:], 0)
    assert np.all(np.diff((rows[:3, 2] - rows[:3, 0]) * (rows[:3, 3] - rows[:3, 1])) < 0)  # largest first


@settings(deadline=None, max_examples=40)
@given(
    size=st.sampled_from([(640, 360), (320, 192), (1280, 720), (500, 400)]),
    x=st.integers(0, 80), y=st.integers(0, 40), width=st.integers(30, 80), height=st.integers(30, 50),
    class_id=st.integers(0, len(PALETTE) - 1), planar=st.booleans(),
)  # fmt: skip
def test_found_through_letterbox_and_i420(
    size: tuple[int, int], x: int, y: int, width: int, height: int, class_id: int, planar: bool
) -> None:
    """Through the pipeline's own preprocessing a box is found to within a pixel of the input.

    Of two where colour is stored for pairs of pixels. Edges are even, as in the synthetic scene: I420
    cannot show others sharply.
    """
    frame_w, frame_h = size
    box = (2 * x, 2 * y, 2 * (x + width), 2 * (y + height))
    frame = scene(frame_w, frame_h, [(*box, class_id)])
    planes: tuple[Any, ...] = (frame,)
    if planar:
        packed = np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420), np.uint8)
        u, v = packed[frame_h:].reshape(2, frame_h // 2, frame_w // 2)
        planes = (packed[:frame_h], u, v)
    runner = FakeRunner()
    filler = TensorFiller(runner.open())
    tensor = np.zeros(filler.shape, np.uint8)
    letterbox = filler.fill(planes, "i420" if planar else "bgr24", tensor)
    found = load_head("fake").decode([run(tensor)], runner.spec, 0.5)
    assert found.class_ids.tolist() == [class_id]
    truth = np.minimum(box, (frame_w, frame_h) * 2)
    np.testing.assert_allclose(found.boxes_xyxy, to_input(truth[None], letterbox), atol=2 if planar else 1.01)


def test_batch_of_frames_and_empty_frame() -> None:
    frames = np.stack([scene(320, 192, []), scene(320, 192, [(0, 0, 50, 50, 1)])])
    rows = run(frames)
    assert not rows[0].any()
    assert rows[1, 0].tolist() == [0, 0, 50, 50, 1, 1]


def test_more_objects_than_rows() -> None:
    boxes: list[Box] = [
        (x, y, x + 8, y + 8, (x // 16 + y // 16) % 6) for x in range(0, 304, 16) for y in range(0, 48, 16)
    ]
    rows = run(scene(320, 192, boxes)[None])[0]
    assert (rows[:, 4] > 0).all()


def test_partly_covered_scores_less() -> None:
    rows = run(scene(320, 192, [(0, 0, 100, 100, 0), (60, 60, 140, 140, 1)])[None])[0]
    score = {int(row[5]): float(row[4]) for row in rows[:2]}
    assert score[1] == 1.0
    assert score[0] == pytest.approx(0.84)


def test_fails_on_each_nth_frame() -> None:
    runner = FakeRunner.from_name("fake?fail_every=2")
    frame = scene(320, 192, [])[None]
    for number in range(1, 5):
        if number % 2:
            run(frame, runner)
        else:
            with pytest.raises(ModelError, match=f"frame {number}"):
                run(frame, runner)


def test_a_batch_with_a_failing_frame_is_refused_and_counts_for_nothing() -> None:
    """Tried one by one afterwards, it is still the third that fails."""
    runner = FakeRunner.from_name("fake?fail_every=3")
    frames = np.repeat(scene(320, 192, [])[None], 4, axis=0)
    with pytest.raises(ModelError, match="a frame of these 4"):
        run(frames, runner)
    run(frames[:1], runner)
    run(frames[:1], runner)
    with pytest.raises(ModelError, match="frame 3"):
        run(frames[:1], runner)
    run(frames[:2], runner)


@pytest.mark.parametrize(
    ("name", "times_ms"),
    [
        ("fake", {1: 0, 2: 0, 4: 0, 6: 0}),
        ("fake?ms=20", {1: 20, 2: 40, 4: 80, 6: 120}),
        ("fake?ms=20&per_frame_ms=2", {1: 20, 2: 22, 4: 26, 6: 30}),
        ("fake?ms=20&per_frame_ms=0", {1: 20, 2: 20, 4: 20, 6: 20}),
    ],
)
def test_service_times_by_batch_size(name: str, times_ms: dict[int, int]) -> None:
    runner = build_runner(name, batch=6)
    assert {size: round(ns / 1e6) for size, ns in runner.service_ns.items()} == times_ms
    started = time.monotonic()
    assert isinstance(runner, FakeRunner)
    run(np.zeros((6, 192, 320, 3), np.uint8), runner)
    assert time.monotonic() - started >= times_ms[6] / 1e3


def test_service_time_and_its_end_by_close() -> None:
    frame = scene(320, 192, [])[None]
    started = time.monotonic()
    run(frame, FakeRunner.from_name("fake?ms=30"))
    assert time.monotonic() - started >= 0.03
    runner = FakeRunner.from_name("fake?ms=60000")
    waiting = threading.Thread(target=run, args=(frame, runner))
    waiting.start()
    runner.close()
    waiting.join(10)
    assert not waiting.is_alive()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fake?speed=1", "no option 'speed'"),
        ("fake?ms=fast", "'fast', not a number"),
        ("fake?ms=-1", "not a number from 0"),
        ("fake?ms=nan", "not a number from 0"),
        ("fake?fail_every=1.5", "not a number from 0"),
        ("fake?ms=", "not a number from 0"),
        ("fake?per_frame_ms=-1", "not a number from 0"),
    ],
)
def test_wrong_options(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        build_runner(name)
    with pytest.raises(ModelError, match=message):
        prepare(name)


@pytest.mark.parametrize(
    ("frames", "rows"),
    [
        (np.zeros((1, 96, 160, 3), np.uint8), np.zeros((1, MAX_OBJECTS, 6), np.float32)),
        (np.zeros((1, 192, 320, 3), np.float32), np.zeros((1, MAX_OBJECTS, 6), np.float32)),
        (np.zeros((1, 192, 320, 3), np.uint8), np.zeros((1, 5, 6), np.float32)),
    ],
)
def test_wrong_buffers(frames: Any, rows: Any) -> None:
    with pytest.raises(ModelError, match="the fake model takes"):
        FakeRunner().forward(frames, [rows])


def test_name_and_spec() -> None:
    assert is_fake("fake")
    assert is_fake("fake?ms=1")
    assert not is_fake("fake.onnx")
    runner = build_runner("fake?ms=1")
    spec = runner.open()
    assert (spec.name, spec.family, spec.labels, spec.provider) == ("fake?ms=1", "fake", LABELS, "fake")
    runner.close()
    runner.close()


def test_fake_needs_no_onnxruntime() -> None:
    code = (
        "import sys; from pipeline.models.base import build_runner; build_runner('fake').open();"
        "sys.exit('onnxruntime' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
