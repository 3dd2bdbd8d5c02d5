"""capture after a death: what was under way is sent again, wherever it or another stage was killed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import PoolError, SourceError
from pipeline.messages import EndOfStream, Frame, Lost, Message
from tests.helpers import (
    Fuse,
    KilledError,
    ListSource,
    make_picture,
)
from tests.stages.rig import Downstream, FusedSource, Rig, run_to_end


def recording(count: int = 10, *, error: SourceError | None = None) -> ListSource:
    return ListSource((make_picture(n) for n in range(count)), error=error)


def frame_of(message: Message | None) -> Frame:
    assert isinstance(message, Frame), message
    return message


def books(rig: Rig) -> tuple[int, int, dict[str, int]]:
    return rig.ledger["decoded"], rig.ledger["admitted"], rig.ledger.dropped()


# --- deaths of others ------------------------------------------------------------------------------------


def test_frames_under_way_are_sent_again_in_order() -> None:
    rig = Rig(recording, slots=4)
    capture, behind = rig.capture(), Downstream(rig.ledger, rig.pools)
    for _ in range(4):
        behind.take(frame_of(capture.receive()))
    behind.work()  # frame 0 is published
    assert frame_of(capture.receive()).header.seq == 4
    behind.crash()
    capture.resend("infer_died")
    again = [frame_of(capture.receive()) for _ in range(4)]
    assert [frame.header.seq for frame in again] == [1, 2, 3, 4]
    for frame in again:
        behind.take(frame)
    run_to_end(capture, behind)
    assert behind.seqs == behind.pixels == list(range(10))
    assert rig.ledger.balanced()


def test_the_end_is_sent_again_too() -> None:
    rig = Rig(lambda: recording(2))
    capture, behind = rig.capture(), Downstream(rig.ledger, rig.pools)
    messages = [capture.receive() for _ in range(3)]
    assert isinstance(messages[-1], EndOfStream)
    capture.resend("preprocess_died")
    again = [capture.receive() for _ in range(3)]
    assert again == messages
    assert capture.receive() is None
    for message in again:
        assert message is not None
        behind.take(message)
    behind.drain()
    assert capture.finished
    assert rig.ledger.balanced()


def test_a_frame_that_kills_three_times_is_lost() -> None:
    rig = Rig(lambda: recording(1))
    capture, behind = rig.capture(), Downstream(rig.ledger, rig.pools)
    frame = frame_of(capture.receive())
    for _ in range(2):
        capture.resend("infer_died")
        assert frame_of(capture.receive()) == frame
    capture.resend("infer_died")
    lost = capture.receive()
    assert isinstance(lost, Lost)
    assert (lost.header, lost.cause, lost.reason) == (
        frame.header,
        "infer_died",
        "infer died 3 times with it",
    )
    behind.take(lost)
    run_to_end(capture, behind)
    assert rig.ledger.lost() == {"infer_died": 1}
    assert rig.ledger.balanced()


def test_a_frame_that_was_not_sent_again_yet_is_not_to_blame_for_further_deaths() -> None:
    """Three stages killed at once must not look like one frame that killed three."""
    rig = Rig(recording, slots=4)
    capture, behind = rig.capture(), Downstream(rig.ledger, rig.pools)
    for _ in range(4):
        frame_of(capture.receive())
    for cause in ("preprocess_died", "infer_died", "postprocess_died", "publish_died"):
        capture.resend(cause)
    run_to_end(capture, behind)
    assert rig.ledger.lost() == {}
    assert behind.seqs == list(range(10))


def test_a_frame_published_before_the_death_is_not_sent_again() -> None:
    rig = Rig(lambda: recording(2))
    capture = rig.capture()
    frame_of(capture.receive())
    frame_of(capture.receive())
    rig.ledger["next_publish"] = 1  # publish was killed between the books and the lease
    capture.resend("publish_died")
    assert frame_of(capture.receive()).header.seq == 1
    assert rig.attach_pool(1).free() == rig.slots - 1, "the lease of the published frame is home"


def test_resend_of_nothing() -> None:
    rig = Rig(recording)
    capture = rig.capture()
    capture.resend("infer_died")
    assert frame_of(capture.receive()).header.seq == 0


# --- its own death ---------------------------------------------------------------------------------------


def fused_recording(fuse: Fuse, *, grow_at: int | None = None) -> FusedSource:
    sizes = [(64, 48) if grow_at is None or n < grow_at else (128, 96) for n in range(6)]
    source = FusedSource(make_picture(n, size=size) for n, size in enumerate(sizes))
    source.fuse = fuse
    return source


def points(*, grow_at: int | None) -> int:
    fuse = Fuse()
    rig = Rig(lambda: fused_recording(fuse, grow_at=grow_at), slots=3, fuse=fuse)
    run_to_end(rig.capture(), Downstream(rig.ledger, rig.pools))
    return fuse.passed


@pytest.mark.parametrize("grow_at", [None, 3], ids=["one size", "two sizes"])
@pytest.mark.parametrize("pipe", ["empty", "full"])
def test_killed_at_any_point_it_loses_no_frame_of_a_file(grow_at: int | None, pipe: str) -> None:
    """Every step that another process could see is a point; what it had sent arrived, or did not."""
    failures = []
    for point in range(points(grow_at=grow_at)):
        fuse = Fuse(point)
        rig = Rig(lambda fuse=fuse: fused_recording(fuse, grow_at=grow_at), slots=3, fuse=fuse)  # type: ignore[misc]
        behind = Downstream(rig.ledger, rig.pools)
        try:
            run_to_end(rig.capture(), behind)
        except KilledError:
            if pipe == "empty":
                behind.crash()
            try:
                run_to_end(rig.capture(), behind)
            except (AssertionError, PoolError) as error:
                failures.append(f"killed at point {point}: {error}")
                continue
        good = behind.seqs == behind.pixels == list(range(6)) and rig.ledger.balanced()
        good = good and (rig.ledger["decoded"], rig.ledger.lost()) == (6, {})
        if not good:
            failures.append(f"killed at point {point}: {behind.seqs} {behind.pixels} {books(rig)}")
    assert failures == []


def test_killed_between_decoding_and_booking() -> None:
    fuse = Fuse()
    rig = Rig(lambda: fused_recording(fuse), fuse=fuse)
    capture, behind = rig.capture(), Downstream(rig.ledger, rig.pools)
    behind.take(frame_of(capture.receive()))
    rig.ledger["decoded"] += 1  # and killed before the slot was complete
    rig.attach_pool(1).acquire()
    again = rig.capture()
    assert books(rig) == (1, 1, {}), "it is decoded once more"
    assert isinstance(again.source, ListSource)
    assert again.source.opened == [(1, 0)]
    behind.crash()
    run_to_end(again, behind)
    assert behind.pixels == list(range(6))


def test_killed_between_lease_and_booking() -> None:
    rig = Rig(recording, slots=4)
    capture, behind = rig.capture(), Downstream(rig.ledger, rig.pools)
    for _ in range(3):
        frame_of(capture.receive())
    rig.ledger["admitted"] -= 1
    again = rig.capture()
    assert books(rig) == (3, 3, {})
    run_to_end(again, behind)
    assert behind.pixels == list(range(10))


def test_killed_after_the_end_was_published() -> None:
    rig = Rig(lambda: recording(3))
    behind = Downstream(rig.ledger, rig.pools)
    run_to_end(rig.capture(), behind)
    again = rig.capture()
    end = again.receive()
    assert isinstance(end, EndOfStream)
    assert end.seq == 3
    assert again.finished
    assert rig.ledger.balanced()


def test_a_capture_that_dies_of_a_frame_each_time_gives_it_up() -> None:
    rig = Rig(recording, slots=2)
    frame_of(rig.capture().receive())
    for _ in range(2):
        assert frame_of(rig.capture().receive()).header.seq == 0
    lost = rig.capture().receive()
    assert isinstance(lost, Lost)
    assert lost.reason == "capture died 3 times with it"


# --- anything in any order -------------------------------------------------------------------------------

ACTIONS = st.lists(
    st.sampled_from(["receive", "receive", "work", "newest", "peer", "capture", "both"]), max_size=40
)


@given(ACTIONS, st.integers(1, 4))
@settings(deadline=None, max_examples=60)
def test_the_books_balance_whatever_happens(actions: list[str], slots: int) -> None:
    rig = Rig(lambda: recording(8), slots=slots)
    capture, behind = rig.capture(), Downstream(rig.ledger, rig.pools)
    for action in actions:
        if action == "receive":
            message = capture.receive()
            if message is not None:
                behind.take(message)
        elif action in ("work", "newest"):
            behind.work(newest_first=action == "newest")
        else:
            if action in ("peer", "both"):
                behind.crash()
                capture.resend("infer_died")
            if action in ("capture", "both"):
                capture = rig.capture()
        assert rig.ledger["decoded"] == rig.ledger["admitted"] + sum(rig.ledger.dropped().values())
        assert 0 <= rig.ledger.in_flight() <= slots
    run_to_end(capture, behind)
    assert behind.seqs == behind.pixels == list(range(8))
    assert rig.ledger.balanced()
    if rig.ledger["pool"]:
        assert rig.attach_pool(rig.ledger["pool"]).free() == slots, "every lease is home"
