"""What leaves the process: hidden what is to be hidden, made once, and pictures of objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError, StaleSlotError
from pipeline.messages import Blob, Detections, Mask, Result, Scene
from pipeline.sinks.snapshots import Snapshots
from pipeline.stages.pictures import Pictures
from pipeline.vision.privacy import Privacy
from tests.helpers import SPEC, make_event, make_frame, make_result

PIXELS = Blob((48, 64, 3), "uint8", "pixels", 0)
NOISE = np.random.default_rng(1).integers(0, 255, (48, 64, 3), np.uint8)
PERSON = Detections([[4, 4, 30, 44]], [0.9], [0], [1])
CAR = Detections([[4, 4, 30, 44]], [0.9], [1], [1])
RIGHT = Mask(((0.6, 0.0), (1.0, 0.0), (1.0, 1.0), (0.6, 1.0)), hides="both")


class Views:
    """Gives the one picture and counts how often it was asked for."""

    def __init__(self, error: Exception | None = None) -> None:
        self.count = 0
        self.error = error

    def __call__(self, blob: Blob) -> Any:
        self.count += 1
        if self.error is not None:
            raise self.error
        return NOISE


def result(detections: Detections = PERSON, seq: int = 0, **changes: Any) -> Result:
    return make_result(seq, detections=detections, frame=make_frame(seq, pixels=(PIXELS,)), **changes)


def changed(pictures: Pictures, one: Result) -> Any:
    """Where the picture that leaves differs from the one that came."""
    pictures.begin(SPEC)
    picture = pictures.of(one, Views())()
    assert picture is not None
    return (picture != NOISE).any(axis=2)


def test_nothing_to_hide_leaves_all_as_it_is() -> None:
    assert not changed(Pictures(), result()).any()


@pytest.mark.parametrize(
    ("pictures", "one", "inside", "outside"),
    [
        (Pictures(Privacy(["person"], "fill")), result(), (24, 16), (24, 60)),
        (Pictures(scene_of=lambda _: Scene(masks={"wall": RIGHT})), result(), (24, 60), (24, 16)),
        (Pictures(Privacy(["person"], "fill")), result(CAR, masked=PERSON), (24, 16), (24, 60)),
    ],
    ids=["a person", "an area", "a person in a mask of detections"],
)
def test_what_is_hidden(
    pictures: Pictures, one: Result, inside: tuple[int, int], outside: tuple[int, int]
) -> None:
    hidden = changed(pictures, one)
    assert hidden[inside]
    assert not hidden[outside]


def test_a_car_is_no_person() -> None:
    assert not changed(Pictures(Privacy(["person"], "fill")), result(CAR)).any()


def test_a_frame_that_failed_shows_nothing() -> None:
    one = result(Detections.empty(), status="failed", reason="broken")
    assert changed(Pictures(Privacy(["person"], "fill")), one).mean() > 0.99


def test_who_was_seen_stays_hidden_though_no_sink_asked_for_that_frame() -> None:
    pictures = Pictures(Privacy(["person"], "fill"))
    pictures.begin(SPEC)
    pictures.of(result(seq=0), Views())
    assert changed(pictures, result(Detections.empty(), seq=1))[24, 16]
    pictures.forget("gate")
    assert not changed(pictures, result(Detections.empty(), seq=2)).any()


def test_a_picture_is_made_once_for_all_sinks() -> None:
    pictures, views = Pictures(Privacy(["person"], "fill")), Views()
    pictures.begin(SPEC)
    picture = pictures.of(result(), views)
    assert views.count == 0
    assert picture() is picture()
    assert views.count == 1


def test_pixels_that_are_gone() -> None:
    pictures = Pictures()
    assert pictures.of(make_result(0), Views())() is None
    assert pictures.of(result(), Views(StaleSlotError("recycled")))() is None


def test_a_label_that_the_model_does_not_know_would_hide_nobody() -> None:
    with pytest.raises(ConfigError, match="does not know 'persons'") as raised:
        Pictures(Privacy(["persons"])).begin(SPEC)
    assert "person" in raised.value.hint


def test_snapshots_are_private_named_and_forgotten(tmp_path: Path) -> None:
    pictures = Pictures(Privacy(["person"], "fill"), snapshots=Snapshots(tmp_path))
    pictures.begin(SPEC)
    assert pictures.files() == []
    one = result()
    picture = pictures.of(one, Views())
    assert pictures.name(one, picture, [make_event("start")]) == {1: "snapshots/gate/1.jpg"}
    assert (tmp_path / "snapshots/gate/1.jpg").stat().st_size > 0
    assert pictures.name(one, picture, [make_event("end")]) == {1: "snapshots/gate/1.jpg"}, "the end names it"
    nobody = result(Detections.empty(), 1)
    assert pictures.name(nobody, pictures.of(nobody, Views()), []) == {}
    assert pictures.files() == [str(tmp_path / "snapshots")]
