"""One child as its supervisor sees it, without a process: spawned, heard, dead, due."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from pipeline.runtime.build import inherit_environment
from pipeline.runtime.child import EXIT_FAULT, read_plan
from pipeline.runtime.plan import RestartPolicy, Settings, SourcePlan, WorkerPlan
from pipeline.runtime.process import ChildProcess

POLICY = RestartPolicy(
    budget=3, window_s=60.0, backoff_s=1.0, backoff_max_s=3.0, open_s=100.0, silent_s=10.0, busy_s=30.0
)


class FakeProcess:
    """What `subprocess.Popen` gives."""

    def __init__(self, command: list[str], **options: Any) -> None:
        self.command, self.options = command, options
        self.stdin = Pipe()
        self.pid = 4711
        self.returncode: int | None = None

    def poll(self) -> int | None:
        return self.returncode

    def kill(self) -> None:
        self.returncode = -signal.SIGKILL

    def wait(self) -> None:
        assert self.returncode is not None


class Pipe(io.BytesIO):
    """Keeps what was written after it is closed."""

    written = b""

    def close(self) -> None:
        if not self.closed:
            self.written = self.getvalue()
        super().close()


class Bench:
    """A child on a clock that the test moves."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        folder: Path,
        *,
        captures: bool = False,
        stages: tuple[str, ...] = ("infer",),
        live: tuple[bool, ...] = (False,),
    ) -> None:
        self.now = 1000.0
        self.spawned: list[FakeProcess] = []
        monkeypatch.setattr("pipeline.runtime.process.time.monotonic", lambda: self.now)
        monkeypatch.setattr("pipeline.runtime.process.subprocess.Popen", self._spawn)
        self.folder = folder
        sources = tuple(SourcePlan("gate", "rtsp://user:hunter2@camera/1", live=one) for one in live)
        plan = WorkerPlan(
            "run", str(folder), "infer-0", stages, Settings("fake"), sources if captures else ()
        )
        self.child = ChildProcess(plan, POLICY)

    def _spawn(self, command: list[str], **options: Any) -> FakeProcess:
        made = FakeProcess(command, **options)
        self.spawned.append(made)
        return made

    def die(self, code: int) -> None:
        self.spawned[-1].returncode = code
        assert self.child.collect()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bench:
    return Bench(monkeypatch, tmp_path)


def plan_of(spawned: FakeProcess) -> WorkerPlan:
    read, write = os.pipe()
    os.write(write, spawned.stdin.getvalue() if not spawned.stdin.closed else spawned.stdin.written)
    os.close(write)
    plan = read_plan(read)
    os.close(read)
    return plan


def test_nothing_secret_is_on_the_command_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bench = Bench(monkeypatch, tmp_path, captures=True)
    bench.child.start()
    (spawned,) = bench.spawned
    assert "hunter2" not in " ".join(spawned.command)
    assert "hunter2" not in str(spawned.options["env"])
    assert plan_of(spawned).sources[0].url == "rtsp://user:hunter2@camera/1"
    assert not spawned.stdin.closed, "it is the child's lifeline"
    assert spawned.options["start_new_session"]
    assert (bench.child.pid, bench.child.captures, bench.child.stages) == (4711, True, ("infer",))


def test_a_child_that_lives_and_ends_well(bench: Bench) -> None:
    child = bench.child
    assert (child.alive, child.pid, child.collect()) == (False, None, False)
    child.start()
    assert child.alive
    assert not child.collect()
    child.beat(0.1, {"stale": 1})
    child.finished({"stale": 2})
    bench.die(0)
    assert (child.alive, child.done) == (False, True)
    assert child.summaries() == [{"stale": 2}]
    assert bench.spawned[0].stdin.closed
    assert not child.collect(), "it ends once"


def test_back_off_doubles_up_to_a_bound_and_the_budget_ends_it(bench: Bench) -> None:
    child = bench.child
    waits = []
    for at in range(3):
        child.start()
        child.beat(0.0, {"incarnation": at})
        bench.die(-signal.SIGKILL)
        assert child.plan_restart()
        assert child.alive, "it will be started again"
        due = bench.now
        while not child.due():
            bench.now += 0.5
        waits.append(bench.now - due)
    assert waits == [1.0, 2.0, 3.0]
    child.start()
    assert [plan_of(spawned).incarnation for spawned in bench.spawned] == [0, 1, 2, 3]
    bench.die(1)
    assert not child.plan_restart()
    assert child.restarts == 3
    assert child.how_it_ended() == "exit code 1"
    assert [s.get("incarnation") for s in child.summaries()] == [0, 1, 2, None]


def test_deaths_long_ago_do_not_count(bench: Bench) -> None:
    for _ in range(10):
        bench.child.start()
        bench.die(1)
        assert bench.child.plan_restart()
        bench.now += 61.0
    assert bench.child.restarts == 10


