"""capture of a camera whose library does not give its thread back."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from pipeline.messages import EndOfStream
from pipeline.sources.base import Picture
from pipeline.stages import newest
from tests.helpers import LiveSource as PushedSource
from tests.helpers import make_picture
from tests.sources.live.scripted import Step
from tests.stages.rig import Downstream, Rig
from tests.stages.stepwise import read_stepwise, scripted

FIRST: list[Step] = [(0.04 * n, 0) for n in range(8)]


@pytest.fixture
def stepwise(monkeypatch: pytest.MonkeyPatch) -> None:
    read_stepwise(monkeypatch)


class Stuck(PushedSource):
    """A camera whose library does not hear an interrupt; the test lets it go in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.entered, self.release = threading.Event(), threading.Event()
        self.interrupted = False

    def interrupt(self) -> None:
        self.interrupted = True

    def read(self) -> Picture | None:
        self.entered.set()
        self.release.wait(30)
        return make_picture(0)


@pytest.fixture
def stuck() -> Iterator[Stuck]:
    source = Stuck()
    yield source
    source.release.set()
    for thread in threading.enumerate():
        if thread.name == "read-gate":
            thread.join(5)
            assert not thread.is_alive()


def test_a_stop_does_not_wait_for_a_library_that_hangs(stuck: Stuck, monkeypatch: pytest.MonkeyPatch) -> None:
    assert newest._JOIN_S <= 1.0
    monkeypatch.setattr(newest, "_JOIN_S", 0.05)
    rig = Rig(lambda: stuck)
    behind = Downstream(rig.ledger, rig.pools)
    capture = rig.capture()
    assert stuck.entered.wait(5)
    began = time.monotonic()
    capture.stop("removed")
    end = capture.receive()
    assert isinstance(end, EndOfStream)
    assert (end.state, end.reason) == ("ended", "removed")
    capture.close()
    assert time.monotonic() - began < 5, "two joins of 50 ms"
    assert stuck.interrupted
    assert not stuck.closed, "its thread still holds it"
    behind.take(end)
    behind.drain()
    stuck.release.set()
    assert capture._newest is not None
    capture._newest._thread.join(5)
    capture.watch()
    assert (rig.ledger["decoded"], rig.ledger["admitted"]) == (0, 0), "what came after the stop is not taken"
    assert rig.ledger.balanced()


@pytest.mark.usefixtures("stepwise")
def test_a_process_whose_library_hangs_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    abandoned: list[None] = []
    rig = Rig(scripted(FIRST))  # type: ignore[arg-type]
    capture = rig.capture(abandon=lambda: abandoned.append(None))
    capture.receive()
    capture.watch()
    assert not abandoned
    monkeypatch.setattr(capture.source, "stuck", lambda: True)
    capture.watch()
    assert abandoned
    last = rig.ledger.journal.last()
    assert last is not None
    assert (last.state, last.reason) == ("reconnecting", "timeout")
    assert "hangs" in last.message
    abandoned.clear()
    capture.stop("removed")
    capture.watch()
    assert not abandoned, "who is being stopped anyway is not replaced"
    capture.close()
