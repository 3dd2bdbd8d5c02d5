"""Cameras as an operator has them: some work, some do not, and one must never be the trouble of another."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import Config
from pipeline.runtime.admin import ask, find_run
from pipeline.runtime.run import Finished, Run
from tests.e2e.running import assert_nothing_left, config_for, lines
from tests.e2e.scenes import Scene, events_of, states_of
from tests.servers.handles import RtspServer

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

Steps = Iterator[tuple[str, Callable[[], bool]]]
QUICK_READ = {"read_timeout_s": 2.5, "connect_timeout_s": 3.0}


def camera(url: str, **keys: Any) -> dict[str, Any]:
    return {"url": url, "max_fps": 8, **QUICK_READ, **keys}


def perform(config: Config, play: Callable[[Run], Steps], **keys: Any) -> tuple[Finished, Scene]:
    """Run it beside the scene; check what must hold whatever happened."""
    scene = Scene(play)
    finished = Run(config, tick=scene, **keys).execute()
    assert not scene.failed, f"never came: {scene.failed}"
    assert finished.summary["books_balance"], finished.summary["sources"]
    assert_nothing_left()
    return finished, scene


def published(run: Run, source: str, more: int) -> tuple[str, Callable[[], bool]]:
    """So many more frames of a source are published."""

    def count() -> int:
        return sum(at.published for at in run.progress() if at.source == source)

    before = count()
    return f"{more} frames of {source}", lambda: count() >= before + more


def told(
    out: Path, source: str, state: str, reason: str = "", *, times: int = 1
) -> tuple[str, Callable[[], bool]]:
    """A state is published for the n-th time."""
    return f"{source} {state} {reason}", lambda: states_of(out, source).count((state, reason)) >= times


def test_four_cameras_of_which_one_works(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    secret = "pl4nted:secret@/?#"
    out = tmp_path / "out"
    with (
        RtspServer() as good,
        RtspServer() as mortal,
        RtspServer() as frozen,
        RtspServer(auth="digest", user="viewer", password=secret) as locked,
    ):
        wrong = secret + "x"
        config = config_for(
            out,
            {
                "good": camera(good.url()),
                "mortal": camera(mortal.url()),
                "frozen": camera(frozen.url()),
                "locked": camera(locked.url(user="", password=""), username="viewer", password=wrong),
                "unlocked": camera(locked.url()),
            },
        )

        def play(run: Run) -> Steps:
            yield published(run, "good", 5)
            yield published(run, "mortal", 5)
            yield published(run, "frozen", 5)
            yield published(run, "unlocked", 5)
            yield told(out, "locked", "reconnecting", "auth")
            mortal.kill()
            frozen.freeze()
            yield told(out, "mortal", "reconnecting", "network")
            yield told(out, "frozen", "stalled", "timeout")
            yield told(out, "frozen", "reconnecting", "timeout")
            mortal.start()
            frozen.thaw()
            yield told(out, "mortal", "running", times=2)
            yield published(run, "mortal", 5)
            yield told(out, "frozen", "running", times=2)
            yield published(run, "good", 5)
            frozen.freeze()  # The end must not wait for it.

        with caplog.at_level(logging.INFO):
            finished, scene = perform(config, play)
        frozen.thaw()

    sources = finished.summary["sources"]
    assert states_of(out, "good") == [("connecting", ""), ("running", ""), ("ended", "the scene is over")]
    assert sources["good"]["lost"] == {}
    assert {e["epoch"] for e in events_of(out, "mortal") if e["state"] == "running"} >= {0, 1}
    assert sources["locked"]["decoded"] == 0
    assert sources["locked"]["state"] == "ended"
    assert {record["source"] for record in lines(out / "detections.jsonl")} == {
        "good",
        "mortal",
        "frozen",
        "unlocked",
    }
    for event in lines(out / "events.jsonl"):
        assert event["type"] != "source" or event["model"] == "fake"

    seen = [path.read_bytes() for path in out.rglob("*") if path.is_file()]
    seen += [text.encode() for text in (caplog.text, *scene.command_lines)]
    assert scene.command_lines
    for text in seen:
        assert b"pl4nted" not in text


def test_a_capture_that_is_stopped_or_killed_is_told_and_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with RtspServer() as server:
        config = config_for(out, {"gate": camera(server.url())})

        def play(run: Run) -> Steps:
            yield published(run, "gate", 5)
            os.kill(run.supervisor.pids()["capture-gate"], signal.SIGSTOP)
            yield told(out, "gate", "stalled", "crashed")
            os.kill(run.supervisor.pids()["capture-gate"], signal.SIGKILL)
            yield told(out, "gate", "reconnecting", "crashed")
            yield told(out, "gate", "running", times=2)
            yield published(run, "gate", 5)

        finished, _ = perform(config, play)
    epochs = [record["epoch"] for record in lines(out / "detections.jsonl")]
    assert sorted(epochs) == epochs
    assert len(set(epochs)) >= 2
    assert [record["seq"] for record in lines(out / "detections.jsonl")] == list(range(len(epochs)))
    pts = [record["pts_ns"] for record in lines(out / "detections.jsonl")]
    assert sorted(pts) == pts
    assert finished.summary["restarts"] == {"capture-gate": 1}


def test_a_size_that_changes_is_a_new_epoch(tmp_path: Path) -> None:
    from tests.servers.handles import Mount
    from tests.servers.streams import clip

    out = tmp_path / "out"
    mount = Mount((clip(frames=20), clip(frames=20, size=(320, 240), first=20)))
    with RtspServer({"cam": mount}) as server:
        config = config_for(out, {"gate": camera(server.url("cam"), max_fps=30)})

        def play(run: Run) -> Steps:
            yield published(run, "gate", 60)

        perform(config, play)
    records = lines(out / "detections.jsonl")
    sizes: dict[int, tuple[int, int]] = {}
    for record in records:
        assert sizes.setdefault(record["epoch"], (record["width"], record["height"])) == (
            record["width"],
            record["height"],
        ), "one epoch has one size"
    assert {(640, 360), (320, 240)} <= set(sizes.values())
    assert len(sizes) >= 3
    assert states_of(out, "gate")[1:2] == [("running", "")], "no reconnect for a change of size"
    assert ("reconnecting", "network") not in states_of(out, "gate")


def test_sources_come_change_and_go_while_another_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with RtspServer() as server:
        config = config_for(out, {"good": camera(server.url())})
        changed = config_for(out, {"good": camera(server.url()), "late": camera(server.url(), max_fps=4)})
        wanted = [config, changed]

        def play(run: Run) -> Steps:
            yield published(run, "good", 3)
            run.reload()
            wanted.pop(0)
            yield told(out, "late", "running")
            yield published(run, "late", 3)
            wanted.append(
                config_for(out, {"good": camera(server.url()), "late": camera(server.url(), max_fps=2)})
            )
            wanted.pop(0)
            run.reload()
            yield told(out, "late", "ended", "changed")
            yield told(out, "late", "running", times=2)
            yield published(run, "late", 3)
            wanted[:] = [config]
            run.reload()
            yield told(out, "late", "ended", "removed")
            yield published(run, "good", 3)

        finished, _ = perform(config, play, reread=lambda: wanted[-1])
    assert states_of(out, "good") == [("connecting", ""), ("running", ""), ("ended", "the scene is over")]
    late = [record for record in lines(out / "detections.jsonl") if record["source"] == "late"]
    assert [record["seq"] for record in late] == list(range(len(late)))
    assert len({record["epoch"] for record in late}) == 2
    events = lines(out / "events.jsonl")
    assert [event["sequence"] for event in events] == list(range(len(events)))
    assert finished.summary["sources"]["late"]["reason"] == "removed"


def test_commands_reach_the_run_that_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    answers: list[Any] = []
    with RtspServer() as server:
        config = config_for(out, {"good": camera(server.url())})

        def play(run: Run) -> Steps:
            from concurrent.futures import ThreadPoolExecutor

            yield published(run, "good", 3)
            with ThreadPoolExecutor(1) as pool:
                for request in (
                    {"do": "add", "name": "more", "source": {"url": server.url(), "max_fps": 3}},
                    {"do": "list"},
                    {"do": "remove", "name": "more"},
                ):
                    answer = pool.submit(ask, find_run(), request)
                    yield str(request["do"]), answer.done
                    answers.append(answer.result())
                    if request["do"] == "add":
                        yield published(run, "more", 2)

        perform(config, play)
    rows = {row["source"]: row for row in answers[1]["sources"]}
    assert rows["good"]["state"] == rows["more"]["state"] == "running"
    assert rows["more"]["published"] >= 2
    assert ("ended", "removed") in states_of(out, "more")
