"""Weekly hours as an operator writes them, ``mon-fri 07:00-19:00``, as plain numbers.

Here and not beside `pipeline.analytics.schedule`, which knows when such hours are: the config has to say in
which line of the file an entry is wrong and imports nothing of the pipeline, and the processes that keep the
hours get plain data and load no parser.
"""

from __future__ import annotations

import re
import zoneinfo
from difflib import get_close_matches
from typing import NamedTuple

__all__ = ["Hours", "check_timezone", "parse_hours"]

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_LONG = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SETS = {"daily": range(7), "weekdays": range(5), "weekends": range(5, 7)}
_TIMES = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})")
_EXAMPLES = "write such as mon-fri 07:00-19:00, or sat,sun, or 22:00-06:00"
_DAY_MIN = 24 * 60


class Hours(NamedTuple):
    """The same span of time on some days of every week, by the clock on the wall.

    Attributes:
        days: Days on which it begins; 0 is Monday.
        start_min: Minutes after midnight at which it begins, 0 to 1439.
        end_min: Minutes after that same midnight at which it is over, above ``start_min``; more than 1440
            for a span that reaches into the next day.
    """

    days: tuple[int, ...]
    start_min: int
    end_min: int


def parse_hours(text: str) -> Hours:
    """Read one entry: days, times, or both with a space between.

    Args:
        text: Days are ``mon`` … ``sun``, ranges (``mon-fri``, ``sat-mon``) and lists (``mon,wed``) of them,
            ``daily``, ``weekdays`` or ``weekends``; left out: every day. Times are ``07:00-19:00``; an end at
            or before the beginning is on the next day, 24:00 is midnight; left out: the whole day.

    Raises:
        ValueError: it is none; says what is wrong and, after ``; ``, what to write.
    """
    words = re.sub(r"\s*([,-])\s*", r"\1", text.strip().lower()).split()
    if not words or len(words) > 2:
        raise ValueError(f"`{text}` is not days, hours, or days and hours; {_EXAMPLES}")
    days, times = words if len(words) == 2 else ("daily", words[0]) if ":" in words[0] else (words[0], "")
    if ":" in days:
        raise ValueError(f"`{text}` has its hours first; write {times} {days}")
    found = sorted({day for part in days.split(",") for day in _range(part, text)})
    return Hours(tuple(found), *_span(times, text))


def _range(part: str, text: str) -> list[int]:
    if part in _SETS:
        return list(_SETS[part])
    first, dash, last = part.partition("-")
    start = _day(first, text)
    count = (_day(last, text) - start) % 7 if dash else 0
    return [(start + step) % 7 for step in range(count + 1)]


def _day(word: str, text: str) -> int:
    for names in (_DAYS, _LONG):
        if word in names:
            return names.index(word)
    near = get_close_matches(word, _DAYS, 1) or get_close_matches(word, (*_LONG, *_SETS), 1, cutoff=0.4)
    hint = f"write `{near[0]}`" if near else "days are mon, tue, wed, thu, fri, sat, sun, or daily"
    raise ValueError(f"`{text}` has no day in `{word}`; {hint}")


def _span(times: str, text: str) -> tuple[int, int]:
    if not times:
        return 0, _DAY_MIN
    match = _TIMES.fullmatch(times)
    if match is None:
        raise ValueError(f"`{text}` has no hours in `{times}`; write such as 07:00-19:00")
    hours_from, minutes_from, hours_to, minutes_to = map(int, match.groups())
    start, end = hours_from * 60 + minutes_from, hours_to * 60 + minutes_to
    if start >= _DAY_MIN or end > _DAY_MIN or max(minutes_from, minutes_to) > 59:
        raise ValueError(f"`{text}` has a time that no clock shows; hours go from 00:00 to 24:00")
    if start == end:
        raise ValueError(
            f"`{text}` ends when it begins; for the whole day leave the hours out, or write when it ends"
        )
    return start, end if end > start else end + _DAY_MIN


def check_timezone(name: str) -> str:
    """The name, if it is a time zone.

    Raises:
        ValueError: it is none, with the nearest one; or this machine has no list of them.
    """
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        known = zoneinfo.available_timezones()
        if not known:
            raise ValueError("needs the time zone database; install the package tzdata") from error
        by_city = {zone.rpartition("/")[2].lower(): zone for zone in sorted(known) if "/" in zone}
        near = get_close_matches(name, by_city.values(), 1)
        cities = get_close_matches(name.rpartition("/")[2].lower(), by_city, 1, cutoff=0.8)
        zone = near[0] if near else by_city[cities[0]] if cities else ""
        hint = f"write {zone}" if zone else "write such as Europe/Berlin, or leave it out for this host's own"
        raise ValueError(f"is `{name}`, which is no time zone; {hint}") from error
    return name
