"""What the scripts about live cameras share: a real run, watched from outside, and checks that can fail."""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.request import urlopen

import numpy as np
import psutil
from rich.console import Console

from pipeline.client import Subscriber
from pipeline.transport.shm import PREFIX, shm_dir
from scripts._bench import show
from tests.e2e.running import free_port, lines
from tests.servers.handles import RtspServer

__all__ = [
    "Check",
    "Diary",
    "Evidence",
    "Verdict",
    "WatchedRun",
    "judge_all",
    "percentiles",
    "trend",
    "utc_ns",
]

#: All that was seen of a run, as plain data: what the checks look at, and what is doctored to see them fail.
Evidence = dict[str, Any]

T = TypeVar("T")

PROGRAM = Path(sys.executable).with_name("framewire")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check came to.

    Attributes:
        figure: What was measured.
        limit: What it is held against.
        passed: Whether it holds.
    """

    figure: str
    limit: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold, and a way to break it.

    Attributes:
        name: What must hold.
        judge: Looks at the evidence. Evidence without anything to look at fails.
        doctor: Breaks in the evidence what the check is about, after which it must fail.
    """

    name: str
    judge: Callable[[Evidence], Verdict]
    doctor: Callable[[Evidence], object]


def judge_all(console: Console, title: str, checks: Sequence[Check], evidence: Evidence) -> dict[str, Any]:
    """Judge, doctor and judge again; the table, and what it says as plain data.

    A check that passes doctored evidence is worth nothing, so it counts as failed.
    """
    rows, plain = [], []
    for check in checks:
        verdict = _judge(check, evidence)
        can_fail = not verdict.passed or _fails_doctored(check, evidence)
        passed = verdict.passed and can_fail
        shown = "ok" if passed else "[bold red]FAILED[/]" if can_fail else "[bold red]CANNOT FAIL[/]"
        rows.append((check.name, verdict.figure, verdict.limit, shown))
        plain.append({
            "check": check.name, "figure": verdict.figure, "limit": verdict.limit,
            "passed": passed, "fails_on_doctored": can_fail,
        })  # fmt: skip
    show(console, title, ("what must hold", "measured", "limit", ""), rows)
    return {"passed": all(row["passed"] for row in plain), "checks": plain}


def _fails_doctored(check: Check, evidence: Evidence) -> bool:
    doctored = copy.deepcopy(evidence)
    check.doctor(doctored)
    return not _judge(check, doctored).passed


def _judge(check: Check, evidence: Evidence) -> Verdict:
    try:
        return check.judge(evidence)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as missing:
        return Verdict(f"nothing to look at: {missing!r}", "", False)


def percentiles(values: Sequence[float]) -> tuple[float, float, float, float]:
    """p50, p95, p99 and the largest.

    Raises:
        ValueError: there are no values.
    """
    if not len(values):
        raise ValueError("no values")
    p50, p95, p99 = np.percentile(np.asarray(values, np.float64), (50, 95, 99)).tolist()
    return p50, p95, p99, float(max(values))


def trend(times: Sequence[float], values: Sequence[float]) -> float:
    """How much a straight line through the values rises from the first time to the last.

    Raises:
        ValueError: there are fewer than three.
    """
    if len(times) < 3:
        raise ValueError(f"{len(times)} values are too few for a trend")
    slope = np.polyfit(np.asarray(times, np.float64) - times[0], np.asarray(values, np.float64), 1)[0]
    return float(slope) * (times[-1] - times[0])


def utc_ns(text: str) -> int:
    """Nanoseconds since 1970 of a time in a record."""
    return round(datetime.fromisoformat(text).timestamp() * 1000) * 1_000_000


