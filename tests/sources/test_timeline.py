"""Presentation times never go back."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources.timeline import Timeline

Ticks = list[tuple[int | None, int | None]]


@pytest.mark.parametrize(
    ("ticks", "expected"),
    [
        ([(10, 8), (11, 9), (12, 10)], [0, 100, 200]),
        ([(10, None), (None, None), (None, None), (14, None)], [0, 100, 200, 400]),  # gaps by frame rate
        ([(None, 10), (None, 11)], [0, 100]),  # decoding times are better than nothing
        ([(5, 3), (11, 9)], [0, 100]),  # before the start of the stream
        ([(10, 10), (13, 13), (12, 14), (11, 15)], [0, 300, 400, 500]),  # disorder: decoding times take over
        ([(10, None), (13, None), (12, None), (14, None)], [0, 300, 300, 400]),  # disorder without them
        ([(10, 10), (50, 50), (10, 10), (11, 11)], [0, 4000, 4100, 4200]),  # joined recordings
    ],
)
def test_times(ticks: Ticks, expected: list[int]) -> None:
    timeline = Timeline(Fraction(1, 10), 10, 100_000_000)
    assert [timeline.next(*pair) // 1_000_000 for pair in ticks] == expected


def test_exact_in_long_recordings() -> None:
    timeline = Timeline(Fraction(1001, 30000), 0, 33_366_667)
    assert timeline.next(10**9, None) == round(Fraction(1001, 30000) * 10**18)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(*[st.none() | st.integers(-(2**33), 2**33)] * 2), max_size=30))
def test_never_back(ticks: Ticks) -> None:
    timeline = Timeline(Fraction(1, 90_000), 0, 40_000_000)
    times = [timeline.next(*pair) for pair in ticks]
    assert times == sorted(times)
    assert all(time >= 0 for time in times)
