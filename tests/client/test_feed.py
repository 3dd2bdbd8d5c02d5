"""Whatever is dropped, doubled, late, restarted or forgotten: each event once and in order."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.client.feed import RETRY_S, Feed, Heartbeat, Reply, Wanted
from pipeline.client.received import Received
from pipeline.client.start import Place
from pipeline.errors import MessageError
from tests.client.stub import StubLog, matches

STEPS = (
    "commit", "commit", "commit", "unheard", "unheard", "double", "beat", "beat", "answer", "answer",
    "answer", "lose_answer", "hold_answer", "late_answer", "tick", "take", "take", "forget", "restart",
    "new_log", "crash", "stale",
)  # fmt: skip


class World:
    """A publisher and a feed, without sockets; keeps account of what should arrive."""

    def __init__(self, wanted: Wanted, start: Place | float | None, pending_limit: int) -> None:
        self.now = 100.0
        self.wanted = wanted
        self.log = StubLog("a" * 16)
        self.feed = Feed(wanted, start, born=self.now, born_at=0.0, pending_limit=pending_limit)
        self.held: list[tuple[Reply, list[Any]]] = []
        self.question: dict[str, Any] | None = None
        self.old: list[tuple[str, dict[str, Any]]] = []  # what was broadcast, to be heard again
        self.got: list[Received] = []
        self.names = iter(f"{number:016x}" for number in range(1, 10_000))
        for _ in range(3):
            self.log.commit()

    def do(self, step: str, data: st.DataObject) -> None:
        if step in ("commit", "unheard"):
            record = self.log.commit(
                type=data.draw(st.sampled_from(["start", "end"])),
                zones=data.draw(st.sampled_from([[], ["z"]])),
            )
            self.old.append((self.log.id, record))
            if step == "commit":
                self.feed.live(self.log.id, record)
        elif step == "double" and self.old:
            if self.old[-1][0] == self.log.id:
                self.feed.live(*self.old[-1])
        elif step == "stale" and self.old:
            self.feed.live(*data.draw(st.sampled_from(self.old)))
        elif step == "beat":
            self.feed.heartbeat(msgspec.convert(self.log.heartbeat("tcp://x:1"), Heartbeat), self.now)
        elif step == "tick":
            self.now += RETRY_S
        elif step == "take":
            self.take(1)
        elif step == "forget":
            self.log.forget(self.log.oldest + data.draw(st.integers(1, 4)))
        elif step == "new_log":
            self.log = StubLog(next(self.names))
        elif step == "crash":
            self.crash(data.draw(st.integers(0, 2)))
        elif step == "restart":
            self.question = None
            self.feed.disconnected()
        elif step == "late_answer" and self.held:
            self.feed.reply(*self.held.pop(0), self.now)
        if "answer" in step and step != "late_answer":
            self.ask()
            if self.question is not None:
                header, records = self.log.answer(self.question, 3)
                reply = (msgspec.convert(header, Reply), records)
                self.question = None
                if step == "hold_answer":
                    self.held.append(reply)
                elif step == "answer":
                    self.feed.reply(*reply, self.now)

    def crash(self, gone: int) -> None:
        """Power fails: the last commits are lost, and a log of another name goes on from what is left."""
        before = self.log
        end = max(before.oldest, before.next - gone)
        self.log = StubLog(next(self.names), before.base, [*before.ancestors, (before.id, end)])
        kept = end - before.base
        self.log.records, self.log.times = before.records[:kept], before.times[:kept]
        self.log.oldest = before.oldest

    def ask(self) -> None:
        self.take(1000)
        self.question = self.feed.ask(self.now) or self.question

    def take(self, count: int) -> None:
        for _ in range(count):
            item = self.feed.take()
            if item is None:
                return
            assert isinstance(item, Received)
            self.got.append(item)

    def calm_down(self, data: st.DataObject) -> None:
        """Nothing goes wrong any more: a few heartbeats must do."""
        self.held.clear()
        for _ in range(200):
            self.now += RETRY_S
            self.do("beat", data)
            self.do("answer", data)
            if self.feed.caught_up and self.feed.due() is None:
                break
        self.take(1000)
        assert self.feed.caught_up


def numbers(world: World) -> list[int]:
    return [item.record["sequence"] for item in world.got]


WANTED = st.sampled_from([Wanted(), Wanted(types=frozenset(["end"])), Wanted(zones=frozenset(["z"]))])
LIMITS = st.sampled_from([0, 2, 100])


def run(data: st.DataObject, steps: tuple[str, ...], start: Place | float | None) -> World:
    world = World(data.draw(WANTED), start, data.draw(LIMITS))
    for step in data.draw(st.lists(st.sampled_from(steps), max_size=60)):
        world.do(step, data)
    world.calm_down(data)
    return world


def harmless(*more: str) -> tuple[str, ...]:
    return tuple(step for step in STEPS if step not in ("forget", "new_log", "crash") or step in more)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_drops_doubles_restarts_and_late_answers_cost_nothing(data: st.DataObject) -> None:
    first = data.draw(st.integers(0, 3))
    world = run(data, harmless(), Place(first))
    wanted = [r["sequence"] for r in world.log.records if matches(r, world.wanted.asked())]
    assert numbers(world) == [number for number in wanted if number >= first]
    assert world.feed.lost == world.feed.resets == 0
    world.feed.settle()
    assert world.feed.settled == Place(max(first, world.log.next), world.log.id)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_what_the_log_forgets_is_counted(data: st.DataObject) -> None:
    world = run(data, harmless("forget"), Place(0, "a" * 16))
    got = numbers(world)
    assert got == sorted(set(got))
    wanted = [r["sequence"] for r in world.log.records if matches(r, world.wanted.asked())]
    missing = set(wanted) - set(got)
    assert set(got) <= set(wanted)
    assert all(number < world.log.oldest for number in missing), "only what is forgotten may be missing"
    assert world.feed.lost >= len(missing)
    if world.wanted == Wanted():
        assert world.feed.lost == len(missing)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_log_that_continues_ours_is_no_break(data: st.DataObject) -> None:
    world = run(data, harmless("crash"), Place(0, "a" * 16))
    ids = [item.record["id"] for item in world.got]
    assert len(set(ids)) == len(ids), "no event twice"
    survived = [r["id"] for r in world.log.records if matches(r, world.wanted.asked())]
    assert [one for one in ids if one in set(survived)] == survived, "what was not lost to the crash came"
    assert world.feed.lost == world.feed.resets == 0


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_anything_at_all(data: st.DataObject) -> None:
    world = run(data, STEPS, data.draw(st.sampled_from([None, 0.0, Place(0), Place(2, "a" * 16)])))
    ids = [item.record["id"] for item in world.got]
    assert len(set(ids)) == len(ids), "no event twice"
    kept = world.log.records[max(0, world.log.oldest - world.log.base) :]
    last = world.got[-1].log if world.got else ""
    if last == world.log.id:
        ours = [item for item in world.got if item.log == last]
        first = ours[0].record["sequence"]
        held = [r["sequence"] for r in kept if matches(r, world.wanted.asked()) and r["sequence"] >= first]
        assert [n for n in [i.record["sequence"] for i in ours] if n >= world.log.oldest] == held
        assert [i.record["sequence"] for i in ours] == sorted(i.record["sequence"] for i in ours)


def beat(log: StubLog) -> Heartbeat:
    return msgspec.convert(log.heartbeat("tcp://x:1"), Heartbeat)


def answered(feed: Feed, log: StubLog, now: float) -> dict[str, Any]:
    request = feed.ask(now)
    assert request is not None
    header, records = log.answer(request)
    feed.reply(msgspec.convert(header, Reply), records, now)
    return request


def taken(feed: Feed) -> list[int | None]:
    got = []
    while (item := feed.take()) is not None:
        assert isinstance(item, Received)
        got.append(item.sequence)
    return got


@pytest.mark.parametrize(
    ("start", "asked"),
    [
        (Place(3), {"from": 3}),
        (Place(3, "b" * 16), {"from": 3, "log": "b" * 16}),
        (1234.5, {"since": 1234.5}),
    ],
)
def test_the_first_question(start: Place | float, asked: dict[str, Any]) -> None:
    feed = Feed(Wanted(frozenset(["gate"]), types=frozenset(["frame", "end"])), start)
    assert feed.ask(0.0) is None, "nobody is there yet"
    feed.heartbeat(beat(StubLog()), 0.0)
    assert feed.ask(0.0) == {
        "schema": "framewire.replay/1", "id": 1, "do": "events", "limit": 1000,
        "sources": ["gate"], "types": ["end"],
    } | asked  # fmt: skip
    assert feed.ask(RETRY_S / 2) is None
    assert (feed.ask(RETRY_S) or {}).get("id") == 2


def test_from_now_on_means_from_when_it_was_made() -> None:
    log = StubLog()
    feed = Feed(Wanted(), None, born=10.0, born_at=beat(log).at.timestamp() - 5)
    feed.heartbeat(beat(log), 15.0)
    since = (feed.ask(15.0) or {})["since"]
    assert since == pytest.approx(beat(log).at.timestamp() - 5, abs=0.5)
    late = Feed(Wanted(), None, born=10.0, born_at=0.0)  # our clock is wrong by years
    late.heartbeat(beat(log), 15.0)
    assert (late.ask(15.0) or {})["since"] == pytest.approx(beat(log).at.timestamp() - 6, abs=0.5)


def test_the_snapshot_comes_first_and_counts_as_a_whole() -> None:
    log = StubLog()
    for track in (1, 2, 1):
        log.commit(track_id=track)
    log.commit(type="end", track_id=2)
    log.commit(track_id=4)
    feed = Feed(Wanted(), None, snapshot=True)
    feed.heartbeat(beat(log), 0.0)
    assert answered(feed, log, 0.0)["do"] == "latest"
    feed.live(log.id, log.commit(track_id=5))
    first = feed.take()
    assert isinstance(first, Received)
    assert (first.snapshot, first.record["track_id"]) == (True, 1)
    feed.settle()
    assert feed.settled is None, "half a snapshot is none"
    assert taken(feed) == [4, 5]
    feed.settle()
    assert feed.settled == Place(6, log.id)


def test_half_of_what_was_taken_is_not_settled() -> None:
    log = StubLog()
    feed = Feed(Wanted(), Place(0))
    feed.heartbeat(beat(log), 0.0)
    for _ in range(3):
        log.commit()
    answered(feed, log, 0.0)
    assert feed.settled == Place(0, log.id)
    feed.take()
    assert feed.settled == Place(0, log.id), "it is being worked on"
    feed.settle()
    assert feed.settled == Place(1, log.id)


def test_counters() -> None:
    log = StubLog()
    feed = Feed(Wanted(), Place(0))
    feed.heartbeat(beat(log), 0.0)
    answered(feed, log, 0.0)
    missed, heard = log.commit(), log.commit()
    feed.live(log.id, heard)
    assert taken(feed) == []
    answered(feed, log, 0.0)
    assert taken(feed) == [0, 1]
    feed.live(log.id, missed)
    assert (feed.refilled, feed.duplicates, feed.lost, feed.resets) == (2, 1, 0, 0)
    for _ in range(5):
        log.commit()
    log.forget(6)
    feed.heartbeat(beat(log), 0.0)
    answered(feed, log, 0.0)
    assert (taken(feed), feed.lost) == ([6], 4)
    other = StubLog("b" * 16)
    other.commit()
    feed.heartbeat(beat(other), 0.0)
    answered(feed, other, 0.0)
    assert (taken(feed), feed.resets) == ([0], 1)


def test_a_log_that_was_put_back_from_a_copy_is_a_reset() -> None:
    log = StubLog()
    feed = Feed(Wanted(), Place(0))
    feed.heartbeat(beat(log), 0.0)
    for _ in range(5):
        log.commit()
    answered(feed, log, 0.0)
    assert len(taken(feed)) == 5
    del log.records[3:]
    feed.heartbeat(beat(log), 1.0)
    answered(feed, log, 1.0)
    feed.live(log.id, log.commit())
    feed.heartbeat(beat(log), 1.0)
    answered(feed, log, 1.0)
    assert (taken(feed), feed.resets) == ([0, 1, 2, 3], 1), "what is new cannot be told from what is old"


def test_events_that_the_publisher_could_not_write_yet_are_no_reset() -> None:
    log = StubLog()
    feed = Feed(Wanted(), Place(0))
    feed.heartbeat(beat(log), 0.0)
    answered(feed, log, 0.0)
    for _ in range(3):
        feed.live(log.id, log.commit())
    log.commit()
    feed.heartbeat(beat(log), 1.0)
    unwritten, log.records = log.records, []
    answered(feed, log, 1.0)
    assert taken(feed) == [0, 1, 2]
    assert feed.due() == 1.0 + RETRY_S
    log.records = unwritten
    answered(feed, log, 1.0 + RETRY_S)
    assert (taken(feed), feed.resets, feed.lost) == ([3], 0, 0)


def test_a_place_that_the_log_has_not_reached_is_of_another_log() -> None:
    log = StubLog()
    log.commit()
    feed = Feed(Wanted(), Place(500))
    feed.heartbeat(beat(log), 0.0)
    answered(feed, log, 0.0)
    answered(feed, log, 0.0)
    assert (taken(feed), feed.resets) == ([0], 1)


def test_a_refusal_is_an_error_and_not_asked_again_at_once(caplog: pytest.LogCaptureFixture) -> None:
    feed = Feed(Wanted(), Place(0))
    feed.heartbeat(beat(StubLog()), 0.0)
    assert feed.ask(0.0) is not None
    feed.reply(Reply("framewire.replay/1", 1, error="no such thing"), [], 0.0)
    error = feed.take()
    assert isinstance(error, MessageError)
    assert "no such thing" in str(error)
    assert feed.due() == RETRY_S
    answered(feed, StubLog(), RETRY_S)
    feed.live("0" * 16, StubLog(base=1).commit())
    assert feed.ask(2 * RETRY_S) is not None
    with caplog.at_level(logging.WARNING):
        feed.reply(Reply("framewire.replay/1", 3, error="the disk is slow"), [], 0.0)
    assert feed.take() is None, "once it has begun, a subscription does not end by that"
    assert "the disk is slow" in caplog.text


@pytest.mark.parametrize(
    "record",
    [
        None, [], {}, {"sequence": "1"}, {"sequence": True}, {"sequence": -1}, {"sequence": 0},
        {"sequence": 0, "schema": "framewire.end/1", "type": "start", "source": "gate"},
        {"sequence": 0, "schema": "framewire.end/1", "type": "end"},
        {"sequence": 0, "schema": "framewire.end/1", "type": "end", "source": "gate", "label": 3},
    ],
)  # fmt: skip
def test_what_is_no_event_is_counted(record: Any) -> None:
    feed = Feed(Wanted(), Place(0))
    feed.live("0" * 16, record)
    assert feed.malformed == 1


def test_an_event_of_another_version_is_an_error_in_its_place() -> None:
    log = StubLog()
    feed = Feed(Wanted(), Place(0))
    feed.heartbeat(beat(log), 0.0)
    log.commit(schema="framewire.start/2")
    log.commit()
    answered(feed, log, 0.0)
    assert isinstance(feed.take(), MessageError)
    assert taken(feed) == [1]
