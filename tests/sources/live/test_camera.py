"""A live source over its connections: scripted ones, on a clock that only waits and cameras move."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, SourceError, SourceLostError
from pipeline.sources.base import Picture
from pipeline.sources.live.camera import LiveSource
from pipeline.sources.live.states import Backoff, Change
from tests.sources.live.scripted import FACTS, SECOND, Clock, Pause, Scripted, Step


class Bench:
    """A live source and the connections that it will make, one after the other."""

    def __init__(self, *connections: Scripted | Exception | Callable[[Clock], Scripted]) -> None:
        self.clock = Clock()
        self.connections = [c(self.clock) if callable(c) else c for c in connections]
        self.left: Iterator[Scripted | Exception] = iter(self.connections)
        self.changes: list[Change] = []
        self.source = LiveSource(
            "gate", self._connect, on_change=self.changes.append, backoff=Backoff(chance=lambda: 0.5),
            now_ns=self.clock.now_ns, now=self.clock.now,
        )  # fmt: skip
        self.source._interrupted = Pause(self.clock)
        self.source.open()

    def _connect(self) -> Scripted:
        made = next(self.left)
        if isinstance(made, Exception):
            raise made
        return made

    def pictures(self, count: int) -> list[Picture]:
        read = [self.source.read() for _ in range(count)]
        assert None not in read
        return [picture for picture in read if picture is not None]

    @property
    def told(self) -> list[str]:
        return [f"{change.state} {change.reason}".rstrip() for change in self.changes]

    def made(self, at: int) -> Scripted:
        connection = self.connections[at]
        assert isinstance(connection, Scripted)
        return connection


def camera(*steps: Step, refuse: Exception | None = None, **facts: Any) -> Callable[[Clock], Scripted]:
    return lambda clock: Scripted(clock, list(steps), refuse=refuse, **facts)


def down(reason: str = "network") -> SourceError:
    return SourceError(f"it cannot be reached ({reason})", reason=reason)


def test_a_camera_that_is_there() -> None:
    bench = Bench(camera((0.0, 0), 0.04, (0.04, 0), 0.04, (0.08, 0)))
    assert bench.source.facts is None
    assert bench.told == ["connecting"]
    assert [(p.index, p.pts_ns // 1_000_000, p.epoch) for p in bench.pictures(3)] == [
        (0, 0, 0), (1, 40, 0), (2, 80, 0),
    ]  # fmt: skip
    assert bench.told == ["connecting", "running"]
    facts: object = bench.source.facts
    assert (facts, bench.source.frame_rate) == (FACTS, 25.0)
    assert bench.clock.waits == []


def test_a_camera_that_is_down_at_the_start_is_tried_for_ever() -> None:
    refused = [camera(refuse=down()) for _ in range(30)]
    bench = Bench(*refused, camera(refuse=down("auth")), camera((0.0, 0)))
    (picture,) = bench.pictures(1)
    assert (picture.index, picture.pts_ns, picture.epoch) == (0, 0, 0), "its stream begins with it"
    assert bench.told == ["connecting", "reconnecting network", "reconnecting auth", "running"]
    assert bench.clock.waits == [1, 2, 4, 8, 16, 32, *[60] * 25]
    assert all(bench.made(at).calls == ["open", "close"] for at in range(31))


def test_an_error_while_a_connection_is_made_is_tried_again_too() -> None:
    bench = Bench(down("tls"), camera((0.0, 0)))
    bench.pictures(1)
    assert bench.told == ["connecting", "reconnecting tls", "running"]


def test_over_connections_numbers_times_and_epochs_go_on() -> None:
    lost = SourceLostError("the camera closed the connection", reason="network")
    bench = Bench(
        camera((0.0, 0), 0.5, (0.5, 0), 3.0, lost),
        camera(refuse=down()),
        camera((7.0, 0), 0.5, (7.5, 0), 0.5, (8.0, 1), lost),
        camera((0.25, 0)),
    )
    found = [(p.index, p.pts_ns / SECOND, p.epoch) for p in bench.pictures(6)]
    assert found == [
        (0, 0.0, 0),
        (1, 0.5, 0),
        (2, 6.5, 1),  # 0.5 + 3 of silence, then waits of 1 and 2: by this host's clock
        (3, 7.0, 1),
        (4, 7.5, 2),  # the size changed in the middle
        (5, 11.5, 3),  # the third failure in a row: 4 s
    ]
    assert bench.clock.waits == [1, 2, 4]
    assert bench.told == ["connecting", "running", "reconnecting network", "running",
                          "reconnecting network", "running"]  # fmt: skip
    assert [bench.made(at).calls[-1] for at in range(3)] == ["close"] * 3


def test_a_connection_that_held_begins_with_the_shortest_wait() -> None:
    short = [camera((0.0, 0), 9.0, down()) for _ in range(3)]
    bench = Bench(*short, camera((0.0, 0), 5.0, (5.0, 0), 5.1, down()), camera((0.0, 0)))
    bench.pictures(6)
    assert bench.clock.waits == [1, 2, 4, 1]


def test_a_restarted_process_goes_on_behind_its_predecessor() -> None:
    bench = Bench(camera((3.0, 0), 1.0, (4.0, 0)))
    bench.source.open(skip=70, after_pts_ns=9 * SECOND)
    found = [(p.index, p.pts_ns) for p in bench.pictures(2)]
    assert found == [(70, 9 * SECOND + 1_000_000), (71, 10 * SECOND + 1_000_000)]


@given(
    st.lists(
        st.tuples(
            st.floats(-1e3, 1e6),  # what the camera calls its first moment
            st.lists(st.tuples(st.floats(0, 5), st.floats(-2, 5), st.integers(0, 1)), max_size=8),
        ),
        max_size=6,
    )
)
@settings(deadline=None, max_examples=60)
def test_time_never_goes_back_and_nothing_is_skipped(
    script: list[tuple[float, list[tuple[float, float, int]]]],
) -> None:
    """However a camera counts time, at its first moment or between two pictures."""
    connections = []
    for start, pictures in script:
        steps: list[Step] = []
        at, epoch = start, 0
        for wait, step, change in pictures:
            at, epoch = at + step, epoch + change
            steps += [wait, (at, epoch)]
        connections.append(camera(*steps))
    bench = Bench(*connections, camera(None))
    started_ns = bench.clock.ns
    found = list(iter(bench.source.read, None))
    assert [p.index for p in found] == list(range(sum(len(pictures) for _, pictures in script)))
    assert all(b.pts_ns >= a.pts_ns >= 0 for a, b in itertools.pairwise(found))
    assert all(b.epoch >= a.epoch for a, b in itertools.pairwise(found))
    firsts = list(itertools.accumulate(len(pictures) for _, pictures in script if pictures))[:-1]
    for first in firsts:
        assert found[first].epoch > found[first - 1].epoch
        assert found[first].pts_ns > found[first - 1].pts_ns
        assert found[first].pts_ns >= found[first].captured_ns - found[0].captured_ns
    assert bench.clock.ns - started_ns < 1e6 * SECOND


def test_counters_go_on_over_connections() -> None:
    bench = Bench(camera((0.0, 0), down()), camera((0.0, 0), down()), camera(refuse=down()), camera((0.0, 0)))
    source = bench.source
    assert (source.decode_errors, source.skipped, source.heard_ns, source.clock) == (0, 0, 0, None)
    bench.pictures(1)
    first = bench.made(0)
    first.decode_errors, first.skipped, first.clock_offset_s, first.drift_ppm = 2, 10, -0.5, 3.0
    assert (source.decode_errors, source.skipped, source.clock) == (2, 10, (-0.5, 3.0))
    assert source.heard_ns == first.heard_ns == bench.clock.ns
    bench.pictures(1)
    assert (source.decode_errors, source.skipped, source.clock) == (2, 10, None)
    bench.made(1).decode_errors = bench.made(1).skipped = 1
    bench.made(2).decode_errors = 5  # its last words come with the closing
    bench.pictures(1)
    assert (source.decode_errors, source.skipped) == (8, 11)
    source.close()
    assert (source.decode_errors, source.skipped, source.heard_ns) == (8, 11, 0)


# --- ends ------------------------------------------------------------------------------------------------


def test_the_end_of_a_finite_stream_is_the_end() -> None:
    bench = Bench(camera((0.0, 0), None), camera((0.0, 0)))
    bench.pictures(1)
    assert bench.source.read() is None
    assert bench.made(0).calls == ["open", "close"]
    assert bench.made(1).calls == []
    bench.clock.pass_s(99)
    bench.source.check()
    assert bench.told == ["connecting", "running"], "capture says the end, when the last picture is through"


@pytest.mark.parametrize("where", ["made", "opened"])
def test_what_can_never_be_read_fails(where: str) -> None:
    error = ConfigError("there is no decoder of that name", hint="write auto")
    bench = Bench(error if where == "made" else camera(refuse=error))
    with pytest.raises(SourceError) as caught:
        bench.source.read()
    assert (caught.value.message, caught.value.hint) == (error.message, error.hint)
    assert caught.value.source == "gate"
    assert bench.told == ["connecting", "failed config"]
    assert bench.clock.waits == []
    bench.source.close()
    if where == "opened":
        assert bench.made(0).calls[-1] == "close"


def test_an_interrupt_ends_a_long_wait_at_once() -> None:
    """With a real event: the wait is eight seconds, the test is not."""
    waiting = threading.Event()

    def refuse() -> Scripted:
        raise down("auth")

    source = LiveSource(
        "gate", refuse, on_change=lambda c: waiting.set() if c.state == "reconnecting" else None
    )
    source.open()
    found: list[Picture | None] = []
    reader = threading.Thread(target=lambda: found.append(source.read()))
    reader.start()
    assert waiting.wait(5)
    source.interrupt()
    reader.join(timeout=2)
    assert not reader.is_alive()
    assert found == [None]


@pytest.mark.parametrize("answer", [None, SourceLostError("closed by us", reason="network")])
def test_an_interrupt_reaches_the_connection_and_is_no_loss(answer: Step) -> None:
    bench = Bench(camera((0.0, 0), answer))
    bench.pictures(1)
    connection = bench.made(0)
    plain = connection.read

    def read() -> Picture | None:
        bench.source.interrupt()  # From another thread, while it reads.
        return plain()

    connection.read = read  # type: ignore[method-assign]
    assert bench.source.read() is None
    assert connection.calls == ["open", "interrupt", "close"]
    assert bench.told == ["connecting", "running"], "who is stopped has not lost its camera"
    bench.clock.pass_s(99)
    bench.source.check()
    assert bench.told == ["connecting", "running"]


def test_close_is_for_good_and_harmless_twice() -> None:
    bench = Bench(camera((0.0, 0), (1.0, 0)))
    bench.pictures(1)
    bench.source.close()
    bench.source.close()
    assert bench.made(0).calls == ["open", "close"]
    assert bench.source.read() is None


# --- silence and libraries that hang ---------------------------------------------------------------------


def test_silence_and_data_that_cannot_be_decoded() -> None:
    bench = Bench(camera((0.0, 0), (1.0, 0)))
    bench.source.check()
    bench.pictures(1)
    bench.clock.pass_s(1.9)
    bench.source.check()
    assert bench.told == ["connecting", "running"]
    bench.clock.pass_s(0.2)
    bench.source.check()
    bench.source.check()
    assert bench.told == ["connecting", "running", "stalled timeout"]
    bench.made(0).heard_ns = bench.clock.ns
    bench.source.check()
    assert bench.told == ["connecting", "running", "stalled timeout", "running"]


@pytest.mark.parametrize("call", ["open", "read", "close"])
def test_a_call_beyond_its_bound_is_stuck(call: str) -> None:
    bench = Bench(camera((0.0, 0), (1.0, 0)))
    connection = bench.made(0)
    seen: list[tuple[float, bool]] = []
    plain = getattr(connection, call)

    def slow() -> Any:
        for _ in range(4):
            bench.clock.pass_s(5.0)
            seen.append((bench.clock.ns / SECOND - 5000, bench.source.stuck()))
        return plain()

    setattr(connection, call, slow)
    assert not bench.source.stuck()
    bench.pictures(1)
    bench.source.close()
    assert seen == [(5, False), (10, False), (15, False), (20, True)], "15 s and a grace of 2"
    assert not bench.source.stuck()


def test_a_long_call_that_hears_data_is_not_stuck() -> None:
    """The schedule says off: packets come and are dropped, for hours, in one call."""
    bench = Bench(camera((0.0, 0)))
    connection = bench.made(0)
    plain = connection.read
    stuck: list[bool] = []

    def long() -> Picture | None:
        for _ in range(1000):
            bench.clock.pass_s(10)
            connection.heard_ns = bench.clock.ns
            stuck.append(bench.source.stuck())
        return plain()

    connection.read = long  # type: ignore[method-assign]
    bench.pictures(1)
    assert not any(stuck)


def test_waiting_to_connect_is_not_stuck() -> None:
    bench = Bench(*[camera(refuse=down()) for _ in range(9)], camera((0.0, 0)))
    stuck: list[bool] = []
    pause = bench.source._interrupted
    plain = pause.wait
    pause.wait = lambda timeout=None: (plain(timeout), stuck.append(bench.source.stuck()))[0]  # type: ignore[method-assign, func-returns-value]
    bench.pictures(1)
    assert stuck == [False] * 10
