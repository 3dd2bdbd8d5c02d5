from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.sinks import pushing
from pipeline.sinks.links import Encoding
from pipeline.sinks.targets import parse_target

MS = 1_000_000


def blank() -> NDArray[np.uint8]:
    return np.zeros((16, 16, 3), np.uint8)


def test_only_so_many_pictures_a_second(tmp_path: Path) -> None:
    target = parse_target(str(tmp_path / "x.m3u8"), "gate")
    for fps, most, want in ((30, 15, 15), (25, 15, 15), (10, 15, 10), (30, 7.5, 7.5), (60, 15, 15)):
        pusher = pushing.Pusher("gate", target, Encoding("libx264", most, None, "ultrafast", 2, 10))
        shots = 0
        for count in range(fps * 10):
            at = round(count * 1e9 / fps) + (count % 3) * 2 * MS  # uneven, as cameras are
            if pusher.wants(at):
                shots += 1
                pusher.offer(pushing.Shot(at, blank))
        assert shots / 10 == pytest.approx(want, rel=0.04), (fps, most)
        assert pusher.replaced == shots - 1  # a slot of one, which nobody empties
        assert pusher.wants(-(10**9))  # time that began again


def test_the_age_is_written_at_the_foot() -> None:
    before = np.full((192, 256, 3), 200, np.uint8)
    after = pushing._with_age(before, 12.4)
    changed = np.flatnonzero((after != before).any(axis=(1, 2)))
    assert changed.min() > 160
    assert changed.max() == 191
    assert cv2.countNonZero(np.asarray(after[:, :, 0] > 220, np.uint8)) > 50
