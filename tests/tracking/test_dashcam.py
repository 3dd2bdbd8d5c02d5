"""A camera in a car: ids that last over the bumps of the road, on numbers of a real clip under a known shake.

`scripts/check_dashcam` makes the numbers, and does the same with the clip and a model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline.analytics.closing import Closing
from pipeline.analytics.ego import CameraState
from pipeline.messages import Detections
from pipeline.vision.camera_motion import rigid
from scripts._dashcam import Seen, Shake, Truth, count_switches, follow, observe, read_truth

NUMBERS = Path(__file__).resolve().parents[1] / "data" / "dashcam_numbers.json"


@dataclass(frozen=True)
class Clip:
    truth: Truth
    shake: Shake
    seen: dict[int, Seen]


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    said = json.loads(NUMBERS.read_text(encoding="utf-8"))
    truth, clips = read_truth(), []
    for seed, rows in said["shakes"].items():
        shake = Shake(truth.size, truth.fps, truth.frames.stop, said["strength"], int(seed))
        seen = {}
        for frame, motion, found in rows:
            table = np.array(found, np.float64).reshape(-1, 6)
            objects = Detections(table[:, :4], table[:, 4], table[:, 5])
            seen[frame] = Seen(objects, None if motion is None else np.array(motion).reshape(2, 3))
        clips.append(Clip(truth.shaken(shake), shake, seen))
    return clips


def test_ids_last_over_bumps(clips: list[Clip]) -> None:
    switches, followed = {}, {}
    for algorithm, told in (("bytetrack", "none"), ("botsort", "none"), ("botsort", "rigid")):
        scores = [
            count_switches(clip.truth, follow(clip.truth, clip.seen, algorithm, told)) for clip in clips
        ]
        switches[algorithm, told] = sum(score.switches for score in scores)
        followed[algorithm, told] = sum(sum(score.followed.values()) for score in scores)
    steadied = ("botsort", "rigid")
    for other in (("bytetrack", "none"), ("botsort", "none")):
        assert switches[steadied] < switches[other]
        assert followed[steadied] > 1.1 * followed[other]
    assert switches[steadied] <= 2


def test_the_motion_that_was_found_is_the_shake(clips: list[Clip]) -> None:
    off, way = [], []
    for clip in clips:
        width, height = clip.truth.size
        horizon = np.array([(x, height / 2, 1.0) for x in np.linspace(0, width, 9)]).T
        for frame in clip.truth.frames[1:]:
            motion, true = clip.seen[frame].motion, clip.shake.step(frame)
            assert motion is not None
            off.append(np.hypot(*((rigid(motion, width, height) - true) @ horizon)).mean())
            way.append(np.hypot(*(true @ horizon - horizon[:2])).mean())
    assert np.percentile(way, 90) > 8  # pixels
    assert np.median(off) < 1
    assert np.percentile(off, 90) < 2.5


def test_the_drive_is_seen_and_nothing_comes_near(clips: list[Clip]) -> None:
    for clip in clips:
        tracks = follow(clip.truth, clip.seen, "botsort", "rigid")
        facts = [fact for _, fact in observe(clip.truth, clip.seen, tracks, (CameraState(), Closing()))]
        assert [(fact.type, dict(fact.fields)) for fact in facts] == [("camera", {"state": "moving"})]


@pytest.mark.parametrize(
    ("ids", "switches", "followed"),
    [
        ([[1], [1], [1], [1]], 0, 4),
        ([[1], [2], [2], [1]], 2, 4),
        ([[1], [], [1], [1]], 0, 3),  # gone and back with the same id
        ([[1], [], [], [3]], 1, 2),
        ([[1], [2, 1], [2, 1], [2]], 1, 4),  # who still matches is kept
        ([[], [], [], []], 0, 0),
    ],
)
def test_switches_are_counted(ids: list[list[int]], switches: int, followed: int) -> None:
    place = np.array([[10.0, 10, 50, 50]])
    truth = Truth("", "", (100, 100), 10.0, range(4), {"it": np.repeat(place, 4, axis=0)})
    tracks = {
        frame: (
            np.repeat(place, len(some), axis=0) + np.arange(len(some), dtype=np.float64)[::-1, None],
            np.array(some, np.int64),
        )
        for frame, some in enumerate(ids)
    }
    tracks[2] = (np.vstack([tracks[2][0], [[70, 70, 90, 90]]]), np.append(tracks[2][1], 99))  # somebody else
    found = count_switches(truth, tracks)
    assert found.switches == switches
    assert found.followed.get("it", 0) == pytest.approx(followed / 10)
    assert found.present["it"] == pytest.approx(0.4)
