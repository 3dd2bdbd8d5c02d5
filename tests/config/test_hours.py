from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.hours import Hours, check_timezone, parse_hours

ALL = (0, 1, 2, 3, 4, 5, 6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mon-fri 07:00-19:00", Hours((0, 1, 2, 3, 4), 420, 1140)),
        ("sat,sun", Hours((5, 6), 0, 1440)),
        ("22:00-06:00", Hours(ALL, 1320, 1800)),
        ("daily 08:00-12:00", Hours(ALL, 480, 720)),
        ("daily", Hours(ALL, 0, 1440)),
        ("weekdays 8:00-17:30", Hours((0, 1, 2, 3, 4), 480, 1050)),
        ("weekends", Hours((5, 6), 0, 1440)),
        ("sat-mon 00:00-24:00", Hours((0, 5, 6), 0, 1440)),
        ("Monday, Wed-Thu 9:00 - 10:00", Hours((0, 2, 3), 540, 600)),
        ("fri 18:00-00:00", Hours((4,), 1080, 1440)),
        ("  TUE  23:59-00:01 ", Hours((1,), 1439, 1441)),
        ("mon-mon", Hours((0,), 0, 1440)),
    ],
)
def test_hours(text: str, expected: Hours) -> None:
    assert parse_hours(text) == expected


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "is not days, hours", "mon-fri 07:00-19:00"),
        ("mon fri 07:00-19:00", "is not days, hours", "mon-fri 07:00-19:00"),
        ("07:00-19:00 mon-fri", "has its hours first", "write mon-fri 07:00-19:00"),
        ("mno 07:00-19:00", "has no day in `mno`", "write `mon`"),
        ("workdays", "has no day in `workdays`", "write `weekdays`"),
        ("8", "has no day in `8`", "days are mon, tue"),
        ("mon-", "has no day in ``", "days are mon, tue"),
        ("mon 7-19", "has no hours in `7-19`", "07:00-19:00"),
        ("mon 07:00", "has no hours in `07:00`", "07:00-19:00"),
        ("mon 07:60-19:00", "that no clock shows", "00:00 to 24:00"),
        ("mon 24:00-25:00", "that no clock shows", "00:00 to 24:00"),
        ("mon 07:00-24:01", "that no clock shows", "00:00 to 24:00"),
        ("mon 07:00-07:00", "ends when it begins", "leave the hours out"),
    ],
)
def test_what_is_none(text: str, message: str, hint: str) -> None:
    with pytest.raises(ValueError, match="`") as caught:
        parse_hours(text)
    said, _, remedy = str(caught.value).partition("; ")
    assert message in said
    assert hint in remedy


@given(st.text(max_size=25))
def test_any_text_is_hours_or_refused(text: str) -> None:
    try:
        hours = parse_hours(text)
    except ValueError as error:
        said = str(error)
    else:
        said = ""
    if said:
        assert "; " in said, "says what to write"
        return
    assert hours.days
    assert 0 <= hours.start_min < 1440
    assert hours.start_min < hours.end_min <= hours.start_min + 1440


@given(
    st.lists(st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]), min_size=1),
    st.integers(0, 1439),
    st.integers(1, 1439),
)
def test_what_is_written_is_read(days: list[str], start: int, length: int) -> None:
    end = (start + length) % 1440
    hours = parse_hours(f"{','.join(days)} {start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}")
    assert {("mon", "tue", "wed", "thu", "fri", "sat", "sun")[day] for day in hours.days} == set(days)
    assert (hours.start_min, hours.end_min - hours.start_min) == (start, length)


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Europe/Berln", "write Europe/Berlin"),
        ("Berlin", "write Europe/Berlin"),
        ("new_york", "write America/New_York"),
        ("Middle-earth/Shire", "write such as Europe/Berlin"),
        ("../etc/passwd", "write such as Europe/Berlin"),
        ("/etc/localtime", "write such as Europe/Berlin"),
    ],
)
def test_time_zones(name: str, hint: str) -> None:
    with pytest.raises(ValueError, match="is no time zone; ") as caught:
        check_timezone(name)
    assert hint in str(caught.value)
    assert check_timezone("Europe/Berlin") == "Europe/Berlin"
