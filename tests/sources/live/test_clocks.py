"""Times of a live stream: never back, over every kind of restart; the camera's clock; the backlog."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.live.clocks import Backlog, CameraClock, PtsClock

MS = 1_000_000
S = 1_000_000_000


@pytest.mark.parametrize(
    ("raw_ms", "arrival_ms", "times_ms", "restarts"),
    [
        ([0, 40, 80], [0, 40, 80], [0, 40, 80], 0),
        ([7000, 7040], [0, 40], [0, 40], 0),  # starts at 0 whatever it says
        ([None, 100, 200], [0, 100, 200], [0, 40, 140], 0),  # RTSP's first has none
        ([0, None, 80], [0, 40, 80], [0, 40, 80], 0),
        ([0, 80, 40, 120], [0, 40, 80, 120], [0, 80, 80, 120], 0),  # disorder
        ([5000, 5040, 0, 40], [0, 40, 80, 120], [0, 40, 80, 120], 1),  # the encoder started again
        ([0, 40, 0, 40], [0, 40, 80, 120], [0, 40, 40, 40], 0),  # too little to tell from disorder
        ([0, 40, 3_600_080, 3_600_120], [0, 40, 80, 120], [0, 40, 80, 120], 1),  # the camera's clock was set
        ([0, 40, 10_040], [0, 40, 10_040], [0, 40, 10_040], 0),  # a true pause
        ([5000, 5040, 0], [0, 40, 3040], [0, 40, 3040], 1),  # a pause and a new start
    ],
)
def test_presentation_times(
    raw_ms: list[int | None], arrival_ms: list[int], times_ms: list[int], restarts: int
) -> None:
    clock = PtsClock()
    times = [
        clock.next(None if raw is None else raw * MS, at * MS)
        for raw, at in zip(raw_ms, arrival_ms, strict=True)
    ]
    assert times == [time * MS for time in times_ms]
    assert clock.restarts == restarts


@given(
    st.lists(
        st.tuples(
            st.one_of(st.none(), st.integers(-(2**62), 2**62)), st.integers(0, 10**12), st.integers(0, 10**12)
        )
    )
)
def test_presentation_times_never_go_back_nor_leap(steps: list[tuple[int | None, int, int]]) -> None:
    clock = PtsClock()
    arrival, last = 0, 0
    for raw, passed, _ in steps:
        arrival += passed
        time = clock.next(raw, arrival)
        assert time >= last
        assert time - last <= passed + 5 * S + 40 * MS
        last = time


def test_the_camera_clock_is_unknown_before_reports_agree() -> None:
    clock = CameraClock()
    assert (clock.utc(0), clock.offset_s, clock.drift_ppm) == (None, None, None)
    for number in range(3):
        assert clock.utc(number * S) is None
        clock.report(1_000 * S + number * S, number * S, 1000.25 + number)
    assert clock.utc(5 * S) == 1005.0
    assert clock.utc(None) is None
    assert clock.offset_s == pytest.approx(-0.25)


def test_one_outlier_at_a_new_report_is_not_followed() -> None:
    clock = CameraClock()
    for number in range(10):
        odd = 100 * MS if number == 5 else 0
        clock.report(1_000 * S + number * S + odd, number * S, 1000.0 + number)
        if number >= 2:
            assert clock.utc(number * S) == 1000.0 + number


@pytest.mark.parametrize("step_s", [-7200.0, -1.0, 1.0, 1_700_000_000.0])
def test_a_clock_that_is_set_is_followed(step_s: float) -> None:
    clock = CameraClock()
    for number in range(200):
        utc_s = 1000 + number + (step_s if number >= 100 else 0)
        clock.report(round(utc_s * S), number * S, 1000.0 + number)
    assert clock.utc(200 * S) == pytest.approx(1200 + step_s)
    assert clock.offset_s == pytest.approx(step_s)
    assert clock.drift_ppm == pytest.approx(0, abs=1)


@given(
    drift_ppm=st.floats(-500, 500),
    offset_s=st.floats(-1e9, 1e9),
    delays=st.lists(st.floats(0, 0.4), min_size=20, max_size=40),
)
def test_drift_and_offset_are_found_through_network_delays(
    drift_ppm: float, offset_s: float, delays: list[float]
) -> None:
    clock = CameraClock()
    for number in range(3000):
        sent_s = number * 0.1
        # One in ten goes straight through; of the others each takes its time.
        delay_s = 0.01 if number % 10 == 0 else 0.01 + delays[number % len(delays)]
        utc_ns = round((offset_s + sent_s * (1 + drift_ppm * 1e-6)) * S)
        clock.report(utc_ns, round(sent_s * S), sent_s + delay_s)
    assert clock.drift_ppm == pytest.approx(drift_ppm, abs=3)
    assert clock.offset_s == pytest.approx(offset_s + 300 * drift_ppm * 1e-6 - 0.01, abs=0.02)


def test_drift_is_not_guessed_from_a_few_seconds() -> None:
    clock = CameraClock()
    for number in range(50):
        clock.report((1000 + number) * S, number * S, 1000.0 + number)
    assert clock.drift_ppm is None


def test_backlog_grows_when_reading_is_slow_and_not_with_a_long_way() -> None:
    backlog = Backlog()
    assert [backlog.of(n * 40 * MS, 3 * S + n * 40 * MS, True) for n in range(50)] == [0] * 50
    # From here each takes 60 ms instead of 40, and the next is always there already.
    late = [backlog.of((50 + n) * 40 * MS, 5 * S + n * 60 * MS, False) for n in range(50)]
    assert late == [n * 20 * MS for n in range(50)]


def test_a_stream_that_must_be_waited_for_has_no_backlog() -> None:
    backlog = Backlog()
    backlog.of(0, 0, True)
    delays = [backlog.of((1 + n) * 40 * MS, (1 + n) * 40 * MS + 2 * S, True) for n in range(30)]
    assert delays[0] == 2 * S
    assert delays[-1] == 0


def test_the_least_delay_is_forgotten_with_time() -> None:
    backlog = Backlog(window_ns=4 * S)
    backlog.of(0, 0, False)
    assert backlog.of(1 * S, 2 * S, False) == S
    assert backlog.of(3 * S, 4 * S, False) == S
    assert backlog.of(6 * S, 7 * S, False) == 0


def test_backlog_starts_anew_with_the_timestamps() -> None:
    backlog = Backlog()
    backlog.of(10 * S, 0, False)
    backlog.restart()
    assert backlog.of(0, S, False) == 0


@pytest.mark.parametrize(
    ("late_ms_a_second", "waited", "at_least_s", "at_most_s"),
    [
        (0, True, 0.0, 0.0),
        (667, True, 12.5, 14.0),  # the way carries a third of the stream
        (667, False, 0.0, 0.0),  # it is there: we read too slowly, and skip
        (-50, True, 0.0, 0.0),  # a camera whose clock runs fast
        (0.1, True, 0.0, 0.1),  # a clock that drifts
    ],
)
def test_behind(late_ms_a_second: float, waited: bool, at_least_s: float, at_most_s: float) -> None:
    clock = CameraClock()
    behind = 0.0
    for number in range(400):  # 20 s at 20 pictures a second
        sent_s = number / 20
        arrival_s = 1e9 + sent_s * (1 + late_ms_a_second / 1000)
        clock.report(round((1e9 + sent_s) * S), round(sent_s * S), arrival_s)
        behind = clock.behind_s(waited)
    assert at_least_s <= round(behind, 3) <= at_most_s


def test_what_is_behind_for_a_moment_only_is_not() -> None:
    clock = CameraClock()
    held: list[float] = []
    for number in range(200):
        sent_s = number / 20
        # All of one second is held back by six and comes at once.
        arrival_s = 8.0 if 2.0 <= sent_s < 8.0 else sent_s + 0.01
        waited = not 2.0 < sent_s < 8.0
        clock.report(round(sent_s * S), round(sent_s * S), arrival_s)
        held.append(clock.behind_s(waited))
    assert set(held) == {0.0}
