from __future__ import annotations

from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import schemas
from pipeline.messages import Attribute, Classes, Detections, Task
from pipeline.schemas import parse_topic
from pipeline.sinks.records import frame_record, iso_utc, topic
from tests.sinks.builders import MS, SPEC, make_event, make_header, make_record, make_result

FRAME = jsonschema.Draft202012Validator(schemas.load("framewire.frame.1"))
EVENT = jsonschema.Draft202012Validator(schemas.load("framewire.event.1"))


def plain(record: dict[str, Any]) -> dict[str, Any]:
    """As a subscriber reads it, so that a value which JSON cannot carry fails here."""
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(record))
    return decoded


def test_frame_record_is_what_the_contract_says() -> None:
    header = make_header(1)
    record = frame_record(make_result(header), SPEC, header.captured_ns + 30 * MS)
    assert record == {
        "schema": "framewire.frame/1",
        "source": "gate",
        "epoch": 0,
        "seq": 1,
        "pts_ns": 40 * MS,
        "captured_at": "2026-01-31T09:40:00.250Z",
        "clock": "container",
        "width": 128,
        "height": 96,
        "status": "ok",
        "model": "default",
        "provider": "CPUExecutionProvider",
        "box_format": "xyxy",
        "detections": [
            {
                "label": "car",
                "class_id": 2,
                "confidence": 0.87,
                "box_xyxy": [16.0, 24.0, 64.0, 72.0],
                "box_normalized": [0.125, 0.25, 0.5, 0.75],
                "track_id": 3,
            },
            {
                "label": "person",
                "class_id": 0,
                "confidence": 0.5,
                "box_xyxy": [10.0, 10.0, 30.0, 30.0],
                "box_normalized": [0.078125, 0.104167, 0.234375, 0.3125],
            },
        ],
        "latency_ms": {
            "capture": {"wait": 0.0, "service": 2.0},
            "infer": {"wait": 1.5, "service": 20.0},
            "total": 30.0,
        },
    }
    assert next(iter(record)) == "schema"
    FRAME.validate(plain(record))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"detections": Detections.empty()},
        {"detections": Detections([[0, 0, 5, 5]], [1.0], [99])},  # a class that the model does not name
        {"spans": ()},
        {"status": "failed", "reason": "model refused it", "detections": Detections.empty()},
        {"status": "failed", "reason": "died", "lost": "infer_died", "detections": Detections.empty()},
    ],
)
def test_frame_records_fit_their_schema(changes: dict[str, Any]) -> None:
    header = make_header(7)
    record = frame_record(make_result(header, **changes), SPEC, header.captured_ns)
    FRAME.validate(plain(record))
    assert record["status"] == changes.get("status", "ok")
    assert record.get("lost", "") == changes.get("lost", "")
    assert record.get("reason", "") == changes.get("reason", "")


def test_a_lost_frame_without_a_size_has_a_record() -> None:
    header = make_header(size=(0, 0))
    result = make_result(header, status="failed", lost="capture_died", detections=Detections.empty())
    FRAME.validate(plain(frame_record(result, SPEC, 0)))


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(*[st.floats(0, 4096, width=32)] * 4), max_size=5),
    st.integers(1, 4096),
    st.integers(1, 4096),
)
def test_boxes_keep_their_place(rows: list[tuple[float, ...]], width: int, height: int) -> None:
    boxes = np.array(rows, np.float32).reshape(-1, 4)
    found = Detections(boxes, np.full(len(boxes), 0.5), np.zeros(len(boxes)))
    record = plain(frame_record(make_result(make_header(size=(width, height)), detections=found), SPEC, 0))
    FRAME.validate(record)
    for row, box in zip(record["detections"], boxes.astype(float), strict=True):
        assert np.abs(np.array(row["box_xyxy"]) - box).max() <= 0.00501
        scaled = np.array(row["box_normalized"]) * [width, height, width, height]
        assert np.abs(scaled - box).max() <= 1e-6 * 4096


def test_event_record_is_what_the_contract_says() -> None:
    record = make_record(make_event(), 17, "20260131-5f2c")
    assert list(record)[:5] == ["schema", "sequence", "id", "type", "source"]
    assert record["schema"] == "framewire.start/1"
    assert record["id"] == "20260131-5f2c-17"
    assert record["at"] == record["first_seen"] == "2026-01-31T09:40:00.250Z"
    assert record["box_format"] == "xyxy"
    assert record["box_normalized"] == [0.125, 0.25, 0.5, 0.75]
    assert record["latency_ms"] == {"total": 3.5}


