"""A second model that looks at the objects of the first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError, ModelError, StaleSlotError
from pipeline.messages import Attribute, Detections
from pipeline.models.fake import FakeRunner
from pipeline.tasks.cascade import Cascade, ObjectAttributes
from pipeline.vision.palette import BACKGROUND, PALETTE

LABELS = ("person", "car")
RED, GREEN = PALETTE[0], PALETTE[1]


def cascade(**options: Any) -> Cascade:
    made = Cascade("colour", FakeRunner.from_name("fake?task=classify"), **{"margin": 0.0, **options})
    made.open()
    return made


def picture(*patches: tuple[tuple[int, int, int, int], tuple[int, int, int]]) -> tuple[Any, ...]:
    """A grey BGR frame with coloured patches."""
    bgr = np.full((96, 128, 3), BACKGROUND, np.uint8)
    for (x1, y1, x2, y2), colour in patches:
        bgr[y1:y2, x1:x2] = colour
    return (bgr,)


def objects(*rows: tuple[tuple[int, int, int, int], int, int | None]) -> Detections:
    """Boxes, classes and track ids."""
    ids = [track for _, _, track in rows]
    tracked = None if None in ids else ids
    return Detections([box for box, _, _ in rows], [0.9] * len(rows), [one for _, one, _ in rows], tracked)


LEFT, RIGHT = (10, 10, 50, 70), (60, 20, 110, 80)


def test_each_object_gets_what_its_own_crop_says() -> None:
    frame = picture((LEFT, RED), (RIGHT, GREEN))
    found = ObjectAttributes([cascade()], LABELS).update(
        objects((LEFT, 1, 3), (RIGHT, 1, 4)), frame, "bgr24", 0.0
    )
    assert [(one.object, one.name, one.label) for one in found] == [
        (0, "colour", "red"),
        (1, "colour", "green"),
    ]
    assert all(one.confidence > 0.35 for one in found), "the rest of the input is padding"


def test_i420_crops_are_cut_between_chroma_samples() -> None:
    import cv2

    bgr = picture((LEFT, RED), (RIGHT, GREEN))[0]
    packed = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420)
    planes = packed[:96], packed[96:120].reshape(48, 64), packed[120:].reshape(48, 64)
    odd = (61, 21, 109, 79)
    found = ObjectAttributes([cascade()], LABELS).update(objects((odd, 1, 4)), planes, "i420", 0.0)
    assert [one.label for one in found] == ["green"]


def test_only_labels_asked_for_and_large_enough_and_tracked() -> None:
    frame = picture((LEFT, RED))
    small = (10, 10, 20, 25)
    seen = objects((LEFT, 0, 1), (small, 1, 2), (LEFT, 1, -1), (LEFT, 1, 3))
    found = ObjectAttributes([cascade(labels=["car"])], LABELS).update(seen, frame, "bgr24", 0.0)
    assert [(one.object, one.label) for one in found] == [(3, "red")]


def test_looks_are_rare_and_vote() -> None:
    """Red, green, green: looked at after a second each; what was said in between stays."""
    attributes = ObjectAttributes([cascade(every_s=1.0)], LABELS)
    said = []
    for time_s, colour in ((0.0, RED), (0.5, GREEN), (1.0, GREEN), (1.9, RED), (2.0, GREEN)):
        (one,) = attributes.update(objects((LEFT, 1, 7)), picture((LEFT, colour)), "bgr24", time_s)
        said.append(one.label)
    assert said == ["red", "red", "red", "red", "green"]
    attributes.reset()
    (one,) = attributes.update(objects((LEFT, 1, 7)), picture((LEFT, RED)), "bgr24", 2.1)
    assert one.label == "red", "a new epoch knows nothing"


def test_an_unsure_look_says_nothing() -> None:
    half = (LEFT[0], LEFT[1], 20, LEFT[3])
    attributes = ObjectAttributes([cascade(confidence=0.3)], LABELS)
    assert attributes.update(objects((LEFT, 1, 7)), picture((half, RED)), "bgr24", 0.0) == ()


def test_without_a_tracker_each_frame_stands_for_itself() -> None:
    attributes = ObjectAttributes([cascade()], LABELS)
    for colour, label in ((RED, "red"), (GREEN, "green")):
        (one,) = attributes.update(objects((LEFT, 1, None)), picture((LEFT, colour)), "bgr24", 0.0)
        assert one.label == label


def test_pixels_that_are_gone_leave_what_was_said() -> None:
    attributes = ObjectAttributes([cascade()], LABELS)
    first = attributes.update(objects((LEFT, 1, 7)), picture((LEFT, RED)), "bgr24", 0.0)
    assert attributes.update(objects((LEFT, 1, 7)), (), "bgr24", 5.0) == first
    assert isinstance(first[0], Attribute)


def test_a_look_at_pixels_that_were_overwritten_meanwhile_does_not_vote() -> None:
    def overwritten() -> None:
        raise StaleSlotError("recycled")

    attributes = ObjectAttributes([cascade()], LABELS)
    with pytest.raises(StaleSlotError):
        attributes.update(objects((LEFT, 1, 7)), picture((LEFT, RED)), "bgr24", 0.0, overwritten)
    assert attributes.update(objects((LEFT, 1, 7)), (), "bgr24", 0.1) == ()
    (one,) = attributes.update(objects((LEFT, 1, 7)), picture((LEFT, GREEN)), "bgr24", 5.0)
    assert one.label == "green"


def test_a_box_at_the_edge_and_one_without_area() -> None:
    frame = picture(((120, 90, 128, 96), RED))
    attributes = ObjectAttributes([cascade(min_side=0)], LABELS)
    seen = objects(((120, 90, 128, 96), 1, 1), ((128, 96, 128, 96), 1, 2))
    found = attributes.update(seen, frame, "bgr24", 0.0)
    assert [one.label for one in found] == ["red", "red"]


def test_memory_is_bounded() -> None:
    attributes = ObjectAttributes([cascade(every_s=1e9)], LABELS)
    for track in range(600):
        attributes.update(objects((LEFT, 1, track)), (), "bgr24", 0.0)
    assert len(attributes._votes) == 512


def test_a_detector_is_no_cascade_and_a_label_must_exist() -> None:
    made = Cascade("colour", FakeRunner.from_name("fake"))
    with pytest.raises(ConfigError, match=r"cascades\.colour: the model fake finds objects"):
        made.open()
    with pytest.raises(ConfigError, match=r"cascades\.colour: the model finds no cart") as raised:
        cascade(labels=["cart"]).check(LABELS)
    assert raised.value.hint == "did you mean car?"


def test_a_network_that_fails_says_so() -> None:
    made = Cascade("colour", FakeRunner.from_name("fake?task=classify&fail_every=1"))
    made.open()
    with pytest.raises(ModelError, match="fails on frame 1"):
        made.look(picture((LEFT, RED)), "bgr24", np.array(LEFT, np.float32))
