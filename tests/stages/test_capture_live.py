"""capture of a camera: the newest wins, the rest is counted, and nobody waits for the late."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.errors import PoolError, SourceError, SourceLostError
from pipeline.messages import EndOfStream, Frame, Lost, Message
from pipeline.stages.capture import CaptureStage
from pipeline.stages.newest import Newest
from tests.helpers import (
    Fuse,
    KilledError,
    ListSource,
    LiveSource,
    make_picture,
)
from tests.stages.rig import Downstream, Rig, run_to_end


def recording(count: int = 10, *, error: SourceError | None = None) -> ListSource:
    return ListSource((make_picture(n) for n in range(count)), error=error)


def frame_of(message: Message | None) -> Frame:
    assert isinstance(message, Frame), message
    return message


def books(rig: Rig) -> tuple[int, int, dict[str, int]]:
    return rig.ledger["decoded"], rig.ledger["admitted"], rig.ledger.dropped()


class Camera:
    """A live rig: one picture at a time is pushed, and awaited until the reading thread has it."""

    def __init__(self, *, slots: int = 4, in_flight: int = 2) -> None:
        self.source = LiveSource()
        self.heard = threading.Semaphore(0)
        self.rig = Rig(lambda: self.source, slots=slots, in_flight=in_flight)
        self.behind = Downstream(self.rig.ledger, self.rig.pools)
        self.stage = CaptureStage(
            source=self.source, ledger=self.rig.ledger, make_pool=self.rig.make_pool,
            attach_pool=self.rig.attach_pool, slots=slots, in_flight=in_flight,
            wake=self.heard.release, on_error=self.rig.errors.append,
        )  # fmt: skip
        self.stage.open()

    def show(self, *numbers: int) -> None:
        for number in numbers:
            self.source.push(make_picture(number))
            assert self.heard.acquire(timeout=5)

    def end(self, error: SourceError | None = None) -> None:
        self.source.push(error)
        assert self.heard.acquire(timeout=5)

    def admitted(self) -> int | None:
        """Number of the picture that capture admits now, if any."""
        message = self.stage.receive()
        if message is None:
            return None
        self.behind.take(message)
        return frame_of(message).header.pts_ns // 40_000_000


@pytest.fixture
def camera() -> Iterator[Camera]:
    made = Camera()
    yield made
    made.source.push(None)
    made.stage.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "read-gate"]


def test_the_newest_wins_and_the_rest_is_counted(camera: Camera) -> None:
    assert camera.admitted() is None
    camera.show(0)
    assert camera.admitted() == 0
    camera.show(1, 2, 3, 4)
    assert camera.admitted() == 4
    assert camera.admitted() is None
    assert books(camera.rig) == (5, 2, {"superseded": 3})


def test_no_more_than_in_flight_are_under_way_and_the_newest_always_gets_through(camera: Camera) -> None:
    camera.show(0)
    camera.admitted()
    camera.show(1)
    camera.admitted()
    camera.show(2, 3, 4)
    assert camera.admitted() is None, "two are under way"
    camera.behind.work()
    camera.show(5)
    assert camera.admitted() == 5
    camera.behind.drain()
    assert camera.behind.seqs == [0, 1, 2]
    assert camera.behind.pixels == [0, 1, 5]
    assert books(camera.rig) == (6, 3, {"superseded": 3})
    assert camera.rig.ledger.balanced()


@pytest.mark.parametrize("error", [None, SourceLostError("the camera is gone", reason="network")])
def test_the_last_picture_is_admitted_before_the_end(camera: Camera, error: SourceError | None) -> None:
    camera.show(0, 1)
    camera.end(error)
    camera.stage._newest.stop() if camera.stage._newest else None  # the thread has ended by itself
    assert camera.admitted() == 1
    end = camera.stage.receive()
    assert isinstance(end, EndOfStream)
    assert (end.seq, end.state) == (1, "ended" if error is None else "failed")
    assert end.reason == ("end_of_file" if error is None else "the camera is gone")
    assert camera.stage.receive() is None
    camera.behind.take(end)
    camera.behind.drain()
    assert camera.stage.finished
    assert camera.rig.ledger.balanced()


def test_stop_counts_what_was_not_admitted(camera: Camera) -> None:
    camera.show(0)
    camera.admitted()
    camera.show(1, 2)
    newest = camera.stage._newest
    assert newest is not None

    class LateStop(threading.Event):
        """The camera delivers one more picture while it is being stopped."""

        def set(self) -> None:
            super().set()
            camera.source.push(make_picture(3))

    newest._stop = LateStop()
    camera.show(2)  # the thread may still wait with the old event; now it has seen the new one
    camera.stage.stop("interrupted")
    end = camera.stage.receive()
    assert isinstance(end, EndOfStream)
    assert (end.seq, end.reason) == (1, "interrupted")
    decoded, admitted, dropped = books(camera.rig)
    assert (decoded, admitted) == (5, 1)
    assert sum(dropped.values()) == 4
    assert dropped["stopped"] == 1
    camera.behind.take(end)
    camera.behind.drain()
    assert camera.rig.ledger.balanced()


def test_after_a_death_live_frames_are_lost_not_late(camera: Camera) -> None:
    camera.show(0)
    camera.admitted()
    camera.show(1)
    camera.admitted()
    camera.behind.crash()
    camera.stage.resend("infer_died")
    for seq in range(2):
        lost = camera.stage.receive()
        assert isinstance(lost, Lost)
        assert (lost.header.seq, lost.cause, lost.reason) == (seq, "infer_died", "infer died")
        camera.behind.take(lost)
    camera.behind.drain()
    camera.show(2)
    assert camera.admitted() == 2
    camera.behind.drain()
    assert camera.rig.ledger.lost() == {"infer_died": 2}
    assert camera.rig.ledger.balanced()


def test_a_killed_live_capture_counts_what_it_had_decoded() -> None:
    first = Camera()
    first.show(0)
    first.admitted()
    rig = first.rig
    rig.ledger["decoded"] += 2  # one superseded the other, and then it was killed
    second_source = LiveSource()
    rig.source = lambda: second_source
    second = rig.capture()
    assert books(rig) == (3, 1, {"crashed": 2})
    lost = second.receive()
    assert isinstance(lost, Lost)
    assert lost.cause == "capture_died"
    for source, stage in ((first.source, first.stage), (second_source, second)):
        source.push(None)
        stage.close()


def live_points(fuse: Fuse) -> tuple[Rig, Downstream]:
    """A live capture that always has superseded pictures; its reading thread is not needed for that."""
    rig = Rig(lambda: ListSource([make_picture(n) for n in range(4)], live=True), fuse=fuse, in_flight=9)
    return rig, Downstream(rig.ledger, rig.pools)


class ReadAhead(Newest):
    """A mailbox whose thread has read everything before anybody looks."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._thread.join(timeout=5)


def test_the_books_of_a_live_source_balance_wherever_capture_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.stages.capture.Newest", ReadAhead)
    whole = Fuse()
    rig, behind = live_points(whole)
    run_to_end(rig.capture(), behind)
    assert books(rig) == (4, 1, {"superseded": 3})
    failures = []
    for point in range(whole.passed):
        fuse = Fuse(point)
        rig, behind = live_points(fuse)
        try:
            run_to_end(rig.capture(), behind)
        except KilledError:
            behind.crash()
            try:
                run_to_end(rig.capture(), behind)
            except (AssertionError, PoolError) as error:
                failures.append(f"killed at point {point}: {error}")
                continue
        if not rig.ledger.balanced():
            failures.append(f"killed at point {point}: {books(rig)}, lost {rig.ledger.lost()}")
    assert failures == []
