"""BoT-SORT: a camera that moves, and looks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.messages import Detections
from pipeline.tracking import Tracker, build_tracker
from pipeline.tracking.base import Hints
from tests.tracking.scenes import box, detections, ids


def shaken(tracker: Tracker, told: bool) -> list[set[int]]:
    """Ids of three objects before a camera that jumps to and fro by more than they are wide, and tilts."""
    rng = np.random.default_rng(5)
    corners = np.array([[100.0, 100.0], [190.0, 110.0], [280.0, 100.0]])
    before = np.eye(3)
    seen: list[list[int]] = []
    for k in range(40):
        angle, shift = rng.normal(0, 0.02), rng.uniform(-90, 90, 2)
        view = np.eye(3)
        view[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
        view[:2, 2] = shift
        centres = (corners + (2.0 * k, 0.0) + 20) @ view[:2, :2].T + shift
        boxes = np.concatenate([centres - 20, centres + 20], axis=1)
        motion = (view @ np.linalg.inv(before))[:2]
        hints = Hints(motion=motion) if told else Hints()
        found = ids(tracker.update(Detections(boxes, [0.9] * 3, [0] * 3), k / 25, hints))
        before = view
        if k:
            seen.append(found)
    return [set(column) for column in zip(*seen, strict=True)]


def test_a_camera_that_shakes() -> None:
    assert shaken(build_tracker("botsort"), told=True) == [{1}, {2}, {3}]
    for name, told in (("botsort", False), ("bytetrack", True)):
        lost = shaken(build_tracker(name, lost_and_found=False), told)
        assert lost != [{1}, {2}, {3}]
        assert len(set().union(*lost)) > 4


def test_a_motion_that_is_no_number_is_left_out() -> None:
    tracker = build_tracker("botsort")
    for k in range(4):
        motion = np.full((2, 3), np.nan) if k == 2 else None
        found = ids(tracker.update(detections(box(100)), k / 25, Hints(motion=motion)))
    assert found == [1]


def looks(*rows: list[float]) -> Hints:
    values: NDArray[np.float32] = np.array(rows, np.float32).reshape(len(rows), -1)
    return Hints(embeddings=values)


@pytest.mark.parametrize(
    ("told", "expected"),
    [pytest.param(True, [2, 1], id="looks decide"), pytest.param(False, [1, 2], id="boxes alone are wrong")],
)
def test_looks_tell_two_objects_apart_that_swap_places(told: bool, expected: list[int]) -> None:
    """In one step each moves a little more than half way to the other's place."""
    tracker = build_tracker("botsort")
    red, blue = [1.0, 0.0], [0.0, 1.0]
    for k in range(10):
        frame = detections(box(100), box(112))
        tracker.update(frame, k / 25, looks(red, blue) if told else Hints())
    frame = detections(box(104), box(108))
    assert ids(tracker.update(frame, 10 / 25, looks(blue, red) if told else Hints())) == expected


def test_looks_are_remembered_slowly() -> None:
    """One odd look does not change what is known of a track; a long row of them does."""
    tracker = build_tracker("botsort")
    red, blue = [1.0, 0.0], [0.0, 1.0]
    for k in range(40):
        tracker.update(detections(box(100)), k / 25, looks(blue if k == 20 or k > 30 else red))
        features = tracker._tracks.columns["features"][0]  # type: ignore[attr-defined]
        assert np.linalg.norm(features) == pytest.approx(1.0)
        if k == 20:
            assert features[0] > 0.99
    assert features[1] > features[0]


def test_looks_may_come_late_be_missing_or_change_their_length() -> None:
    tracker = build_tracker("botsort")
    for k, hints in enumerate(
        [
            Hints(),
            looks([1.0, 0.0]),
            looks([0.0, 0.0]),
            Hints(),
            looks([1.0, 0.0, 0.0]),
            looks([1.0, 0.0, 0.0]),
        ]
    ):
        found = ids(tracker.update(detections(box(100)), k / 25, hints))
    assert found == [1]


def test_a_detection_of_a_low_score_is_less_likely_the_same_object() -> None:
    """Two boxes fit alike; the surer one is taken."""
    tracker = build_tracker("botsort", min_frames=1, high=0.3, activation=0.3)
    for k in range(5):
        tracker.update(detections(box(100)), k / 25)
    frame = Detections([box(104), box(96)], [0.35, 0.9], [0, 0])
    assert ids(tracker.update(frame, 0.2)) == [2, 1]
