"""Turns of live sources: cameras, captures and a slow model, simulated on a clock of their own."""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.stages.turns import Turns, waiting
from pipeline.transport.ledger import Ledger
from tests.helpers import make_ledger

MS = 1_000_000
SECOND = 1000 * MS


def live_ledger(**values: int) -> Ledger:
    return make_ledger(live=1, alive_ns=10 * SECOND, **values)


def granted(mine: Ledger, *others: Ledger, places: int = 2, now_ns: int = 10 * SECOND) -> bool:
    return Turns(mine, lambda: (mine, *others), places=places, now_ns=lambda: now_ns).granted()


def test_alone_it_may_take_every_place_and_no_more() -> None:
    assert [granted(live_ledger(admitted=n, turn_ns=9 * SECOND), places=3) for n in range(5)] == [
        True, True, True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("why", "other", "may"),
    [
        ("it wants nothing", {"turn_ns": 1}, True),
        ("it waits, and longer", {"turn_ns": 1, "wants_ns": 5}, False),
        ("it waits, and less", {"turn_ns": 9, "wants_ns": 1}, True),
        ("it waits, and is dead", {"turn_ns": 1, "wants_ns": 5, "alive_ns": 8 * SECOND}, True),
        ("it never had a turn", {"turn_ns": 0, "wants_ns": 5}, False),
        ("it is a recording", {"turn_ns": 1, "wants_ns": 5, "live": 0}, True),
        ("a recording under way takes no place", {"admitted": 9, "live": 0}, True),
        ("it holds the only place", {"admitted": 1}, False),
        ("it held the place, and it was published", {"admitted": 1, "published": 1}, True),
        ("it held the place, and it was lost", {"admitted": 1, "lost_infer_died": 1}, True),
        # Its frames went down with a model that died, and nobody counts them before it is back.
        ("it is dead, with a frame under way", {"admitted": 1, "alive_ns": 1 * SECOND}, True),
    ],
)
def test_who_goes_first(why: str, other: dict[str, int], may: bool) -> None:
    mine = live_ledger(turn_ns=5, wants_ns=9)
    theirs = live_ledger()
    for name, value in other.items():
        theirs[name] = value
    assert granted(mine, theirs, places=1) is may, why


def test_waiting_names_the_living_by_their_turn() -> None:
    books = {
        "late": live_ledger(wants_ns=1, turn_ns=9),
        "first": live_ledger(wants_ns=7, turn_ns=2),
        "content": live_ledger(wants_ns=0, turn_ns=1),
        "dead": live_ledger(wants_ns=1, turn_ns=1),
    }
    books["dead"]["alive_ns"] = 8 * SECOND
    found = waiting(books.values(), 10 * SECOND)
    assert [name for ledger in found for name in books if books[name] is ledger] == ["first", "late"]


def test_since_when_it_waits_is_kept_until_it_was_served() -> None:
    ledger, now = live_ledger(), [100]
    turns = Turns(ledger, lambda: (ledger,), places=1, now_ns=lambda: now[0])
    turns.want(True)
    now[0] = 200
    turns.want(True)
    assert ledger["wants_ns"] == 100
    turns.taken()
    turns.want(False)
    assert (ledger["wants_ns"], ledger["turn_ns"]) == (0, 200)


# --- a whole run of cameras ------------------------------------------------------------------------------


@dataclass
class Camera:
    """What a live capture does with its turns: the newest picture waits in the mailbox."""

    period_ns: int
    stops_ns: int | None = None  # it gives no more pictures
    dies_ns: int | None = None  # its process is gone
    ledger: Ledger = field(default_factory=lambda: make_ledger(live=1))
    mailbox_ns: int = 0  # when the waiting picture was taken; 0 for none
    ages: list[int] = field(default_factory=list)

    def living(self, now_ns: int) -> bool:
        return self.dies_ns is None or now_ns < self.dies_ns


