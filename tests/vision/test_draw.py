from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.messages import Attribute, Classes, Detections
from pipeline.vision.draw import draw

GREY = 90
LABELS = ("person", "bicycle", "car")


def grey(width: int = 320, height: int = 240) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.full((height, width, 3), GREY, np.uint8)


def test_nothing_to_draw_gives_an_equal_copy() -> None:
    frame = grey()
    out = draw(frame, Detections.empty(), LABELS)
    assert np.array_equal(out, frame)
    assert not np.shares_memory(out, frame)


def test_the_box_is_where_the_object_is_and_the_frame_stays() -> None:
    frame = grey()
    frame.flags.writeable = False
    out = draw(frame, Detections([[100, 120, 180, 200]], [0.87], [2], [3]), LABELS)
    assert (frame == GREY).all()
    changed = (out != GREY).any(axis=2)
    assert changed[160, 100]
    assert changed[160, 180]
    assert changed[200, 140]
    assert not changed[130:190, 110:170].any()  # the object itself stays visible
    assert not changed[:90].any()
    assert not changed[:, 260:].any()
    assert changed[105:119, 102:150].any()  # the label, above the box


def test_colour_goes_by_track_else_by_class() -> None:
    def edge(class_id: int, tracks: list[int] | None) -> list[int]:
        out = draw(grey(), Detections([[100, 120, 180, 200]], [0.5], [class_id], tracks), LABELS)
        colour: list[int] = out[160, 100].tolist()
        return colour

    assert edge(0, [5]) == edge(2, [5])
    assert edge(0, [5]) != edge(0, [6])
    assert edge(0, None) == edge(0, [-1])
    assert edge(0, None) != edge(2, None)


def test_labels_at_the_edge_stay_in_the_frame() -> None:
    out = draw(grey(), Detections([[0, 0, 40, 60]], [0.87], [2], [3]), LABELS)
    assert (out[2:14, 45:60] != GREY).any()


@pytest.mark.parametrize("size", [(1, 1), (2, 640), (640, 3), (1920, 1080)])
def test_any_size_of_frame(size: tuple[int, int]) -> None:
    out = draw(grey(*size), Detections([[0, 0, size[0], size[1]]], [1.0], [9]), LABELS)
    assert out.shape == (size[1], size[0], 3)
    assert out.dtype == np.uint8


def test_a_crowd() -> None:
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 200, (100, 2))
    boxes = np.hstack([corner, corner + 20])
    out = draw(grey(), Detections(boxes, rng.uniform(0, 1, 100), rng.integers(0, 3, 100), range(100)), LABELS)
    assert (out != GREY).any()


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(*[st.floats(-500, 1000, width=32)] * 4), min_size=1, max_size=4),
    st.integers(-1, 100),
    st.integers(-1, 2**40),
)
def test_boxes_beyond_the_frame_and_odd_ids_are_drawn_without_failing(
    boxes: list[tuple[float, ...]], class_id: int, track_id: int
) -> None:
    n = len(boxes)
    out = draw(grey(64, 48), Detections(boxes, [0.5] * n, [class_id] * n, [track_id] * n), LABELS)
    assert out.shape == (48, 64, 3)


def test_importing_it_does_not_load_supervision() -> None:
    code = "import sys, pipeline.vision.draw; sys.exit('supervision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_classes_are_written_in_the_corner_and_stay_in_the_frame() -> None:
    one = (draw(grey(), Detections.empty(), LABELS, Classes((2,), (0.9,))) != GREY).any(axis=2)
    two = (draw(grey(), Detections.empty(), LABELS, Classes((2, 7), (0.9, 0.1))) != GREY).any(axis=2)
    assert one[2:16, 2:60].any()
    assert not one[40:].any()
    assert two.sum() > 1.5 * one.sum()
    draw(grey(20, 8), Detections.empty(), LABELS, Classes((0, 1, 2), (0.5, 0.3, 0.2)))


def test_an_attribute_makes_the_caption_longer() -> None:
    found = Detections([[40, 120, 120, 200]], [0.87], [2], [3])
    plain = draw(grey(), found, LABELS)
    said = draw(grey(), found, LABELS, attributes=[Attribute(0, "colour", "red", 0.9)])
    assert (said != GREY).any(axis=2).sum() > (plain != GREY).any(axis=2).sum()
