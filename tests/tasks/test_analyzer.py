"""A model for single pictures, in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import ConfigError, ModelError
from pipeline.messages import Task
from pipeline.sources.images import decode_image
from pipeline.tasks.analyzer import Analyzer
from pipeline.tasks.reading import Reader
from pipeline.vision.palette import BACKGROUND, LABELS, PALETTE


def scene(*boxes: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """A picture of 640x384 with a rectangle in each of the first colours: twice the fake model's input."""
    picture = np.full((384, 640, 3), BACKGROUND, np.uint8)
    for (x1, y1, x2, y2), colour in zip(boxes, PALETTE, strict=False):
        picture[y1:y2, x1:x2] = colour
    return picture


LARGE, SMALL = (40, 40, 240, 240), (400, 100, 480, 180)


@pytest.mark.parametrize(
    ("task", "boxes"), [("detect", [LARGE, SMALL]), ("localize", [LARGE]), ("tag", [LARGE, SMALL])]
)
def test_objects_of_a_picture(task: Task, boxes: list[tuple[int, ...]]) -> None:
    picture = scene(LARGE, SMALL)
    picture.flags.writeable = False
    with Analyzer("fake", task=task) as analyzer:
        found = analyzer.read(picture).detections
        assert [analyzer.spec.labels[one] for one in found.class_ids] == list(LABELS[: len(boxes)])
    np.testing.assert_allclose(found.boxes_xyxy, boxes, atol=3)


def test_classes_of_a_picture() -> None:
    with Analyzer("fake?task=classify", task="classify", top_k=1) as analyzer:
        classes = analyzer.read(scene(LARGE)).classes
    assert classes is not None
    assert classes.class_ids == (0,)
    assert classes.scores[0] == pytest.approx(200 * 200 / (640 * 384), abs=0.01)


def test_pictures_of_any_size_one_after_the_other() -> None:
    with Analyzer("fake") as analyzer:
        first = analyzer.read(scene(LARGE, SMALL)).detections
        nothing = analyzer.read(np.full((7, 900, 3), BACKGROUND, np.uint8)).detections
        again = analyzer.read(scene(LARGE, SMALL)).detections
    assert len(nothing) == 0
    assert first == again


def test_another_question_to_the_same_model() -> None:
    with Analyzer("fake") as analyzer:
        reader = Reader(analyzer.spec, task="localize", classes=[LABELS[1]])
        found = analyzer.read(scene(LARGE, SMALL), reader).detections
        assert len(analyzer.read(scene(LARGE, SMALL)).detections) == 2
    np.testing.assert_allclose(found.boxes_xyxy, [SMALL], atol=3)


def test_what_is_not_open_says_so() -> None:
    analyzer = Analyzer("fake")
    with pytest.raises(ModelError, match="not open"):
        analyzer.read(scene())
    analyzer.open()
    analyzer.close()
    analyzer.close()
    with pytest.raises(ModelError, match="not open"):
        analyzer.read(scene())


def test_a_wrong_question_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match="needs a classifier"):
        Analyzer("fake", task="classify").open()
    with pytest.raises(ConfigError, match="no class"):
        Analyzer("fake", classes=["unicorn"]).open()


def test_no_bgr_picture_is_refused() -> None:
    with Analyzer("fake") as analyzer, pytest.raises(ValueError, match="uint8"):
        analyzer.read(np.zeros((4, 4), np.uint8))


def test_the_real_model_sees_two_giraffes(assets: Path) -> None:
    picture = decode_image((assets / "images" / "coco_train2017_000000000072.jpg").read_bytes())
    assert picture is not None
    with Analyzer(device="cpu") as analyzer:
        found = analyzer.read(picture).detections
        assert [analyzer.spec.labels[one] for one in found.class_ids] == ["giraffe", "giraffe"]
    # Boxes of the data set: within a tenth of the picture.
    np.testing.assert_allclose(found.boxes_xyxy[0], [152, 91, 427, 640], atol=45)