class World:
    """Cameras, places and replicas of a model; events on a heap. Captures look around every 200 ms, or when
    rung: publish rings the one whose frame it was and the first that waits, as `Builder` wires it.
    """

    def __init__(self, cameras: list[Camera], *, places: int, service_ns: int, replicas: int = 1) -> None:
        self.cameras, self.service_ns, self.replicas = cameras, service_ns, replicas
        self.now_ns = SECOND
        self.places = places
        self.queue: list[tuple[Camera, int]] = []
        self.working = 0
        self.most = 0
        self.order = itertools.count()
        self.events: list[tuple[int, int, Callable[[], None]]] = []
        self.turns = [
            Turns(c.ledger, lambda: (c.ledger for c in cameras), places=places, now_ns=lambda: self.now_ns)
            for c in cameras
        ]
        for at, one in enumerate(cameras):
            self.after(one.period_ns * (at + 1) // (len(cameras) + 1), lambda at=at: self.picture(at))  # type: ignore[misc]
            self.after(0, lambda at=at: self.look(at))  # type: ignore[misc]

    def after(self, wait_ns: int, do: Callable[[], None]) -> None:
        heapq.heappush(self.events, (self.now_ns + wait_ns, next(self.order), do))

    def run(self, seconds: float) -> None:
        end_ns = self.now_ns + round(seconds * SECOND)
        while self.events and self.events[0][0] <= end_ns:
            self.now_ns, _, do = heapq.heappop(self.events)
            do()

    def picture(self, at: int) -> None:
        one = self.cameras[at]
        if not one.living(self.now_ns) or (one.stops_ns is not None and self.now_ns >= one.stops_ns):
            return
        one.mailbox_ns = self.now_ns
        self.after(one.period_ns, lambda: self.picture(at))
        self.receive(at)

    def look(self, at: int) -> None:
        """`CaptureStage.watch`, and one turn of the worker's loop."""
        one = self.cameras[at]
        if not one.living(self.now_ns):
            return
        one.ledger["alive_ns"] = self.now_ns
        self.turns[at].want(bool(one.mailbox_ns))
        self.receive(at)
        self.after(200 * MS, lambda: self.look(at))

    def receive(self, at: int) -> None:
        one, turns = self.cameras[at], self.turns[at]
        if not one.living(self.now_ns):
            return
        turns.want(bool(one.mailbox_ns))
        if one.mailbox_ns and turns.granted():
            taken_ns, one.mailbox_ns = one.mailbox_ns, 0
            one.ledger["admitted"] += 1
            turns.taken()
            turns.want(False)
            self.queue.append((one, taken_ns))
            self.most = max(self.most, sum(c.ledger.in_flight() for c in self.cameras))
            self.serve()

    def serve(self) -> None:
        while self.queue and self.working < self.replicas:
            self.working += 1
            one, taken_ns = self.queue.pop(0)
            self.after(self.service_ns, lambda one=one, taken_ns=taken_ns: self.publish(one, taken_ns))  # type: ignore[misc]

    def publish(self, one: Camera, taken_ns: int) -> None:
        self.working -= 1
        one.ages.append(self.now_ns - taken_ns)
        one.ledger["published"] += 1
        self.serve()
        rung = waiting([c.ledger for c in self.cameras], self.now_ns)[:1]
        for at, other in enumerate(self.cameras):
            if other is one or any(other.ledger is ledger for ledger in rung):
                self.receive(at)


def fps(rate: float, **options: Any) -> Camera:
    return Camera(round(SECOND / rate), **options)


@pytest.mark.parametrize("places", [2, 3, 5])
@pytest.mark.parametrize(
    ("rates", "model_fps", "shares"),
    [
        ((60, 5), 8.0, (4, 4)),  # both want more than they get
        ((60, 5), 20.0, (15, 5)),  # the slow one has all it wants
        ((60, 60, 60), 12.0, (4, 4, 4)),
        ((60, 30, 5, 1), 13.0, (3.5, 3.5, 4.5, 1)),
        ((25,) * 10, 10.0, (1,) * 10),
    ],
)
def test_shares_are_equal_where_all_want_more(
    rates: tuple[float, ...], model_fps: float, shares: tuple[float, ...], places: int
) -> None:
    cameras = [fps(rate) for rate in rates]
    World(cameras, places=places, service_ns=round(SECOND / model_fps)).run(30)
    got = [len(one.ages) / 30 for one in cameras]
    assert sum(got) == pytest.approx(min(model_fps, sum(rates)), rel=0.05), "the model is kept busy"
    assert got == pytest.approx(shares, rel=0.25)


@pytest.mark.parametrize("count", [1, 2, 16])
@pytest.mark.parametrize(("places", "replicas"), [(2, 1), (3, 2), (5, 4)])
def test_the_age_of_a_frame_does_not_grow_with_the_number_of_cameras(
    count: int, places: int, replicas: int
) -> None:
    """A picture waits in the mailbox for a period at most: then a newer one takes its place."""
    cameras = [fps(25) for _ in range(count)]
    service_ns = 100 * MS
    world = World(cameras, places=places, service_ns=service_ns, replicas=replicas)
    world.run(12)
    assert world.most <= places
    ages = [age for one in cameras for age in one.ages]
    bound_ns = 40 * MS + -(-places // replicas) * service_ns
    assert max(ages) <= bound_ns
    assert len(ages) == pytest.approx(min(count * 25, replicas * 10) * 12, rel=0.05)
    assert min(len(one.ages) for one in cameras) >= 0.7 * len(ages) / count


@pytest.mark.parametrize("places", [2, 3])
@pytest.mark.parametrize("what", ["falls silent", "dies"])
@pytest.mark.parametrize("how_many", [1, 2, 5])
def test_who_is_silent_or_dead_takes_no_place(what: str, how_many: int, places: int) -> None:
    gone = {"stops_ns": 10 * SECOND} if what == "falls silent" else {"dies_ns": 10 * SECOND}
    cameras = [*(fps(30, **gone) for _ in range(how_many)), fps(30), fps(5)]
    world = World(cameras, places=places, service_ns=50 * MS)
    world.run(13)  # a dead one is missed within 1.5 s
    before = Counter({at: len(one.ages) for at, one in enumerate(cameras)})
    world.run(20)
    got = [(len(one.ages) - before[at]) / 20 for at, one in enumerate(cameras)]
    assert got[:how_many] == [0] * how_many
    assert got[-2:] == pytest.approx([15, 5], rel=0.1)


@given(
    st.lists(
        st.tuples(st.integers(1, 60), st.none() | st.integers(0, 9), st.none() | st.integers(0, 9)),
        min_size=1,
        max_size=5,
    ),
    st.integers(1, 4),
    st.integers(1, 300),
)
@settings(deadline=None, max_examples=25)
def test_whoever_lives_and_has_pictures_is_served(
    given_: list[tuple[int, int | None, int | None]], places: int, service_ms: int
) -> None:
    cameras = [
        fps(
            rate,
            **({"stops_ns": (2 + stop) * SECOND} if stop is not None else {}),
            **({"dies_ns": (2 + die) * SECOND} if die is not None else {}),
        )
        for rate, stop, die in given_
    ]
    world = World(cameras, places=places, service_ns=service_ms * MS)
    world.run(14)
    before = [len(one.ages) for one in cameras]
    world.run(10)
    for one, count in zip(cameras, before, strict=True):
        if one.stops_ns is None and one.dies_ns is None:
            assert len(one.ages) > count + 3, "it starves"
