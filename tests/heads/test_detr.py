"""DETR and its kin: both layouts decoded, recognised with and without a test picture, and refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads import Guess, Signature, TensorInfo, recognise
from pipeline.heads.detr import DetrHead
from pipeline.messages import ModelSpec
from pipeline.tasks.reading import Reader
from tests.heads import real

WIDTH, HEIGHT = 200, 100
HEAD = DetrHead()
Array = NDArray[np.float32]
Options = dict[str, Any]


def spec_of(labels: int = 5, **fields: Any) -> ModelSpec:
    return ModelSpec("m", "", "detr", tuple(map(str, range(labels))), WIDTH, HEIGHT, **fields)


def logit(value: Any) -> Array:
    return np.asarray(np.log(value) - np.log1p(-np.asarray(value)), np.float32)


# Decoding


def finished(boxes: Any, scores: Any, ids: Any, dtype: Any = np.int64) -> list[NDArray[Any]]:
    arrays = np.asarray(ids, dtype), np.asarray(boxes, np.float32), np.asarray(scores, np.float32)
    return [array[None] for array in arrays]


BOXES = [[10, 20, 30, 40], [0, 0, 200, 100], [-3, 5, 50.5, 60]]


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.float32])
def test_finished_rows_come_by_score(dtype: Any) -> None:
    found = HEAD.decode(finished(BOXES, [0.5, 0.9, 0.3], [3, 0, 4], dtype), spec_of(), 0.4)
    assert found.boxes_xyxy.tolist() == [[0, 0, 200, 100], [10, 20, 30, 40]]
    assert found.class_ids.tolist() == [0, 3]
    np.testing.assert_allclose(found.scores, [0.9, 0.5])


def test_finished_outputs_may_come_in_the_order_of_the_file() -> None:
    ids, boxes, scores = finished(BOXES, [0.5, 0.9, 0.3], [3, 0, 4])
    want = HEAD.decode([ids, boxes, scores], spec_of(), 0.1)
    for outputs in ([boxes, scores, ids], [scores, ids, boxes], [scores, boxes, ids]):
        assert HEAD.decode(outputs, spec_of(), 0.1) == want


def test_empty_rows_are_none_even_at_confidence_zero() -> None:
    assert len(HEAD.decode(finished(BOXES, [0, 0, 0], [0, 0, 0]), spec_of(), 0.0)) == 0
    assert len(HEAD.decode(finished(np.zeros((0, 4)), [], []), spec_of(), 0.0)) == 0


def test_a_class_without_a_label_is_refused() -> None:
    with pytest.raises(ModelError, match="classes 0 to 7, and has 5 labels"):
        HEAD.decode(finished(BOXES, [0.5, 0.9, 0.3], [3, 0, 7]), spec_of(), 0.1)


def cxcywh(boxes: Any) -> Array:
    b = np.asarray(boxes, np.float64)
    shares = np.stack(
        [(b[:, 0] + b[:, 2]) / 2, (b[:, 1] + b[:, 3]) / 2, b[:, 2] - b[:, 0], b[:, 3] - b[:, 1]]
    )
    return np.asarray(shares.T / (WIDTH, HEIGHT, WIDTH, HEIGHT), np.float32)[None]


def test_raw_boxes_by_hand() -> None:
    boxes = np.array([[[0.5, 0.5, 0.2, 0.4], [0.25, 0.1, 0.5, 0.2]]], np.float32)
    scores = logit([[[0.1, 0.8, 0.6], [0.05, 0.05, 0.7]]])
    found = HEAD.decode([boxes, scores], spec_of(3), 0.5)
    # The best n = 2 pairs of query and class, two of them of one query.
    assert found.class_ids.tolist() == [1, 2]
    np.testing.assert_allclose(found.boxes_xyxy, [[80, 30, 120, 70], [0, 0, 100, 20]], atol=1e-4)
    np.testing.assert_allclose(found.scores, [0.8, 0.7], atol=1e-6)
    assert HEAD.decode([boxes, scores], spec_of(3), 0.5, limit=1).class_ids.tolist() == [1]


def test_a_softmax_gives_one_class_a_query_and_none_for_nothing() -> None:
    boxes = np.full((1, 3, 4), 0.5, np.float32)
    scores = np.log(np.array([[[0.6, 0.3, 0.1], [0.05, 0.05, 0.9], [0.2, 0.5, 0.3]]], np.float32))
    found = HEAD.decode([boxes, scores], spec_of(2, options={"scores": "softmax"}), 0.25)
    assert found.class_ids.tolist() == [0, 1]
    np.testing.assert_allclose(found.scores, [0.6, 0.5], rtol=1e-5)
    # Said otherwise, the last column is a class as well.
    options = {"scores": "softmax", "no_object": False}
    assert HEAD.decode([boxes, scores], spec_of(3, options=options), 0.25).class_ids.tolist() == [2, 0, 1]


def test_the_last_column_may_be_no_class_after_a_sigmoid_too() -> None:
    boxes, scores = np.full((1, 1, 4), 0.5, np.float32), logit([[[0.6, 0.9]]])
    spec = spec_of(1, options={"scores": "sigmoid", "no_object": True})
    assert HEAD.decode([boxes, scores], spec, 0.1).class_ids.tolist() == [0]


@settings(deadline=None, max_examples=30)
@given(n=st.integers(0, 40), seed=st.integers(0, 999), kind=st.sampled_from(["sigmoid", "probabilities"]))
def test_known_boxes_come_back_whatever_their_order(n: int, seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, 1, (n, 2, 2)), axis=1).reshape(n, 4)
    boxes = corners * (WIDTH, HEIGHT, WIDTH, HEIGHT)
    values = np.full((1, n, 5), 0.01)
    classes, best = rng.integers(0, 5, n), rng.permutation(n) / max(n, 1) * 0.5 + 0.45
    values[0, np.arange(n), classes] = best
    scores = logit(values) if kind == "sigmoid" else values.astype(np.float32)
    spec = spec_of(options={"scores": kind})
    found = HEAD.decode([cxcywh(boxes), scores], spec, 0.4)
    order = np.argsort(-best, kind="stable")
    np.testing.assert_allclose(found.boxes_xyxy, boxes[order], atol=1e-3)
    np.testing.assert_allclose(found.scores, best[order], atol=1e-5)
    assert found.class_ids.tolist() == classes[order].tolist()
    shuffled = rng.permutation(n)
    assert HEAD.decode([cxcywh(boxes)[:, shuffled], scores[:, shuffled]], spec, 0.4) == found


RAW: list[Array] = [np.full((1, 4, 4), 0.5, np.float32), np.zeros((1, 4, 5), np.float32)]
DONE = finished(BOXES, [0.5, 0.9, 0.3], [3, 0, 4])


@pytest.mark.parametrize("outputs", [RAW, DONE], ids=["raw", "finished"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(outputs: list[NDArray[Any]], bad: float) -> None:
    for index, output in enumerate(outputs):
        if output.dtype.kind == "f":
            changed = [array.copy() for array in outputs]
            changed[index].reshape(-1)[-1] = bad
            with pytest.raises(ModelError, match="NaN or infinity"):
                HEAD.decode(changed, spec_of(), 0.5)


WRONG: dict[str, tuple[list[NDArray[Any]], Options]] = {
    "no outputs": ([], {}),
    "four outputs": ([*DONE, DONE[0]], {}),
    "no batch": ([array[0] for array in RAW], {}),
    "two frames": ([np.concatenate([array, array]) for array in RAW], {}),
    "two frames, finished": ([np.concatenate([array, array]) for array in DONE], {}),
    "scores first": (RAW[::-1], {}),
    "another number of queries": ([RAW[0][:, :3], RAW[1]], {}),
    "pixels where shares belong": ([RAW[0] * 100, RAW[1]], {}),
    "no column": ([RAW[0], RAW[1][:, :, :0]], {}),
    "nothing but no object": ([RAW[0], RAW[1][:, :, :1]], {"scores": "softmax"}),
    "probabilities that are none": ([RAW[0], RAW[1] - 3], {"scores": "probabilities"}),
    "an unknown option": (RAW, {"scores": "logits"}),
    "boxes twice": ([DONE[1], DONE[1], DONE[2]], {}),
    "joined, pixels": ([np.full((1, 3, 6), 50, np.float32)], {}),
    "joined, boxes in pixels": ([np.array([[[50, 50, 9, 9, 0.5]]], np.float32)], {}),
    "joined, no class": ([RAW[0]], {}),
    "ids that are none": ([DONE[0] + np.float32(0.5), DONE[1], DONE[2]], {}),
    "scores that are none": ([DONE[0], DONE[1], DONE[2] * 5], {}),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_outputs_are_refused(name: str) -> None:
    outputs, options = WRONG[name]
    with pytest.raises(ModelError) as caught:
        HEAD.decode(outputs, spec_of(options=options), 0.1)
    assert caught.value.hint


def test_joined_outputs_by_hand() -> None:
    rows = [
        [0.5, 0.5, 0.2, 0.4, 0.1, 0.8, 0.6],
        [0.25, 0.1, 0.5, 0.2, 0, 0, 0.9],
        [0.5, 0.5, 0.5, 0.5, 0, 0, 0],
    ]
    found = HEAD.decode([np.array([rows], np.float32)], spec_of(3), 0.4)
    assert found.class_ids.tolist() == [2, 1]
    np.testing.assert_allclose(found.boxes_xyxy, [[0, 0, 100, 20], [80, 30, 120, 70]], atol=1e-4)


# Recognition


def signature(
    outputs: dict[str, tuple[Any, ...]],
    size: int = 640,
    sizes: tuple[str, str] | None = None,
    samples: dict[str, NDArray[Any]] | None = None,
    **meta: str,
) -> Signature:
    inputs = [TensorInfo("images", "float32", ("N", 3, size, size))]
    if sizes:
        inputs.append(TensorInfo(sizes[0], sizes[1], ("N", 2)))
    kinds = {"labels": "int64"} if sizes else {}
    infos = tuple(TensorInfo(name, kinds.get(name, "float32"), shape) for name, shape in outputs.items())
    return Signature(tuple(inputs), infos, meta, samples or {})


def queries(n: int, columns: int, boxes: str, scores: str) -> dict[str, tuple[Any, ...]]:
    return {boxes: (1, n, 4), scores: (1, n, columns)}


def seen(n: int, columns: int, boxes: str, scores: str, kind: str) -> dict[str, NDArray[Any]]:
    """What a test picture of noise gives: nothing is there."""
    values = np.random.default_rng(0).normal(-6, 1, (1, n, columns)).astype(np.float32)
    if kind == "softmax":
        values[..., -1] = 8
    if kind == "probabilities":
        values = (1 / (1 + np.exp(-values))).astype(np.float32)
    return {boxes: np.random.default_rng(1).random((1, n, 4)).astype(np.float32), scores: values}


SIZES = ("orig_target_sizes", "int64")
FREE = {"labels": ("N", "a"), "boxes": ("N", "a", 4), "scores": ("N", "a")}
IMAGENET = (123.675, 116.28, 103.53)
HF = (300, 80, "pred_boxes", "logits")
DETR = (100, 92, "pred_boxes", "logits")
RF = (300, 91, "dets", "labels")
OWN = (100, 6, "pred_boxes", "logits")
BARE = (300, 80, "boxes", "logits")
RF_SAYS = json.dumps(
    {"means": [0.5, 0.5, 0.5], "stds": [0.5, 0.25, 0.5], "class_id_to_name": {"0": "bolt", "1": "nut"}}
)

KNOWN: dict[str, tuple[Signature, tuple[float, float], dict[str, Any]]] = {
    "rt-detr": (
        signature({"labels": (1, 300), "boxes": (1, 300, 4), "scores": (1, 300)}, sizes=SIZES),
        (0.9, 1),
        {
            "output_names": ("labels", "boxes", "scores"),
            "feeds": {"orig_target_sizes": (640.0, 640.0)},
            "channels": "rgb",
            "letterbox": "stretch",
            "std": (255.0,) * 3,
            "nms_iou": None,
        },
    ),
    "d-fine, sizes free, another order": (
        signature(dict(reversed(FREE.items())), sizes=SIZES),
        (0.9, 1),
        {"output_names": ("labels", "boxes", "scores")},
    ),
    "sizes under another name": (signature(FREE, sizes=("sizes", "int32")), (0.5, 0.8), {}),
    "rf-detr": (signature(queries(*RF)), (0.8, 0.9), {"mean": IMAGENET, "output_names": ("dets", "labels")}),
    "rf-detr, seen": (
        signature(queries(*RF), samples=seen(*RF, "sigmoid")),
        (0.9, 1),
        {"options": {"scores": "sigmoid", "no_object": False}},
    ),
    "rf-detr, of whose columns one is empty": (
        signature(queries(300, 3, "dets", "labels"), rfdetr_inference=RF_SAYS),
        (1, 1),
        {
            "mean": (127.5,) * 3,
            "std": (127.5, 63.75, 127.5),
            "options": {"scores": "sigmoid", "no_object": True},
        },
    ),
    "rt-detr of hugging face": (
        signature(queries(*HF)),
        (0.8, 0.9),
        {"std": (255.0,) * 3, "options": {"scores": "sigmoid", "no_object": False}},
    ),
    "detr": (
        signature(queries(*DETR)),
        (0.8, 0.9),
        {"mean": IMAGENET, "options": {"scores": "softmax", "no_object": True}},
    ),
    "detr of one's own, unseen": (signature(queries(*OWN)), (0.4, 0.49), {}),
    "detr of one's own, seen": (
        signature(queries(*OWN), samples=seen(*OWN, "softmax")),
        (0.9, 1),
        {"options": {"scores": "softmax", "no_object": True}},
    ),
    "a sigmoid of one's own, seen": (
        signature(queries(*OWN), samples=seen(*OWN, "sigmoid")),
        (0.9, 1),
        {"options": {"scores": "sigmoid", "no_object": False}},
    ),
    "probabilities": (
        signature(queries(*HF), samples=seen(*HF, "probabilities")),
        (0.9, 1),
        {"options": {"scores": "probabilities", "no_object": False}},
    ),
    "joined, named": (
        signature({"output0": (1, 300, 7)}, samples={"output0": np.full((1, 300, 7), 0.2)}, names="a,b,c"),
        (0.9, 0.9),
        {"std": (255.0,) * 3, "letterbox": "stretch"},
    ),
    "joined": (
        signature({"output0": (1, 300, 84)}, samples={"output0": np.full((1, 300, 84), 0.2)}),
        (0.6, 0.6),
        {},
    ),
    "bare names, unseen": (signature(queries(*BARE)), (0.3, 0.49), {}),
    "bare names, seen": (signature(queries(*BARE), samples=seen(*BARE, "sigmoid")), (0.5, 0.7), {}),
}


def guess_of(given: Signature) -> Guess | None:
    return HEAD.recognise(given)


@pytest.mark.parametrize("name", KNOWN)
def test_known_layouts(name: str) -> None:
    given, (low, high), overrides = KNOWN[name]
    guess = guess_of(given)
    assert guess is not None
    assert low <= guess.confidence <= high
    for field, value in overrides.items():
        assert guess.overrides[field] == value, field
    ModelSpec("m", "", guess.family, (), **guess.overrides)


def test_classes_and_labels_that_follow() -> None:
    assert [guess_of(KNOWN[name][0]).classes for name in ("rt-detr", "rf-detr", "detr")] == [80, 91, 91]  # type: ignore[union-attr]
    named = guess_of(signature(FREE, sizes=SIZES, names="['bolt', 'nut']"))
    assert named is not None
    assert (named.classes, named.labels) == (2, ("bolt", "nut"))
    own = guess_of(KNOWN["rf-detr, of whose columns one is empty"][0])
    assert own is not None
    assert own.labels == ("bolt", "nut", "unused_2")


def test_a_mask_of_a_fixed_size_is_fed_with_ones() -> None:
    plain = signature(queries(*DETR))
    for shape, fits in (((1, 8, 4), True), ((1, "h", "w"), False), ((1, 1000, 1000), False)):
        inputs = (*plain.inputs, TensorInfo("pixel_mask", "int64", shape))
        guess = guess_of(Signature(inputs, plain.outputs))
        assert (guess is not None) == fits
        assert guess is None or guess.overrides["feeds"] == {"pixel_mask": (1.0,) * 32}


BAD_BOXES = {
    "pixels": np.full((1, 300, 4), 100, np.float32),
    "offsets, whose sizes may be negative": np.full((1, 300, 4), -0.2, np.float32),
}
REFUSED = {
    "ultraface": signature({"scores": (1, 4420, 2), "boxes": (1, 4420, 4)}),
    "yolo-nas": signature({"boxes": (1, 8400, 4), "scores": (1, 8400, 80)}),
    "torchvision": signature({"boxes": ("n", 4), "labels": ("n",), "scores": ("n",)}),
    "yolov10": signature({"output0": (1, 300, 6)}),
    "yolov10, seen": signature({"output0": (1, 300, 6)}, samples={"output0": np.full((1, 300, 6), 99.0)}),
    "yolov8, transposed": signature(
        {"output0": (1, 8400, 84)}, samples={"output0": np.full((1, 8400, 84), 0.5)}
    ),
    "paddle": signature({"boxes": (1, 300, 4), "scores": (1, 300)}, sizes=("scale_factor", "float32")),
    "boxes twice": signature({"a": (1, 300, 4), "b": (1, 300, 4)}),
    "a classifier": signature({"output": (1, 1000)}),
} | {
    name: signature(queries(*BARE), samples=seen(*BARE, "sigmoid") | {"boxes": boxes})
    for name, boxes in BAD_BOXES.items()
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_families_are_left_alone(name: str) -> None:
    assert guess_of(REFUSED[name]) is None


def test_broken_words_of_rfdetr_are_passed_over() -> None:
    for text in ("{", "[]", '{"means": [1], "stds": [1], "class_id_to_name": {}}', '{"means": 3}'):
        guess = guess_of(signature(queries(*RF), rfdetr_inference=text))
        assert guess is not None
        assert guess.confidence < 1


# The real file

DEIMV2 = "deimv2_atto_320.onnx"


def test_the_real_file_against_its_reference() -> None:
    spec, outputs, letterbox = real.run(DEIMV2, real.SKIER)
    assert [guess.family for guess in recognise(real.runner_of(DEIMV2).signature)] == ["detr"]
    found = Reader(spec, confidence=0.3).read(outputs, letterbox).detections
    # The outputs are sorted already: what is left to do is to cut.
    ids, boxes, scores = (output[0] for output in outputs)
    count = int((scores >= 0.3).sum())
    assert count > 1
    assert found.class_ids.tolist() == ids[:count].tolist()
    assert found.scores.tolist() == scores[:count].tolist()
    frame = (letterbox.width, letterbox.height) * 2
    want = np.clip(boxes[:count] / 320 * frame, 0, frame)
    np.testing.assert_allclose(found.boxes_xyxy, want, atol=1e-3)
    expected = json.loads((real.ASSETS / "models/reference_detections_images.json").read_text())
    rows = np.array(expected[DEIMV2][real.SKIER])
    np.testing.assert_allclose(found.boxes_xyxy, np.clip(rows[:, :4], 0, frame), atol=0.1)
    np.testing.assert_allclose(found.scores, rows[:, 4], atol=1e-3)
    assert found.class_ids.tolist() == rows[:, 5].tolist()
