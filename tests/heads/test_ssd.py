"""SSD with its NMS inside: both layouts decoded, recognised with and without a test picture, and refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads import Guess, Signature, TensorInfo, recognise
from pipeline.heads.ssd import SsdHead
from pipeline.messages import ModelSpec

WIDTH, HEIGHT = 200, 100
HEAD = SsdHead()
Arrays = list[NDArray[Any]]
NAMES = ("detection_boxes:0", "detection_classes:0", "detection_scores:0", "num_detections:0")
TFLITE = tuple(f"TFLite_Detection_PostProcess{suffix}" for suffix in ("", ":1", ":2", ":3"))


def spec_of(labels: int = 5, names: tuple[str, ...] = NAMES, **options: Any) -> ModelSpec:
    return ModelSpec(
        "m", "", "ssd", tuple(map(str, range(labels))), WIDTH, HEIGHT, output_names=names, options=options
    )


# Decoding


def finished(boxes: Any, ids: Any, scores: Any, count: int | None = None, dtype: Any = np.float32) -> Arrays:
    arrays = [np.asarray(boxes, np.float32), np.asarray(ids, dtype), np.asarray(scores, np.float32)]
    outputs = [array[None] for array in arrays]
    return outputs if count is None else [*outputs, np.array([count], np.float32)]


#: y1, x1, y2, x2
BOXES = [[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], [-0.05, 0.5, 0.5, 1.02], [0.5, 0.5, 0.6, 0.6]]
FOUR = finished(BOXES, [3, 0, 4, 2], [0.5, 0.9, 0.3, 0.8], 3)


def test_boxes_by_hand_and_rows_past_the_count_are_none() -> None:
    found = HEAD.decode(FOUR, spec_of(), 0.2)
    np.testing.assert_allclose(
        found.boxes_xyxy, [[0, 0, 200, 100], [40, 10, 80, 30], [100, -5, 204, 50]], atol=1e-4
    )
    assert found.class_ids.tolist() == [0, 3, 4]
    np.testing.assert_allclose(found.scores, [0.9, 0.5, 0.3])
    assert HEAD.decode(FOUR, spec_of(), 0.2, limit=1).class_ids.tolist() == [0]


def test_what_stands_past_the_count_is_not_looked_at() -> None:
    outputs = [array.copy() for array in FOUR]
    outputs[0][0, 3], outputs[1][0, 3], outputs[2][0, 3] = np.nan, 1e9, 77
    assert HEAD.decode(outputs, spec_of(), 0.2) == HEAD.decode(FOUR, spec_of(), 0.2)


def test_ids_may_count_from_one_and_boxes_be_the_other_way_round() -> None:
    outputs = finished([[0.2, 0.1, 0.4, 0.3]], [1], [0.5], dtype=np.int64)
    found = HEAD.decode(outputs, spec_of(names=("b", "labels", "scores"), corners="xyxy", first_class=1), 0.2)
    np.testing.assert_allclose(found.boxes_xyxy, [[40, 10, 80, 30]], atol=1e-4)
    assert found.class_ids.tolist() == [0]


@pytest.mark.parametrize("names", [NAMES, TFLITE, ("a", "b", "c", "d")])
def test_outputs_come_in_any_order_that_can_be_told(names: tuple[str, ...]) -> None:
    want = HEAD.decode(FOUR, spec_of(), 0.2)
    orders = [(0, 1, 2, 3), (3, 1, 0, 2), (1, 2, 3, 0)]
    # Without a word in the names, class ids come before scores.
    orders += [(2, 1, 0, 3), (3, 2, 1, 0)] if names[0] != "a" else []
    for order in orders:
        outputs, given_names = [FOUR[i] for i in order], tuple(names[i] for i in order)
        assert HEAD.decode(outputs, spec_of(names=given_names), 0.2) == want


def test_padded_rows_are_none_even_at_confidence_zero() -> None:
    assert len(HEAD.decode(finished(BOXES, [0] * 4, [0] * 4), spec_of(names=()), 0.0)) == 0
    assert len(HEAD.decode(finished(np.zeros((0, 4)), [], [], 0), spec_of(), 0.0)) == 0
    assert len(HEAD.decode([*FOUR[:3], np.zeros(1, np.float32)], spec_of(), 0.0)) == 0


def test_a_count_may_be_a_whole_number_of_any_type_and_shape() -> None:
    want = HEAD.decode(FOUR, spec_of(), 0.2)
    for count in (np.array([3], np.int32), np.array([[3]], np.int64), np.array([3], np.float16)):
        assert HEAD.decode([*FOUR[:3], count], spec_of(), 0.2) == want


@settings(deadline=None, max_examples=40)
@given(
    n=st.integers(0, 30),
    seed=st.integers(0, 999),
    corners=st.sampled_from(["yxyx", "xyxy"]),
    first=st.integers(0, 1),
)
def test_known_boxes_come_back_whatever_their_order(n: int, seed: int, corners: str, first: int) -> None:
    rng = np.random.default_rng(seed)
    shares = np.sort(rng.uniform(0, 1, (n, 2, 2)), axis=1).reshape(n, 4).astype(np.float32)
    scores, ids = rng.permutation(n) / max(n, 1) * 0.9 + 0.05, rng.integers(0, 5, n)
    written = shares[:, [1, 0, 3, 2]] if corners == "yxyx" else shares
    spec = spec_of(corners=corners, first_class=first)
    spec_of_three = spec_of(names=NAMES[:3], corners=corners, first_class=first)
    found = HEAD.decode(finished(written, ids + first, scores), spec_of_three, 0.3)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= 0.3]
    np.testing.assert_allclose(found.boxes_xyxy, shares[order] * (WIDTH, HEIGHT, WIDTH, HEIGHT), atol=1e-3)
    assert found.class_ids.tolist() == ids[order].tolist()
    # In another order, and behind the count more rows.
    mixed = rng.permutation(n)
    more = [np.concatenate([array[mixed], array[:1]]) for array in (written, ids + first, scores)]
    if n:
        assert HEAD.decode(finished(more[0], more[1], more[2], n), spec, 0.3) == found


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("index", range(4))
def test_numbers_that_are_not_finite_are_refused(index: int, bad: float) -> None:
    outputs = [array.copy() for array in FOUR]
    outputs[index].reshape(-1)[0] = bad
    with pytest.raises(ModelError, match="NaN or infinity"):
        HEAD.decode(outputs, spec_of(), 0.5)


WRONG: dict[str, tuple[Arrays, dict[str, Any], str]] = {
    "no outputs": ([], {}, "expects boxes"),
    "two outputs": (FOUR[:2], {}, "expects boxes"),
    "no batch": ([array[0] for array in FOUR], {}, "expects boxes"),
    "two frames": ([np.concatenate([array, array]) for array in FOUR], {}, "expects boxes"),
    "five columns": ([np.zeros((1, 4, 5), np.float32), *FOUR[1:]], {}, "expects float"),
    "fewer scores": ([FOUR[0], FOUR[1], FOUR[2][:, :2], FOUR[3]], {}, "expects float"),
    "a count beyond the rows": ([*FOUR[:3], np.array([5], np.float32)], {}, "counts 5 objects"),
    "a count below 0": ([*FOUR[:3], np.array([-1], np.float32)], {}, "counts -1 objects"),
    "a count that is none": ([*FOUR[:3], np.array([1.5], np.float32)], {}, "no class ids"),
    "pixels": ([FOUR[0] * 100, *FOUR[1:]], {}, "shares of the input"),
    "scores that are none": ([*FOUR[:2], FOUR[2] * 5, FOUR[3]], {}, "not 0 to 1"),
    "ids that are none": ([FOUR[0], FOUR[1] + 0.5, *FOUR[2:]], {}, "no class ids"),
    "a class without a label": ([FOUR[0], FOUR[1] + 1, *FOUR[2:]], {}, "classes 1 to 5, and has 5 labels"),
    "ids from 0 where they count from 1": (FOUR, {"first_class": 1}, "classes 0 to 4"),
    "corners of no kind": (FOUR, {"corners": "xywh"}, "option corners"),
    "a first class of no kind": (FOUR, {"first_class": "one"}, "option first_class"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_outputs_are_refused(name: str) -> None:
    outputs, options, match = WRONG[name]
    with pytest.raises(ModelError, match=match) as caught:
        HEAD.decode(outputs, spec_of(names=NAMES[: len(outputs)], **options), 0.1)
    assert caught.value.hint


# Recognition


def signature(
    outputs: dict[str, tuple[Any, ...]],
    shape: tuple[Any, ...] = (1, 300, 300, 3),
    dtype: str = "uint8",
    kinds: dict[str, str] | None = None,
    samples: dict[str, NDArray[Any]] | None = None,
    inputs: tuple[TensorInfo, ...] = (),
    **meta: str,
) -> Signature:
    infos = tuple(TensorInfo(name, (kinds or {}).get(name, "float32"), s) for name, s in outputs.items())
    return Signature((TensorInfo("in", dtype, shape), *inputs), infos, meta, samples or {})


def parts(names: tuple[str, ...], n: Any, order: tuple[int, ...] = (0, 1, 2, 3)) -> dict[str, Any]:
    shapes = ((1, n, 4), (1, n), (1, n), (1,))
    return {names[i]: shapes[i] for i in order if i < len(names)}


TF2 = {
    "detection_anchor_indices": (1, 100),
    **parts(tuple(name.removesuffix(":0") for name in NAMES), 100),
    "detection_multiclass_scores": (1, 100, 91),
    "raw_detection_boxes": (1, 51150, 4),
    "raw_detection_scores": (1, 51150, 91),
}
PYTORCH = ("bboxes", "labels", "scores")
IDS = {"labels": "int64"}
FLOATS: dict[str, Any] = {"shape": (1, 3, 1200, 1200), "dtype": "float32", "kinds": IDS}
SHARES = {"boxes": np.full((1, 2, 4), 0.5), "labels": np.ones((1, 2)), "scores": np.full((1, 2), 0.3)}
SERVED = tuple(f"StatefulPartitionedCall:{index}" for index in (3, 2, 1, 0))
VALUES = (np.full((1, 10, 4), 0.5), np.arange(10.0)[None], np.full((1, 10), 0.2), np.full(1, 10.0))
SEEN = dict(zip(SERVED, VALUES, strict=True))

KNOWN: dict[str, tuple[Signature, tuple[float, float], dict[str, Any], int]] = {
    "tf1": (
        signature(parts(NAMES, 100, (1, 3, 0, 2)), shape=(1, 640, 640, 3)),
        (0.9, 1),
        {
            "output_names": NAMES,
            "options": {"corners": "yxyx", "first_class": 1},
            "channels": "rgb",
            "letterbox": "stretch",
            "nms_iou": None,
        },
        90,
    ),
    "tf2, of own classes by its columns": (
        signature(TF2 | {"detection_multiclass_scores": (1, 100, 4)}),
        (0.9, 1),
        {"output_names": tuple(name.removesuffix(":0") for name in NAMES)},
        3,
    ),
    "tf2, with paths": (
        signature({f"Identity/{name}:0": shape for name, shape in TF2.items()}),
        (0.9, 1),
        {"output_names": tuple(f"Identity/{name}" for name in NAMES)},
        90,
    ),
    "tf, names in its metadata": (
        signature(parts(NAMES, 100), names="['bolt', 'nut']"),
        (0.9, 1),
        {"options": {"corners": "yxyx", "first_class": 1}},
        2,
    ),
    "tf, no rows in noise": (
        signature(parts(NAMES, 0), samples={NAMES[0]: np.zeros((1, 0, 4))}),
        (0.9, 1),
        {"max_rows": 300},
        90,
    ),
    "tflite": (
        signature(parts(TFLITE, 10)),
        (0.9, 1),
        {"output_names": TFLITE, "options": {"corners": "yxyx", "first_class": 0}},
        90,
    ),
    "tflite that takes floats": (
        signature(parts(TFLITE, 10), dtype="float32"),
        (0.75, 0.85),
        {"mean": (127.5,) * 3, "std": (127.5,) * 3},
        90,
    ),
    "tflite under other names": (
        signature(parts(SERVED, 10, (3, 2, 1, 0)), samples=SEEN),
        (0.6, 0.7),
        {"output_names": SERVED, "options": {"corners": "yxyx", "first_class": 0}},
        90,
    ),
    "tflite under other names, unseen": (signature(parts(SERVED, 10)), (0.3, 0.49), {}, 90),
    "ssd-12": (
        signature(parts(PYTORCH, "nbox"), **FLOATS),
        (0.85, 1),
        {
            "output_names": PYTORCH,
            "options": {"corners": "xyxy", "first_class": 0},
            "mean": (123.675, 116.28, 103.53),
            "max_rows": 300,
            "letterbox": "stretch",
        },
        81,
    ),
    "shares under other names": (
        signature(parts(("boxes", "labels", "scores"), 2), samples=SHARES, **FLOATS),
        (0.65, 0.75),
        {},
        81,
    ),
}


def guess_of(signature: Signature) -> Guess | None:
    return next((guess for guess in recognise(signature) if guess.family == "ssd"), None)


@pytest.mark.parametrize("name", KNOWN)
def test_exports_are_known(name: str) -> None:
    given_signature, (low, high), fields, classes = KNOWN[name]
    guess = guess_of(given_signature)
    assert guess is not None
    assert guess.classes == classes
    assert low <= guess.confidence <= high
    assert {key: guess.overrides.get(key) for key in fields} == fields
    # Whatever else fits does not come near.
    others = [one for one in recognise(given_signature) if one.family != "ssd"]
    assert all(one.confidence <= guess.confidence - 0.2 or guess.confidence < 0.5 for one in others)


def test_shares_and_pixels_that_nothing_tells_apart_are_left_to_the_user() -> None:
    unseen = signature(parts(("boxes", "labels", "scores"), "n"), **FLOATS)
    guesses = {guess.family: guess.confidence for guess in recognise(unseen)}
    assert set(guesses) >= {"ssd", "rcnn"}
    assert max(guesses.values()) < 0.5


OTHERS: dict[str, Signature] = {
    "pixels": signature(
        parts(("boxes", "labels", "scores"), 2), samples={"boxes": np.full((1, 2, 4), 300.0)}, **FLOATS
    ),
    "a detr": signature(
        parts(("boxes", "labels", "scores"), 300),
        inputs=(TensorInfo("orig_target_sizes", "int64", (1, 2)),),
        **FLOATS,
    ),
    "no batch axis": signature({"boxes": ("n", 4), "labels": ("n",), "scores": ("n",)}, **FLOATS),
    "boxes and scores": signature({"boxes": (1, 8400, 4), "scores": (1, 8400, 80)}, dtype="float32"),
    "two lists of boxes": signature({"a": (1, 9, 4), "b": (1, 9, 4), "c": (1, 9), "d": (1, 9)}),
    "no picture": signature(parts(NAMES, 100), shape=(1, 300)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_not_taken_for_it(name: str) -> None:
    assert guess_of(OTHERS[name]) is None
