"""A plan is plain data and reaches the child as it was made."""

from __future__ import annotations

import os

import msgspec
import pytest

from pipeline.runtime.child import control_endpoint, read_plan, write_plan
from pipeline.runtime.plan import Peer, RestartPolicy, RunPlan, Settings, SinkPlan, SourcePlan, WorkerPlan

PLAN = WorkerPlan(
    run_id="0123abcd",
    run_dir="/run/framewire/0123abcd",
    name="infer-0",
    stages=("infer",),
    settings=Settings("fake?ms=5", input_size=(416, 256), classes=("car",), track_options={"lost_s": 2.0}),
    sources=(SourcePlan("gate", "rtsp://user:secret@camera/1", realtime=True, options={"loop": 2}),),
    sinks=(SinkPlan("jsonl", {"path": "events.jsonl", "sources": ("gate",)}),),
    inlet="ipc:///run/infer-0",
    outlets=(Peer("postprocess-0", "ipc:///run/postprocess-0"),),
    inline=True,
    sharded=True,
    incarnation=3,
)


def test_a_plan_comes_through_a_pipe_piece_by_piece() -> None:
    data = write_plan(PLAN)
    plain = msgspec.structs.replace(PLAN, sinks=(SinkPlan("jsonl", {"path": "e", "sources": ["gate"]}),))
    for pieces in ([data], [data[:3], data[3:50], data[50:]]):
        read, write = os.pipe()
        for piece in pieces:
            os.write(write, piece)
        os.close(write)
        got = read_plan(read)
        os.close(read)
        assert msgspec.structs.replace(got, sinks=()) == msgspec.structs.replace(plain, sinks=())
        assert got.sinks[0].options == {"path": "events.jsonl", "sources": ["gate"]}


@pytest.mark.parametrize("cut", [0, 2, 4, 60])
def test_a_supervisor_that_dies_while_it_writes(cut: int) -> None:
    read, write = os.pipe()
    os.write(write, write_plan(PLAN)[:cut])
    os.close(write)
    with pytest.raises(EOFError, match="no plan on stdin"):
        read_plan(read)
    os.close(read)


def test_defaults_are_not_shared_and_plans_are_frozen() -> None:
    one, two = SourcePlan("a", "a.mp4"), SourcePlan("b", "b.mp4")
    assert one.options is not two.options
    with pytest.raises(AttributeError):
        one.name = "c"  # type: ignore[misc]
    run = RunPlan("r", "/tmp/r", (PLAN,))
    assert run.restart == RestartPolicy()
    assert run.duration_s is None


def test_where_the_supervisor_listens() -> None:
    assert control_endpoint("/run/x") == "ipc:///run/x/control"
