"""publish: every frame to every sink once, in order; books kept, leases home, numbers without gaps."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import SinkError
from pipeline.sinks.base import Publication, Resume
from pipeline.transport.ledger import LOST_CAUSES
from pipeline.transport.shm import Pools, SlotPool
from tests.helpers import (
    ListSink,
    leased_frame,
    make_event,
    make_frame,
    make_ledger,
    make_result,
    no_view,
)
from tests.stages.desk import Desk, end


def test_a_frame_goes_to_every_sink_and_into_the_books() -> None:
    one, two = ListSink(), ListSink()
    bench = Desk(one, two)
    bench.give(make_result(0), make_result(1), end(2))
    for sink in (one, two):
        assert sink.seqs == [0, 1]
        assert [e["type"] for e in sink.events] == ["source", "source"]
        assert [e["state"] for e in sink.events] == ["running", "ended"]
        assert [e["sequence"] for e in sink.events] == [0, 1]
        assert [e["id"] for e in sink.events] == ["run-0", "run-1"]
    assert (bench.ledger["published"], bench.ledger["next_publish"], bench.ledger["ended"]) == (2, 2, 1)
    assert bench.rung == ["gate"], "capture waits to hear that all is published"


def test_any_order_in_frame_order_out() -> None:
    sink = ListSink()
    bench = Desk(sink)
    bench.give(end(3), make_result(2), make_result(0))
    assert sink.seqs == [0]
    assert bench.ledger["ended"] == 0
    bench.give(make_result(2), make_result(1))
    assert sink.seqs == [0, 1, 2]
    assert sink.items[-1].header is None
    assert (bench.ledger["published"], bench.ledger["ended"]) == (3, 1)


@given(st.permutations(range(6)), st.lists(st.integers(0, 5), max_size=6))
@settings(deadline=None, max_examples=40)
def test_any_order_with_repeats(order: list[int], repeats: list[int]) -> None:
    sink = ListSink()
    bench = Desk(sink)
    for seq in [*order[:3], *repeats, *order[3:], *repeats]:
        bench.give(make_result(seq) if seq < 5 else end(5))
    assert sink.seqs == list(range(5))
    assert [e["sequence"] for e in sink.events] == [0, 1]
    assert (bench.ledger["published"], bench.ledger["next_publish"]) == (5, 5)


def test_events_are_numbered_over_all_sources_without_gaps() -> None:
    sink = ListSink()
    bench = Desk(sink, sources=("gate", "yard"))
    for seq in range(3):
        for source in ("gate", "yard"):
            events = (make_event("start", seq, source=source, seq=seq),) * (seq % 2 + 1)
            bench.give(make_result(seq, source=source, events=events))
    assert [e["sequence"] for e in sink.events] == list(range(len(sink.events)))
    assert bench.stage.summary()["events"] == len(sink.events) == 10
    assert bench.stage.summary()["objects"] == {"car": 8}


def test_leases_come_home_once_and_capture_is_woken() -> None:
    pools = Pools()
    pool = pools.add(SlotPool.in_memory("frames", 2, 48 * 64 * 3))
    frames = [leased_frame(pool, seq) for seq in range(2)]
    bench = Desk(ListSink(), pools=pools)
    bench.give(make_result(1, frame=frames[1]))
    assert pool.free() == 0, "it waits for its turn and its picture is still needed"
    bench.give(make_result(0, frame=frames[0]))
    assert pool.free() == 2
    assert bench.rung == ["gate", "gate"]
    recycled = leased_frame(pool, 2)
    bench.give(make_result(0, frame=frames[0]))
    assert pool.valid(recycled.lease), "a late double does not free what belongs to another frame"
    assert bench.rung == ["gate", "gate"]


def test_a_frame_sent_again_after_it_was_published_gives_its_lease_back() -> None:
    pools = Pools()
    pool = pools.add(SlotPool.in_memory("frames", 2, 48 * 64 * 3))
    frame = leased_frame(pool, 0)
    bench = Desk(ListSink(), pools=pools, ledgers={"gate": make_ledger(next_publish=1, published=1)})
    bench.give(make_result(0, frame=frame))
    assert pool.free() == 2
    assert bench.ledger["published"] == 1


@pytest.mark.parametrize("cause", [*LOST_CAUSES, "unheard of"])
def test_lost_frames_are_counted_by_cause(cause: str) -> None:
    sink = ListSink()
    bench = Desk(sink)
    bench.give(make_result(0, status="failed", lost=cause, reason="it died"), make_result(1))
    known = cause if cause in LOST_CAUSES else "stopped"
    assert bench.ledger.lost() == {known: 1}
    assert (bench.ledger["published"], bench.ledger["failed"]) == (1, 0)
    record = next(item.frame for item in sink.items if item.header is not None)
    assert record is not None
    assert (record["status"], record["lost"], record["reason"]) == ("failed", cause, "it died")
    assert bench.stage.summary()["latency"]["total"], "only the other one"
    assert sum(bench.stage.summary()["latency"]["total"].values()) == 1


def test_failed_frames_are_published_and_counted() -> None:
    bench = Desk(ListSink())
    bench.give(make_result(0, status="failed", reason="infer: refused"), make_result(1))
    assert (bench.ledger["published"], bench.ledger["failed"], bench.ledger.lost()) == (2, 1, {})


def test_the_picture_is_there_while_a_sink_writes_and_none_when_it_is_gone() -> None:
    pools = Pools()
    pool = pools.add(SlotPool.in_memory("frames", 1, 48 * 64 * 3))
    seen: list[Any] = []

    class Looks(ListSink):
        def write(self, item: Publication) -> None:
            picture = item.picture()
            if item.header is None:
                assert picture is None
                return
            seen.append(None if picture is None else (picture.shape, int(np.max(picture))))

    bench = Desk(Looks(), pools=pools)
    stale = leased_frame(pool, 3)
    pool.release(stale.lease)
    current = leased_frame(pool, 4)
    bench.give(
        make_result(0, frame=current),
        make_result(1, frame=stale),
        make_result(2, frame=make_frame(2)),
        make_result(3),
        end(4),
    )
    assert seen == [((48, 64, 3), 4), None, None, None]


def test_times_are_counted_by_stage() -> None:
    bench = Desk(ListSink())
    bench.give(make_result(0))
    names = set(bench.stage.summary()["latency"])
    assert names == {
        "capture.wait", "capture.service", "infer.wait", "infer.service", "publish.wait", "publish.service",
        "total", "total@gate",
    }  # fmt: skip


def test_events_carry_the_times_of_their_frame() -> None:
    sink = ListSink()
    Desk(sink).give(make_result(0, events=(make_event(), make_event("start", 2))))
    assert [e["latency_ms"]["infer"]["service"] for e in sink.events[1:]] == [20.0, 20.0]
    assert "latency_ms" not in sink.events[0], "a state belongs to no frame"


# --- ends ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "reason"), [("ended", "stopped"), ("failed", "the file is cut")])
def test_the_end_of_a_source_and_of_its_objects(state: str, reason: str) -> None:
    sink = ListSink()
    bench = Desk(sink)
    closing = (make_event("end", 1, reason="end_of_file"),)
    bench.give(
        make_result(0, events=(make_event("start", 1),)), end(1, state=state, reason=reason, events=closing)
    )
    assert [(e["type"], e.get("reason")) for e in sink.events][-2:] == [
        ("end", "end_of_file"),
        ("source", reason),
    ]
    assert sink.events[-1]["state"] == state
    bench.stage.close()
    assert len(sink.events) == 4, "nothing is left to end"


def test_objects_that_nobody_follows_any_more_end_as_interrupted() -> None:
    """postprocess was killed: its successor knows nothing of object 1."""
    sink = ListSink()
    bench = Desk(sink)
    bench.give(make_result(0, events=(make_event("start", 1), make_event("start", 2))))
    bench.give(make_result(1, events=(make_event("end", 2),)))
    bench.give(make_result(2, resumed=True, events=(make_event("start", 3),)))
    told = [(e["type"], e.get("track_id"), e.get("reason")) for e in sink.events]
    assert told[-2:] == [("end", 1, "interrupted"), ("start", 3, None)]
    bench.give(end(3))
    assert [(e["type"], e.get("track_id")) for e in sink.events][-2:] == [("end", 3), ("source", None)]
    assert [e["sequence"] for e in sink.events] == list(range(len(sink.events)))


def test_close_ends_open_objects_closes_all_and_says_the_first_failure() -> None:
    broken, fine = ListSink(), ListSink()
    broken.fail_on_close = True
    bench = Desk(broken, fine)
    bench.give(make_result(0, events=(make_event("start", 7),)))
    with pytest.raises(SinkError, match="the disk is full"):
        bench.stage.close()
    assert fine.closed
    assert bench.stage.summary()["files"] == ["results"]
    assert (fine.events[-1]["type"], fine.events[-1]["reason"]) == ("end", "interrupted")


def test_a_sink_that_fails_stops_the_stage_before_the_books() -> None:
    def fail() -> None:
        raise SinkError("the disk is full")

    bench = Desk(ListSink(), ListSink(before=fail))
    with pytest.raises(SinkError):
        bench.give(make_result(0))
    assert (bench.ledger["published"], bench.ledger["next_publish"]) == (0, 0)


def test_what_it_cannot_take() -> None:
    with pytest.raises(TypeError, match="publish cannot take Frame"):
        Desk().give(make_frame())


@pytest.mark.parametrize(
    ("sink_has", "given"),
    [(0, [0, 1, 2, 3]), (2, [2, 3]), (3, [3]), (9, [3]), (None, [3])],
    ids=["nothing", "some", "all", "more than there is", "holds no events"],
)
def test_a_sink_is_given_what_it_had_not_got_and_numbers_go_on(
    tmp_path: Path, sink_has: int | None, given: list[int]
) -> None:
    before = Desk(ListSink(), log=tmp_path / "log")
    before.give(make_result(0), make_result(1, events=(make_event("start", 1), make_event("start", 2))))
    before.kill()
    sink = ListSink(resume=Resume({}, sink_has))
    after = Desk(sink, ledgers=before.ledgers, log=tmp_path / "log")
    after.give(make_result(2, events=(make_event("start", 3),)))
    assert [e["sequence"] for e in sink.events] == given
    assert [e["id"] for e in sink.events] == [f"run-{n}" for n in given]


def test_numbers_that_were_given_and_are_not_in_the_log_are_not_given_again(tmp_path: Path) -> None:
    """The disk was full when publish was killed: subscribers have events that the log has not."""
    before = Desk(ListSink(), log=tmp_path / "log")
    before.give(make_result(0))
    before.ledger["event_next"] = 9
    before.kill()
    sink = ListSink()
    after = Desk(sink, ledgers=before.ledgers, log=tmp_path / "log")
    after.give(make_result(1, events=(make_event("start", 3),)))
    assert [e["sequence"] for e in sink.events] == [9]
    with contextlib.closing(after.logs[-1].reader()) as reader:
        assert reader.page(1).first == 9, "what lies between is no longer kept"


def test_objects_of_a_run_that_was_killed_as_a_whole_are_ended_by_the_next(tmp_path: Path) -> None:
    before = Desk(ListSink(), log=tmp_path / "log")
    ended = (make_event("start", 1), make_event("end", 1), make_event("start", 2, label="person"))
    before.give(
        make_result(0, events=ended), make_result(1, events=(make_event("update", 2, zones=("yard",)),))
    )
    before.kill()
    sink = ListSink()
    after = Desk(sink, log=tmp_path / "log", run_id="next")
    (end,) = sink.events
    assert (end["type"], end["schema"], end["reason"]) == ("end", "framewire.end/1", "interrupted")
    assert (end["track_id"], end["sequence"], end["id"]) == (2, 5, "next-5")
    assert end["object_id"] == "run-gate-2", "it is the object of that run"
    assert "zones" not in end
    after.kill()
    last = ListSink()
    Desk(last, log=tmp_path / "log", run_id="last")
    assert last.events == [], "once"


def test_that_sinks_are_open_is_written_down_when_all_are(tmp_path: Path) -> None:
    """Before that, what is in their files is an earlier run's."""

    class Unwritable(ListSink):
        def open(self, spec: Any) -> Resume:
            raise SinkError("no such disk")

    with pytest.raises(SinkError, match="no such disk"):
        Desk(ListSink(), Unwritable(), opened=tmp_path / "open")
    assert not (tmp_path / "open").exists()
    Desk(ListSink(), opened=tmp_path / "open")
    assert (tmp_path / "open").exists()


def test_nothing_is_read_without_a_sink_that_asks() -> None:
    bench = Desk(ListSink())
    list(bench.stage.process(make_result(0, frame=make_frame(0)), no_view))
