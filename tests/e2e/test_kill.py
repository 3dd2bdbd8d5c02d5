"""kill -9 of each stage, of several, and of the supervisor: every frame is accounted for, nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import psutil
import pytest

from pipeline.runtime.run import Run
from pipeline.runtime.rundir import stale_runs, sweep
from pipeline.transport.shm import PREFIX, shm_dir
from tests.e2e.running import (
    assert_each_frame_once,
    assert_nothing_left,
    config_for,
    execute,
    lines,
    make_clip,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

FRAMES = 150


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "scene.mp4", FRAMES)


class Killer:
    """Kills each named worker once, with SIGKILL, when so many frames are published."""

    def __init__(self, *workers: str, after: int = 40, number: int = signal.SIGKILL) -> None:
        self.left = list(workers)
        self.after = after
        self.number = number
        self.killed: list[str] = []

    def __call__(self, run: Run) -> None:
        if not self.left or not run.progress() or run.progress()[0].published < self.after:
            return
        worker = self.left[0]
        pid = run.supervisor.pids().get(worker)
        if pid is None:
            return
        os.kill(pid, self.number)
        self.left.pop(0)
        self.killed.append(worker)
        self.after += 20


@pytest.mark.parametrize("worker", ["capture-clip", "preprocess-0", "infer-0", "postprocess-0", "publish-0"])
def test_a_killed_stage_loses_no_frame_of_a_file(worker: str, clip: Path, tmp_path: Path) -> None:
    killer = Killer(worker)
    config = config_for(
        tmp_path / "out",
        {"clip": str(clip)},
        model={"name": "fake?ms=4"},
        stages={"infer": {"replicas": 2}},
        run={"annotate": True},
    )
    finished = execute(config, killer)
    assert killer.killed == [worker]
    assert finished.exit_code == 0, finished.outcome
    assert finished.summary["restarts"] == {worker: 1}
    books = finished.summary["sources"]["clip"]
    assert (books["decoded"], books["admitted"], books["published"]) == (FRAMES, FRAMES, FRAMES)
    assert books["dropped"] == {}
    assert books["lost"] == {}
    records = assert_each_frame_once(tmp_path / "out", "clip", FRAMES)
    assert {r["status"] for r in records} == {"ok"}
    ids = [d["track_id"] for r in records for d in r["detections"] if "track_id" in d]
    assert ids, "objects are tracked again after the restart"
    events = lines(tmp_path / "out" / "events.jsonl")
    started = [e["track_id"] for e in events if e["type"] == "start"]
    ended = [e["track_id"] for e in events if e["type"] == "end"]
    assert len(set(started)) == len(started), "no id is given twice"
    assert sorted(started) == sorted(ended), "every object that started has ended"


def test_all_stages_killed_one_after_the_other(clip: Path, tmp_path: Path) -> None:
    workers = ["publish-0", "infer-0", "capture-clip", "postprocess-0", "preprocess-0"]
    killer = Killer(*workers, after=10)
    config = config_for(tmp_path / "out", {"clip": str(clip)}, model={"name": "fake?ms=10"})
    finished = execute(config, killer)
    assert set(killer.killed) == set(workers)
    assert finished.exit_code == 0
    assert finished.summary["sources"]["clip"]["published"] == FRAMES
    assert_each_frame_once(tmp_path / "out", "clip", FRAMES)


def test_objects_end_although_publish_and_then_their_tracker_were_killed(clip: Path, tmp_path: Path) -> None:
    killer = Killer("publish-0", "postprocess-0", after=30)
    config = config_for(
        tmp_path / "out", {"clip": str(clip)}, model={"name": "fake?ms=4"}, events={"update_interval_s": 60}
    )
    execute(config, killer)
    assert killer.killed == ["publish-0", "postprocess-0"]
    assert_each_frame_once(tmp_path / "out", "clip", FRAMES)
    events = lines(tmp_path / "out" / "events.jsonl")
    started, ended = ([e["track_id"] for e in events if e["type"] == kind] for kind in ("start", "end"))
    assert sorted(started) == sorted(ended)
    assert "interrupted" in {e.get("reason") for e in events}


def test_publish_killed_while_it_closes_its_files(clip: Path, tmp_path: Path) -> None:
    killed: list[int] = []

    def tick(run: Run) -> None:
        pids = run.supervisor.pids()
        if not killed and "infer-0" not in pids and "publish-0" in pids and run.supervisor.running:
            killed.append(pids["publish-0"])
            os.kill(pids["publish-0"], signal.SIGKILL)

    config = config_for(tmp_path / "out", {"clip": str(clip)}, run={"annotate": True})
    finished = execute(config, tick)
    assert len(killed) == 1
    assert finished.exit_code == 0, finished.outcome.error
    assert_each_frame_once(tmp_path / "out", "clip", FRAMES)
    with av.open(str(tmp_path / "out" / "annotated.mp4")) as video:
        assert sum(1 for _ in video.decode(video=0)) == FRAMES


def test_a_stopped_stage_is_noticed_and_replaced(clip: Path, tmp_path: Path) -> None:
    killer = Killer("infer-0", number=signal.SIGSTOP)
    config = config_for(
        tmp_path / "out", {"clip": str(clip)}, model={"name": "fake?ms=4"}, stages={"infer": {"replicas": 1}}
    )
    finished = execute(config, killer)
    assert finished.summary["restarts"] == {"infer-0": 1}
    assert finished.summary["sources"]["clip"]["published"] == FRAMES


def test_a_stage_that_keeps_dying_ends_the_run_with_results_kept(clip: Path, tmp_path: Path) -> None:
    def kill_publish(run: Run) -> None:
        pid = run.supervisor.pids().get("infer-0")
        if pid is not None and run.progress() and run.progress()[0].published >= 10:
            os.kill(pid, signal.SIGKILL)

    config = config_for(
        tmp_path / "out",
        {"clip": str(clip)},
        model={"name": "fake?ms=10"},
        stages={"infer": {"replicas": 1}},
    )
    finished = execute(config, kill_publish)
    assert finished.exit_code == 7
    assert "infer-0 died 6 times" in str(finished.outcome.error)
    books = finished.summary["sources"]["clip"]
    assert books["lost"] == {"infer_died": books["admitted"] - books["published"]}
    records = lines(tmp_path / "out" / "detections.jsonl")
    assert [r["seq"] for r in records] == list(range(books["published"]))


def test_a_killed_supervisor_leaves_no_process_and_the_next_start_cleans_up(
    clip: Path, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "run", str(clip), "--model", "fake?ms=50", "--out", str(tmp_path)],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    detections = tmp_path / "detections.jsonl"
    deadline = time.monotonic() + 60
    while not (detections.exists() and detections.stat().st_size) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.05)  # The run is another process: there is nothing else to wait on.
    children = psutil.Process(process.pid).children()
    assert len(children) >= 5
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=15)
    assert alive == [], "children outlive their supervisor"
    assert list(shm_dir().glob(f"{PREFIX}*")), "what a killed run leaves is what this test is about"
    assert len(stale_runs()) == 1
    assert sweep() == 1
    assert_nothing_left()
    assert lines(detections), "what was written before stays readable"