class Diary(threading.Thread):
    """Notes when cameras say what, and what is done to them: the facts that events are held against."""

    def __init__(self, cameras: Mapping[str, RtspServer]) -> None:
        super().__init__(daemon=True)
        self._cameras = dict(cameras)
        self._over = threading.Event()
        self.facts: list[dict[str, Any]] = []

    def note(self, camera: str, fact: str) -> int:
        """Something is done now; the monotonic time of it."""
        at_ns = time.monotonic_ns()
        self.facts.append({"camera": camera, "fact": fact, "at_ns": at_ns})
        return at_ns

    def run(self) -> None:
        """Look at the cameras every few milliseconds: they do not stamp what they say."""
        read = dict.fromkeys(self._cameras, 0)
        while not self._over.wait(0.005):
            for name, camera in self._cameras.items():
                while read[name] < len(camera.events):
                    self.note(name, camera.events[read[name]]["event"])
                    read[name] += 1

    def close(self) -> None:
        """Stop looking."""
        self._over.set()
        self.join()


class WatchedRun:
    """``framewire run -c CONFIG`` as a user starts it, and all that can be seen of it; a context manager.

    Args:
        config: The config, without ``publish`` and ``run.out``, which are added.
        folder: Where config, results and log go.
        environment: Variables of the run, beside ours.
        listing_s: How often ``framewire sources list --json`` is called; 0 for never.
        words: Words to look for in command lines: secrets, and one that must be found there.
        metrics: Whether the run serves its metrics; then they are fetched as often as sources are listed.

    Attributes:
        source_events: Monotonic arrival time in ns and record of each ``source`` event.
        frames: Source, seq and monotonic arrival time in ns of each frame record.
        samples: Every 2 s: monotonic time in s; memory, descriptors and threads of each process.
        listings: What ``sources list`` said: monotonic time in ns, seconds it took, exit code, text.
        found: Words that were found in command lines.
        pages: The metrics, as they were fetched; None when they are off.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        folder: Path,
        *,
        environment: Mapping[str, str] | None = None,
        listing_s: float = 0.0,
        words: Sequence[str] = (),
        metrics: bool = False,
    ) -> None:
        self.folder, self.out = folder, folder / "out"
        self.address = f"tcp://127.0.0.1:{free_port(1)}"
        self.source_events: list[tuple[int, dict[str, Any]]] = []
        self.frames: list[tuple[str, int, int]] = []
        self.samples: list[dict[str, Any]] = []
        self.listings: list[tuple[int, float, int, str]] = []
        self.found: set[str] = set()
        self.pages: list[str] | None = [] if metrics else None
        self.log = folder / "stderr.log"
        self._config = {**config, "publish": [{"zmq": self.address}], "run": {"out": str(self.out)}}
        self._metrics = f"127.0.0.1:{free_port(1)}" if metrics else ""
        if metrics:
            self._config["metrics"] = {"listen": self._metrics}
        self._runtime = folder / "rt"
        self._environment = {
            **os.environ, **(environment or {}), "FRAMEWIRE_RUNTIME_DIR": str(self._runtime),
        }  # fmt: skip
        self._listing_s, self._words = listing_s, tuple(words)
        self._over = threading.Event()
        self._news = threading.Condition()
        self._pids: set[int] = set()
        self._process: subprocess.Popen[bytes] | None = None
        self._threads = [threading.Thread(target=work, daemon=True) for work in self._work()]

    def __enter__(self) -> Self:
        path = self.folder / "cameras.yaml"
        path.write_text(json.dumps(self._config, indent=2))
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "run", "--verbose", "-c", path], stderr=log, stdout=log, env=self._environment
            )
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def wait(
        self, source: str, states: Sequence[str], *, after_ns: int = 0, timeout_s: float = 60.0
    ) -> tuple[int, dict[str, Any]] | None:
        """The first event that tells one of these states of a source; None when none comes in time."""

        def find() -> tuple[int, dict[str, Any]] | None:
            for at_ns, event in self.source_events:
                if at_ns > after_ns and event["source"] == source and event["state"] in states:
                    return at_ns, event
            return None

        return self._wait(find, timeout_s)

    def wait_frame(self, source: str, *, after_ns: int = 0, timeout_s: float = 60.0) -> int | None:
        """When the first frame of a source after some time arrives; None when none comes in time."""
        start = len(self.frames)

        def find() -> int | None:
            for name, _, at_ns in self.frames[start:]:
                if name == source and at_ns > after_ns:
                    return at_ns
            return None

        return self._wait(find, timeout_s)

    def stop(self) -> dict[str, Any]:
        """SIGTERM; how it ended and what it left."""
        assert self._process is not None
        began = time.monotonic()
        self._process.send_signal(signal.SIGTERM)
        try:
            code: int | None = self._process.wait(30)
        except subprocess.TimeoutExpired:
            code = None
        took = time.monotonic() - began
        alive = sorted(pid for pid in self._pids if psutil.pid_exists(pid))
        self._close()
        run_id = self.summary().get("run_id", "")
        return {
            "exit_s": took,
            "code": code,
            "alive": alive,
            "shared_memory": [path.name for path in shm_dir().glob(f"{PREFIX}{run_id}*")],
            "runtime": [path.name for path in self._runtime.iterdir()] if self._runtime.is_dir() else [],
        }

    def summary(self) -> dict[str, Any]:
        """``summary.json``; empty if there is none."""
        path = self.out / "summary.json"
        content: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
        return content

    def records(self) -> list[dict[str, Any]]:
        """``detections.jsonl``."""
        return lines(self.out / "detections.jsonl")

    def list_sources(self) -> tuple[int, float, int, str]:
        """Call ``framewire sources list --json``, as a user would; also kept in ``listings``."""
        began_ns = time.monotonic_ns()
        done = subprocess.run(
            [PROGRAM, "sources", "list", "--json"],
            check=False, capture_output=True, text=True, env=self._environment,
        )  # fmt: skip
        took = (time.monotonic_ns() - began_ns) / 1e9
        self.listings.append((began_ns, took, done.returncode, done.stdout + done.stderr))
        return self.listings[-1]

    def _work(self) -> Iterator[Callable[[], None]]:
        yield self._subscribe
        yield self._sample
        if self._listing_s:
            yield self._list

    def _close(self) -> None:
        self._over.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _wait(self, find: Callable[[], T | None], timeout_s: float) -> T | None:
        deadline = time.monotonic() + timeout_s
        with self._news:
            while (found := find()) is None:
                if not self._news.wait(max(0.0, deadline - time.monotonic())):
                    return None
        return found

    def _subscribe(self) -> None:
        with Subscriber(self.address, queue_limit=100_000) as subscriber:
            while not self._over.is_set():
                item = subscriber.receive(0.2)
                at_ns = time.monotonic_ns()
                if item is None:
                    continue
                with self._news:
                    if item.kind == "source":
                        self.source_events.append((at_ns, item.record))
                    elif item.kind == "frame":
                        self.frames.append((item.source, item.record["seq"], at_ns))
                    self._news.notify_all()

    def _list(self) -> None:
        while not self._over.wait(self._listing_s):
            self.list_sources()
            if self.pages is not None:
                with (
                    contextlib.suppress(OSError),
                    urlopen(f"http://{self._metrics}/metrics", timeout=5) as page,
                ):
                    self.pages.append(page.read().decode())

    def _sample(self) -> None:
        assert self._process is not None
        root = psutil.Process(self._process.pid)
        known: dict[int, psutil.Process] = {}
        while not self._over.wait(2.0):
            try:
                now = {one.pid: known.get(one.pid, one) for one in (root, *root.children(recursive=True))}
            except psutil.NoSuchProcess:
                return
            known = now
            self._pids |= set(known)
            processes: dict[str, dict[str, Any]] = {}
            for process in known.values():
                try:
                    with process.oneshot():
                        command = " ".join(process.cmdline()).strip()
                        title = "run" if process is root else process.name().removeprefix("framewire ")
                        processes[f"{title} ({process.pid})"] = {
                            "rss_mb": process.memory_info().rss / 2**20,
                            "fds": process.num_fds(),
                            "threads": process.num_threads(),
                        }
                except psutil.ZombieProcess:
                    processes[f"pid {process.pid}"] = {"zombie": True}
                    continue
                except psutil.NoSuchProcess:
                    continue
                self.found |= {word for word in self._words if word in command}
            self.samples.append({"at_s": time.monotonic(), "processes": processes})
