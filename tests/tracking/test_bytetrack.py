"""ByteTrack: our own ids, the given order, real time, classes kept apart."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError
from pipeline.messages import Detections
from pipeline.sources.synthetic import SyntheticSource
from pipeline.tracking import TRACKERS, Tracker, build_tracker

MOT = Path(__file__).resolve().parents[3] / "shared" / "assets" / "mot"

Row = tuple[float, float, float, float]


def detections(*rows: Row, score: float = 0.9, class_ids: list[int] | None = None) -> Detections:
    return Detections(np.reshape(rows, (-1, 4)), [score] * len(rows), class_ids or [0] * len(rows))


def ids(tracked: Detections) -> list[int]:
    assert tracked.track_ids is not None
    assert tracked.track_ids.dtype == np.int64
    return [int(track_id) for track_id in tracked.track_ids]


def box(x: float, y: float = 0, size: float = 40) -> Row:
    return (x, y, x + size, y + size)


def test_confirmed_on_the_second_frame_and_kept() -> None:
    tracker = build_tracker("bytetrack", first_id=7)
    seen = [ids(tracker.update(detections(box(3 * k)), k / 25)) for k in range(6)]
    assert seen == [[-1], [7], [7], [7], [7], [7]]
    assert tracker.next_id == 8


def test_order_and_everything_else_stay_as_given() -> None:
    tracker = build_tracker("bytetrack")
    frame = Detections(
        [box(0), box(200), box(400), box(600)], [0.3, 0.9, 0.46, 0.99], [2, 0, 1, 0], [5, 6, 7, 8]
    )
    tracker.update(frame, 0.0)
    for k in range(1, 4):
        order = np.random.default_rng(k).permutation(4)
        given_ = frame.select(order)
        tracked = tracker.update(given_, k / 25)
        assert tracked.with_tracks(given_.track_ids) == given_
        by_x = dict(zip(tracked.boxes_xyxy[:, 0].tolist(), ids(tracked), strict=True))
        assert by_x == {0: -1, 200: 1, 400: 2, 600: 3} or set(by_x.values()) == {-1, 1, 2, 3}
        assert by_x[0] == -1, "a low score extends tracks but starts none"


def test_two_sources_do_not_share_ids_and_reset_does_not_reuse_them() -> None:
    one, two = build_tracker("bytetrack"), build_tracker("bytetrack")
    for k in range(3):
        a, b = ids(one.update(detections(box(0)), k / 10)), ids(two.update(detections(box(0)), k / 10))
    assert (a, b) == ([1], [1])
    one.reset()
    again = [ids(one.update(detections(box(0)), k / 10)) for k in range(3)]
    assert again == [[-1], [2], [2]]
    assert ids(two.update(detections(box(0)), 0.3)) == [1]
    assert (one.next_id, two.next_id) == (3, 2)


def test_a_person_does_not_become_a_car() -> None:
    def run(tracker: Tracker) -> list[list[int]]:
        frames = [detections(box(0), class_ids=[0])] * 3 + [detections(box(0), class_ids=[1])] * 3
        return [ids(tracker.update(frame, k / 25)) for k, frame in enumerate(frames)]

    assert run(build_tracker("bytetrack")) == [[-1], [1], [1], [-1], [2], [2]]
    assert run(build_tracker("bytetrack", class_agnostic=True)) == [[-1], [1], [1], [1], [1], [1]]


@pytest.mark.parametrize(("gap_s", "kept"), [(0.5, True), (0.9, True), (1.2, False), (60.0, False)])
@pytest.mark.parametrize("rate", [5.0, 30.0])
def test_lost_objects_by_real_time(gap_s: float, kept: bool, rate: float) -> None:
    """It matters how long an object was away, not how many frames came meanwhile."""
    tracker = build_tracker("bytetrack", lost_s=1.0, frame_rate=rate)
    for k in range(5):
        tracker.update(detections(box(100)), k / rate)
    last = 4 / rate
    if rate == 30.0:  # the frames in between arrive, without the object
        for k in range(1, int(gap_s * rate)):
            tracker.update(Detections.empty(), last + k / rate)
    first = ids(tracker.update(detections(box(100)), last + gap_s))
    second = ids(tracker.update(detections(box(100)), last + gap_s + 1 / rate))
    assert (first, second) == (([1], [1]) if kept else ([-1], [2]))


def test_bursts_of_dropped_frames_keep_one_id() -> None:
    tracker = build_tracker("bytetrack")
    taken = [k for k in range(200) if (k // 8) % 2 == 0]
    seen = [ids(tracker.update(detections(box(2.5 * k)), k / 30))[0] for k in taken]
    assert set(seen[1:]) == {1}


@pytest.mark.parametrize("times", [[0.0, 0.0, 0.0, 0.0], [1.0, 0.5, 0.7, 0.2], [3.0, 3.04, 3.04, 3.08]])
def test_times_that_do_not_rise_are_survived(times: list[float]) -> None:
    tracker = build_tracker("bytetrack")
    assert [ids(tracker.update(detections(box(0)), t)) for t in times] == [[-1], [1], [1], [1]]


def test_empty_frames() -> None:
    tracker = build_tracker("bytetrack")
    assert ids(tracker.update(Detections.empty(), 0.0)) == []
    tracker.update(detections(box(0)), 0.1)
    assert ids(tracker.update(Detections.empty(), 0.2)) == []


def test_synthetic_objects_keep_their_ids() -> None:
    source = SyntheticSource("s", "synthetic://?frames=200&objects=6&seed=4")
    tracker = build_tracker("bytetrack", frame_rate=25)
    of_object: dict[int, set[int]] = {}
    for index in range(200):
        boxes, class_ids, object_ids = source.truth(index)
        tracked = tracker.update(Detections(boxes, np.full(len(boxes), 0.9), class_ids), index / 25)
        for object_id, track_id in zip(object_ids.tolist(), ids(tracked), strict=True):
            if index:
                of_object.setdefault(object_id, set()).add(track_id)
    assert sorted(itertools.chain(*of_object.values())) == [1, 2, 3, 4, 5, 6]


@settings(deadline=None, max_examples=20)
@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(0, 300), st.floats(0.0, 1.0, width=32), st.integers(0, 2)), max_size=6
        ),
        max_size=8,
    )
)
def test_nothing_is_dropped_and_ids_are_unique(frames: list[list[tuple[int, float, int]]]) -> None:
    tracker = build_tracker("bytetrack")
    for k, rows in enumerate(frames):
        frame = Detections([box(x) for x, _, _ in rows], [s for _, s, _ in rows], [c for _, _, c in rows])
        tracked = tracker.update(frame, k / 25)
        confirmed = [track_id for track_id in ids(tracked) if track_id >= 0]
        assert len(set(confirmed)) == len(confirmed)
        assert all(track_id < tracker.next_id for track_id in confirmed)
        assert tracked.with_tracks(None) == frame


def test_ids_of_gone_tracks_are_forgotten() -> None:
    tracker = build_tracker("bytetrack", lost_s=0.1)
    for k in range(400):
        tracker.update(detections(box(0)), k // 2 + k % 2 * 0.05)
    assert tracker.next_id == 201
    assert len(tracker._ids) <= 80  # type: ignore[attr-defined]


def test_pedestrians_from_public_detections() -> None:
    """PETS09-S2L1 has 19 people in 795 frames; detections of 2015 give some fragments, not hundreds."""
    path = MOT / "MOT15-train" / "PETS09-S2L1" / "det" / "det.txt"
    if not path.exists():
        pytest.skip("MOT15 detections are not on this machine")
    rows = np.loadtxt(path, delimiter=",")
    tracker = build_tracker("bytetrack", frame_rate=10)
    for number in range(1, 301):
        x, y, w, h, score = rows[rows[:, 0] == number][:, 2:7].T
        boxes = np.stack([x, y, x + w, y + h], axis=1)
        tracker.update(Detections(boxes, np.clip(score, 0, 1), np.zeros(len(x))), number / 10)
    assert 10 <= tracker.next_id - 1 <= 60


def test_none_and_bad_options() -> None:
    tracker = build_tracker("none", first_id=3)
    frame = detections(box(0))
    assert tracker.update(frame, 0.0) is frame
    tracker.reset()
    assert tracker.next_id == 3
    assert set(TRACKERS) == {"bytetrack", "none", "presence", "single"}
    with pytest.raises(ConfigError) as caught:
        build_tracker("bytetracker")
    assert "bytetrack?" in caught.value.hint
    with pytest.raises(ConfigError, match=r"track\.lost"):
        build_tracker("bytetrack", lost=3)
    with pytest.raises(ConfigError, match=r"track\.min_iou is 2"):
        build_tracker("bytetrack", min_iou=2)
