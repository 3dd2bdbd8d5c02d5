"""postprocess: what the tasks other than detect, and cascades, make of a frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from pipeline.errors import ConfigError, PoolError, StaleSlotError
from pipeline.messages import Blob, EndOfStream, Message, ModelOutput, Result
from pipeline.models.fake import FakeRunner
from pipeline.stages.postprocess import PostprocessStage
from pipeline.tasks.cascade import Cascade
from pipeline.vision.palette import PALETTE
from tests.helpers import SPEC, make_ledger, make_output
from tests.stages.test_postprocess import CAR, Bench, end, seqs, track_ids


def classes_of(scores: Sequence[float], seq: int, **changes: Any) -> tuple[ModelOutput, Any]:
    """An output of the fake classifier."""
    output, _ = make_output([], seq, **changes)
    array = np.array([scores], np.float32)
    return output, lambda _: array


def test_classes_are_told_and_followed_as_long_as_they_are_sure() -> None:
    bench = Bench.__new__(Bench)
    bench.ledgers = {"gate": make_ledger()}
    bench.stage = PostprocessStage(
        ledger_of=bench.ledgers.__getitem__, task="classify", top_k=1, confidence=0.5
    )
    bench.stage.open()
    bench.stage.begin(
        msgspec.structs.replace(SPEC, family="fake_classifier", kind="classifier", output_names=("classes",))
    )
    made = [
        bench.give(*classes_of(scores, seq)) for seq, scores in enumerate([(0.2, 0.8), (0.3, 0.4), (0.9, 0)])
    ]
    results = [message for messages in made for message in messages if isinstance(message, Result)]
    assert [one.classes and one.classes.class_ids for one in results] == [(1,), (1,), (0,)]
    assert all(len(one.detections) == 0 for one in results)
    events = [
        (event.type, event.label, event.track_id, event.box_xyxy) for one in results for event in one.events
    ]
    assert events == [("start", "car", 1, None), ("start", "person", 2, None)]
    (ended,) = bench.give(end(3))
    assert isinstance(ended, EndOfStream)
    assert [(event.label, event.box_normalized) for event in ended.events] == [
        ("car", None),
        ("person", None),
    ]
    assert bench.ledgers["gate"]["next_track_id"] == 3


def test_localize_gives_one_object_or_none_and_keeps_its_id() -> None:
    bench = Bench(task="localize", algorithm="single")
    other = (40.0, 10.0, 60.0, 30.0, 0.8, 0.0)
    found = [bench.results(seq, rows)[0] for seq, rows in enumerate([(CAR, other), (CAR,), (), (other,)])]
    assert [len(one.detections) for one in found] == [1, 1, 0, 1]
    assert [track_ids(one) for one in found] == [[1], [1], [], [2]]
    assert [event.type for one in found for event in one.events] == ["start", "start"]


def test_cascades_give_attributes_to_objects_and_events() -> None:
    colour = Cascade("colour", FakeRunner.from_name("fake?task=classify"), labels=["car"], confidence=0.1)
    bench = Bench(cascades=[colour])
    bgr = np.full((48, 64, 3), 114, np.uint8)
    bgr[10:30, 10:30] = PALETTE[2]
    pixels = Blob(bgr.shape, "uint8", "pixels", 0)
    results = []
    for seq in range(3):
        output, view = make_output([CAR], seq)
        frame = msgspec.structs.replace(output.frame, pixels=(pixels,))
        looked = msgspec.structs.replace(output, frame=frame)
        results += bench.give(looked, lambda blob, view=view: bgr if blob == pixels else view(blob))
    assert all(isinstance(one, Result) for one in results)
    said = [[(a.name, a.label) for a in one.attributes] for one in results if isinstance(one, Result)]
    assert said[-1] == [("colour", "blue")]
    events = [event for one in results if isinstance(one, Result) for event in one.events]
    assert [event.attributes and event.attributes["colour"]["label"] for event in events] == ["blue"]


def test_a_cascade_that_fails_costs_its_attribute_and_not_the_frame(caplog: pytest.LogCaptureFixture) -> None:
    broken = Cascade("colour", FakeRunner.from_name("fake?task=classify&fail_every=1"))
    bench = Bench(cascades=[broken], algorithm="none")
    bgr = np.zeros((48, 64, 3), np.uint8)
    pixels = Blob(bgr.shape, "uint8", "pixels", 0)
    output, view = make_output([CAR], 0)
    frame = msgspec.structs.replace(output.frame, pixels=(pixels,))
    (made,) = bench.give(
        msgspec.structs.replace(output, frame=frame), lambda blob: bgr if blob == pixels else view(blob)
    )
    assert isinstance(made, Result)
    assert (made.status, len(made.detections), made.attributes) == ("ok", 1, ())
    assert "no new attributes for frame 0" in caplog.text


def test_a_cascade_must_look_at_labels_that_there_are() -> None:
    with pytest.raises(ConfigError, match="the model finds no lorry"):
        Bench(cascades=[Cascade("colour", FakeRunner.from_name("fake?task=classify"), labels=["lorry"])])


@pytest.mark.parametrize("error", [StaleSlotError("recycled"), PoolError("cannot map")], ids=str)
def test_pixels_that_cannot_be_read_leave_what_was_said_and_are_told_once(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """The frame has its place in the order already: an error that got out would lose it."""
    colour = Cascade("colour", FakeRunner.from_name("fake?task=classify"), every_s=0.0, confidence=0.1)
    bench = Bench(cascades=[colour], algorithm="single", task="localize")
    pixels = Blob((48, 64, 3), "uint8", "pixels", 0)
    bgr = np.full(pixels.shape, 114, np.uint8)
    bgr[10:30, 10:30] = PALETTE[2]
    results: list[Message] = []
    for seq in range(4):
        output, view = make_output([CAR], seq)

        def look(blob: Blob, seq: int = seq, view: Any = view) -> Any:
            if blob == pixels and seq >= 2:
                raise error
            return bgr if blob == pixels else view(blob)

        frame = msgspec.structs.replace(output.frame, pixels=(pixels,))
        results += bench.give(msgspec.structs.replace(output, frame=frame), look)
    assert seqs(results) == [0, 1, 2, 3]
    assert [[a.label for a in one.attributes] for one in results if isinstance(one, Result)] == [["blue"]] * 4
    warnings = [one for one in caplog.records if "no pixels for frame" in one.message]
    assert [one.levelname for one in warnings if one.levelname == "WARNING"] == ["WARNING"]


def test_a_classifier_has_no_objects_for_a_cascade() -> None:
    colour = Cascade("colour", FakeRunner.from_name("fake?task=classify"))
    stage = PostprocessStage(ledger_of=lambda _: make_ledger(), task="tag", cascades=[colour])
    with pytest.raises(ConfigError, match=r"cascades\.colour: the model fake finds no objects"):
        stage.begin(msgspec.structs.replace(SPEC, family="fake_classifier", kind="classifier"))
