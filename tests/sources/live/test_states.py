"""The states of a live source and the waits between its connections, on a clock that the test turns."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import SourceError, SourceLostError
from pipeline.sources.live.states import Backoff, Change, StateMachine

SECOND = 1_000_000_000


class Bench:
    """A machine, its clock, and what it told."""

    def __init__(self) -> None:
        self.now_ns = 1000 * SECOND
        self.heard_ns = 0
        self.changes: list[Change] = []
        self.machine = StateMachine(
            self.changes.append, now_ns=lambda: self.now_ns, now=lambda: 1e9 + self.now_ns / 1e9
        )

    def do(self, *steps: str) -> None:
        """``+2.5`` lets seconds pass in silence; ``hear`` is data without a picture; the rest are calls."""
        for step in steps:
            name, _, value = step.partition(":")
            if step.startswith("+"):
                self.now_ns += round(float(step) * SECOND)
            elif name == "hear":
                self.heard_ns = self.now_ns
            elif name == "begin":
                self.machine.begin()
            elif name == "connected":
                self.heard_ns = self.now_ns
                self.machine.connected(float(value) if value else None)
            elif name == "picture":
                self.heard_ns = self.now_ns
                self.machine.picture()
            elif name == "lost":
                self.heard_ns = 0
                self.machine.lost(SourceLostError(f"it broke: {value}", reason=value))
            elif name == "check":
                self.machine.check(self.heard_ns)
            elif name == "fail":
                self.machine.end("failed", value, "for good")
            else:
                assert step == "end"
                self.machine.end("ended", "end_of_file")

    @property
    def told(self) -> list[str]:
        return [f"{c.state} {c.reason}".rstrip() for c in self.changes]


FIRST = ("begin", "connected:25", "picture")


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ((), []),
        (("begin",), ["connecting"]),
        (("begin", "begin"), ["connecting"]),
        (("begin", "connected:25"), ["connecting"]),
        (FIRST, ["connecting", "running"]),
        ((*FIRST, "+.04", "picture", "check", "+.04", "picture"), ["connecting", "running"]),
        # Silence counts only while it runs, and only once something was heard.
        (("begin", "+99", "check"), ["connecting"]),
        (("begin", "connected:25", "+99", "check"), ["connecting"]),
        ((*FIRST, "+1.99", "check"), ["connecting", "running"]),
        ((*FIRST, "+2.01", "check"), ["connecting", "running", "stalled timeout"]),
        ((*FIRST, "+2.01", "check", "+9", "check"), ["connecting", "running", "stalled timeout"]),
        ((*FIRST, "+9", "check", "picture"), ["connecting", "running", "stalled timeout", "running"]),
        ((*FIRST, "+9", "check", "hear", "check"), ["connecting", "running", "stalled timeout", "running"]),
        ((*FIRST, "+9", "hear", "check"), ["connecting", "running"]),
        ((*FIRST, "+9", "check", "lost:timeout"),
         ["connecting", "running", "stalled timeout", "reconnecting timeout"]),
        # Lost, and again with another reason.
        ((*FIRST, "lost:network"), ["connecting", "running", "reconnecting network"]),
        ((*FIRST, "lost:network", "lost:network"), ["connecting", "running", "reconnecting network"]),
        ((*FIRST, "lost:network", "lost:auth", "lost:network"),
         ["connecting", "running", "reconnecting network", "reconnecting auth", "reconnecting network"]),
        ((*FIRST, "lost:network", "connected:25"), ["connecting", "running", "reconnecting network"]),
        ((*FIRST, "lost:network", "+99", "check"), ["connecting", "running", "reconnecting network"]),
        ((*FIRST, "lost:network", "connected:25", "picture"),
         ["connecting", "running", "reconnecting network", "running"]),
        (("begin", "lost:not_found"), ["connecting", "reconnecting not_found"]),
        # The end is final.
        (("begin", "end"), ["connecting", "ended end_of_file"]),
        ((*FIRST, "end", "end", "fail:config"), ["connecting", "running", "ended end_of_file"]),
        ((*FIRST, "fail:config", "end"), ["connecting", "running", "failed config"]),
        ((*FIRST, "end", "picture", "lost:network", "+9", "check"),
         ["connecting", "running", "ended end_of_file"]),
        ((*FIRST, "+9", "check", "fail:config"),
         ["connecting", "running", "stalled timeout", "failed config"]),
        (("begin", "lost:auth", "fail:config", "connected:25", "picture"),
         ["connecting", "reconnecting auth", "failed config"]),
    ],
)  # fmt: skip
def test_what_moves_it(steps: tuple[str, ...], told: list[str]) -> None:
    bench = Bench()
    bench.do(*steps)
    assert bench.told == told
    assert bench.machine.state == (told[-1].split()[0] if told else None)


@pytest.mark.parametrize(
    ("rate", "silence_s"),
    [
        (None, 2.0),  # not declared
        (0.0, 2.0),
        (-1.0, 2.0),
        (60.0, 2.0),
        (25.0, 2.0),
        (1.0, 2.0),
        (0.5, 4.0),  # two of its periods
        (0.1, 20.0),
        (0.001, 60.0),  # but nobody waits half an hour
    ],
)
def test_the_silence_that_is_too_long_depends_on_the_declared_rate(
    rate: float | None, silence_s: float
) -> None:
    bench = Bench()
    bench.do("begin")
    bench.machine.connected(rate)
    bench.do("picture")
    assert bench.machine.silence_ns == pytest.approx(silence_s * SECOND)
    bench.do(f"+{silence_s - 0.01}", "check")
    assert bench.told[-1] == "running"
    bench.do("+.02", "check")
    assert bench.told[-1] == "stalled timeout"


@pytest.mark.parametrize(
    ("declared", "real_s", "silence_s"), [("25", 3.0, 6.0), (".1", 0.04, 2.0), ("", 5.0, 10.0)]
)
def test_the_real_rate_is_learnt(declared: str, real_s: float, silence_s: float) -> None:
    bench = Bench()
    bench.do("begin", f"connected:{declared}", *["picture", f"+{real_s}"] * 100)
    assert bench.machine.silence_ns == pytest.approx(silence_s * SECOND, rel=0.01)
    bench.do("connected:25")
    assert bench.machine.silence_ns == 2 * SECOND, "a new connection may be another stream"


def test_a_change_says_why_and_when() -> None:
    bench = Bench()
    bench.do(*FIRST, "+3", "check")
    stalled = bench.changes[-1]
    assert stalled == Change("stalled", "timeout", "nothing has come for 3.0 s", 1e9 + 1003, 1003 * SECOND)
    bench.machine.lost(SourceError("the camera refused", reason="auth"))
    assert (bench.changes[-1].reason, bench.changes[-1].message) == ("auth", "the camera refused")


@given(
    st.lists(
        st.sampled_from(
            ["begin", "connected:25", "picture", "lost:network", "lost:auth", "check", "hear", "+1", "+3"]
        ),
        max_size=60,
    ),
    st.sampled_from(["", "end", "fail:config"]),
    st.lists(st.sampled_from(["picture", "lost:network", "check", "+3", "end", "fail:x"]), max_size=9),
)
def test_nothing_is_told_twice_and_the_end_is_the_last(
    steps: list[str], final: str, after: list[str]
) -> None:
    bench = Bench()
    bench.do(*steps, *([final] if final else []))
    told = bench.told
    assert all(a != b for a, b in itertools.pairwise(told))
    assert not {"ended", "failed"} & {c.state for c in bench.changes[:-1]}
    if final:
        bench.do(*after)
        assert bench.told == told


# --- waits -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reasons", "waits"),
    [
        (["network"] * 8, [1, 2, 4, 8, 16, 32, 60, 60]),
        (["auth"] * 5, [8, 16, 32, 60, 60]),
        (["network", "auth", "network"], [1, 16, 4]),
    ],
)
def test_waits_double_to_a_minute_and_a_wrong_password_waits_longer(
    reasons: list[str], waits: list[float]
) -> None:
    backoff = Backoff(chance=lambda: 0.5)
    assert [backoff.next(reason) for reason in reasons] == waits


def test_a_stream_that_held_begins_anew() -> None:
    backoff = Backoff(chance=lambda: 0.5)
    assert [backoff.next("network") for _ in range(3)] == [1, 2, 4]
    backoff.reset()
    assert [backoff.next("network") for _ in range(2)] == [1, 2]


@given(st.lists(st.sampled_from(["network", "auth", "timeout"]), min_size=1, max_size=2000), st.floats(0, 1))
def test_a_wait_is_never_below_a_second_or_above_a_minute(reasons: list[str], chance: float) -> None:
    backoff = Backoff(chance=lambda: chance)
    assert all(1.0 <= backoff.next(reason) <= 60.0 for reason in reasons)


def test_cameras_that_went_down_together_do_not_come_back_in_step() -> None:
    low, high = Backoff(chance=lambda: 0.0), Backoff(chance=lambda: 1.0)
    pairs = [(low.next("network"), high.next("network")) for _ in range(6)]
    assert [round(b - a, 6) for a, b in pairs] == [0.1, 0.4, 0.8, 1.6, 3.2, 6.4]
    own = [Backoff() for _ in range(20)]
    assert len({[b.next("network") for _ in range(3)][-1] for b in own}) > 1
