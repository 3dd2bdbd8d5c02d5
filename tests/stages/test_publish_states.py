"""publish and the states of sources: in order with frames, in time, and with the ends of objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.messages import Message
from pipeline.sinks.base import Publication, Sink
from pipeline.sinks.jsonl import JsonlSink
from pipeline.transport.ledger import Ledger
from tests.helpers import (
    Fuse,
    FusedLedger,
    KilledError,
    ListSink,
    make_event,
    make_header,
    make_result,
    unique,
)
from tests.stages.desk import Desk, end, say

SECOND = 1_000_000_000


class Clock:
    """Stands for the module ``time`` in publish."""

    def __init__(self) -> None:
        self.ns = 1000 * SECOND

    def monotonic_ns(self) -> int:
        return self.ns

    def time(self) -> float:
        return 1_769_852_400.0 + self.ns / 1e9


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("pipeline.stages.publish.time", made)
    monkeypatch.setattr("tests.stages.desk.time", made)
    return made


def summary(sink: ListSink) -> list[str]:
    """Frames and events as they came, one word or two each."""
    found = []
    for item in sink.items:
        if item.header is not None:
            found.append(f"frame {item.header.seq}")
        for event in item.events:
            name = event["state"] if event["type"] == "source" else f"{event['type']}-{event['track_id']}"
            found.append(f"{name} {event.get('reason', '')}".rstrip())
    return found


def start(seq: int, *tracks: int, epoch: int = 0) -> Message:
    events = tuple(make_event("start", track, seq=seq, epoch=epoch) for track in tracks)
    return make_result(header=make_header(seq, epoch=epoch), events=events)


def test_a_change_comes_between_the_frames_where_it_happened(clock: Clock) -> None:
    sink = ListSink()
    desk = Desk(sink)
    desk.give(start(0))
    say(desk.ledger, "stalled", "timeout", seq=2)
    say(desk.ledger, "running", seq=3)
    desk.stage.tick()
    desk.give(start(1), start(2), start(3))
    assert summary(sink) == [
        "running", "frame 0", "frame 1", "stalled timeout", "frame 2", "running", "frame 3",
    ]  # fmt: skip
    assert [e["sequence"] for e in sink.events] == [0, 1, 2]


def test_and_within_a_second_though_frames_are_stuck(clock: Clock) -> None:
    sink = ListSink()
    desk = Desk(sink)
    desk.stage.tick()
    say(desk.ledger, "reconnecting", "network", "the camera closed the connection", seq=9)
    for _ in range(6):
        clock.ns += SECOND // 5
        desk.stage.tick()
    assert summary(sink) == ["running", "reconnecting network"]
    event = sink.events[-1]
    assert (event["message"], event["seq"], event["model"]) == ("the camera closed the connection", 9, "fake")
    desk.give(start(0))
    assert summary(sink)[-1] == "frame 0"


def test_a_camera_that_is_down_is_told_without_a_frame() -> None:
    sink = ListSink()
    desk = Desk(sink, sources=("gate", "yard"))
    say(desk.ledgers["yard"], "reconnecting", "auth", "it refused the password")
    desk.stage.tick()
    assert [(e["source"], e["state"]) for e in sink.events] == [
        ("gate", "running"), ("yard", "running"), ("yard", "reconnecting"),
    ]  # fmt: skip


def test_objects_of_a_lost_source_end_then_and_once(clock: Clock) -> None:
    sink = ListSink()
    desk = Desk(sink)
    desk.give(start(0, 1, 2))
    say(desk.ledger, "reconnecting", "network", seq=1)
    say(desk.ledger, "running", seq=1, epoch=1)
    # What its tracker says of them later is no news; what is new is.
    late = (make_event("update", 1, seq=1), make_event("end", 2, seq=1), make_event("start", 3, seq=1))
    desk.give(make_result(1, events=late))
    desk.give(make_result(2, events=(make_event("update", 3, seq=2),)), end(3))
    assert summary(sink) == [
        "running", "frame 0", "start-1", "start-2",
        "end-1 source_lost", "end-2 source_lost", "reconnecting network", "running",
        "frame 1", "start-3", "frame 2", "update-3", "end-3 interrupted", "ended end_of_file",
    ]  # fmt: skip
    assert [e["sequence"] for e in sink.events] == list(range(len(sink.events)))
    assert desk.stage.summary()["objects"] == {"car": 3}
    desk.stage.close()
    assert len(sink.events) == 11


@pytest.mark.parametrize("state", ["stalled", "running", "connecting"])
def test_a_silence_ends_no_object(state: Any, clock: Clock) -> None:
    sink = ListSink()
    desk = Desk(sink)
    desk.give(start(0, 1))
    say(desk.ledger, state, seq=1)
    desk.give(make_result(1, events=(make_event("end", 1, seq=1),)))
    assert summary(sink)[-3:] == [state, "frame 1", "end-1"]


def test_the_end_of_a_source_comes_once() -> None:
    sink = ListSink()
    desk = Desk(sink)
    desk.give(start(0, 1), end(1), end(1), end(1, events=(make_event("end", 1),)))
    assert summary(sink)[-2:] == ["end-1 interrupted", "ended end_of_file"]
    assert desk.rung[-1] == "gate"


def test_a_source_that_is_back_after_its_end_goes_on() -> None:
    sink = ListSink()
    desk = Desk(sink)
    desk.give(start(0, 1), start(1), end(2, events=(make_event("end", 1, seq=1),)))
    desk.stage.tick()
    desk.ledger["ended"] = 0  # It is added again.
    say(desk.ledger, "connecting", seq=2, epoch=1)
    desk.stage.tick()
    say(desk.ledger, "running", seq=2, epoch=1)
    desk.give(start(2, 2, epoch=1), start(3, epoch=1))
    desk.give(end(4, reason="removed", events=(make_event("end", 2, seq=3, epoch=1),)))
    assert summary(sink) == [
        "running", "frame 0", "start-1", "frame 1", "end-1", "ended end_of_file",
        "connecting", "running", "frame 2", "start-2", "frame 3", "end-2", "ended removed",
    ]  # fmt: skip
    assert [e["sequence"] for e in sink.events] == list(range(len(sink.events)))
    assert (desk.ledger["published"], desk.ledger["next_publish"], desk.ledger["ended"]) == (4, 4, 1)


def test_a_source_that_is_back_and_gone_without_a_frame() -> None:
    sink = ListSink()
    desk = Desk(sink)
    desk.give(start(0), end(1))
    for reason in ("removed", "changed"):
        desk.ledger["ended"] = 0
        say(desk.ledger, "connecting", seq=1)
        say(desk.ledger, "reconnecting", "auth", seq=1)
        desk.give(end(1, reason=reason))
    assert summary(sink) == [
        "running", "frame 0", "ended end_of_file",
        "connecting", "reconnecting auth", "ended removed",
        "connecting", "reconnecting auth", "ended changed",
    ]  # fmt: skip


def test_a_capture_that_is_stopped_and_goes_on(clock: Clock) -> None:
    sink = ListSink()
    desk = Desk(sink)
    desk.ledger["alive_ns"] = clock.ns
    desk.give(start(0, 1))
    for _ in range(20):
        clock.ns += SECOND // 5
        desk.stage.tick()
    assert summary(sink)[-1] == "stalled crashed"
    assert sink.events[-1]["message"].startswith("the process that reads it has not answered for 3")
    for _ in range(20):
        clock.ns += SECOND // 5
        desk.ledger["alive_ns"] = clock.ns
        desk.stage.tick()
    desk.give(make_result(1, events=(make_event("end", 1, seq=1),)))
    assert summary(sink) == [
        "running",
        "frame 0",
        "start-1",
        "stalled crashed",
        "running",
        "frame 1",
        "end-1",
    ]


# --- an absence, and publish killed at any point ---------------------------------------------------------


class FusedSink(JsonlSink):
    fuse = Fuse()

    def write(self, item: Publication) -> None:
        self.fuse.burn()
        super().write(item)
        self.fuse.burn()


def absence(path: Path, fuse: Fuse, clock: Clock, *, capture_restarts: bool) -> list[dict[str, Any]]:
    """Capture is silent for six seconds; publish may be killed, and is back a second later."""
    ledger = FusedLedger.named(unique("books"), create=True)
    assert isinstance(ledger, FusedLedger)
    say(ledger, "connecting")
    say(ledger, "running")
    ledger["alive_ns"] = clock.ns
    ledger.fuse = fuse

    def desk(*, resume: bool) -> Desk:
        sink = FusedSink(path, "events", resume=resume)
        sink.fuse = fuse
        sinks: tuple[Sink, ...] = (sink,)
        return Desk(*sinks, ledgers={"gate": ledger}, log=path.with_suffix(".log"))

    made = desk(resume=False)
    for step in range(60):
        clock.ns += SECOND // 5
        absent = 5 <= step < 35
        if step == 35 and capture_restarts:
            say(ledger, "reconnecting", "crashed")
        if not absent:
            Ledger.__setitem__(
                ledger, "alive_ns", clock.ns
            )  # Capture is another process: this burns no fuse.
        try:
            made.stage.tick()
        except KilledError:
            made.sinks[0].close()
            made.kill()
            clock.ns += SECOND
            made = desk(resume=True)
            made.stage.tick()
    made.stage.close()
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("capture_restarts", [False, True])
def test_an_absence_is_told_once_wherever_publish_is_killed(
    tmp_path: Path, clock: Clock, capture_restarts: bool
) -> None:
    back = "reconnecting" if capture_restarts else "running"
    expected = ["connecting", "running", "stalled", back]
    whole = Fuse()
    events = absence(tmp_path / "whole", whole, clock, capture_restarts=capture_restarts)
    assert [e["state"] for e in events] == expected
    wrong = []
    for point in range(whole.passed):
        events = absence(tmp_path / str(point), Fuse(point), clock, capture_restarts=capture_restarts)
        found = [e["state"] for e in events], [e["sequence"] for e in events]
        if found != (expected, [0, 1, 2, 3]):
            wrong.append(f"{point}: {found}")
    assert wrong == []
