"""Trackers by name, and what is said of a wrong name or option."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.tracking import TRACKERS, build_tracker
from tests.tracking.scenes import BATCHED, box, detections


def test_what_there_is() -> None:
    assert set(TRACKERS) == {*BATCHED, "none", "presence", "single"}
    for name in TRACKERS:
        assert build_tracker(name, first_id=5).next_id == 5


def test_none_tracks_nothing() -> None:
    tracker = build_tracker("none", first_id=3)
    frame = detections(box(0))
    assert tracker.update(frame, 0.0) is frame
    tracker.reset()
    assert tracker.next_id == 3


def test_a_wrong_name_and_a_wrong_option() -> None:
    with pytest.raises(ConfigError) as caught:
        build_tracker("bytetracker")
    assert "bytetrack?" in caught.value.hint
    with pytest.raises(ConfigError, match=r"track\.lost"):
        build_tracker("bytetrack", lost=3)


@pytest.mark.parametrize("algorithm", BATCHED)
@pytest.mark.parametrize(
    "options",
    [
        {"min_iou": 2},
        {"min_iou": -0.1},
        {"lost_s": -1.0},
        {"lost_s": math.nan},
        {"lost_s": math.inf},
        {"min_frames": 0},
        {"activation": 1.1},
        {"first_id": -1},
    ],
)
def test_values_out_of_range(algorithm: str, options: dict[str, Any]) -> None:
    (name, value), *_ = options.items()
    with pytest.raises(ConfigError, match=rf"track\.{name} is {value}"):
        build_tracker(algorithm, **options)


def test_no_heavy_library_comes_with_a_tracker() -> None:
    code = (
        "import sys; from pipeline.tracking import TRACKERS, build_tracker\n"
        "for name in TRACKERS: build_tracker(name)\n"
        "print(sorted({'trackers', 'supervision', 'scipy', 'matplotlib', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
