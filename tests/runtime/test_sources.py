"""Sources of a run that goes on, against a supervisor that only notes what it is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.config import Config, from_mapping
from pipeline.errors import ConfigError, SourceNotFoundError
from pipeline.messages import State, Tuning
from pipeline.runtime.plan import RunPlan, Settings, SourcePlan, WorkerPlan
from pipeline.runtime.scenes import SceneFiles, TuningFiles
from pipeline.runtime.sources import Sources, source_plan
from pipeline.runtime.supervisor import Supervisor
from pipeline.transport.journal import SourceState
from pipeline.transport.ledger import Ledger
from tests.helpers import make_ledger, unique

GATE = {"url": "rtsp://10.0.0.7/1", "max_fps": 5}


def config(**sources: Any) -> Config:
    return from_mapping({"sources": sources or {"gate": GATE}, "model": {"name": "fake"}}, "test")


class Noted:
    """A supervisor that starts nothing."""

    def __init__(self) -> None:
        self.added: list[tuple[str, SourcePlan]] = []
        self.removed: list[str] = []

    def add_source(self, worker: WorkerPlan, source: str, ledger: Ledger) -> None:
        assert worker.sources[0].name == source
        assert ledger["decoded"] >= 0
        self.added.append((worker.name, worker.sources[0]))

    def remove_source(self, worker: str) -> None:
        self.removed.append(worker)


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def made(stages: tuple[str, ...] = ("capture",)) -> tuple[Sources, Noted, dict[str, Ledger]]:
    given = config()
    worker = WorkerPlan(
        run_id="run", run_dir="/run", name="capture-gate", stages=stages, settings=Settings("fake"),
        sources=(source_plan("gate", given.sources["gate"], realtime=False),),
    )  # fmt: skip
    ledgers = {"gate": make_ledger(decoded=9, published=7, dropped_superseded=2, live=1)}
    noted = Noted()
    plan = RunPlan("run", "/run", (worker,))
    sources = Sources(
        given, unique("run"), plan, cast(Supervisor, noted), ledgers, SceneFiles("."), TuningFiles(".")
    )
    return sources, noted, ledgers


def test_a_plan_carries_the_login_and_a_live_source_says_so() -> None:
    source = config(gate={**GATE, "username": "viewer", "password": "p@ss/word"}).sources["gate"]
    plan = source_plan("gate", source, realtime=True)
    assert plan.url == "rtsp://viewer:p%40ss%2Fword@10.0.0.7/1"
    assert plan.live
    assert plan.admission["max_fps"] == 5
    assert source_plan("clip", config(clip="clip.mp4").sources["clip"], realtime=True).realtime
    own = config(clip={"url": "clip.mp4", "realtime": False}).sources["clip"]
    assert not source_plan("clip", own, realtime=True).realtime, "its own word counts"


def test_table() -> None:
    sources, _, ledgers = made()
    states: tuple[tuple[State, str, str], ...] = (
        ("connecting", "", ""), ("reconnecting", "auth", "refuses the password"),
    )  # fmt: skip
    for state, reason, message in states:
        ledgers["gate"].journal.write(SourceState(state, reason, message, 1.0, 1))
    ledgers["gate"]["clocked"], ledgers["gate"]["clock_offset_us"] = 1, -2_500_000
    (row,) = sources.obey({"do": "list"})["sources"]
    assert row["since_s"] > 0
    wanted = {
        "source": "gate", "state": "reconnecting", "reason": "auth", "message": "refuses the password",
        "decoded": 9, "published": 7, "dropped": {"superseded": 2}, "lost": {}, "live": True,
        "clock_offset_s": -2.5,
    }  # fmt: skip
    assert row.items() >= wanted.items()


def test_add_and_remove() -> None:
    sources, noted, ledgers = made()
    assert sources.obey({"do": "add", "name": "yard", "source": {"url": "rtsp://10.0.0.8/1"}}) == {}
    assert noted.added == [
        (
            "capture-yard",
            source_plan("yard", config(yard="rtsp://10.0.0.8/1").sources["yard"], realtime=False),
        )
    ]
    assert sources.obey({"do": "remove", "name": "yard"}) == {}
    assert noted.removed == ["capture-yard"]
    assert "gate" in ledgers
    other = {"url": "rtsp://10.0.0.8/1"}
    refused: tuple[tuple[dict[str, Any], str], ...] = (
        ({"do": "add", "name": "gate", "source": other}, "there is a source gate already"),
        ({"do": "add", "name": "lane", "source": {**other, "max_pfs": 3}}, "has no key `max_pfs`"),
        ({"do": "add", "name": "la/ne", "source": other}, "must be a name"),
        ({"do": "add", "name": "lane"}, "must be"),
        ({"do": "remove", "name": "yard"}, "there is no source yard"),
        ({"do": "dance"}, "there is no request 'dance'"),
        ({}, "there is no request None"),
    )
    for request, message in refused:
        with pytest.raises(ConfigError, match=message):
            sources.obey(request)
    assert len(noted.added) == 1


def test_tune(tmp_path: Path) -> None:
    sources, _, _ = made()
    ask = {"do": "tune", "name": "gate"}
    assert sources.obey(ask) == {"enabled": True, "confidence": 0.4}
    assert sources.obey({**ask, "enabled": False}) == {"enabled": False, "confidence": 0.4}
    assert sources.obey({**ask, "confidence": 0.7}) == {"enabled": False, "confidence": 0.7}
    assert TuningFiles(tmp_path).get("gate") == Tuning(enabled=False, confidence=0.7), "for stages to read"
    assert TuningFiles(tmp_path).get("yard") == Tuning()
    for wrong, message in (
        ({"name": "yard"}, "there is no source yard"),
        ({"confidence": 1.5}, "confidence is 1.5"),
        ({"confidence": True}, "confidence is True"),
        ({"confidence": "high"}, "confidence is 'high'"),
        ({"enabled": "yes"}, "enabled is 'yes'"),
    ):
        with pytest.raises(ConfigError, match=message):
            sources.obey(ask | wrong)
    assert sources.obey(ask) == {"enabled": False, "confidence": 0.7}


def test_take_over() -> None:
    sources, noted, _ = made()
    wanted = config(gate={**GATE, "max_fps": 9}, yard="rtsp://10.0.0.8/1")
    assert sources.take_over(wanted) == {
        "added": ["yard"],
        "removed": [],
        "changed": ["gate"],
        "redrawn": [],
        "restart": [],
    }
    assert [(name, plan.admission["max_fps"]) for name, plan in noted.added if name == "capture-gate"] == [
        ("capture-gate", 9)
    ]
    assert sources.take_over(wanted) == {
        "added": [],
        "removed": [],
        "changed": [],
        "redrawn": [],
        "restart": [],
    }
    assert sources.take_over(config()) == {
        "added": [], "removed": ["yard"], "changed": ["gate"], "redrawn": [], "restart": [],
    }  # fmt: skip


def test_a_password_file_with_another_password_is_a_change(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("old\n")
    secret.chmod(0o600)
    sources, noted, _ = made()
    given = config(
        gate=GATE, yard={"url": "rtsp://10.0.0.8/1", "username": "a", "password_file": str(secret)}
    )
    sources.take_over(given)
    assert sources.take_over(given)["changed"] == []
    secret.write_text("new\n")
    assert sources.take_over(given)["changed"] == ["yard"]
    assert [plan.url for name, plan in noted.added] == ["rtsp://a:old@10.0.0.8/1", "rtsp://a:new@10.0.0.8/1"]


def test_what_cannot_be_taken_over_leaves_all_as_it_was() -> None:
    sources, noted, _ = made()
    with pytest.raises(SourceNotFoundError):
        sources.take_over(config(yard="rtsp://10.0.0.8/1", clip="/nowhere/clip.mp4"))
    assert (noted.added, noted.removed) == ([], [])


def test_one_process_for_all_sources_cannot_change_them() -> None:
    sources, _, _ = made(("capture", "preprocess", "infer", "postprocess"))
    with pytest.raises(ConfigError, match="all sources in one process"):
        sources.obey({"do": "add", "name": "yard", "source": {"url": "rtsp://10.0.0.8/1"}})
