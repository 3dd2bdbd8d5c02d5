"""PicoDet in its three forms: decoded, recognised, and the real file against a decoder in loops."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads import Signature, TensorInfo, recognise
from pipeline.heads.base import TOP_K, grid_counts
from pipeline.heads.picodet import PicodetHead
from pipeline.messages import ModelSpec
from pipeline.tasks.reading import Reader
from tests.heads import real
from tests.heads.test_nanodet import assert_like, reference

WIDTH, HEIGHT = 128, 96
STRIDES = (8, 16, 32, 64)
COUNTS = grid_counts(WIDTH, HEIGHT, STRIDES)
HEAD = PicodetHead()
Outputs = list[NDArray[Any]]


def spec_of(**fields: Any) -> ModelSpec:
    return ModelSpec("m", "", "picodet", tuple("abcde"), WIDTH, HEIGHT, **fields)


def raw(classes: int = 5, bins: int = 8) -> Outputs:
    scores = [np.zeros((1, count, classes), np.float32) for count in COUNTS]
    return scores + [np.zeros((1, count, 4 * bins), np.float32) for count in COUNTS]


def rows(*values: list[float], capacity: int = 6) -> Outputs:
    """Class, score and box; the rest of the capacity is zeros, as the runner leaves it."""
    output = np.zeros((1, max(capacity, len(values)), 6), np.float32)
    output[0, : len(values)] = values if values else np.zeros((0, 6))
    return [output]


def test_the_fourth_stride_need_not_divide_the_input() -> None:
    assert COUNTS == [192, 48, 12, 4]
    outputs = raw()
    outputs[3][0, 3, 2] = 0.75  # last cell: centre (96, 96)
    found = HEAD.decode(outputs, spec_of(), 0.4)
    # Equal weights of bins 0..7: the mean is 3.5 strides.
    assert found.boxes_xyxy.tolist() == [[96 - 224, 96 - 224, 96 + 224, 96 + 224]]
    assert found.class_ids.tolist() == [2]


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999))
def test_raw_outputs_decode_as_written_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    outputs = [rng.random(part.shape).astype(np.float32) for part in raw()]
    scores, logits = (np.concatenate(part, axis=1)[0] for part in (outputs[:4], outputs[4:]))
    found = HEAD.decode(outputs, spec_of(), 0.97)
    assert_like(found, reference(scores, logits, WIDTH, HEIGHT, 0.5, 0.97))


@settings(deadline=None, max_examples=25)
@given(n=st.integers(1, 40), seed=st.integers(0, 999))
def test_boxes_without_nms_come_back_in_any_order(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    boxes = rng.uniform(-9, 99, (1, n, 4)).astype(np.float32)
    scores = np.zeros((1, 5, n), np.float32)
    classes, best = rng.integers(0, 5, n), (rng.permutation(n) / n * 0.5 + 0.45).astype(np.float32)
    scores[0, classes, np.arange(n)] = best
    found = HEAD.decode([boxes, scores], spec_of(), 0.4)
    order = np.argsort(-best, kind="stable")
    np.testing.assert_array_equal(found.boxes_xyxy, boxes[0, order])
    np.testing.assert_array_equal(found.scores, best[order])
    assert found.class_ids.tolist() == classes[order].tolist()
    shuffled = rng.permutation(n)
    assert HEAD.decode([boxes[:, shuffled], scores[:, :, shuffled]], spec_of(), 0.4) == found


def test_rows_with_nms_come_by_score_and_padding_is_dropped() -> None:
    spec = spec_of(max_rows=6)
    outputs = rows([3, 0.5, 1, 2, 3, 4], [-1, 0, 0, 0, 0, 0], [0, 0.9, 5, 6, 7, 8])
    found = HEAD.decode(outputs, spec, 0.0)
    assert found.class_ids.tolist() == [0, 3]
    assert found.boxes_xyxy.tolist() == [[5, 6, 7, 8], [1, 2, 3, 4]]
    assert len(HEAD.decode(outputs, spec, 0.6)) == 1
    assert len(HEAD.decode(rows(), spec, 0.0)) == 0


def test_no_more_than_the_best_thousand() -> None:
    outputs = rows(*[[1.0, score, 0, 0, 9, 9] for score in np.linspace(0.1, 0.9, TOP_K + 50)])
    assert len(HEAD.decode(outputs, spec_of(), 0.0)) == TOP_K


DONE: Outputs = [np.zeros((1, 9, 4), np.float32), np.zeros((1, 5, 9), np.float32)]
LAYOUTS = {"raw": raw(), "without NMS": DONE, "with NMS": rows([1, 0.5, 1, 2, 3, 4])}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(layout: str, bad: float) -> None:
    for index in range(len(LAYOUTS[layout])):
        outputs = [part.copy() for part in LAYOUTS[layout]]
        outputs[index][0, -1, -1] = bad
        with pytest.raises(ModelError, match="NaN or infinity"):
            HEAD.decode(outputs, spec_of(), 0.5)


WRONG: dict[str, Outputs] = {
    "no outputs": [],
    "six outputs": raw()[:6],
    "distances first": raw()[4:] + raw()[:4],
    "a cell too few": [raw()[0][:, 1:], *raw()[1:]],
    "no bins": [*raw()[:4], *(part[..., :4] for part in raw()[4:])],
    "scores as in other families": [DONE[0], DONE[1].transpose(0, 2, 1)],
    "scores that are none": [DONE[0], DONE[1] + 2],
    "two frames": [np.concatenate([part, part]) for part in DONE],
    "rows of seven": [np.zeros((1, 4, 7), np.float32)],
    "box first": rows([10, 20, 30, 40, 0.9, 2]),
    "half a class": rows([0.5, 0.9, 1, 2, 3, 4]),
    "a class without a label": rows([5, 0.9, 1, 2, 3, 4]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_outputs_are_refused(name: str) -> None:
    with pytest.raises(ModelError) as caught:
        HEAD.decode(WRONG[name], spec_of(), 0.1)
    assert caught.value.hint


def signature(
    outputs: dict[str, tuple[Any, ...]], size: int = 416, *others: str, **samples: NDArray[Any]
) -> Signature:
    inputs = [TensorInfo("image", "float32", (1, 3, size, size))]
    inputs += [TensorInfo(name, "float32", (1, 2)) for name in others]
    return Signature(
        tuple(inputs), tuple(TensorInfo(n, "float32", s) for n, s in outputs.items()), {}, samples
    )


PADDLE = {
    f"save_infer_model/scale_{index}.tmp_1": (1, cells, columns)
    for index, (cells, columns) in enumerate(
        [(2704, 80), (676, 80), (169, 80), (49, 80), (2704, 32), (676, 32), (169, 32), (49, 32)]
    )
}
NMS = {"multiclass_nms3_0.tmp_0": ("a", 6), "multiclass_nms3_0.tmp_2": ("b",)}
WITHOUT = {"boxes": (1, 2125, 4), "scores": (1, 80, 2125)}
KNOWN: dict[str, tuple[Signature, float, dict[str, Any]]] = {
    "raw": (signature(PADDLE), 0.85, {"letterbox": "stretch", "channels": "rgb", "nms_iou": 0.6}),
    "without NMS": (
        signature(WITHOUT, 320),
        0.85,
        {"output_names": ("boxes", "scores"), "nms_iou": 0.6, "feeds": {}},
    ),
    "without NMS, scores first": (
        signature(dict(reversed(WITHOUT.items())), 320, "scale_factor", scores=np.full((1, 80, 2125), 0.1)),
        0.85,
        {"output_names": ("boxes", "scores"), "feeds": {"scale_factor": (1.0, 1.0)}},
    ),
    "PP-YOLOE without NMS": (signature({"b": (1, 8400, 4), "s": (1, 80, 8400)}, 640), 0.4, {}),
    "with NMS": (
        signature(NMS, 320, "scale_factor"),
        0.6,
        {
            "output_names": ("multiclass_nms3_0.tmp_0",),
            "feeds": {"scale_factor": (1.0, 1.0)},
            "max_rows": 300,
            "nms_iou": None,
        },
    ),
    "with NMS, in a size that PP-YOLOE has": (
        signature(NMS, 640, "im_shape", "scale_factor"),
        0.45,
        {"feeds": {"im_shape": (640.0, 640.0), "scale_factor": (1.0, 1.0)}},
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_layouts(name: str) -> None:
    given_signature, confidence, overrides = KNOWN[name]
    guess = HEAD.recognise(given_signature)
    assert guess is not None
    assert (guess.confidence, guess.classes) == (confidence, 80)
    assert guess.overrides["mean"] == (123.675, 116.28, 103.53)
    for field, value in overrides.items():
        assert guess.overrides[field] == value, field
    ModelSpec("m", "", guess.family, (), **guess.overrides)


REFUSED = {
    "a level missing": signature(dict([*PADDLE.items()][:3] + [*PADDLE.items()][4:])),
    "yolo-nas": signature({"boxes": (1, 8400, 4), "scores": (1, 8400, 80)}, 640),
    "logits": signature(WITHOUT, 320, scores=np.full((1, 80, 2125), -3.0)),
    "rows without a scale": signature(NMS, 320),
    "an input of another kind": signature(NMS, 320, "scale_factor", "anchors"),
    "one output": signature({"output0": (1, 84, 8400)}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_families_are_left_alone(name: str) -> None:
    assert HEAD.recognise(REFUSED[name]) is None


def test_the_real_file_decodes_as_written_out() -> None:
    model = "picodet_s_416.onnx"
    spec, outputs, _ = real.run(model, real.BUS)
    assert [guess.family for guess in recognise(real.runner_of(model).signature)] == ["picodet"]
    scores, logits = (np.concatenate(part, axis=1)[0] for part in (outputs[:4], outputs[4:]))
    found = HEAD.decode(outputs, spec, 0.3)
    assert_like(found, reference(scores, logits, 416, 416, 0.5, 0.3))
    assert spec.labels[found.class_ids[0]] == "bus"


def test_the_real_file_finds_what_its_reference_finds() -> None:
    model = "picodet_s_416.onnx"
    spec, outputs, letterbox = real.run(model, real.SKIER)
    found = Reader(spec, confidence=0.3).read(outputs, letterbox).detections
    expected = json.loads((real.ASSETS / "models/reference_detections_images.json").read_text())
    rows = np.array(expected[model][real.SKIER])
    assert len(rows) > 1
    frame = (letterbox.width, letterbox.height) * 2
    np.testing.assert_allclose(found.boxes_xyxy, np.clip(rows[:, :4], 0, frame), atol=0.1)
    np.testing.assert_allclose(found.scores, rows[:, 4], atol=1e-3)
    assert found.class_ids.tolist() == rows[:, 5].tolist()
