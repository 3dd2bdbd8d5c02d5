"""Which processes a run has and how they are joined, checked before anything starts."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.runtime.plan import Settings, SinkPlan, SourcePlan, WorkerPlan
from pipeline.runtime.topology import WINDOWS, Placement, edges, make_groups, plan_workers
from pipeline.stages.base import STAGES

GATE, YARD = SourcePlan("gate", "gate.mp4"), SourcePlan("yard", "yard.mp4")


def plan(*sources: SourcePlan, batch: int = 1, **placement: Any) -> dict[str, WorkerPlan]:
    workers = plan_workers(
        run_id="0123abcd",
        run_dir="/r",
        sources=sources or (GATE,),
        sinks=(SinkPlan("jsonl", {"path": "e"}),),
        settings=Settings("fake", batch=batch),
        placement=Placement(**placement),
    )
    assert len({worker.name for worker in workers}) == len(workers)
    return {worker.name: worker for worker in workers}


def test_a_process_for_each_stage() -> None:
    workers = plan()
    assert list(workers) == ["capture-gate", "preprocess-0", "infer-0", "postprocess-0", "publish-0"]
    assert [w.stages for w in workers.values()] == [(stage,) for stage in STAGES]
    assert [w.inlet for w in workers.values()] == [
        "", "ipc:///r/preprocess-0", "ipc:///r/infer-0", "ipc:///r/postprocess-0", "ipc:///r/publish-0",
    ]  # fmt: skip
    assert [len(w.outlets) for w in workers.values()] == [1, 1, 1, 1, 0]
    assert [w.sources for w in workers.values()] == [(GATE,), (), (), (), ()]
    assert [len(w.sinks) for w in workers.values()] == [0, 0, 0, 0, 1]
    assert not any(w.inline or w.sharded for w in workers.values())


def test_each_producer_knows_the_window_of_its_consumer() -> None:
    workers = plan(replicas={"infer": 2})
    for edge in edges(list(workers.values())):
        assert edge.credits == workers[edge.consumer].window == WINDOWS[workers[edge.consumer].stages[0]]
        assert edge.endpoint == workers[edge.consumer].inlet
    assert len(edges(list(workers.values()))) == 1 + 2 + 2 + 1


@pytest.mark.parametrize(
    ("groups", "windows"),
    [
        ((), {"preprocess": 2, "infer": 16, "postprocess": 11, "publish": 8}),
        ((("preprocess", "infer"),), {"preprocess+infer": 16, "postprocess": 11, "publish": 8}),
        ((("infer", "postprocess", "publish"),), {"preprocess": 2, "infer+postprocess+publish": 16}),
    ],
)
def test_windows_are_deep_enough_for_a_batch(
    groups: tuple[tuple[str, ...], ...], windows: dict[str, int]
) -> None:
    """One batch in work and one ready before ``infer``; behind it, a batch is handed over at once."""
    workers = plan(batch=8, groups=groups)
    inlets = {name.partition("-")[0]: worker for name, worker in workers.items() if worker.inlet}
    assert {name: worker.window for name, worker in inlets.items()} == windows
    for edge in edges(list(workers.values())):
        assert edge.credits == workers[edge.consumer].window


def test_one_capture_for_each_source() -> None:
    workers = plan(GATE, YARD)
    assert list(workers)[:2] == ["capture-gate", "capture-yard"]
    assert [workers[name].sources for name in ("capture-gate", "capture-yard")] == [(GATE,), (YARD,)]


@pytest.mark.parametrize(
    ("groups", "names"),
    [
        ((("preprocess", "infer"),), ["capture-gate", "preprocess+infer-0", "postprocess-0", "publish-0"]),
        ((("capture", "preprocess"),), ["capture+preprocess-gate", "infer-0", "postprocess-0", "publish-0"]),
        (
            (("postprocess", "publish"), ("preprocess", "infer")),
            ["capture-gate", "preprocess+infer-0", "postprocess+publish-0"],
        ),
        ((STAGES,), ["capture+preprocess+infer+postprocess+publish"]),
        ((("infer",),), ["capture-gate", "preprocess-0", "infer-0", "postprocess-0", "publish-0"]),
    ],
)
def test_groups_share_a_process(groups: tuple[tuple[str, ...], ...], names: list[str]) -> None:
    workers = plan(groups=groups)
    assert list(workers) == names
    assert tuple(itertools.chain(*(w.stages for w in workers.values()))) == STAGES


def test_one_process_tracks_and_publishes_all_sources() -> None:
    workers = plan(GATE, YARD, groups=(STAGES,))
    (worker,) = workers.values()
    assert worker.sources == (GATE, YARD)
    assert (worker.inlet, worker.outlets) == ("", ())
    assert len(worker.sinks) == 1
    partly = plan(GATE, YARD, groups=(("capture", "preprocess", "infer"),))
    assert list(partly)[:2] == ["capture+preprocess+infer-gate", "capture+preprocess+infer-yard"]


@pytest.mark.parametrize(
    ("placement", "words"),
    [
        ({"groups": (("infer", "infer"),)}, "names infer twice"),
        ({"groups": (("preprocess", "infer"), ("infer", "postprocess"))}, "names infer twice"),
        ({"groups": (("preprocess", "postprocess"),)}, "preprocess, postprocess are not neighbours"),
        ({"groups": (("infer", "preprocess"),)}, "infer, preprocess are not neighbours"),
        ({"groups": (("track",),)}, "names 'track'"),
        ({"replicas": {"publish": 2}}, "publish has 2 replicas"),
        (
            {"replicas": {"infer": 2}, "groups": (("preprocess", "infer"),)},
            "share a process but not the number",
        ),
        (
            {"replicas": {"preprocess": 2}, "groups": (("capture", "preprocess"),)},
            "capture, preprocess cannot have replicas",
        ),
        ({"addresses": {"infer": "tcp://127.0.0.1"}}, "has no port"),
        ({"addresses": {"infer": "tcp://127.0.0.1:x"}}, "has no port"),
        ({"addresses": {"infer": "tcp://127.0.0.1:65535"}, "replicas": {"infer": 2}}, r"65535.* replica 1"),
    ],
)
def test_placements_that_are_no_pipeline(placement: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        plan(**placement)


def test_groups_in_pipeline_order_whatever_order_they_are_given_in() -> None:
    groups = (("postprocess", "publish"), ("capture", "preprocess"))
    assert make_groups(Placement(groups)) == (
        ("capture", "preprocess"),
        ("infer",),
        ("postprocess", "publish"),
    )
    assert make_groups(Placement()) == tuple((stage,) for stage in STAGES)


def test_an_address_puts_arrays_inside_the_messages_of_who_sends_there() -> None:
    workers = plan(addresses={"infer": "tcp://127.0.0.1:7001"}, replicas={"infer": 3})
    assert [workers[f"infer-{n}"].inlet for n in range(3)] == [
        f"tcp://127.0.0.1:{7001 + n}" for n in range(3)
    ]
    assert [peer.endpoint for peer in workers["preprocess-0"].outlets] == [
        f"tcp://127.0.0.1:{7001 + n}" for n in range(3)
    ]
    assert {name for name, worker in workers.items() if worker.inline} == {"preprocess-0"}


SHARDED: list[tuple[dict[str, Any], set[str]]] = [
    ({}, set()),
    ({"replicas": {"infer": 2}}, set()),
    ({"replicas": {"preprocess": 2}}, set()),
    ({"replicas": {"postprocess": 2}}, {"infer-0"}),
    ({"replicas": {"infer": 2, "postprocess": 2}}, {"infer-0", "infer-1"}),
    (
        {"replicas": {"preprocess": 2, "infer": 2, "postprocess": 2}, "groups": (("preprocess", "infer"),)},
        {"preprocess+infer-0", "preprocess+infer-1"},
    ),
    ({"replicas": {"infer": 2, "postprocess": 2}, "groups": (("infer", "postprocess"),)}, {"preprocess-0"}),
    (
        {
            "replicas": {"preprocess": 2, "infer": 2, "postprocess": 2},
            "groups": (("preprocess", "infer", "postprocess"),),
        },
        {"capture-gate", "capture-yard"},
    ),
    ({"replicas": {"postprocess": 2}, "groups": (("capture", "preprocess", "infer"),)},
     {"capture+preprocess+infer-gate", "capture+preprocess+infer-yard"}),
]  # fmt: skip


@pytest.mark.parametrize(("placement", "senders"), SHARDED)
def test_all_frames_of_a_source_go_to_the_one_tracker_that_owns_it(
    placement: dict[str, Any], senders: set[str]
) -> None:
    """Whoever sends to several processes with a `postprocess` in them must choose by source."""
    workers = plan(GATE, YARD, **placement)
    assert {name for name, worker in workers.items() if worker.sharded} == senders
