"""Plain data of what was found."""

from __future__ import annotations

import json

import msgspec
import pytest

from pipeline.messages import Classes, Detections, ModelSpec, Result, Task
from pipeline.sinks.records import frame_record
from pipeline.tasks.reading import Found
from pipeline.tasks.records import failed_record, found_record, picture_record
from tests.helpers import SPEC, make_header

OBJECTS = Found(Detections([[1.005, 2, 33, 47.999], [0, 0, 64, 48]], [0.93456, 0.51], [1, 7]))
NONE = Found(Detections.empty())
CLASSES = Found(Detections.empty(), Classes((1, 0), (0.93456, 0.004)))
CLASSIFIER = msgspec.structs.replace(SPEC, kind="classifier")
CAR = {
    "label": "car",
    "class_id": 1,
    "confidence": 0.9346,
    "box_xyxy": [1.0, 2.0, 33.0, 48.0],
    "box_normalized": [0.015703, 0.041667, 0.515625, 0.999979],
}


@pytest.mark.parametrize(
    ("task", "found", "spec", "expected"),
    [
        ("localize", OBJECTS, SPEC, {"object": CAR}),
        ("localize", NONE, SPEC, {"object": None}),
        ("detect", NONE, SPEC, {"detections": []}),
        ("tag", OBJECTS, SPEC, {"tags": {"auto": {"car": 93, "class_7": 51}}}),
        ("tag", NONE, SPEC, {"tags": {"auto": {}}}),
        ("tag", CLASSES, CLASSIFIER, {"tags": {"auto": {"car": 93, "person": 1}}}),
        (
            "classify",
            CLASSES,
            CLASSIFIER,
            {
                "classes": [
                    {"label": "car", "class_id": 1, "confidence": 0.9346},
                    {"label": "person", "class_id": 0, "confidence": 0.004},
                ]
            },
        ),
    ],
)
def test_answers(task: Task, found: Found, spec: ModelSpec, expected: dict[str, object]) -> None:
    record = found_record(found, spec, task, 64, 48)
    assert record == expected
    assert json.loads(json.dumps(record)) == expected


def test_objects_look_as_in_frame_records() -> None:
    result = Result(make_header(width=64, height=48), (), None, "ok", OBJECTS.detections)
    frame = frame_record(result, SPEC, 2_000_000_000)
    assert found_record(OBJECTS, SPEC, "detect", 64, 48)["detections"] == frame["detections"]


def test_a_picture_names_itself_its_model_and_its_size() -> None:
    record = picture_record("a.jpg", OBJECTS, SPEC, "localize", 64, 48)
    assert list(record) == ["image", "status", "task", "model", "provider", "width", "height", "object"]
    assert record["image"] == "a.jpg"
    assert record["status"] == "ok"
    assert (record["width"], record["height"]) == (64, 48)


def test_a_failure_is_never_an_empty_list() -> None:
    record = failed_record("a.jpg", SPEC, "detect", "cut short")
    assert record == {
        "image": "a.jpg", "status": "failed", "reason": "cut short", "task": "detect", "model": "fake",
    }  # fmt: skip
