"""When weekly hours are on: spans of the week by the clock on the wall, in a time zone, summer time included.

How an operator writes them is a matter of the config (`pipeline.config.hours`); here they are numbers.
"""

from __future__ import annotations

import zoneinfo
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta, tzinfo

from pipeline.errors import ConfigError

__all__ = ["Schedule"]

_DAY_MIN = 24 * 60
#: A week and a day on each side: a span may reach into the next day.
_AHEAD_DAYS = 9


class Schedule:
    """Spans of the week.

    What counts is what a clock on the wall shows: an hour that comes twice in autumn is on twice, and one
    that is left out in spring never comes. Pure: told the time, it never looks at a clock.

    Args:
        hours: (days, start, end) each: days on which the span begins, 0 is Monday; minutes after midnight of
            that day at which it begins, 0..1439; minutes after that same midnight at which it is over, above
            the start, at most a day later.
        timezone: Name in the time zone database, such as ``Europe/Berlin``; None for this host's.

    Raises:
        ConfigError: there is no such time zone, or a span is none.
    """

    def __init__(self, hours: Sequence[tuple[Sequence[int], int, int]], timezone: str | None = None) -> None:
        self._spans = tuple((frozenset(days), start, end) for days, start, end in hours)
        for days, start, end in self._spans:
            if not days <= set(range(7)) or not 0 <= start < _DAY_MIN or not 0 < end - start <= _DAY_MIN:
                raise ConfigError(
                    f"no span of a week: days {sorted(days)}, minutes {start} to {end}",
                    hint="days are 0 (Monday) to 6, a span begins within its day and lasts a day at most",
                )
        self._zone: tzinfo | None = None
        if timezone is not None:
            try:
                self._zone = zoneinfo.ZoneInfo(timezone)
            except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
                raise ConfigError(
                    f"there is no time zone {timezone}", hint="write such as Europe/Berlin"
                ) from error

    def active(self, at_utc: float) -> bool:
        """Whether a moment, in UTC seconds since 1970, lies within a span."""
        wall = datetime.fromtimestamp(at_utc, self._zone)
        minute = wall.hour * 60 + wall.minute
        today, yesterday = wall.weekday(), (wall.weekday() - 1) % 7
        return any(
            (today in days and start <= minute < end)
            or (yesterday in days and start <= minute + _DAY_MIN < end)
            for days, start, end in self._spans
        )

    def next_change(self, at_utc: float) -> float | None:
        """The first moment after ``at_utc`` at which `active` is no longer what it is then.

        Returns:
            UTC seconds, or None when it never changes.
        """
        now = self.active(at_utc)
        moments = sorted({moment for moment in self._moments(at_utc) if moment > at_utc})
        return next((moment for moment in moments if self.active(moment) != now), None)

    def _moments(self, at_utc: float) -> Iterator[float]:
        """Every moment in the days around one at which anything can change, and others."""
        today = datetime.fromtimestamp(at_utc, self._zone).date()
        marks = {mark % _DAY_MIN for _, start, end in self._spans for mark in (start, end)}
        for ahead in range(-1, _AHEAD_DAYS):
            for mark in marks:
                yield from self._when(today + timedelta(days=ahead), mark)

    def _when(self, day: date, minute: int) -> Iterator[float]:
        """When a clock on the wall shows that time; of one set forward or back over it, when that is done."""
        wall = datetime.combine(day, time(minute // 60, minute % 60), self._zone)
        first, second = wall.timestamp(), wall.replace(fold=1).timestamp()
        yield first
        if first == second:
            return
        yield second
        low, high = sorted((first, second))
        before = self._offset(low)
        while high - low > 1:  # zones change at whole seconds
            middle = (low + high) // 2
            low, high = (middle, high) if self._offset(middle) == before else (low, middle)
        yield high

    def _offset(self, at_utc: float) -> timedelta | None:
        return datetime.fromtimestamp(at_utc, self._zone).astimezone(self._zone).utcoffset()
