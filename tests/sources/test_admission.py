from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config import from_mapping
from pipeline.errors import ConfigError
from pipeline.sources.admission import Admission
from pipeline.sources.base import Picture
from pipeline.transport.ledger import DROP_CAUSES
from tests.helpers import make_picture

MS = 1_000_000
SECOND = 1_000_000_000
DAILY = ((0, 1, 2, 3, 4, 5, 6), 0, 1440)


def at(
    pts_ms: float, *, lag_ms: float = 0.0, epoch: int = 0, luma: int = 100, spot: int | None = None
) -> Picture:
    """A grey picture, with a bright spot at a place or without."""
    plane = np.full((240, 320), luma, np.uint8)
    if spot is not None:
        plane[100:160, spot : spot + 40] = 250
    chroma = np.full((120, 160), 128, np.uint8)
    pts_ns = round(pts_ms * MS)
    return Picture(
        (plane, chroma, chroma), "i420", 320, 240, 0, pts_ns, 5 * SECOND + pts_ns + round(lag_ms * MS),
        0.0, "arrival", epoch,
    )  # fmt: skip


def judged(admission: Admission, pictures: list[Picture], last: int | None = None) -> list[str | None]:
    """The verdicts, each told which was wanted before."""
    verdicts: list[str | None] = []
    for picture in pictures:
        cause = admission.judge(picture, last)
        if cause is None:
            last = picture.pts_ns
        verdicts.append(cause)
    return verdicts


def wanted(admission: Admission, pictures: list[Picture], last: int | None = None) -> list[float]:
    """Presentation times, in ms, of those that are wanted."""
    verdicts = judged(admission, pictures, last)
    return [picture.pts_ns / MS for picture, cause in zip(pictures, verdicts, strict=True) if cause is None]


def test_without_rules_all_are_wanted() -> None:
    admission = Admission()
    assert judged(admission, [at(0), at(0), at(1, lag_ms=9e6), at(2)]) == [None] * 4
    assert admission.awake()


def test_what_is_switched_off_wants_nothing_until_it_is_on_again() -> None:
    on = [True]
    admission = Admission(max_fps=1000, switch=lambda: on[0])
    assert judged(admission, [at(0)]) == [None]
    on[0] = False
    assert not admission.awake()
    assert judged(admission, [at(1), at(2)]) == ["gated", "gated"]
    on[0] = True
    assert admission.awake()
    assert judged(admission, [at(3)], last=0) == [None]


@pytest.mark.parametrize(
    ("max_fps", "times", "expected"),
    [
        (10, [0, 40, 80, 120, 160, 200, 240, 280, 320], [0, 80, 160, 280]),
        (10, [0, 100, 200, 300], [0, 100, 200, 300]),
        # Jitter of a camera whose rate is just the one asked for costs nothing.
        (10, [0, 95, 204, 298, 401, 497], [0, 95, 204, 298, 401, 497]),
        # What is slower than the limit is not held up, whatever its phase.
        (10, [37, 187, 337, 487], [37, 187, 337, 487]),
        (0.5, [0, 500, 1000, 2000, 2999, 3001], [0, 1000, 3001]),
        (1000, [0, 1, 2, 3], [0, 1, 2, 3]),
        # After a pause there is no burst.
        (10, [0, 5000, 5010, 5020, 5060], [0, 5000, 5060]),
        # Time that begins anew does not wait for the old one.
        (1, [90_000, 0, 400, 800], [90_000, 0, 800]),
    ],
)
def test_rate(max_fps: float, times: list[float], expected: list[float]) -> None:
    assert wanted(Admission(max_fps=max_fps), [at(time) for time in times]) == expected


@given(
    st.floats(0.1, 60),
    st.lists(st.integers(1, 200 * MS), min_size=1, max_size=120),
    st.integers(0, 100 * 3600 * SECOND),
    st.integers(0, 119),
)
def test_no_rate_is_ever_above_the_limit_and_a_restart_changes_nothing(
    max_fps: float, steps: list[int], start: int, restart: int
) -> None:
    times = [start + sum(steps[:count]) for count in range(len(steps))]
    base = make_picture(0)
    pictures = [replace(base, pts_ns=time) for time in times]
    kept = wanted(Admission(max_fps=max_fps), pictures)
    assert kept[0] == times[0] / MS
    assert len(kept) <= (times[-1] - times[0]) * max_fps / SECOND + 2
    # Never a whole slot without one that was there to be had.
    gaps = [after - before for before, after in pairwise(kept)]
    assert max(gaps, default=0) <= 2000 / max_fps + 200
    before = wanted(Admission(max_fps=max_fps), pictures[:restart])
    last = round(before[-1] * MS) if before else None
    assert before + wanted(Admission(max_fps=max_fps), pictures[restart:], last) == kept


