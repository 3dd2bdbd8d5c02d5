"""The pace of a recording, on a clock that the test turns."""

from __future__ import annotations

import threading

import pytest

from pipeline.sources.paced import Paced
from pipeline.sources.synthetic import SyntheticSource
from tests.helpers import ListSource, make_picture

MS = 1_000_000


class Clock:
    """Time that passes only when somebody sleeps or works."""

    def __init__(self) -> None:
        self.now = 5_000 * MS
        self.slept: list[int] = []

    def now_ns(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(round(seconds * 1e3))
        self.now += round(seconds * 1e9)


@pytest.mark.parametrize("work_ms", [0, 10, 39])
def test_pictures_come_when_they_are_due(work_ms: int) -> None:
    clock = Clock()
    paced = Paced(SyntheticSource("s", "synthetic://?frames=5"), now_ns=clock.now_ns, sleep=clock.sleep)
    paced.open()
    seen = []
    while (picture := paced.read()) is not None:
        seen.append((picture.index, clock.now // MS))
        clock.now += work_ms * MS
    paced.close()
    assert seen == [(index, 5_000 + 40 * index) for index in range(5)]
    assert clock.slept == [40 - work_ms] * 4


def test_late_pictures_come_at_once_and_none_is_skipped() -> None:
    clock = Clock()
    paced = Paced(SyntheticSource("s", "synthetic://?frames=6"), now_ns=clock.now_ns, sleep=clock.sleep)
    paced.open()
    delivered = []
    for index in range(6):
        picture = paced.read()
        assert picture is not None
        delivered.append((picture.index, clock.now // MS - 5_000))
        if index == 1:
            clock.now += 100 * MS
    # After a pause from 40 to 140 ms, frames 2 and 3 (due at 80 and 120) are late; the pace then holds again.
    assert delivered == [(0, 0), (1, 40), (2, 140), (3, 140), (4, 160), (5, 200)]


def test_waiting_is_no_latency() -> None:
    clock = Clock()
    paced = Paced(SyntheticSource("s", "synthetic:"), now_ns=clock.now_ns, sleep=clock.sleep)
    paced.open()
    paced.read()
    picture = paced.read()
    assert picture is not None
    assert picture.captured_ns == clock.now == 5_040 * MS


def test_resumed_recording_does_not_rush() -> None:
    clock = Clock()
    paced = Paced(SyntheticSource("s", "synthetic:"), now_ns=clock.now_ns, sleep=clock.sleep)
    paced.open(skip=50, after_pts_ns=49 * 40 * MS)
    assert [p.index for p in (paced.read(), paced.read()) if p is not None] == [50, 51]
    assert clock.slept == [40]
    assert paced.decode_errors == 0


def test_an_interrupt_ends_the_wait_and_the_reading() -> None:
    """With real time: the next picture is due in 40 s, the test is not."""
    paced = Paced(ListSource([make_picture(0), make_picture(1000)]))
    paced.open()
    assert paced.read() is not None
    found: list[object] = ["nothing"]
    reader = threading.Thread(target=lambda: found.append(paced.read()))
    reader.start()
    paced.interrupt()
    reader.join(timeout=5)
    assert not reader.is_alive()
    assert found[1:] == [None]
    paced.close()