def test_who_has_said_what_is_wrong_is_not_started_again(bench: Bench) -> None:
    bench.child.start()
    bench.die(EXIT_FAULT)
    assert not bench.child.plan_restart()
    assert bench.child.how_it_ended() == f"exit code {EXIT_FAULT}"


@pytest.mark.parametrize(
    ("stages", "live", "kept"),
    [
        (("capture",), (True,), True),
        (("capture",), (True, True), True),
        (("capture",), (False,), False),
        (("capture",), (True, False), False),
        (("capture", "preprocess"), (True,), False),
    ],
)
def test_a_process_that_only_reads_cameras_is_never_given_up(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    stages: tuple[str, ...],
    live: tuple[bool, ...],
    kept: bool,
) -> None:
    bench = Bench(monkeypatch, tmp_path, captures=True, stages=stages, live=live)
    child = bench.child
    assert child.reads_live is kept
    waits = []
    for _ in range(12):
        child.start()
        child.finished({"of": "an incarnation"})
        child.done = False
        bench.die(1)
        if not child.plan_restart():
            break
        waits.append(0.0)
        while not child.due():
            bench.now += 0.5
            waits[-1] += 0.5
    assert len(waits) == (12 if kept else POLICY.budget)
    assert max(waits) <= (POLICY.live_backoff_max_s if kept else POLICY.backoff_max_s)
    if kept:
        assert waits[:4] == [1, 2, 4, 8]
    if stages == ("capture",):
        assert len(child.summaries()) == 1, "it may come back for months"


@pytest.mark.parametrize("kept", [True, False])
def test_what_a_camera_process_cannot_do_ends_it_all_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kept: bool
) -> None:
    bench = Bench(monkeypatch, tmp_path, captures=True, stages=("capture",), live=(kept,))
    bench.child.start()
    bench.die(EXIT_FAULT)
    assert not bench.child.plan_restart()


@pytest.mark.parametrize("captures", [True, False])
def test_a_capture_that_exits_early_has_not_finished(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, captures: bool
) -> None:
    bench = Bench(monkeypatch, tmp_path, captures=captures)
    bench.child.start()
    bench.child.ready = True
    bench.die(0)
    assert bench.child.done is not captures


@pytest.mark.parametrize(
    ("opened", "silent_s", "busy_s", "hung"),
    [
        (False, 99.0, 0.0, False),
        (False, 101.0, 0.0, True),
        (True, 9.0, 0.0, False),
        (True, 11.0, 0.0, True),
        (True, 0.0, 29.0, False),
        (True, 0.0, 31.0, True),
    ],
)
def test_hung(bench: Bench, opened: bool, silent_s: float, busy_s: float, hung: bool) -> None:
    child = bench.child
    assert not child.hung(), "not even started"
    child.start()
    child.opened = opened
    child.heard()
    child.beat(busy_s, {})
    bench.now += silent_s
    assert child.hung() is hung


def test_a_restart_forgets_that_its_predecessor_was_busy(bench: Bench) -> None:
    child = bench.child
    child.start()
    child.opened = child.begun = child.ready = True
    child.beat(99.0, {})
    child.kill()
    assert child.how_it_ended() == "SIGKILL"
    assert child.plan_restart()
    assert (child.opened, child.begun, child.ready) == (False, False, False)
    bench.now += 50
    child.start()
    child.opened = True
    assert not child.hung()


def test_kill_waits_and_calls_off_a_restart(bench: Bench) -> None:
    child = bench.child
    child.kill()
    child.start()
    bench.die(1)
    child.plan_restart()
    child.kill()
    assert not child.alive
    bench.now += 100
    assert not child.due()
    assert child.how_it_ended() == "exit code 1"


def test_last_words(bench: Bench) -> None:
    assert bench.child.last_words() == ""
    path = bench.folder / "infer-0.stderr"
    path.write_bytes(b"Traceback\n  File x\nMemoryError: \xff too much  \n\n")
    assert bench.child.last_words() == "MemoryError: \ufffd too much"
    path.write_text("x" * 1000)
    assert len(bench.child.last_words()) == 300
    assert ChildProcess(bench.child._plan, POLICY).how_it_ended() == "no exit code"


def test_a_child_that_dies_before_it_reads_its_plan(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise BrokenPipeError

    monkeypatch.setattr(Pipe, "write", broken)
    bench.child.start()
    bench.die(1)
    assert bench.child.plan_restart()


def test_threads_do_not_multiply_by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("MKL_NUM_THREADS", "4")
    environment = inherit_environment()
    assert (environment["OMP_NUM_THREADS"], environment["MKL_NUM_THREADS"]) == ("1", "4")
