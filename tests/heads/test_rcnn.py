"""Finished boxes in pixels: three layouts decoded, recognised and refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads import Guess, Signature, TensorInfo, recognise
from pipeline.heads.rcnn import RcnnHead
from pipeline.messages import ModelSpec

WIDTH, HEIGHT = 200, 100
HEAD = RcnnHead()
Arrays = list[NDArray[Any]]
LAYOUTS = ("lists", "detections", "rows")


def spec_of(labels: int = 5, names: tuple[str, ...] = (), **fields: Any) -> ModelSpec:
    return ModelSpec(
        "m", "", "rcnn", tuple(map(str, range(labels))), WIDTH, HEIGHT, output_names=names, **fields
    )


# Decoding


def written(layout: str, boxes: Any, ids: Any, scores: Any, rows: int = 0) -> Arrays:
    """Outputs as the runner gives them: padded with zeros to ``rows``."""
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    ids, scores = np.asarray(ids, np.int64), np.asarray(scores, np.float32)
    if layout == "lists":
        outputs: Arrays = [boxes, ids, scores]
    elif layout == "detections":
        outputs = [np.hstack([boxes, scores[:, None]]), ids]
    else:
        outputs = [np.hstack([ids[:, None], scores[:, None], boxes]).astype(np.float32)]
    missing = max(rows - len(boxes), 0)
    padded = [np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1)) for array in outputs]
    return [array[None] for array in padded]


BOXES = [[10, 20, 30, 40], [0, 0, 200, 100], [2.5, 5, 50.5, 60]]
IDS, SCORES = [3, 0, 4], [0.5, 0.9, 0.3]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_rows_come_by_score_and_padding_is_none(layout: str) -> None:
    found = HEAD.decode(written(layout, BOXES, IDS, SCORES, rows=8), spec_of(), 0.0)
    assert found.boxes_xyxy.tolist() == [BOXES[1], BOXES[0], BOXES[2]]
    assert found.class_ids.tolist() == [0, 3, 4]
    np.testing.assert_allclose(found.scores, [0.9, 0.5, 0.3])
    assert HEAD.decode(written(layout, BOXES, IDS, SCORES), spec_of(), 0.4).class_ids.tolist() == [0, 3]
    assert HEAD.decode(written(layout, BOXES, IDS, SCORES), spec_of(), 0.4, limit=1).class_ids.tolist() == [0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_picture_without_objects_gives_none(layout: str) -> None:
    assert len(HEAD.decode(written(layout, [], [], [], rows=4), spec_of(), 0.0)) == 0
    assert len(HEAD.decode(written(layout, [], [], []), spec_of(), 0.0)) == 0


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ids_may_count_from_one(layout: str) -> None:
    outputs = written(layout, BOXES, [4, 1, 5], SCORES, rows=5)
    assert HEAD.decode(outputs, spec_of(options={"first_class": 1}), 0.1).class_ids.tolist() == [0, 3, 4]


def test_a_row_that_says_nothing_was_found_is_none() -> None:
    assert len(HEAD.decode(written("rows", [[0, 0, 0, 0]], [-1], [0.9]), spec_of(), 0.0)) == 0
    # MMDeploy fills up with class -1 and a score of 0.
    found = HEAD.decode(written("detections", [BOXES[0], [0] * 4], [2, -1], [0.5, 0]), spec_of(), 0.0)
    assert found.class_ids.tolist() == [2]


def test_lists_come_in_any_order_and_rows_with_their_count() -> None:
    boxes, ids, scores = written("lists", BOXES, IDS, SCORES)
    want = HEAD.decode([boxes, ids, scores], spec_of(), 0.1)
    assert HEAD.decode([scores, boxes, ids], spec_of(), 0.1) == want
    assert HEAD.decode([ids.astype(np.int32), scores, boxes], spec_of(), 0.1) == want
    dets, labels = written("detections", BOXES, IDS, SCORES)
    assert HEAD.decode([labels, dets], spec_of(), 0.1) == want
    rows = written("rows", BOXES, IDS, SCORES, rows=6)
    assert HEAD.decode([*rows, np.array([3], np.int32)], spec_of(), 0.1) == want


@settings(deadline=None, max_examples=40)
@given(n=st.integers(0, 30), seed=st.integers(0, 999), layout=st.sampled_from(LAYOUTS))
def test_known_boxes_come_back_whatever_their_order(n: int, seed: int, layout: str) -> None:
    rng = np.random.default_rng(seed)
    shares = np.sort(rng.uniform(0.1, 1, (n, 2, 2)), axis=1).reshape(n, 4)
    boxes = (shares * (WIDTH, HEIGHT, WIDTH, HEIGHT)).astype(np.float32)
    scores = (rng.permutation(n) / max(n, 1) * 0.9 + 0.05).astype(np.float32)
    ids = rng.integers(0, 5, n)
    found = HEAD.decode(written(layout, boxes, ids, scores, rows=32), spec_of(), 0.3)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= 0.3]
    np.testing.assert_allclose(found.boxes_xyxy, boxes[order])
    np.testing.assert_allclose(found.scores, scores[order])
    assert found.class_ids.tolist() == ids[order].tolist()
    mixed = rng.permutation(n)
    assert HEAD.decode(written(layout, boxes[mixed], ids[mixed], scores[mixed]), spec_of(), 0.3) == found


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(layout: str, bad: float) -> None:
    for index, output in enumerate(written(layout, BOXES, IDS, SCORES)):
        if output.dtype.kind == "f":
            changed = written(layout, BOXES, IDS, SCORES)
            changed[index].reshape(-1)[-1] = bad
            with pytest.raises(ModelError, match="NaN or infinity"):
                HEAD.decode(changed, spec_of(), 0.5)


LISTS = written("lists", BOXES, IDS, SCORES)
DETS = written("detections", BOXES, IDS, SCORES)
ROWS = written("rows", BOXES, IDS, SCORES)
SHARES = np.array(BOXES, np.float32)[None] / 200
WRONG: dict[str, tuple[Arrays, dict[str, Any], str]] = {
    "no outputs": ([], {}, "expects boxes"),
    "no class ids": (LISTS[::2], {}, "expects boxes"),
    "two frames": ([np.concatenate([array, array]) for array in LISTS], {}, "expects float"),
    "three columns": ([LISTS[0][..., :3], *LISTS[1:]], {}, "expects float"),
    "fewer ids": ([LISTS[0], LISTS[1][:, :2], LISTS[2]], {}, "expects float"),
    "shares of the input": ([SHARES, *LISTS[1:]], {}, "where pixels of an input of 200x100"),
    "far outside": ([LISTS[0] * 10, *LISTS[1:]], {}, "where pixels of an input of 200x100"),
    "scores that are none": ([*LISTS[:2], LISTS[2] * 5], {}, "not 0 to 1"),
    "a class without a label": ([LISTS[0], LISTS[1] + 1, LISTS[2]], {}, "and has 5 labels"),
    "a class below the first": (LISTS, {"first_class": 1}, "classes 0 to 4"),
    "a first class of no kind": (LISTS, {"first_class": 0.5}, "option first_class"),
    "detections alone": (DETS[:1], {}, r"\(1, n, 5\)"),
    "detections of two frames": ([np.concatenate([array, array]) for array in DETS], {}, "expects float"),
    "detections with scores that are none": ([DETS[0] * 3, DETS[1]], {}, "not 0 to 1"),
    "rows in three": ([*ROWS, *ROWS, *ROWS], {}, r"\(1, n, 6\)"),
    "rows whose ids are none": ([ROWS[0] + 0.25], {}, "no class ids"),
    "seven columns": ([np.zeros((1, 3, 7), np.float32)], {}, "expects boxes"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_outputs_are_refused(name: str) -> None:
    outputs, options, match = WRONG[name]
    with pytest.raises(ModelError, match=match) as caught:
        HEAD.decode(outputs, spec_of(options=options), 0.1)
    assert caught.value.hint


# Recognition

INT = "int64"
Output = tuple[str, tuple[Any, ...], str]
SIZES = (("im_shape", 2), ("scale_factor", 2))


def signature(
    *outputs: tuple[Any, ...],
    shape: tuple[Any, ...] = (1, 3, 640, 640),
    name: str = "image",
    others: Sequence[str] = (),
    samples: dict[str, NDArray[Any]] | None = None,
    dtype: str = "float32",
    **meta: str,
) -> Signature:
    inputs = [TensorInfo(name, dtype, shape), *(TensorInfo(one, "float32", (1, 2)) for one in others)]
    infos = [TensorInfo(one[0], one[2] if len(one) > 2 else "float32", one[1]) for one in outputs]
    return Signature(tuple(inputs), tuple(infos), meta, samples or {})


def lists(boxes: str, ids: str, scores: str) -> tuple[tuple[Any, ...], ...]:
    return (boxes, ("n", 4)), (ids, ("n",), INT), (scores, ("n",))


TORCHVISION = lists("boxes", "labels", "scores")
PADDLE = (("concat_14.tmp_0", ("n", 6)), ("concat_8.tmp_0", ("m",), "int32"))
MMDET = (("dets", (1, "n", 5)), ("labels", (1, "n"), INT))
CAFFE, IMAGENET = (102.9801, 115.9465, 122.7717), (123.675, 116.28, 103.53)
NOTHING = {"boxes": np.zeros((0, 4)), "labels": np.zeros(0), "scores": np.zeros(0)}
PIXELS = {"boxes": np.array([[[1.0, 2, 300, 400]]]), "labels": np.ones((1, 1)), "scores": np.ones((1, 1))}
BATCHED = (("boxes", (1, "n", 4)), ("labels", (1, "n"), INT), ("scores", (1, "n")))

KNOWN: dict[str, tuple[Signature, tuple[float, float], dict[str, Any], int]] = {
    "torchvision": (
        signature(*TORCHVISION, samples=NOTHING),
        (0.85, 1),
        {
            "output_names": ("boxes", "labels", "scores"),
            "channels": "rgb",
            "std": (255.0,) * 3,
            "letterbox": "topleft",
            "max_rows": 300,
            "nms_iou": None,
            "options": {"first_class": 0},
        },
        91,
    ),
    "torchvision, no batch axis, with masks": (
        signature(*TORCHVISION, ("masks", ("n", 1, 640, 640)), shape=(3, 640, 640)),
        (0.85, 1),
        {"output_names": ("boxes", "labels", "scores")},
        91,
    ),
    "torchvision, numbered": (
        signature(*lists("2530", "2502", "2508"), shape=(3, 640, 640)),
        (0.5, 0.7),
        {"output_names": ("2530", "2502", "2508")},
        91,
    ),
    "torchvision, own names after its background": (
        signature(*TORCHVISION, names="['bolt', 'nut']"),
        (0.85, 1),
        {"options": {"first_class": 1}},
        2,
    ),
    "torchvision, own names with its background": (
        signature(*TORCHVISION, names="['__background__', 'bolt', 'nut']"),
        (0.85, 1),
        {"options": {"first_class": 0}},
        3,
    ),
    "with a batch axis, pixels seen": (signature(*BATCHED, samples=PIXELS), (0.5, 0.7), {}, 91),
    "FasterRCNN-12": (
        signature(*lists("6379", "6381", "6383"), shape=(3, 640, 640)),
        (0.9, 1),
        {"channels": "bgr", "mean": CAFFE, "std": (1.0,) * 3, "output_names": ("6379", "6381", "6383")},
        81,
    ),
    "MaskRCNN-12": (
        signature(*lists("6568", "6570", "6572"), ("6887", ("n", 1, 28, 28)), shape=(3, 640, 640)),
        (0.9, 1),
        {"mean": CAFFE, "output_names": ("6568", "6570", "6572")},
        81,
    ),
    "detectron2": (
        signature(*lists("a", "b", "c"), ("d", (2,), INT)),
        (0.5, 0.7),
        {"channels": "bgr", "mean": (0.0,) * 3, "output_names": ("a", "b", "c")},
        80,
    ),
    "mmdetection": (
        signature(*MMDET),
        (0.7, 0.8),
        {"output_names": ("dets", "labels"), "mean": IMAGENET, "options": {"first_class": 0}},
        80,
    ),
    "mmdetection, no batch axis, with masks": (
        signature(("d", ("n", 5)), ("l", ("n",), INT), ("m", ("n", 28, 28))),
        (0.5, 0.7),
        {"output_names": ("d", "l")},
        80,
    ),
    "paddle r-cnn": (
        signature(*PADDLE, others=("im_shape", "scale_factor"), shape=(1, 3, 480, 640)),
        (0.65, 0.8),
        {
            "output_names": ("concat_14.tmp_0",),
            "feeds": {"im_shape": (480.0, 640.0), "scale_factor": (1.0, 1.0)},
            "mean": IMAGENET,
            "letterbox": "topleft",
        },
        80,
    ),
    "paddle, small: a picodet or a yolo rather": (
        signature(*PADDLE, others=("im_shape", "scale_factor"), shape=(1, 3, 416, 416)),
        (0.4, 0.49),
        {},
        80,
    ),
    "paddle without im_shape: a pp-yoloe rather": (
        signature(*PADDLE, others=("scale_factor",)),
        (0.2, 0.4),
        {"feeds": {"scale_factor": (1.0, 1.0)}},
        80,
    ),
}


def guess_of(signature: Signature) -> Guess | None:
    return next((guess for guess in recognise(signature) if guess.family == "rcnn"), None)


@pytest.mark.parametrize("name", KNOWN)
def test_exports_are_known(name: str) -> None:
    given_signature, (low, high), fields, classes = KNOWN[name]
    guess = guess_of(given_signature)
    assert guess is not None
    assert guess.classes == classes
    assert low <= guess.confidence <= high
    assert {key: guess.overrides.get(key) for key in fields} == fields
    others = [one for one in recognise(given_signature) if one.family != "rcnn"]
    assert all(one.confidence <= guess.confidence - 0.2 or guess.confidence < 0.5 for one in others)


OTHERS: dict[str, Signature] = {
    "shares of the input": signature(*BATCHED, samples={"boxes": np.full((1, 1, 4), 0.5)}),
    "tensorflow": signature(*TORCHVISION, shape=(1, 640, 640, 3), dtype="uint8"),
    "a detr": signature(*BATCHED, others=("orig_target_sizes",)),
    "float class ids": signature(("b", ("n", 4)), ("c", ("n",)), ("s", ("n",))),
    "rf-detr": signature(("dets", (1, 300, 4)), ("labels", (1, 300, 91))),
    "an end-to-end yolo": signature(("output0", (1, 300, 6))),
    "scores alone": signature(("output", (1, 1000))),
    "rows without a count": signature(PADDLE[0], others=("scale_factor",)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_not_taken_for_it(name: str) -> None:
    assert guess_of(OTHERS[name]) is None
