"""The one object of a localized source."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.messages import Detections
from pipeline.tracking.single import SingleObject


def at(x: float, size: float = 10.0, score: float = 0.9) -> Detections:
    return Detections([[x, 20.0, x + size, 20.0 + size]], [score], [1])


@pytest.mark.parametrize(
    ("steps", "ids"),
    [
        pytest.param([(0.0, 0.0), (0.1, 2.0), (0.2, 4.0)], [7, 7, 7], id="it moves"),
        pytest.param([(0.0, 0.0), (0.1, 10.0)], [7, 7], id="by just its own size"),
        pytest.param([(0.0, 0.0), (0.1, 10.5)], [7, 8], id="by more than its own size: another one"),
        pytest.param([(0.0, 0.0), (1.0, 0.0)], [7, 7], id="seen again at the end of the window"),
        pytest.param([(0.0, 0.0), (1.001, 0.0)], [7, 8], id="seen again after it"),
        pytest.param([(5.0, 0.0), (1.0, 0.0)], [7, 7], id="time that goes back"),
    ],
)
def test_ids(steps: list[tuple[float, float]], ids: list[int]) -> None:
    tracker = SingleObject(first_id=7, lost_s=1.0)
    found = [tracker.update(at(x), time_s).track_ids for time_s, x in steps]
    assert [one.tolist() for one in found if one is not None] == [[track_id] for track_id in ids]
    assert tracker.next_id == ids[-1] + 1


def test_only_the_best_is_kept_and_none_is_none() -> None:
    tracker = SingleObject()
    both = Detections([[0, 0, 5, 5], [50, 50, 60, 60]], [0.9, 0.8], [3, 4])
    best = tracker.update(both, 0.0)
    assert (best.class_ids.tolist(), best.boxes_xyxy.tolist()) == ([3], [[0.0, 0.0, 5.0, 5.0]])
    nothing = tracker.update(Detections.empty(), 0.1)
    assert len(nothing) == 0
    assert nothing.track_ids is not None


def test_smoothing_follows_a_step_by_63_percent_in_its_time_whatever_the_frame_rate() -> None:
    for frames in (1, 4, 25):
        tracker = SingleObject(smoothing_s=0.5)
        tracker.update(at(0.0), 0.0)
        for frame in range(1, frames + 1):
            found = tracker.update(at(8.0), 0.5 * frame / frames)
        assert found.boxes_xyxy[0, 0] == pytest.approx(8.0 * (1 - math.exp(-1)), rel=1e-5)


def test_smoothing_starts_anew_with_each_object_and_after_a_reset() -> None:
    tracker = SingleObject(smoothing_s=10.0)
    tracker.update(at(0.0), 0.0)
    assert tracker.update(at(500.0), 0.1).boxes_xyxy[0, 0] == 500.0
    tracker.reset()
    found = tracker.update(at(505.0), 0.2)
    assert (found.boxes_xyxy[0, 0], found.track_ids) == (505.0, np.array([3]))


@pytest.mark.parametrize("options", [{"lost_s": -1.0}, {"smoothing_s": math.nan}, {"smoothing_s": math.inf}])
def test_bad_times_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"track.{next(iter(options))}"):
        SingleObject(**options)
