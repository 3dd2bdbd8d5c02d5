"""capture of a camera over its connections: what it drops and journals, and what a death leaves of it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from pipeline.errors import ConfigError, PoolError, SourceLostError
from pipeline.messages import EndOfStream, Frame, Message
from pipeline.sources.base import Picture
from pipeline.sources.live.camera import LiveSource
from pipeline.stages.capture import CaptureStage
from pipeline.stages.turns import Turns
from tests.helpers import Fuse, KilledError, ListSource, make_picture
from tests.sources.live.scripted import Scripted, Step
from tests.stages.rig import Downstream, Rig
from tests.stages.stepwise import Stepwise, read_stepwise, scripted


@pytest.fixture
def stepwise(monkeypatch: pytest.MonkeyPatch) -> None:
    read_stepwise(monkeypatch)


def live_rig(make: Callable[[], Any], **options: Any) -> tuple[Rig, Downstream]:
    rig = Rig(make, **options)
    return rig, Downstream(rig.ledger, rig.pools)


def told(rig: Rig) -> list[str]:
    return [f"{c.state} {c.reason}".rstrip() for _, c in rig.ledger.journal.since(0)]


def books(rig: Rig) -> tuple[int, int, dict[str, int]]:
    return rig.ledger["decoded"], rig.ledger["admitted"], rig.ledger.dropped()


def run(capture: CaptureStage, behind: Downstream, *, turns: int = 60) -> None:
    """What the worker does: look around, receive, publish."""
    for _ in range(turns):
        if capture.finished:
            return
        capture.watch()
        message = capture.receive()
        if message is not None:
            behind.take(message)
        else:
            behind.work()
    raise AssertionError(f"it hangs: {behind.seqs} published of {capture.ledger['admitted']} admitted")


def odd_ones_out(picture: Picture, _: int | None) -> str | None:
    return "rate_limited" if picture.index % 2 else "gated" if picture.index % 5 == 4 else None


LOST = SourceLostError("the camera closed the connection", reason="network")
FIRST: list[Step] = [*[(0.04 * n, n // 3) for n in range(8)], LOST]
SECOND_: list[Step] = [*[(0.04 * n, 0) for n in range(5)], None]


@pytest.mark.usefixtures("stepwise")
def test_a_camera_over_two_connections() -> None:
    rig, behind = live_rig(scripted(FIRST, SECOND_))
    capture = rig.capture(judge=odd_ones_out)
    run(capture, behind)
    assert told(rig) == ["connecting", "running", "reconnecting network", "running", "ended end_of_file"]
    decoded, admitted, dropped = books(rig)
    assert (decoded, dropped["rate_limited"], dropped["gated"]) == (13, 6, 1)
    assert rig.ledger.balanced()
    epochs = [message.header.epoch for message in behind.published]
    assert epochs == sorted(epochs)
    assert set(epochs) == {0, 3}, "epochs of which every picture was dropped count too"
    assert len(epochs) == admitted
    # A change is journalled before the frames that come after it are admitted.
    assert [c.seq for _, c in rig.ledger.journal.since(0)] == sorted(
        c.seq for _, c in rig.ledger.journal.since(0)
    )
    capture.close()


@pytest.mark.usefixtures("stepwise")
@pytest.mark.parametrize("behind_too", [False, True], ids=["alone", "with all behind it"])
def test_killed_anywhere_the_books_balance_and_the_journal_tells_it(behind_too: bool) -> None:
    whole = Fuse()
    rig, behind = live_rig(scripted(FIRST, SECOND_), fuse=whole)
    run(rig.capture(judge=odd_ones_out), behind)
    failures = []
    for point in range(whole.passed):
        rig, behind = live_rig(scripted(FIRST, SECOND_), fuse=Fuse(point))
        try:
            run(rig.capture(judge=odd_ones_out), behind)
        except KilledError:
            if behind_too:
                behind.crash()
            before = told(rig)
            last = max((m.header.epoch for m in behind.published if isinstance(m, Frame)), default=-1)
            seen = len(behind.published)
            try:
                run(rig.capture(judge=odd_ones_out), behind)
            except (AssertionError, PoolError) as error:
                failures.append(f"killed at point {point}: {error}")
                continue
            again = told(rig)[len(before) :]
            crashed = bool(before) and before[-1].split()[0] not in ("ended", "failed")
            if (again[:1] == ["reconnecting crashed"]) != crashed or told(rig)[-1] != "ended end_of_file":
                failures.append(f"killed at point {point}: {before} and then {again}")
            fresh = [m.header.epoch for m in behind.published[seen:] if isinstance(m, Frame) and last >= 0]
            if crashed and fresh and fresh[-1] <= last:
                failures.append(f"killed at point {point}: epoch {fresh} after {last}")
        if not rig.ledger.balanced() or behind.seqs != list(range(rig.ledger["admitted"])):
            failures.append(f"killed at point {point}: {books(rig)}, lost {rig.ledger.lost()} {behind.seqs}")
    assert failures == []


@pytest.mark.parametrize("live", [False, True])
def test_what_is_not_wanted_is_counted_by_cause(live: bool, request: pytest.FixtureRequest) -> None:
    if live:
        request.getfixturevalue("stepwise")
    asked: list[tuple[int, int | None]] = []

    def judge(picture: Picture, wanted_ns: int | None) -> str | None:
        asked.append((picture.index, None if wanted_ns is None else wanted_ns // 40_000_000))
        return odd_ones_out(picture, wanted_ns)

    rig, behind = live_rig(lambda: ListSource((make_picture(n) for n in range(10)), live=live))
    run(rig.capture(judge=judge), behind)
    decoded, admitted, dropped = books(rig)
    assert (decoded, dropped["rate_limited"], dropped["gated"]) == (10, 5, 1)
    assert admitted + sum(dropped.values()) == 10
    assert dropped.keys() <= ({"rate_limited", "gated", "superseded"} if live else {"rate_limited", "gated"})
    assert asked == [(0, None), (1, 0), (2, 0), (3, 2), (4, 2), (5, 2), (6, 2), (7, 6), (8, 6), (9, 8)]
    assert rig.ledger.balanced()


def test_a_file_of_which_nothing_is_wanted_does_not_hold_up_commands() -> None:
    rig, behind = live_rig(lambda: ListSource(make_picture(n) for n in range(100)))
    capture = rig.capture(judge=lambda *_: "gated")
    assert capture.receive() is None
    assert 0 < rig.ledger["decoded"] < 50, "some, and not all in one go"
    assert rig.woken, "there is more"
    run(capture, behind)
    assert books(rig) == (100, 0, {"gated": 100})


def test_a_restarted_capture_judges_by_the_last_frame_that_was_wanted() -> None:
    rig, _ = live_rig(lambda: ListSource(make_picture(n) for n in range(9)))
    first = rig.capture(judge=odd_ones_out)
    for _ in range(2):
        assert isinstance(first.receive(), Frame)  # 0 and 2
    asked: list[int | None] = []
    again = rig.capture(judge=lambda _, wanted_ns: asked.append(wanted_ns))
    while again.receive() is not None and not asked:
        pass
    assert asked == [2 * 40_000_000]


# --- one camera fails, the others do not -----------------------------------------------------------------


@pytest.mark.usefixtures("stepwise")
def test_a_pool_that_does_not_fit_fails_that_camera_alone() -> None:
    steps: list[Step] = [(0.0, 0), (0.04, 0), (0.08, 0), (0.12, 0), (0.16, 0), LOST]
    rig, behind = live_rig(scripted(steps, SECOND_))

    def no_room(number: int, slots: int, slot_bytes: int) -> Any:
        raise PoolError("/dev/shm is full", hint="make it larger")

    capture = rig.capture(opened=False)
    capture._pools._make = no_room
    capture.open()
    end: Message | None = None
    for _ in range(3):
        end = end or capture.receive()
    assert isinstance(end, EndOfStream)
    assert (end.state, end.reason, end.seq) == ("failed", "/dev/shm is full", 0)
    assert [error.hint for error in rig.errors] == ["make it larger"]
    behind.take(end)
    behind.drain()
    # Its thread would go on: whatever it meets, the camera stays failed and its books stay true.
    assert capture._newest is not None
    for _ in range(5):
        capture._newest.take()
        capture.watch()
    assert told(rig)[-1].startswith("failed")
    assert rig.ledger.balanced()
    assert rig.ledger["decoded"] <= 3, "it is read no more"
    capture.close()


def test_a_file_that_does_not_fit_ends_the_process() -> None:
    rig, _ = live_rig(lambda: ListSource([make_picture(0)]))
    capture = rig.capture()

    def no_room(number: int, slots: int, slot_bytes: int) -> Any:
        raise PoolError("/dev/shm is full")

    capture._pools._make = no_room
    with pytest.raises(PoolError):
        capture.receive()


@pytest.mark.usefixtures("stepwise")
def test_what_can_never_be_read_fails_with_its_reason() -> None:
    error = ConfigError("there is no decoder of that name", hint="write auto")

    def make() -> LiveSource:
        def connect() -> Any:
            raise error

        return LiveSource("gate", connect)

    rig, behind = live_rig(make)
    run(rig.capture(), behind)
    last = rig.ledger.journal.last()
    assert last is not None
    assert (last.state, last.reason, last.message) == ("failed", "not_found", error.message)
    assert behind.ends[0].reason == error.message
    assert [e.hint for e in rig.errors] == ["write auto"]


# --- what others can see ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("stepwise")
def test_the_books_tell_of_the_camera() -> None:
    rig, _ = live_rig(scripted(FIRST))
    rig.ledger["skipped"], rig.ledger["decode_errors"] = 100, 7  # of earlier incarnations
    before_ns = time.monotonic_ns()
    capture = rig.capture()
    capture.receive()
    source = capture.source
    assert isinstance(source, LiveSource)
    connection = source._connection
    assert isinstance(connection, Scripted)
    connection.skipped, connection.decode_errors = 5, 1
    connection.clock_offset_s, connection.drift_ppm = -1.25, 12.5
    capture.watch()
    ledger = rig.ledger
    assert (ledger["live"], ledger["skipped"], ledger["decode_errors"]) == (1, 105, 8)
    assert ledger["alive_ns"] >= before_ns
    assert ledger["heard_ns"] == connection.heard_ns > 0
    assert (ledger["clocked"], ledger["clock_offset_us"], ledger["drift_ppb"]) == (1, -1_250_000, 12_500)
    connection.drift_ppm = connection.clock_offset_s = None
    capture.watch()
    assert ledger["clocked"] == 0
    capture.close()


@pytest.mark.usefixtures("stepwise")
def test_a_camera_waits_for_its_turn_and_says_so() -> None:
    rig, _ = live_rig(lambda: ListSource((make_picture(n) for n in range(9)), live=True), in_flight=9)
    places = [0]

    class Rationed(Turns):
        def granted(self) -> bool:
            return places[0] > 0

    capture = rig.capture(turns=Rationed(rig.ledger, lambda: (rig.ledger,), places=1))
    mailbox = capture._newest
    assert isinstance(mailbox, Stepwise)
    assert rig.ledger["wants_ns"] == 0
    mailbox._picture = mailbox.take()  # The thread has put it there.
    assert capture.receive() is None
    assert rig.ledger["wants_ns"] > 0
    wants_ns = rig.ledger["wants_ns"]
    capture.watch()
    assert rig.ledger["wants_ns"] == wants_ns, "it waits since then"
    assert (rig.ledger["admitted"], rig.ledger["turn_ns"]) == (0, 0)
    places[0] = 1
    assert isinstance(capture.receive(), Frame)
    assert rig.ledger["wants_ns"] == 0
    assert rig.ledger["turn_ns"] > 0
    mailbox._picture = mailbox.take()
    capture.watch()
    assert rig.ledger["wants_ns"] > 0
    capture.stop("removed")
    capture.receive()
    assert rig.ledger["wants_ns"] == 0, "who has ended takes no turn"
    capture.close()


@pytest.mark.usefixtures("stepwise")
def test_one_that_had_ended_when_it_was_killed_only_says_so_again() -> None:
    """A camera would give new pictures, under the number that its end has."""
    rig, behind = live_rig(scripted(SECOND_))
    first = rig.capture()
    while not isinstance(message := first.receive(), EndOfStream):
        if message is not None:
            behind.take(message)
        behind.work()
    again = rig.capture()
    assert again.receive() == msgspec.structs.replace(message, at=again._ending.at if again._ending else 0)
    assert again.receive() is None
    assert told(rig) == ["connecting", "running", "ended end_of_file"]
    behind.take(message)
    behind.drain()
    assert again.finished
    assert rig.ledger.balanced()
    again.close()


@pytest.mark.usefixtures("stepwise")
def test_a_camera_that_comes_back_after_its_end_goes_on_with_the_next_number() -> None:
    rig, behind = live_rig(scripted(SECOND_))
    run(rig.capture(), behind)
    admitted = rig.ledger["admitted"]
    rig.ledger["ended"] = rig.ledger["closing"] = 0  # It is added again.
    Downstream.crash(behind)
    run(rig.capture(), behind)
    assert behind.seqs == list(range(2 * admitted))
    assert {m.header.epoch for m in behind.published[:admitted]} == {0}
    assert {m.header.epoch for m in behind.published[admitted:]} == {1}
    assert told(rig) == ["connecting", "running", "ended end_of_file"] * 2
    assert all(b.header.pts_ns >= a.header.pts_ns for a, b in itertools.pairwise(behind.published))
    assert rig.ledger.balanced()
