"""Starts, updates and ends, to the nanosecond."""

from __future__ import annotations

import pytest

from pipeline.analytics.lifecycle import ObjectLifecycle
from pipeline.errors import ConfigError
from pipeline.messages import Detections, Event, FrameHeader

MS = 1_000_000
T0 = 1_700_000_000.0


def header(ms: int, *, epoch: int = 0) -> FrameHeader:
    return FrameHeader("gate", epoch, ms // 100, ms * MS, 0, T0 + ms / 1000, "container", 200, 100)


def seen(*objects: tuple[int, float], score: float = 0.5, class_id: int = 0) -> Detections:
    """Objects as (track id, x): boxes of 20 x 20 pixels at (x, 10)."""
    boxes = [(x, 10, x + 20, 30) for _, x in objects]
    count = len(objects)
    return Detections(boxes, [score] * count, [class_id] * count, [track_id for track_id, _ in objects])


def short(events: tuple[Event, ...]) -> list[tuple[str, int | None]]:
    return [(event.type, event.track_id) for event in events]


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        # unconfirmed objects do not exist
        ([(0, [(-1, 0)]), (100, [(-1, 0)])], {}),
        # a start once, at once
        ([(0, [(-1, 0)]), (100, [(4, 0)]), (200, [(4, 0)])], {100: [("start", 4)]}),
        # a still object is reported once, however long it stays
        ([(t, [(4, 0)]) for t in range(0, 5000, 100)], {0: [("start", 4)]}),
        # a moving one once a second
        (
            [(t, [(4, t / 100)]) for t in range(0, 2500, 100)],
            {0: [("start", 4)], 1000: [("update", 4)], 2000: [("update", 4)]},
        ),
        # moved within the first second: reported as soon as the second is over
        (
            [(0, [(4, 0)]), (100, [(4, 50)]), (900, [(4, 50)]), (1000, [(4, 50)]), (2000, [(4, 50)])],
            {0: [("start", 4)], 1000: [("update", 4)]},
        ),
        # gone for 2 s: ended by the first frame at or after that
        (
            [(0, [(4, 0)]), (100, [(4, 0)]), (2000, []), (2099, []), (2100, []), (2200, [])],
            {0: [("start", 4)], 2100: [("end", 4)]},
        ),
        # back within 2 s: nothing happened; and a frame may be late without the object being lost
        ([(0, [(4, 0)]), (1999, [(4, 0)]), (9000, [(4, 0)])], {0: [("start", 4)]}),
        # several at once: ends before starts
        (
            [(0, [(4, 0), (5, 50)]), (3000, [(6, 0)])],
            {0: [("start", 4), ("start", 5)], 3000: [("end", 4), ("end", 5), ("start", 6)]},
        ),
    ],
)
def test_when_events_come(
    steps: list[tuple[int, list[tuple[int, float]]]], expected: dict[int, list[tuple[str, int]]]
) -> None:
    life = ObjectLifecycle(["person"])
    found = {ms: short(life.update(header(ms), seen(*objects))) for ms, objects in steps}
    assert {ms: events for ms, events in found.items() if events} == expected


def test_what_events_say() -> None:
    life = ObjectLifecycle(["person", "car"], model="nanodet-g", provider="CPUExecutionProvider")
    (start,) = life.update(header(100), seen((9, 40), score=0.5, class_id=1))
    assert start == Event(
        type="start",
        source="gate",
        at=T0 + 0.1,
        pts_ns=100 * MS,
        epoch=0,
        seq=1,
        label="car",
        track_id=9,
        confidence=0.5,
        top_confidence=0.5,
        box_xyxy=(40.0, 10.0, 60.0, 30.0),
        box_normalized=(0.2, 0.1, 0.3, 0.3),
        first_seen=T0 + 0.1,
        last_seen=T0 + 0.1,
        duration_s=0.0,
        frames=1,
        model="nanodet-g",
        provider="CPUExecutionProvider",
        clock="container",
    )
    assert life.update(header(600), seen((9, 40), score=0.75, class_id=1)) == ()
    (update,) = life.update(header(1100), seen((9, 42), score=0.25, class_id=1))
    assert (update.type, update.confidence, update.top_confidence) == ("update", 0.25, 0.75)
    assert (update.duration_s, update.frames, update.box_xyxy) == (1.0, 3, (42.0, 10.0, 62.0, 30.0))
    assert len(life) == 1
    (end,) = life.update(header(3100), Detections.empty())
    assert (end.type, end.reason, end.at, end.pts_ns, end.seq) == ("end", "lost", T0 + 3.1, 3100 * MS, 31)
    assert (end.first_seen, end.last_seen, end.duration_s, end.frames) == (T0 + 0.1, T0 + 1.1, 1.0, 3)
    assert len(life) == 0


@pytest.mark.parametrize(
    ("x", "score", "reported"),
    [
        (0, 0.5, False),
        (0.9, 0.5, False),
        (1.0, 0.5, True),
        (0, 0.53, False),
        (0, 0.5625, True),
        (0, 0.1, False),
    ],
)
def test_what_is_noticeable(x: float, score: float, reported: bool) -> None:
    """A twentieth of the box's size, or of the scale of scores, upwards."""
    life = ObjectLifecycle(["person"])
    life.update(header(0), seen((1, 0)))
    assert bool(life.update(header(1000), seen((1, x), score=score))) is reported


def test_finish() -> None:
    life = ObjectLifecycle(["person"])
    assert life.finish("end_of_file", T0) == ()
    life.update(header(0), seen((1, 0), (2, 50)))
    life.update(header(700), seen((2, 50)))
    ends = life.finish("end_of_file", T0 + 9)
    assert [(e.track_id, e.reason, e.at, e.duration_s, e.seq) for e in ends] == [
        (1, "end_of_file", T0 + 9, 0.0, 7),
        (2, "end_of_file", T0 + 9, 0.7, 7),
    ]
    assert life.finish("end_of_file", T0 + 9) == ()


@pytest.mark.parametrize(
    ("votes", "label"),
    [
        ([(0, 0.5)], "car"),
        ([(0, 0.5), (1, 0.75)], "truck"),
        ([(0, 0.5), (0, 0.5), (1, 0.75)], "car"),
        ([(1, 0.5), (0, 0.5)], "truck"),  # a tie stays with the first
        ([(7, 0.5)], "class_7"),
    ],
)
def test_label_is_what_scores_most_in_all(votes: list[tuple[int, float]], label: str) -> None:
    life = ObjectLifecycle(["car", "truck"])
    for number, (class_id, score) in enumerate(votes):
        life.update(header(100 * number), seen((1, 0), score=score, class_id=class_id))
    (end,) = life.finish("stopped", T0)
    assert end.label == label


def test_intervals_can_be_set() -> None:
    life = ObjectLifecycle(["person"], update_interval_s=0, lost_after_s=0.1)
    life.update(header(0), seen((1, 0)))
    assert short(life.update(header(40), seen((1, 5)))) == [("update", 1)]
    assert short(life.update(header(139), Detections.empty())) == []
    assert short(life.update(header(140), Detections.empty())) == [("end", 1)]
    with pytest.raises(ConfigError, match=r"events\.update_interval_s is -1"):
        ObjectLifecycle(["person"], update_interval_s=-1)
    with pytest.raises(ConfigError, match=r"events\.lost_after_s is inf"):
        ObjectLifecycle(["person"], lost_after_s=float("inf"))


def test_untracked_detections_make_no_events() -> None:
    life = ObjectLifecycle(["person"])
    assert life.update(header(0), Detections([(0, 0, 5, 5)], [0.9], [0])) == ()