SOURCE_EVENT: dict[str, Any] = dict.fromkeys(
    ("label", "track_id", "confidence", "top_confidence", "box_xyxy", "box_normalized", "first_seen",
     "last_seen", "duration_s", "frames", "latency_ms", "clock", "model", "provider")
) | {"type": "source", "state": "ended", "reason": "end_of_file"}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"type": "update", "frames": 12, "duration_s": 0.44},
        {"type": "end", "reason": "lost"},
        {"box_xyxy": None, "box_normalized": None},
        SOURCE_EVENT,
    ],
)
def test_event_records_fit_their_schema(changes: dict[str, Any]) -> None:
    record = plain(make_record(make_event(**changes), 0, "run"))
    EVENT.validate(record)
    assert None not in record.values()


@pytest.mark.parametrize(
    "broken",
    [
        {"schema": "framewire.end/1"},  # says end, is start
        {"schema": "framewire.start/2"},
        {"at": "2026-01-31 09:40:00"},
        {"sequence": -1},
        {"confidence": 1.5},
        {"box_xyxy": [1, 2, 3]},
        {"clock": "wall"},
        {"type": "source"},
    ],
)
def test_the_event_schema_refuses(broken: dict[str, Any]) -> None:
    record = plain(make_record(make_event(), 0, "run")) | broken
    assert not EVENT.is_valid(record)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "1970-01-01T00:00:00.000Z"),
        (1.9996, "1970-01-01T00:00:02.000Z"),  # rounded, not cut
        (1_769_852_400.25, "2026-01-31T09:40:00.250Z"),
    ],
)
def test_iso_utc(seconds: float, text: str) -> None:
    assert iso_utc(seconds) == text


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("gate", "start", "car"), "framewire/gate/start/car/"),
        (("gate", "frame"), "framewire/gate/frame/"),
        (("a/b", "start", "traffic light"), "framewire/a%2Fb/start/traffic light/"),
        (("50%\n", "end", "x"), "framewire/50%25%0A/end/x/"),
        (("Straße#1+", "end", "x"), "framewire/Straße%231%2B/end/x/"),
    ],
)
def test_topic(parts: tuple[str, ...], text: str) -> None:
    assert topic(*parts) == text
    assert parse_topic(text) == (*parts, "")[:3]


@settings(deadline=None, max_examples=100)
@given(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8")))
def test_any_names_come_back_from_a_topic(source: str, label: str) -> None:
    text = topic(source, "start", label)
    assert parse_topic(text) == (source, "start", label)
    assert text.count("/") == (4 if label else 3)


@pytest.mark.parametrize(
    ("task", "changes", "expected"),
    [
        pytest.param("detect", {}, {}, id="objects only"),
        pytest.param("localize", {}, {"task": "localize"}, id="one object"),
        pytest.param(
            "tag", {}, {"task": "tag", "tags": {"auto": {"car": 87, "person": 50}}}, id="tags of objects"
        ),
        pytest.param(
            "classify",
            {"detections": Detections.empty(), "classes": Classes((2,), (0.91234,))},
            {"task": "classify", "classes": [{"label": "car", "class_id": 2, "confidence": 0.9123}]},
            id="classes",
        ),
        pytest.param(
            "tag",
            {"status": "failed", "reason": "no", "detections": Detections.empty()},
            {"task": "tag"},
            id="a frame that failed has no tags, not even none",
        ),
    ],
)
def test_what_a_task_adds(task: Task, changes: dict[str, Any], expected: dict[str, Any]) -> None:
    record = plain(frame_record(make_result(make_header(), **changes), SPEC, 0, task))
    FRAME.validate(record)
    assert {key: record[key] for key in ("task", "tags", "classes") if key in record} == expected


def test_attributes_belong_to_their_object() -> None:
    said = (Attribute(1, "colour", "red", 0.912345), Attribute(1, "bag", "none", 0.5))
    record = plain(frame_record(make_result(make_header(), attributes=said), SPEC, 0))
    FRAME.validate(record)
    assert "attributes" not in record["detections"][0]
    assert record["detections"][1]["attributes"] == {
        "colour": {"label": "red", "confidence": 0.9123},
        "bag": {"label": "none", "confidence": 0.5},
    }
    event = plain(
        make_record(make_event(attributes={"colour": {"label": "red", "confidence": 0.9}}), 0, "run")
    )
    EVENT.validate(event)
    assert event["attributes"] == {"colour": {"label": "red", "confidence": 0.9}}
