"""What all trackers of many objects promise: ids, order, real time, classes, odd input."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.messages import Detections
from pipeline.sources.synthetic import SyntheticSource
from pipeline.tracking import Tracker, batch, build_tracker
from tests.tracking.scenes import BATCHED, box, detections, ids

every_tracker = pytest.mark.parametrize("algorithm", BATCHED)


@every_tracker
@pytest.mark.parametrize(
    ("min_frames", "expected"),
    [(1, [7, 7, 7, 7, 7]), (2, [-1, 7, 7, 7, 7]), (4, [-1, -1, -1, 7, 7])],
)
def test_confirmed_after_so_many_detections_and_kept(
    algorithm: str, min_frames: int, expected: list[int]
) -> None:
    tracker = build_tracker(algorithm, first_id=7, min_frames=min_frames)
    seen = [ids(tracker.update(detections(box(3 * k)), k / 25))[0] for k in range(5)]
    assert seen == expected
    assert tracker.next_id == 8


@every_tracker
def test_order_and_everything_else_stay_as_given(algorithm: str) -> None:
    tracker = build_tracker(algorithm)
    frame = Detections(
        [box(0), box(200), box(400), box(600)], [0.3, 0.9, 0.8, 0.99], [2, 0, 1, 0], [5, 6, 7, 8]
    )
    tracker.update(frame, 0.0)
    for k in range(1, 4):
        given_ = frame.select(np.random.default_rng(k).permutation(4))
        tracked = tracker.update(given_, k / 25)
        assert tracked.with_tracks(given_.track_ids) == given_
        by_x = dict(zip(tracked.boxes_xyxy[:, 0].tolist(), ids(tracked), strict=True))
        if k == 1:
            first = by_x
        assert by_x == first
    assert by_x[0] == -1, "a low score starts no track"
    assert {by_x[200], by_x[400], by_x[600]} == {1, 2, 3}


@every_tracker
def test_two_sources_do_not_share_ids_and_reset_does_not_reuse_them(algorithm: str) -> None:
    one, two = build_tracker(algorithm), build_tracker(algorithm)
    for k in range(3):
        a, b = ids(one.update(detections(box(0)), k / 10)), ids(two.update(detections(box(0)), k / 10))
    assert (a, b) == ([1], [1])
    one.reset()
    again = [ids(one.update(detections(box(0)), k / 10)) for k in range(3)]
    assert again == [[-1], [2], [2]]
    assert ids(two.update(detections(box(0)), 0.3)) == [1]
    assert (one.next_id, two.next_id) == (3, 2)


@every_tracker
def test_a_person_does_not_become_a_car(algorithm: str) -> None:
    def run(tracker: Tracker) -> list[list[int]]:
        frames = [detections(box(0), class_ids=[0])] * 3 + [detections(box(0), class_ids=[1])] * 3
        return [ids(tracker.update(frame, k / 25)) for k, frame in enumerate(frames)]

    assert run(build_tracker(algorithm)) == [[-1], [1], [1], [-1], [2], [2]]
    assert run(build_tracker(algorithm, class_agnostic=True)) == [[-1], [1], [1], [1], [1], [1]]


@every_tracker
def test_a_class_that_flickers_keeps_its_id_among_others_of_either_class(algorithm: str) -> None:
    tracker = build_tracker(algorithm, class_agnostic=True)
    for k in range(30):
        frame = detections(
            box(4 * k), box(400 - 4 * k, 100), box(300, 200), class_ids=[2 + k % 2 * 5, 2, 7 - k % 3 // 2 * 5]
        )
        found = ids(tracker.update(frame, k / 25))
        if k:
            assert found == [1, 2, 3]


@every_tracker
@pytest.mark.parametrize(("gap_s", "kept"), [(0.5, True), (0.9, True), (1.2, False), (60.0, False)])
@pytest.mark.parametrize("rate", [5.0, 30.0])
def test_lost_objects_by_real_time(algorithm: str, gap_s: float, kept: bool, rate: float) -> None:
    """It matters how long an object was away, not how many frames came meanwhile."""
    tracker = build_tracker(algorithm, lost_s=1.0)
    for k in range(5):
        tracker.update(detections(box(100)), k / rate)
    last = 4 / rate
    if rate == 30.0:  # the frames in between arrive, without the object
        for k in range(1, int(gap_s * rate)):
            tracker.update(Detections.empty(), last + k / rate)
    first = ids(tracker.update(detections(box(100)), last + gap_s))
    second = ids(tracker.update(detections(box(100)), last + gap_s + 1 / rate))
    assert (first, second) == (([1], [1]) if kept else ([-1], [2]))


@every_tracker
@pytest.mark.parametrize("burst", [1, 2, 8, 15])
def test_bursts_of_dropped_frames_keep_all_ids(algorithm: str, burst: int) -> None:
    """Every second frame is missing, singly or in bursts of up to half a second."""
    tracker = build_tracker(algorithm)
    taken = [k for k in range(200) if (k // burst) % 2 == 0]
    seen = [
        ids(tracker.update(detections(box(2.5 * k), box(600 - 2 * k, 60), box(300, k, 60)), k / 30))
        for k in taken
    ]
    assert [set(column) for column in zip(*seen[1:], strict=True)] == [{1}, {2}, {3}]


@every_tracker
@pytest.mark.parametrize(
    "times",
    [
        [0.0, 0.0, 0.0, 0.0],
        [1.0, 0.5, 0.7, 0.2],
        [3.0, 3.04, 3.04, 3.08],
        [1e9, 0.0, 0.04, 0.08],
        [0.0, float("nan"), 0.1, 0.2],
        [0.0, float("inf"), 0.1, 0.2],
    ],
)
def test_times_that_do_not_rise_are_survived(algorithm: str, times: list[float]) -> None:
    tracker = build_tracker(algorithm)
    assert [ids(tracker.update(detections(box(0)), t)) for t in times] == [[-1], [1], [1], [1]]


@every_tracker
def test_empty_frames(algorithm: str) -> None:
    tracker = build_tracker(algorithm)
    assert ids(tracker.update(Detections.empty(), 0.0)) == []
    tracker.update(detections(box(0)), 0.1)
    assert ids(tracker.update(Detections.empty(), 0.2)) == []
    tracker.reset()
    assert ids(tracker.update(Detections.empty(), 0.3)) == []


@every_tracker
def test_synthetic_objects_keep_their_ids(algorithm: str) -> None:
    source = SyntheticSource("s", "synthetic://?frames=200&objects=6&seed=4")
    tracker = build_tracker(algorithm)
    of_object: dict[int, set[int]] = {}
    for index in range(200):
        boxes, class_ids, object_ids = source.truth(index)
        tracked = tracker.update(Detections(boxes, np.full(len(boxes), 0.9), class_ids), index / 25)
        for object_id, track_id in zip(object_ids.tolist(), ids(tracked), strict=True):
            if index:
                of_object.setdefault(object_id, set()).add(track_id)
    assert sorted(itertools.chain(*of_object.values())) == [1, 2, 3, 4, 5, 6]


@every_tracker
def test_objects_that_cross_keep_their_ids(algorithm: str) -> None:
    tracker = build_tracker(algorithm)
    for k in range(60):
        frame = detections(box(4 * k, 0, 60), box(236 - 4 * k, 12, 60))
        found = ids(tracker.update(frame, k / 25))
        if k:
            assert found == [1, 2]


@every_tracker
def test_a_hidden_object_comes_back_with_its_id(algorithm: str) -> None:
    """It goes on behind something for 0.6 s; a second one stands nearby all the time."""
    tracker = build_tracker(algorithm)
    for k in range(60):
        rows = [box(300, 50)] if 25 <= k < 40 else [box(300, 50), box(5 * k)]
        found = ids(tracker.update(detections(*rows), k / 25))
        if k:
            assert found == [1, 2][: len(rows)]


@every_tracker
def test_odd_boxes_never_give_nan(algorithm: str) -> None:
    tracker = build_tracker(algorithm, lost_s=10.0)
    rows = [(0, 0, 0, 0), (5, 5, 4, 3), (0, 0, 1e7, 1e7), (-1e6, 0, -1e6 + 1e-3, 1e-3), (10, 10, 11, 4000)]
    for k in range(12):
        with np.errstate(all="raise", under="ignore"):
            tracked = tracker.update(detections(*rows[: k % 6], score=0.9), k * 0.7)
        assert len(ids(tracked)) == k % 6
    for column in (*tracker._tracks.columns.values(), tracker._tracks.filter.state):  # type: ignore[attr-defined]
        assert not np.isnan(column).any()


@every_tracker
def test_thousands_of_detections_are_bounded(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "_MOST_DETECTIONS", 60)
    monkeypatch.setattr(batch, "_MOST_TRACKS", 100)
    tracker = build_tracker(algorithm, min_frames=1)
    rng = np.random.default_rng(3)
    for k in range(20):
        corners = rng.uniform(0, 1e5, (200, 2))
        scores = rng.permutation(200) / 200
        boxes = np.concatenate([corners, corners + 50], axis=1)
        tracked = tracker.update(Detections(boxes, scores, np.zeros(200)), k / 25)
        found = np.array(ids(tracked))
        assert len(tracker._tracks) <= 100  # type: ignore[attr-defined]
        if k == 0:
            assert set(np.flatnonzero(found >= 0)) == set(np.argsort(-scores)[:60])


@every_tracker
def test_tracks_that_are_gone_are_forgotten(algorithm: str) -> None:
    tracker = build_tracker(algorithm, lost_s=0.1)
    for k in range(400):
        tracker.update(detections(box(0)), k // 2 + k % 2 * 0.05)
    assert tracker.next_id == 201
    assert len(tracker._tracks) <= 2  # type: ignore[attr-defined]


frames = st.lists(
    st.lists(
        st.tuples(st.integers(0, 300), st.integers(0, 60), st.floats(0.0, 1.0, width=32), st.integers(0, 2)),
        max_size=6,
    ),
    max_size=8,
)


@every_tracker
@settings(deadline=None, max_examples=20)
@given(frames)
def test_nothing_is_dropped_and_ids_are_unique(
    algorithm: str, frames: list[list[tuple[int, int, float, int]]]
) -> None:
    tracker = build_tracker(algorithm)
    highest = 0
    for k, rows in enumerate(frames):
        frame = Detections([box(x, y) for x, y, _, _ in rows], [r[2] for r in rows], [r[3] for r in rows])
        tracked = tracker.update(frame, k / 25)
        confirmed = [track_id for track_id in ids(tracked) if track_id >= 0]
        assert len(set(confirmed)) == len(confirmed)
        assert all(track_id < tracker.next_id for track_id in confirmed)
        assert tracker.next_id >= highest
        highest = tracker.next_id
        assert tracked.with_tracks(None) == frame


@every_tracker
@settings(deadline=None, max_examples=10)
@given(st.integers(0, 10_000))
def test_the_order_of_the_input_does_not_matter(algorithm: str, seed: int) -> None:
    """The same objects are held for the same; only the numbers of those that begin together may change."""
    rng = np.random.default_rng(seed)
    plain, shuffled = build_tracker(algorithm), build_tracker(algorithm)
    corners, steps = rng.uniform(0, 300, (8, 2)), rng.normal(0, 4, (8, 2))
    renamed: dict[int, int] = {-1: -1}
    for k in range(12):
        corners += steps
        there = np.flatnonzero(rng.random(8) < 0.85)
        boxes = np.concatenate([corners, corners + np.array([50, 80])], axis=1)[there]
        frame = Detections(boxes, rng.uniform(0.3, 1.0, len(there)), np.zeros(len(there)))
        order = rng.permutation(len(there))
        one = np.array(ids(plain.update(frame, k / 25)))
        two = np.array(ids(shuffled.update(frame.select(order), k / 25)))
        for a, b in zip(one[order].tolist(), two.tolist(), strict=True):
            assert renamed.setdefault(a, b) == b
    assert len(set(renamed.values())) == len(renamed)
