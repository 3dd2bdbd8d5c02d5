"""SSD before its NMS: scores and both kinds of boxes decoded, recognised and refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads import Guess, Signature, TensorInfo, recognise
from pipeline.heads._priors import SSD300, ULTRAFACE, priors_of
from pipeline.heads.ssd_raw import SsdRawHead
from pipeline.messages import ModelSpec
from pipeline.vision.boxes import xyxy_to_cxcywh

WIDTH, HEIGHT = 64, 32
HEAD = SsdRawHead()
Array = NDArray[np.float32]
#: 8x4 cells with two boxes each, 4x2 with one: 72.
PRIORS = {"strides": [8, 16], "min_boxes": [[8, 12], [20]]}
COUNT = 72
OFFSETS: dict[str, Any] = {"boxes": "offsets", "priors": PRIORS}


def spec_of(labels: int = 3, **options: Any) -> ModelSpec:
    return ModelSpec("m", "", "ssd_raw", tuple(map(str, range(labels))), WIDTH, HEIGHT, options=options)


BAD_PRIORS: dict[str, Any] = {
    "nothing": None,
    "a list": [1, 2],
    "one key": {"strides": [8]},
    "an unknown key": PRIORS | {"scales": [1, 2]},
    "lists of other lengths": PRIORS | {"strides": [8]},
    "a stride of 0": PRIORS | {"strides": [0, 16]},
    "a word": PRIORS | {"strides": ["eight", 16]},
    "a size of 0": PRIORS | {"min_boxes": [[0], [20]]},
    "empty lists": {"strides": [], "min_boxes": []},
    "a set": PRIORS | {"strides": {8, 16}},
}


@pytest.mark.parametrize("name", BAD_PRIORS)
def test_priors_of_no_kind_are_refused(name: str) -> None:
    scores, boxes = probabilities(np.zeros((COUNT, 3))), np.zeros((1, COUNT, 4), np.float32)
    with pytest.raises(ModelError, match="priors") as caught:
        HEAD.decode([scores, boxes], spec_of(boxes="offsets", priors=BAD_PRIORS[name]), 0.5)
    assert caught.value.hint


# Decoding


def probabilities(classes: Any) -> Array:
    """With the background in front."""
    values = np.asarray(classes, np.float32)
    return np.hstack([1 - values.sum(axis=1, keepdims=True), values])[None]


def encoded(boxes_xyxy: Any, priors: Array, variances: tuple[float, float] = (0.1, 0.2)) -> Array:
    """Offsets of boxes in pixels from priors: the loss of the training, turned round."""
    boxes = xyxy_to_cxcywh(np.asarray(boxes_xyxy) / ([WIDTH, HEIGHT] * 2))
    centres = (boxes[:, :2] - priors[:, :2]) / priors[:, 2:] / variances[0]
    return np.hstack([centres, np.log(boxes[:, 2:] / priors[:, 2:]) / variances[1]])[None].astype(np.float32)


def test_offsets_by_hand() -> None:
    scores = np.zeros((COUNT, 3))
    scores[0, 1], scores[64, 0] = 0.6, 0.9
    boxes = np.zeros((1, COUNT, 4), np.float32)
    # Half a prior to the right, twice as high.
    boxes[0, 64] = [5, 0, 0, math.log(2) / 0.2]
    found = HEAD.decode([probabilities(scores), boxes], spec_of(**OFFSETS, clip=False), 0.5)
    assert found.class_ids.tolist() == [0, 1]
    np.testing.assert_allclose(found.boxes_xyxy, [[8, -12, 28, 28], [0, 0, 8, 8]], atol=1e-4)
    np.testing.assert_allclose(found.scores, [0.9, 0.6], atol=1e-6)


@pytest.mark.parametrize(("clip", "box"), [(True, [0, 0, 64, 32]), (False, [-16, -32, 80, 64])])
def test_priors_larger_than_the_input_may_be_cut(clip: bool, box: list[float]) -> None:
    outputs = [probabilities([[0, 0.8, 0]]), np.zeros((1, 1, 4), np.float32)]
    priors = {"strides": [64], "min_boxes": [[96]]}
    found = HEAD.decode(outputs, spec_of(boxes="offsets", priors=priors, clip=clip), 0.5)
    np.testing.assert_allclose(found.boxes_xyxy, [box], atol=1e-4)
    if clip:
        assert HEAD.decode(outputs, spec_of(boxes="offsets", priors=priors), 0.5) == found


def test_corners_by_hand() -> None:
    boxes = np.array([[[0.25, 0.5, 0.5, 1], [0, 0, 1, 1]]], np.float32)
    found = HEAD.decode([probabilities([[0.1, 0.8, 0], [0.6, 0.4, 0]]), boxes], spec_of(), 0.3)
    # One place may give several classes.
    assert found.class_ids.tolist() == [1, 0, 1]
    np.testing.assert_allclose(found.boxes_xyxy[:2], [[16, 16, 32, 32], [0, 0, 64, 32]])
    assert (
        HEAD.decode([probabilities([[0.1, 0.8, 0], [0.6, 0.4, 0]]), boxes], spec_of(), 0.95, 1).scores.size
        == 0
    )


def test_scores_may_want_a_softmax_or_a_sigmoid_and_have_no_background() -> None:
    boxes = np.array([[[0, 0, 0.5, 0.5]]], np.float32)
    logits = np.log(np.array([[[0.3, 0.1, 0.6]]], np.float32))
    found = HEAD.decode([logits, boxes], spec_of(2, scores="softmax"), 0.2)
    assert found.class_ids.tolist() == [1]
    np.testing.assert_allclose(found.scores, [0.6], atol=1e-6)
    found = HEAD.decode([logits, boxes], spec_of(3, scores="softmax", background=False), 0.2)
    assert found.class_ids.tolist() == [2, 0]
    logits = np.array([[[-math.log(4), math.log(4), -200]]], np.float32)
    found = HEAD.decode([logits, boxes], spec_of(3, scores="sigmoid", background=False), 0.1)
    np.testing.assert_allclose(found.scores, [0.8, 0.2], atol=1e-6)


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 999), offsets=st.booleans(), kind=st.sampled_from(["probabilities", "softmax"]))
def test_known_boxes_come_back(seed: int, offsets: bool, kind: str) -> None:
    rng = np.random.default_rng(seed)
    shares = np.sort(rng.uniform(0, 1, (COUNT, 2, 2)), axis=1).reshape(-1, 4)
    shares[:, 2:] += 0.05
    boxes = shares * (WIDTH, HEIGHT, WIDTH, HEIGHT)
    best, ids = rng.permutation(COUNT) / COUNT * 0.45 + 0.5, rng.integers(0, 3, COUNT)
    classes = np.zeros((COUNT, 3))
    classes[np.arange(COUNT), ids] = best
    scores = probabilities(classes)
    if kind == "softmax":
        scores = (np.log(np.maximum(scores, 1e-9)) + 3).astype(np.float32)
    variances = (0.1, 0.2) if seed % 2 else (0.3, 0.25)
    options = OFFSETS | {"variances": list(variances)} if offsets else {}
    spec = spec_of(**options, scores=kind)
    priors = priors_of(PRIORS, WIDTH, HEIGHT, True, "m")
    raw = encoded(boxes, priors, variances) if offsets else shares[None].astype(np.float32)
    found = HEAD.decode([scores, raw], spec, 0.7)
    order = np.argsort(-best)
    order = order[best[order] >= 0.7]
    np.testing.assert_allclose(found.boxes_xyxy, boxes[order], atol=2e-3)
    np.testing.assert_allclose(found.scores, best[order], atol=1e-5)
    assert found.class_ids.tolist() == ids[order].tolist()
    if not offsets:
        mixed = rng.permutation(COUNT)
        assert HEAD.decode([scores[:, mixed], raw[:, mixed]], spec, 0.7) == found
    assert len(HEAD.decode([scores, raw], spec, 0.0)) >= COUNT
    assert len(HEAD.decode([scores, raw], spec, 0.999)) == 0


def test_no_rows_are_no_objects() -> None:
    outputs = [np.zeros((1, 0, 4), np.float32), np.zeros((1, 0, 4), np.float32)]
    for kind in ("probabilities", "softmax", "sigmoid"):
        assert len(HEAD.decode(outputs, spec_of(scores=kind), 0.0)) == 0


SCORES = probabilities(np.full((COUNT, 3), 0.3))
CORNERS = np.tile(np.array([0.1, 0.1, 0.5, 0.5], np.float32), (1, COUNT, 1))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", [0, 1])
def test_numbers_that_are_not_finite_are_refused(index: int, bad: float) -> None:
    outputs = [SCORES.copy(), CORNERS.copy()]
    outputs[index][0, -1, -1] = bad
    with pytest.raises(ModelError, match="NaN or infinity"):
        HEAD.decode(outputs, spec_of(), 0.1)


WRONG: dict[str, tuple[list[Array], dict[str, Any], str]] = {
    "one output": ([SCORES], {}, "expects 2"),
    "no batch": ([SCORES[0], CORNERS[0]], {}, "expects float"),
    "two frames": ([np.concatenate([SCORES] * 2), np.concatenate([CORNERS] * 2)], {}, "expects float"),
    "boxes first": ([CORNERS, SCORES[..., :3]], {}, "expects float"),
    "fewer scores": ([SCORES[:, :9], CORNERS], {}, "expects float"),
    "pixels": ([SCORES, CORNERS * 300], {}, "where corners as shares"),
    "offsets": ([SCORES, CORNERS[..., ::-1]], {}, "end before they begin"),
    "corners in pixels as offsets": ([SCORES, CORNERS * 300], OFFSETS, "where logarithms belong"),
    "no priors": ([SCORES, CORNERS], {"boxes": "offsets"}, "which nothing names"),
    "fewer priors": ([SCORES[:, :9], CORNERS[:, :9]], OFFSETS, "gives 9 boxes, its priors are 72"),
    "logits": ([SCORES * 5, CORNERS], {}, "not 0 to 1"),
    "nothing but the background": ([SCORES[..., :1], CORNERS], {}, "too few for a class"),
    "scores of no kind": ([SCORES, CORNERS], {"scores": "logits"}, "option scores"),
    "boxes of no kind": ([SCORES, CORNERS], {"boxes": "pixels"}, "option boxes"),
    "one variance": ([SCORES, CORNERS], OFFSETS | {"variances": [0.1]}, "option variances"),
    "a variance of 0": ([SCORES, CORNERS], OFFSETS | {"variances": [0.1, 0]}, "option variances"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_outputs_are_refused(name: str) -> None:
    outputs, options, match = WRONG[name]
    with pytest.raises(ModelError, match=match) as caught:
        HEAD.decode(outputs, spec_of(**options), 0.1)
    assert caught.value.hint


def test_a_class_without_a_label_is_refused() -> None:
    with pytest.raises(ModelError, match="finds class 2, and has 2 labels"):
        HEAD.decode([SCORES, CORNERS], spec_of(2), 0.1)


# Recognition


def signature(
    rows: int,
    columns: int,
    size: tuple[int, int],
    seen: str = "",
    names: tuple[str, str] = ("scores", "boxes"),
    kind: str = "softmax",
    dtype: str = "float32",
) -> Signature:
    """Of a graph whose test picture gave boxes of the kind ``seen``."""
    width, height = size
    rng = np.random.default_rng(0)
    shape = (1, 3, height, width) if dtype == "float32" else (1, height, width, 3)
    infos = TensorInfo(names[0], "float32", (1, rows, columns)), TensorInfo(names[1], "float32", (1, rows, 4))
    samples: dict[str, NDArray[Any]] = {}
    if seen:
        corners = rng.uniform(-0.1, 0.5, (1, rows, 4))
        corners[..., 2:] += 0.6
        boxes = {
            "corners": corners,
            "offsets": rng.normal(-0.5, 1.5, (1, rows, 4)),
            "pixels": corners * 640,
            "centres": rng.uniform(0, 1, (1, rows, 4)),
        }[seen]
        scores = rng.uniform(0.001, 1, (1, rows, columns))
        if kind == "softmax":
            scores /= scores.sum(axis=-1, keepdims=True)
        samples = {names[0]: scores if kind != "logits" else scores * 9 - 5, names[1]: boxes}
    return Signature((TensorInfo("input", dtype, shape),), infos, {}, samples)


FACES, LARGE, SSD = (320, 240), (640, 480), (300, 300)
KNOWN: dict[str, tuple[Signature, tuple[float, float], dict[str, Any], dict[str, Any], int]] = {
    "ultraface": (
        signature(4420, 2, FACES, "corners"),
        (0.9, 1),
        {
            "channels": "rgb",
            "mean": (127.0,) * 3,
            "std": (128.0,) * 3,
            "letterbox": "stretch",
            "nms_iou": 0.3,
        },
        {"boxes": "corners", "scores": "probabilities", "background": True},
        1,
    ),
    "ultraface 640": (signature(17640, 2, LARGE, "corners"), (0.9, 1), {}, {"boxes": "corners"}, 1),
    "ultraface, offsets": (
        signature(4420, 2, FACES, "offsets"),
        (0.9, 1),
        {"output_names": ("scores", "boxes")},
        {"boxes": "offsets", "priors": ULTRAFACE},
        1,
    ),
    "ultraface, logits": (
        signature(4420, 2, FACES, "offsets", kind="logits"),
        (0.9, 1),
        {},
        {"scores": "softmax"},
        1,
    ),
    "ultraface, unseen": (signature(4420, 2, FACES), (0.4, 0.49), {}, {"boxes": "corners"}, 1),
    "mobilenet ssd of pytorch-ssd": (
        signature(3000, 21, SSD, "corners"),
        (0.7, 0.8),
        {"nms_iou": 0.45, "std": (128.0,) * 3},
        {"boxes": "corners"},
        20,
    ),
    "ssd300": (
        signature(8732, 81, SSD, "offsets", ("conf", "loc"), "logits"),
        (0.6, 0.7),
        {"nms_iou": 0.45, "std": (1.0,) * 3},
        {"boxes": "offsets", "priors": SSD300, "scores": "softmax", "background": True},
        80,
    ),
    "priors that nothing names": (
        signature(1234, 3, SSD, "offsets", ("a", "b")),
        (0.2, 0.4),
        {},
        {"boxes": "offsets"},
        2,
    ),
    "three classes": (
        signature(3000, 4, SSD, "corners"),
        (0.7, 0.8),
        {"output_names": ("scores", "boxes")},
        {},
        3,
    ),
}


def guess_of(signature: Signature) -> Guess | None:
    return next((guess for guess in recognise(signature) if guess.family == "ssd_raw"), None)


@pytest.mark.parametrize("name", KNOWN)
def test_exports_are_known(name: str) -> None:
    given_signature, (low, high), fields, options, classes = KNOWN[name]
    guess = guess_of(given_signature)
    assert guess is not None
    assert guess.classes == classes
    assert low <= guess.confidence <= high
    assert {key: guess.overrides.get(key) for key in fields} == fields
    assert {key: guess.overrides["options"].get(key) for key in options} == options
    others = [one for one in recognise(given_signature) if one.family != "ssd_raw"]
    assert all(one.confidence <= guess.confidence - 0.2 or guess.confidence < 0.5 for one in others)


def test_boxes_and_scores_that_nothing_tells_apart_are_left_to_the_user() -> None:
    unseen = signature(8400, 80, (640, 640))
    guess = guess_of(unseen)
    assert guess is not None
    assert guess.confidence < 0.4


OTHERS: dict[str, Signature] = {
    "a yolo-nas": signature(8400, 80, (640, 640), "pixels", kind="sigmoid"),
    "a detr": signature(300, 80, (640, 640), "centres", ("logits", "pred_boxes"), "logits"),
    "nanodet with its decoding": signature(3549, 80, (416, 416), "pixels", kind="sigmoid", dtype="uint8"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_not_taken_for_it(name: str) -> None:
    assert guess_of(OTHERS[name]) is None