def test_stale() -> None:
    lags = [300, 250, 320, 1240, 1260, 3000, 260, 900]
    pictures = [at(index * 40, lag_ms=lag) for index, lag in enumerate(lags)]
    assert judged(Admission(max_age_s=1.0), pictures) == [
        None, None, None, None, "stale", "stale", None, None,
    ]  # fmt: skip


def test_a_delay_that_stays_is_the_new_best_after_five_seconds() -> None:
    # From the fifth second on all come two seconds later, which is no backlog that goes away again.
    pictures = [at(second * 1000, lag_ms=100 if second < 5 else 2100) for second in range(80)]
    verdicts = judged(Admission(max_age_s=1.0), pictures)
    assert verdicts == [*[None] * 5, *["stale"] * 5, *[None] * 70]


def test_what_is_quickest_is_that_of_the_last_minute() -> None:
    # The quick one at the start is forgotten after a minute; those between lag, but not by too much.
    lags = [100, *[900] * 70, *[1800] * 5]
    pictures = [at(second * 1000, lag_ms=lag) for second, lag in enumerate(lags)]
    assert set(judged(Admission(max_age_s=1.0), pictures)) == {None}
    soon = [at(second * 1000, lag_ms=lag) for second, lag in enumerate([100, *[900] * 30, 1800])]
    assert judged(Admission(max_age_s=1.0), soon)[-1] == "stale"


def test_each_connection_has_its_own_quickest() -> None:
    pictures = [at(0, lag_ms=0), at(40, lag_ms=5000, epoch=1), at(80, lag_ms=5100, epoch=1), at(120, epoch=1)]
    assert judged(Admission(max_age_s=1.0), pictures) == [None] * 4


@given(st.lists(st.tuples(st.integers(1, 20_000), st.integers(0, 5_000)), min_size=1, max_size=60))
def test_stale_is_what_lags_behind_the_best_of_a_minute_unless_that_lasts(
    steps: list[tuple[int, int]],
) -> None:
    pictures: list[Picture] = []
    arrival = 0
    for step, lag in steps:
        arrival += step  # arrivals are in order, whatever the stamps say
        pictures.append(replace(make_picture(0), captured_ns=arrival * MS, pts_ns=(arrival - lag) * MS))
    expected: list[str | None] = []
    since, late_since = 0, None
    for index, picture in enumerate(pictures):
        recent = [
            p for p in pictures[since : index + 1] if picture.captured_ns - p.captured_ns <= 60 * SECOND
        ]
        best = min(p.captured_ns - p.pts_ns for p in recent)
        late = picture.captured_ns - picture.pts_ns - best > SECOND
        late_since = (picture.captured_ns if late_since is None else late_since) if late else None
        if late_since is not None and picture.captured_ns - late_since >= 5 * SECOND:
            since, late_since, late = index, None, False
        expected.append("stale" if late else None)
    assert judged(Admission(max_age_s=1.0), pictures) == expected


def test_schedule() -> None:
    clock = [6.5 * 3600.0]
    asked: list[float] = []

    def now() -> float:
        asked.append(clock[0])
        return clock[0]

    # 1970-01-01 was a Thursday.
    admission = Admission(schedule=[((3,), 7 * 60, 8 * 60)], timezone="UTC", wall_clock=now)
    seen = []
    for hour in (6.5, 6.9999, 7.0, 7.5, 7.9999, 8.0, 7.5, 31.5):
        clock[0] = hour * 3600
        seen.append((admission.awake(), admission.judge(at(hour), None)))
    off, on = (False, "gated"), (True, None)
    assert seen == [off, off, on, on, on, off, on, off], "a clock that is set back counts too"
    assert len(asked) == 16


