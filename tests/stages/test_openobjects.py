"""What is remembered of open objects, for those who lose their tracker."""

from __future__ import annotations

from pathlib import Path

from pipeline.stages.openobjects import OpenObjects
from tests.helpers import make_event


def test_who_is_cut_off_exits_his_zones_first() -> None:
    objects = OpenObjects(None)
    objects.remember(
        [
            make_event("start", 1, zones=("yard",), snapshot="snapshots/gate/1.jpg"),
            make_event("zone", 1, zone="road", action="enter", zones=("yard", "road"), dwell_s=0.0),
            make_event("line", 1, line="door", direction="in", zones=("yard", "road")),
            make_event("start", 2),
        ]
    )
    ends = objects.end("gate", 9.0, "interrupted")
    assert [(e.type, e.track_id, e.zone, e.action, e.reason, e.at) for e in ends] == [
        ("zone", 1, "yard", "exit", "interrupted", 9.0),
        ("zone", 1, "road", "exit", "interrupted", 9.0),
        ("end", 1, None, None, "interrupted", 9.0),
        ("end", 2, None, None, "interrupted", 9.0),
    ]
    assert [ends[2].line, ends[2].direction, ends[2].dwell_s, ends[2].zones] == [None] * 4
    assert objects.end("gate", 9.0, "interrupted") == ()


def test_a_picture_once_named_stays_named() -> None:
    objects = OpenObjects(None)
    objects.remember([make_event("start", 1, snapshot="a.jpg")])
    assert [e.snapshot for e in objects.known("gate", [make_event("end", 1)])] == ["a.jpg"]
    assert [e.snapshot for e in objects.known("gate", [make_event("update", 1, snapshot="b.jpg")])] == [
        "b.jpg"
    ]


def test_what_is_known_of_whom() -> None:
    objects = OpenObjects(None)
    objects.remember([make_event("start", 1)])
    given = [
        make_event("end", 7),  # ended before, because its source was lost
        make_event("start", 2),
        make_event("zone", 2, zone="yard", action="enter"),
        make_event("zone", 1, zone="yard", action="enter"),
        make_event("occupancy", None, zone="yard", count=2),
    ]
    assert [(e.type, e.track_id) for e in objects.known("gate", given)] == [
        ("start", 2), ("zone", 2), ("zone", 1), ("occupancy", None)
    ]  # fmt: skip


def test_it_outlives_its_process(tmp_path: Path) -> None:
    first = OpenObjects(tmp_path / "open")
    first.remember([make_event("start", 1, zones=("yard",))])
    first.sent("gate", "event", 4)
    again = OpenObjects(tmp_path / "open")
    assert again.last_sent("gate", "event") == 4
    assert [e.type for e in again.end("gate", 1.0, "interrupted")] == ["zone", "end"]
