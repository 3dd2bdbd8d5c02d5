"""What subscribers are told of a source, and when: on clocks that the test turns."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.messages import State
from pipeline.stages.watch import SourceWatch
from pipeline.transport.journal import SourceState
from tests.helpers import make_ledger

SECOND = 1_000_000_000


class Bench:
    """A watch, its books, and capture that writes there."""

    def __init__(self, **values: int) -> None:
        self.now_ns = 100 * SECOND
        self.ledger = make_ledger(**values)
        self.watch = SourceWatch(self.ledger)
        assert self.told() == []

    @property
    def now(self) -> float:
        return 1e9 + self.now_ns / 1e9

    def say(self, state: State, reason: str = "", *, seq: int = 0) -> None:
        self.ledger.journal.write(SourceState(state, reason, "", self.now, self.now_ns, 0, seq))

    def live(self, seconds: float = 0.0) -> None:
        """Time passes and capture looks around."""
        self.now_ns += round(seconds * SECOND)
        self.ledger["alive_ns"] = self.now_ns

    def silence(self, seconds: float) -> None:
        """Time passes and capture does not."""
        self.now_ns += round(seconds * SECOND)

    def told(self, *, ended: bool = False, restart: bool = False) -> list[str]:
        """What is told now; by a publish that was started again, if ``restart``."""
        if restart:
            self.watch = SourceWatch(self.ledger)
        found = []
        for key, change in self.watch.due(self.now_ns, self.now, ended=ended):
            assert key != 0
            self.watch.told(key)
            found.append(f"{change.state} {change.reason}".rstrip())
        return found


# --- in order with frames, and in time -------------------------------------------------------------------


def test_a_change_waits_for_the_frames_before_it() -> None:
    bench = Bench(next_publish=5)
    bench.say("stalled", "timeout", seq=8)
    assert bench.told() == []
    bench.ledger["next_publish"] = 7
    assert bench.told() == []
    bench.ledger["next_publish"] = 8
    assert bench.told() == ["stalled timeout"]
    assert bench.told() == []


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.99, []), (1.0, ["stalled timeout"]), (9, ["stalled timeout"])]
)
def test_but_not_longer_than_a_second(seconds: float, told: list[str]) -> None:
    bench = Bench()
    bench.say("stalled", "timeout", seq=8)
    bench.silence(seconds)
    assert bench.told() == told


def test_changes_are_told_in_their_order_each_once() -> None:
    bench = Bench(next_publish=3)
    bench.say("connecting")
    bench.say("running", seq=0)
    bench.say("reconnecting", "network", seq=3)
    bench.say("running", seq=3)
    bench.say("stalled", "timeout", seq=6)
    bench.say("running", seq=6)
    assert bench.told() == ["connecting", "running", "reconnecting network", "running"]
    assert bench.told(restart=True) == []
    bench.silence(0.99)
    assert bench.told() == []
    bench.silence(0.01)
    assert bench.told() == ["stalled timeout", "running"]


def test_after_a_restart_frames_have_a_second_to_come_again() -> None:
    bench = Bench()
    bench.say("stalled", "timeout", seq=8)
    bench.silence(60)
    assert bench.told(restart=True) == []
    bench.silence(0.99)
    assert bench.told() == []
    bench.silence(0.01)
    assert bench.told() == ["stalled timeout"]


def test_what_was_not_written_by_all_sinks_is_due_again_under_the_same_key() -> None:
    bench = Bench()
    bench.say("connecting")
    bench.say("running")
    first = bench.watch.due(bench.now_ns, bench.now)
    bench.watch.told(first[0][0])
    bench.silence(5)
    again = SourceWatch(bench.ledger).due(bench.now_ns, bench.now)
    assert again == first[1:]


@pytest.mark.parametrize("final", ["ended", "failed"])
def test_the_end_waits_for_the_end_of_the_stream(final: Any) -> None:
    bench = Bench()
    bench.say("running")
    bench.say(final, "stopped", seq=9)
    bench.silence(60)
    assert bench.told() == ["running"], "frames, and the ends of its objects, are on the way"
    assert bench.told(ended=True) == [f"{final} stopped"]
    assert bench.told(ended=True) == []


def test_with_the_end_of_the_stream_all_is_told() -> None:
    bench = Bench()
    for state in ("connecting", "running", "stalled"):
        bench.say(state, seq=50)
    bench.say("ended", "stopped", seq=50)
    assert bench.told() == []
    assert bench.told(ended=True) == ["connecting", "running", "stalled", "ended stopped"]


def test_a_source_that_is_back_before_its_end_was_told() -> None:
    bench = Bench()
    bench.say("running")
    assert bench.told() == ["running"]
    bench.say("ended", "changed", seq=4)
    bench.say("connecting", seq=4)
    bench.silence(2)
    told = bench.told()
    assert told[-1] == "connecting"
    bench.say("running", seq=4)
    bench.silence(2)
    assert bench.told() == ["running"]


# --- a capture that does not answer ----------------------------------------------------------------------


def running() -> Bench:
    bench = Bench()
    bench.live()
    bench.say("running")
    assert bench.told() == ["running"]
    return bench


def test_a_capture_that_does_not_answer_is_spoken_for_once() -> None:
    bench = running()
    bench.silence(2.9)
    assert bench.told() == []
    bench.silence(0.2)
    assert bench.told() == ["stalled crashed"]
    bench.silence(60)
    assert bench.told() == []
    assert bench.told(restart=True) == [], "by whichever publish"


def test_it_says_for_how_long_and_where() -> None:
    bench = running()
    bench.ledger["epoch"], bench.ledger["next_publish"] = 3, 17
    bench.silence(4)
    ((_, change),) = bench.watch.due(bench.now_ns, bench.now)
    assert (change.epoch, change.seq, change.at, change.at_ns) == (3, 17, bench.now, bench.now_ns)
    assert change.message == "the process that reads it has not answered for 4.0 s"


@pytest.mark.parametrize("restart", [False, True])
def test_one_that_was_only_stopped_is_back_with_what_it_said_last(restart: bool) -> None:
    bench = running()
    bench.silence(5)
    assert bench.told() == ["stalled crashed"]
    bench.live(1)
    assert bench.told(restart=restart) == ["running"]
    bench.live(1)
    assert bench.told(restart=restart) == []
    bench.silence(5)
    assert bench.told(restart=restart) == ["stalled crashed"], "and may be away again"
    bench.live(1)
    assert bench.told(restart=restart) == ["running"]


def test_one_that_spoke_just_before_it_was_stopped_is_back_too() -> None:
    """The reading thread speaks at any time; the clock of its life is wound every 200 ms."""
    bench = running()
    bench.silence(0.1)
    bench.say("stalled", "timeout")
    bench.silence(0.05)
    bench.say("running")
    assert bench.told() == ["stalled timeout", "running"]
    bench.silence(5)
    assert bench.told() == ["stalled crashed"]
    assert bench.told() == bench.told(restart=True) == []
    bench.live(1)
    assert bench.told() == ["running"]
    assert bench.told() == []


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("stuck", [False, True], ids=["frames flow", "frames are stuck"])
def test_one_that_was_started_again_speaks_for_itself_once(restart: bool, stuck: bool) -> None:
    bench = running()
    bench.silence(5)
    assert bench.told() == ["stalled crashed"]
    bench.say("reconnecting", "crashed", seq=9 if stuck else 0)
    bench.live()
    told = bench.told(restart=restart)
    for _ in range(10):
        bench.live(0.2)
        told += bench.told()
    assert told == ["reconnecting crashed"]
    bench.say("running")
    bench.live(1.1)
    assert bench.told() == ["running"]
    bench.live(9)
    assert bench.told() == []
    bench.silence(5)
    assert bench.told() == ["stalled crashed"]


def test_one_that_died_while_publish_was_away() -> None:
    bench = running()
    bench.silence(60)
    bench.say("reconnecting", "crashed")
    bench.live()
    assert bench.told(restart=True) == ["reconnecting crashed"], "what is over is no news"
    assert bench.told() == []


@pytest.mark.parametrize("final", ["ended", "failed"])
def test_one_that_has_ended_need_not_answer(final: Any) -> None:
    bench = running()
    bench.say(final, "stopped")
    bench.silence(60)
    assert bench.told() == []
    assert bench.told(ended=True) == [f"{final} stopped"]
    bench.silence(60)
    assert bench.told() == bench.told(restart=True) == []


def test_one_that_never_began_is_not_missed() -> None:
    bench = Bench()
    bench.silence(60)
    assert bench.told() == []
    bench.say("connecting")
    bench.silence(60)
    assert bench.told() == ["connecting"]
    assert bench.told() == []


def test_before_the_absence_what_was_said_is_told() -> None:
    bench = running()
    bench.say("stalled", "timeout", seq=9)
    bench.silence(5)
    assert bench.told() == ["stalled timeout"]
    assert bench.told() == ["stalled crashed"]
