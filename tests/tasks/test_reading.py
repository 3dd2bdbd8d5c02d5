"""From raw outputs to what a task asks for."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.messages import LetterboxMap, ModelSpec, Task
from pipeline.tasks.reading import Reader
from tests.helpers import SPEC

CLASSIFIER = msgspec.structs.replace(
    SPEC,
    family="fake_classifier",
    kind="classifier",
    labels=("red", "green", "blue"),
    output_names=("classes",),
)
WHOLE = LetterboxMap(1.0, 1.0, 0.0, 0.0, 64, 48)
#: Two persons on each other, a car.
ROWS = [(0, 0, 20, 20, 0.8, 0), (1, 1, 21, 21, 0.7, 0), (30, 0, 60, 20, 0.9, 1)]


def objects(rows: Any = ROWS) -> list[Any]:
    return [np.array([rows], np.float32).reshape(1, -1, 6)]


@pytest.mark.parametrize(
    ("task", "options", "scores"),
    [
        pytest.param("detect", {}, [0.9, 0.8, 0.7], id="end-to-end: no NMS"),
        pytest.param("detect", {"nms_iou": 0.5}, [0.9, 0.8], id="NMS asked for"),
        pytest.param("detect", {"max_detections": 2}, [0.9, 0.8], id="the most"),
        pytest.param("detect", {"classes": ["person"]}, [0.8, 0.7], id="one class"),
        pytest.param("tag", {"nms_iou": 0.5}, [0.9, 0.8], id="tags come from objects"),
        pytest.param("localize", {}, [0.9], id="one object"),
        pytest.param("localize", {"classes": ["person"]}, [0.8], id="one person"),
        pytest.param("localize", {"confidence": 0.95}, [], id="none is there"),
    ],
)
def test_detectors(task: Task, options: dict[str, Any], scores: list[float]) -> None:
    found = Reader(SPEC, task=task, **options).read(objects(), WHOLE)
    np.testing.assert_allclose(found.detections.scores, scores, rtol=1e-6)
    assert found.classes is None


def test_localize_gives_what_detect_gives_first() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        corners = rng.uniform(0, 30, (40, 2))
        boxes = np.hstack([corners, corners + rng.uniform(1, 20, (40, 2))])
        rows = np.hstack([boxes, rng.uniform(0.4, 1, (40, 1)), rng.integers(0, 2, (40, 1))])
        every = Reader(SPEC, task="detect", nms_iou=0.5).read(objects(rows), WHOLE).detections
        one = Reader(SPEC, task="localize").read(objects(rows), WHOLE).detections
        assert one == every.select(slice(0, 1))


def test_boxes_are_in_the_source_and_cut_at_its_edge() -> None:
    found = Reader(SPEC).read(objects([(2, 0, 40, 20, 0.9, 1)]), LetterboxMap(0.5, 0.5, 2, 0, 64, 48))
    np.testing.assert_allclose(found.detections.boxes_xyxy, [[0, 0, 64, 40]])


@pytest.mark.parametrize(
    ("task", "options", "expected"),
    [
        pytest.param("classify", {}, (2, 0, 1), id="all three, however unsure"),
        pytest.param("classify", {"top_k": 2}, (2, 0), id="the best two"),
        pytest.param("classify", {"classes": ["green", "red"], "top_k": 1}, (0,), id="the best of some"),
        pytest.param("tag", {"confidence": 0.25}, (2, 0), id="a tag has to be sure"),
        pytest.param("tag", {"confidence": 0.9}, (), id="none is"),
    ],
)
def test_classifiers(task: Task, options: dict[str, Any], expected: tuple[int, ...]) -> None:
    scores = [np.array([[0.3, 0.1, 0.6]], np.float32)]
    found = Reader(CLASSIFIER, task=task, **options).read(scores, WHOLE)
    assert len(found.detections) == 0
    assert found.classes is not None
    assert found.classes.class_ids == expected
    assert found.classes.scores == pytest.approx([scores[0][0, class_id] for class_id in expected])


@pytest.mark.parametrize(
    ("spec", "task", "message"),
    [
        (SPEC, "classify", "the model fake finds objects; classify needs a classifier"),
        (CLASSIFIER, "detect", "the model fake classifies whole pictures; detect needs a detector"),
        (CLASSIFIER, "localize", "localize needs a detector"),
    ],
)
def test_a_model_that_cannot_do_the_task(spec: ModelSpec, task: Task, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        Reader(spec, task=task)
    assert "framewire models list" in raised.value.hint


def test_a_class_that_the_model_does_not_know() -> None:
    with pytest.raises(ConfigError, match="the model fake has no class grean") as raised:
        Reader(CLASSIFIER, task="tag", classes=["grean"])
    assert raised.value.hint == "did you mean green?"
