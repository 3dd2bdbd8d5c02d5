"""Classifiers: what their numbers are, which models are taken for one, and the real file."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads import Signature, TensorInfo, load_classifier, recognise
from pipeline.heads.classifier import ClassifierHead
from pipeline.messages import ModelSpec
from pipeline.tasks.reading import Reader
from tests.heads import real

HEAD = ClassifierHead()
LOGITS = [1.0, 3.0, -2.0, 2.0]
SOFT = (np.exp(LOGITS) / np.exp(LOGITS).sum()).tolist()


def spec_of(classes: int = 4, **options: Any) -> ModelSpec:
    labels = tuple(map(str, range(classes)))
    return ModelSpec("m", "", "classifier", labels, 224, 224, kind="classifier", options=options)


def row(values: Any, dtype: Any = np.float32) -> list[NDArray[Any]]:
    return [np.asarray(values, dtype)[None]]


READINGS: dict[str, tuple[list[float], dict[str, Any], list[float]]] = {
    "logits": (LOGITS, {"scores": "logits"}, SOFT),
    "logits, unsaid": (LOGITS, {}, SOFT),
    "probabilities": (SOFT, {"scores": "softmax"}, SOFT),
    "probabilities, unsaid": (SOFT, {}, SOFT),
    "probabilities of 8 bits": ([0.0, 0.9, 0.0, 0.04], {"scores": "softmax"}, [0.0, 0.9, 0.0, 0.04]),
    "tags": ([0.1, 0.9, 0.2, 0.8], {"scores": "sigmoid"}, [0.1, 0.9, 0.2, 0.8]),
    "logits of tags": ([-800, 0, -90, 100], {"scores": "sigmoid_logits"}, [0, 0.5, 0, 1]),
}


@pytest.mark.parametrize("name", READINGS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_what_the_numbers_are(name: str, dtype: Any) -> None:
    values, options, want = READINGS[name]
    found = HEAD.classify(row(values, dtype), spec_of(**options), 4)
    order = np.argsort(-np.array(want), kind="stable")
    np.testing.assert_allclose(
        found.scores, np.array(want)[order], atol=1e-6 if dtype == np.float32 else 2e-3
    )
    if len(set(want)) == 4:
        assert found.class_ids == tuple(order.tolist())
    assert HEAD.classify(row(values, dtype), spec_of(**options), 2).class_ids == found.class_ids[:2]


def test_equal_scores_come_by_lower_id_and_no_class_is_none() -> None:
    assert HEAD.classify(row([0.0, 5.0, 5.0, 5.0]), spec_of(), 3).class_ids == (1, 2, 3)
    assert HEAD.classify(row(LOGITS), spec_of(), 0).class_ids == ()


@pytest.mark.parametrize("shape", [(1, 4), (1, 4, 1, 1), (1, 1, 1, 4)])
def test_axes_of_one_are_no_matter(shape: tuple[int, ...]) -> None:
    assert HEAD.classify([np.array(LOGITS, np.float32).reshape(shape)], spec_of(), 1).class_ids == (1,)


@settings(deadline=None, max_examples=40)
@given(values=st.lists(st.floats(-60, 60, width=32), min_size=2, max_size=30), seed=st.integers(0, 99))
def test_a_softmax_keeps_the_order_and_sums_to_one(values: list[float], seed: int) -> None:
    spec = spec_of(len(values), scores="logits")
    if min(values) >= 0 and abs(sum(values) - 1) < 0.05:
        return  # these would be probabilities
    found = HEAD.classify(row(values), spec, len(values))
    assert sum(found.scores) == pytest.approx(1, abs=1e-5)
    assert list(found.scores) == sorted(found.scores, reverse=True)
    assert values[found.class_ids[0]] == pytest.approx(max(values), abs=1e-5)
    # The same numbers in another order give the same scores to them.
    order = np.random.default_rng(seed).permutation(len(values))
    again = HEAD.classify(row(np.array(values)[order]), spec, len(values))
    np.testing.assert_allclose(again.scores, found.scores, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused(bad: float) -> None:
    with pytest.raises(ModelError, match="NaN or infinity"):
        HEAD.classify(row([0.0, 1.0, 2.0, bad]), spec_of(), 4)


WRONG: dict[str, tuple[list[NDArray[Any]], dict[str, Any]]] = {
    "no outputs": ([], {}),
    "two outputs": (row(LOGITS) * 2, {}),
    "no batch": ([np.array(LOGITS, np.float32)], {}),
    "two frames": ([np.array([LOGITS, LOGITS], np.float32)], {}),
    "a map": ([np.zeros((1, 4, 2, 2), np.float32)], {}),
    "fewer classes than labels": (row(LOGITS[:3]), {}),
    "integers": (row([1, 2, 3, 4], np.int64), {}),
    "probabilities said to be logits": (row(SOFT), {"scores": "logits"}),
    "logits said to be probabilities": (row(LOGITS), {"scores": "softmax"}),
    "logits said to be tags": (row(LOGITS), {"scores": "sigmoid"}),
    "an unknown option": (row(LOGITS), {"scores": "percent"}),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_outputs_are_refused(name: str) -> None:
    outputs, options = WRONG[name]
    with pytest.raises(ModelError) as caught:
        HEAD.classify(outputs, spec_of(**options), 4)
    assert caught.value.hint


# Recognition

NOISE = np.random.default_rng(0).normal(0, 2, (1, 1001)).astype(np.float32)
PEAK = np.full((1, 1001), 0.0, np.float32)
PEAK[0, 7] = 0.97


def signature(
    shape: tuple[Any, ...],
    picture: tuple[Any, ...] = ("N", 3, 224, 224),
    sample: Any = None,
    dtype: str = "float32",
    **meta: str,
) -> Signature:
    samples = {} if sample is None else {"output": np.asarray(sample, np.float32)}
    inputs = (TensorInfo("input", dtype, picture),)
    meta = {key.replace("_", "."): value for key, value in meta.items()}
    return Signature(inputs, (TensorInfo("output", "float32", shape),), meta, samples)


NHWC = ("N", 224, 224, 3)
IMAGENET = {
    "mean": (123.675, 116.28, 103.53),
    "std": (58.395, 57.12, 57.375),
    "letterbox": "crop",
    "crop": 0.875,
}
PLUS_MINUS = {"mean": (127.5,) * 3, "std": (127.5,) * 3}
THIRD = [[1 / 3, 1 / 3, 1 / 3]]
EMBEDDING = np.abs(NOISE[:, :512])

#: Signature, confidence from and to, classes, overrides.
GUESSES: dict[str, tuple[Signature, tuple[float, float], int, dict[str, Any]]] = {
    "imagenet": (signature(("N", 1000)), (0.9, 0.9), 1000, IMAGENET),
    "imagenet, seen": (
        signature(("N", 1000), sample=NOISE[:, :1000]),
        (0.9, 0.9),
        1000,
        {"options": {"scores": "logits"}},
    ),
    "imagenet after a pooling": (signature(("N", 1000, 1, 1)), (0.9, 0.9), 1000, {}),
    "imagenet of 8 bits": (
        signature(("N", 1000), sample=PEAK[:, :1000]),
        (0.9, 0.9),
        1000,
        {"options": {"scores": "softmax"}},
    ),
    "tf-slim": (signature((1, 1001), NHWC), (0.5, 0.7), 1001, PLUS_MINUS),
    "tf-slim, quantised": (
        signature((1, 1001), NHWC, PEAK, "uint8"),
        (0.9, 0.9),
        1001,
        {"mean": (0.0,) * 3, "std": (1.0,) * 3, "options": {"scores": "softmax"}},
    ),
    "keras": (signature((1, 1000), NHWC), (0.3, 0.49), 1000, PLUS_MINUS),
    "named": (signature((1, 3), names="['a', 'b', 'c']"), (0.9, 0.9), 3, IMAGENET),
    "ultralytics": (
        signature((1, 3), names="{0: 'a', 1: 'b', 2: 'c'}", task="classify"),
        (0.95, 0.95),
        3,
        {"std": (255.0,) * 3, "crop": 1.0, "letterbox": "crop"},
    ),
    "sums to one": (signature((1, 3), sample=THIRD), (0.6, 0.8), 3, {"options": {"scores": "softmax"}}),
    "tags": (
        signature((1, 3), sample=[[0.9, 0.8, 0.1]]),
        (0.1, 0.49),
        3,
        {"options": {"scores": "sigmoid"}},
    ),
    "re-identification": (signature(("N", 512), ("N", 3, 256, 128), EMBEDDING), (0.1, 0.4), 512, {}),
    "re-identification, unseen": (signature(("N", 512), ("N", 3, 256, 128)), (0.1, 0.4), 512, {}),
    "other names than scores": (signature((1, 3), names="['a', 'b']"), (0.1, 0.4), 3, {}),
}


@pytest.mark.parametrize("name", GUESSES)
def test_how_sure(name: str) -> None:
    given_signature, (low, high), classes, overrides = GUESSES[name]
    (guess,) = recognise(given_signature)
    assert (guess.family, guess.classes) == ("classifier", classes)
    assert low <= guess.confidence <= high
    assert (guess.overrides["kind"], guess.overrides["channels"]) == ("classifier", "rgb")
    for field, value in overrides.items():
        assert guess.overrides[field] == value, field
    ModelSpec("m", "", guess.family, (), **guess.overrides)
    if guess.confidence < 0.5:
        assert "a card has to say" in guess.why or "nothing says" in guess.why


REFUSED = {
    "boxes": signature((1, 8400, 4)),
    "a map": signature((1, 21, 224, 224)),
    "one number": signature((1, 1)),
    "free": signature(("N", "classes")),
    "the fake model": signature((1, 1000), framewire_family="fake_classifier"),
    "two pictures": Signature(
        (TensorInfo("a", "float32", (1, 3, 9, 9)), TensorInfo("b", "float32", (1, 3, 9, 9))),
        (TensorInfo("output", "float32", (1, 1000)),),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_no_classifier(name: str) -> None:
    assert HEAD.recognise(REFUSED[name]) is None


def test_the_family_is_in_the_table() -> None:
    assert isinstance(load_classifier("classifier"), ClassifierHead)


def test_the_real_file_sees_a_bear() -> None:
    spec, outputs, letterbox = real.run("classifier/mobilenetv2_dynint8.onnx", real.BEAR)
    found = Reader(spec, task="classify", top_k=3).read(outputs, letterbox).classes
    assert found is not None
    logits = outputs[0][0].astype(np.float64)
    want = np.exp(logits - logits.max())
    want /= want.sum()
    assert found.class_ids == tuple(np.argsort(-want)[:3].tolist())
    np.testing.assert_allclose(found.scores, np.sort(want)[::-1][:3], rtol=1e-4)
    assert spec.labels[found.class_ids[0]] == "brown bear"
    assert found.scores[0] > 0.9


@pytest.mark.parametrize("model", ["osnet_x0_25_msmt17", "person-reidentification-retail-0248"])
def test_a_real_embedding_is_not_taken_for_a_classifier(model: str) -> None:
    with pytest.raises(ModelError, match="it is not clear"):
        real.runner_of(f"reid/{model}.onnx")