def test_motion_opens_the_gate_and_holds_it() -> None:
    admission = Admission(motion={"recheck_s": 10.0, "hold_s": 1.0})
    pictures = [
        at(number * 200, spot=20 + (number - 50) * 8 if 50 <= number < 60 else None) for number in range(150)
    ]
    kept = wanted(admission, pictures)
    # The first, with its tail; motion at 10..12 s, with its tail; then one every ten seconds.
    assert kept[:5] == [0, 200, 400, 600, 800]
    assert kept[5] == 10_000
    moving = [time for time in kept if 10_000 <= time < 20_000]
    assert moving[:14] == [10_000 + 200 * step for step in range(14)], "no hole, and a tail of a second"
    assert kept[-1] - moving[-1] == 10_000
    assert len(moving) < 20


def test_while_nothing_moves_one_passes_from_time_to_time() -> None:
    admission = Admission(motion={"recheck_s": 5.0, "hold_s": 0.0})
    assert wanted(admission, [at(number * 500) for number in range(41)]) == [0, 5000, 10_000, 15_000, 20_000]
    # A restarted process knows when that was last.
    again = Admission(motion={"recheck_s": 5.0, "hold_s": 0.0})
    first, *rest = wanted(again, [at(20_500 + number * 500) for number in range(20)], 20_000 * MS)
    assert first == 20_500, "nothing to compare it with"
    assert rest == [25_500]


def test_a_new_connection_looks_again() -> None:
    admission = Admission(motion={"recheck_s": 100.0, "hold_s": 0.0})
    pictures = [at(number * 500, epoch=number // 10) for number in range(30)]
    assert wanted(admission, pictures) == [0, 5000, 10_000]


def test_causes_come_in_order_and_are_those_of_the_books() -> None:
    clock = [0.0]
    admission = Admission(
        max_fps=1, max_age_s=1.0, motion={"recheck_s": 60.0, "hold_s": 0.0},
        schedule=[((3,), 0, 60)], timezone="UTC", wall_clock=lambda: clock[0],
    )  # fmt: skip
    verdicts = judged(admission, [at(0), at(100), at(1000), at(2000, lag_ms=1500)])
    clock[0] = 7200.0
    verdicts += judged(admission, [at(3000, lag_ms=1500)])
    assert verdicts == [None, "rate_limited", "gated", "stale", "gated"]
    assert {cause for cause in verdicts if cause} < set(DROP_CAUSES)


def test_a_gate_learns_only_from_what_is_not_dropped_otherwise() -> None:
    admission = Admission(max_age_s=1.0, motion={"recheck_s": 60.0, "hold_s": 0.0})
    pictures = [
        at(number * 250, spot=100, lag_ms=5000) if number % 2 else at(number * 250) for number in range(20)
    ]
    assert judged(admission, pictures) == [None, "stale", *["gated", "stale"] * 9]


def test_motion_is_seen_between_the_slots_of_a_low_rate() -> None:
    admission = Admission(max_fps=0.5, motion={"recheck_s": 60.0, "hold_s": 0.0})
    # It is there for a fifth of a second, and two seconds after the last picture that passed.
    pictures = [at(number * 200, spot=100 if number == 23 else None) for number in range(40)]
    assert wanted(admission, pictures) == [0, 4600]


@pytest.mark.parametrize(
    "source",
    [
        {"url": "rtsp://h/s"},
        {"url": "rtsp://h/s", "max_fps": 5, "max_age_s": 2, "motion": True},
        {"url": "rtsp://h/s", "schedule": ["mon-fri 07:00-19:00", "sat"], "timezone": "Europe/Berlin"},
        {"url": "a.mp4", "motion": {"min_area": 0.01}, "max_fps": 2.5},
    ],
)
def test_what_the_config_says_is_taken_as_plain_data(source: dict[str, Any]) -> None:
    plain = from_mapping({"sources": {"a": source}}, "test").sources["a"].admission()
    admission = Admission(**json.loads(json.dumps(plain)))
    assert admission.judge(at(0), None) in (None, "gated")


def test_a_wrong_time_zone() -> None:
    with pytest.raises(ConfigError, match="Shire"):
        Admission(schedule=[DAILY], timezone="Middle-earth/Shire")
