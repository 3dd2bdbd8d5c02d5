from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.analytics.schedule import Schedule
from pipeline.config.hours import parse_hours
from pipeline.errors import ConfigError

BERLIN = "Europe/Berlin"


def schedule(*texts: str, timezone: str | None = BERLIN) -> Schedule:
    return Schedule([parse_hours(text) for text in texts], timezone)


def at(text: str, zone: str = BERLIN, *, fold: int = 0) -> float:
    """UTC seconds of a time on the wall."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold).timestamp()


@pytest.mark.parametrize(
    ("entries", "moment", "expected"),
    [
        # 2026-11-23 is a Monday.
        (["mon-fri 07:00-19:00"], "2026-11-23 06:59:59.9", False),
        (["mon-fri 07:00-19:00"], "2026-11-23 07:00", True),
        (["mon-fri 07:00-19:00"], "2026-11-23 18:59:59", True),
        (["mon-fri 07:00-19:00"], "2026-11-23 19:00", False),
        (["mon-fri 07:00-19:00"], "2026-11-28 12:00", False),
        (["sat,sun"], "2026-11-28 00:00", True),
        (["sat,sun"], "2026-11-29 23:59:59", True),
        (["sat,sun"], "2026-11-30 00:00", False),
        (["22:00-06:00"], "2026-11-23 23:00", True),
        (["22:00-06:00"], "2026-11-24 05:59", True),
        (["22:00-06:00"], "2026-11-24 06:00", False),
        # Over midnight belongs to the day on which it begins, over the end of the week too.
        (["sun 22:00-06:00"], "2026-11-29 21:59", False),
        (["sun 22:00-06:00"], "2026-11-30 05:00", True),
        (["mon 22:00-06:00"], "2026-11-23 05:00", False),
        (["mon 08:00-09:00", "mon 10:00-11:00"], "2026-11-23 09:30", False),
        (["mon 08:00-09:00", "mon 10:00-11:00"], "2026-11-23 10:30", True),
        # Summer time: 02:30 does not come on 2026-03-29, and comes twice on 2026-10-25.
        (["02:00-03:00"], "2026-03-29 01:59:59", False),
        (["02:00-03:00"], "2026-03-29 03:00", False),
    ],
)
def test_active(entries: list[str], moment: str, expected: bool) -> None:
    assert schedule(*entries).active(at(moment)) is expected


def test_an_hour_that_comes_twice_is_on_twice() -> None:
    night = schedule("02:00-02:30")
    assert [night.active(at("2026-10-25 02:15", fold=fold)) for fold in (0, 1)] == [True, True]
    assert [night.active(at("2026-10-25 02:45", fold=fold)) for fold in (0, 1)] == [False, False]


@pytest.mark.parametrize(
    ("entries", "moment", "expected"),
    [
        (["mon-fri 07:00-19:00"], at("2026-11-23 03:00"), at("2026-11-23 07:00")),
        (["mon-fri 07:00-19:00"], at("2026-11-23 07:00"), at("2026-11-23 19:00")),
        (["mon-fri 07:00-19:00"], at("2026-11-27 19:00"), at("2026-11-30 07:00")),
        (["mon 10:00-11:00"], at("2026-11-23 11:00"), at("2026-11-30 10:00")),
        (["mon 22:00-06:00", "tue 06:00-08:00"], at("2026-11-23 23:00"), at("2026-11-24 08:00")),
        # Clocks go from 02:00 to 03:00, and back from 03:00 to 02:00.
        (["02:30-05:00"], at("2026-03-29 01:00"), at("2026-03-29 03:00")),
        (["01:00-02:30"], at("2026-03-29 01:30"), at("2026-03-29 03:00")),
        (["01:00-02:30"], at("2026-10-25 01:30"), at("2026-10-25 02:30")),
        (["01:00-02:30"], at("2026-10-25 02:45"), at("2026-10-25 02:00", fold=1)),
        (["01:00-02:30"], at("2026-10-25 02:00", fold=1), at("2026-10-25 02:30", fold=1)),
        (["daily"], at("2026-11-23 03:00"), None),
        (["mon-fri", "sat,sun"], at("2026-11-23 03:00"), None),
    ],
)
def test_next_change(entries: list[str], moment: float, expected: float | None) -> None:
    assert schedule(*entries).next_change(moment) == expected


def test_nothing_is_never_on() -> None:
    never = Schedule([])
    assert not never.active(0.0)
    assert never.next_change(0.0) is None


@pytest.fixture
def host_in_new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("host_in_new_york")
def test_without_a_name_it_is_this_hosts_time_zone() -> None:
    here, there = schedule("02:30-12:00", timezone=None), schedule("02:30-12:00", timezone="America/New_York")
    start = at("2026-03-07 00:00", "America/New_York")
    for half_hours in range(100):
        moment = start + half_hours * 1800
        assert here.active(moment) is there.active(moment)
        assert here.next_change(moment) == there.next_change(moment)


ENTRIES = st.lists(
    st.tuples(
        st.lists(st.integers(0, 6), min_size=1, max_size=3), st.integers(0, 95), st.integers(1, 96)
    ).map(lambda entry: (entry[0], entry[1] * 15, (entry[1] + entry[2]) * 15)),
    min_size=1,
    max_size=3,
)
#: Days on which the clock changes, in zones where it does so in the night, at midnight, and by half an hour.
CHANGES = [
    (BERLIN, "2026-03-29"),
    (BERLIN, "2026-10-25"),
    ("Asia/Beirut", "2026-03-29"),
    ("Australia/Lord_Howe", "2026-04-05"),
    ("UTC", "2026-01-01"),
]
#: A zone, and a quarter of an hour in the ten days before such a day, or in it.
MOMENTS = st.tuples(st.sampled_from(CHANGES), st.integers(-10 * 96, 96)).map(
    lambda pair: (
        pair[0][0],
        datetime.fromisoformat(pair[0][1]).replace(tzinfo=UTC).timestamp() + pair[1] * 900,
    )
)


@given(ENTRIES, MOMENTS)
def test_active_is_what_the_clock_on_the_wall_says(
    entries: list[tuple[list[int], int, int]], moment: tuple[str, float]
) -> None:
    zone, now = moment
    wall = datetime.fromtimestamp(now, ZoneInfo(zone)).replace(tzinfo=None)
    monday = datetime(wall.year, wall.month, wall.day) - timedelta(days=wall.weekday())
    expected = any(
        begin <= wall < begin + timedelta(minutes=end - start)
        for days, start, end in entries
        for day in days
        for week in (-7, 0)
        for begin in [monday + timedelta(days=day + week, minutes=start)]
    )
    assert Schedule(entries, zone).active(now) is expected


@given(ENTRIES, MOMENTS)
def test_the_next_change_is_the_first(
    entries: list[tuple[list[int], int, int]], moment: tuple[str, float]
) -> None:
    zone, now = moment
    weekly = Schedule(entries, zone)
    state, change = weekly.active(now), weekly.next_change(now)
    until = now + 9 * 86400 if change is None else change
    if change is not None:
        assert change > now
        assert weekly.active(change) is not state
        assert weekly.active(change - 0.001) is state
    # All spans begin and end on quarters, and so do these zones' changes.
    quarters = [now + step * 900 for step in range(int((until - now) // 900) + 1) if now + step * 900 < until]
    assert all(weekly.active(quarter) is state for quarter in quarters)


@pytest.mark.parametrize(
    ("hours", "timezone", "message"),
    [
        ([([0], 600, 660)], "Middle-earth/Shire", "no time zone Middle-earth/Shire"),
        ([([7], 600, 660)], None, "days \\[7\\]"),
        ([([0], 660, 600)], None, "660 to 600"),
        ([([0], 0, 1441)], None, "0 to 1441"),
        ([([0], 1440, 1500)], None, "1440 to 1500"),
    ],
)
def test_what_cannot_be(hours: list[tuple[list[int], int, int]], timezone: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Schedule(hours, timezone)
    assert caught.value.hint
