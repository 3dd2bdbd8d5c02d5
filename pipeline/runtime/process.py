"""One child process as its supervisor sees it: spawned, heard, dead, due to come back."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from pipeline.runtime.build import inherit_environment
from pipeline.runtime.child import EXIT_FAULT, write_plan
from pipeline.runtime.plan import RestartPolicy, WorkerPlan

__all__ = ["ChildProcess"]


class ChildProcess:
    """One worker over all its incarnations.

    Args:
        plan: What it runs.
        policy: How it is brought back.
    """

    def __init__(self, plan: WorkerPlan, policy: RestartPolicy) -> None:
        self._plan = plan
        self._policy = policy
        self._process: subprocess.Popen[bytes] | None = None
        self._deaths: deque[float] = deque()
        self._due: float | None = None
        self._heard_at = 0.0
        self._busy_s = 0.0
        self._past: list[dict[str, Any]] = []
        self._summary: dict[str, Any] = {}
        self._exit: int | None = None
        self.opened = self.begun = self.ready = False
        self.done = False
        self.faulted = False
        self.restarts = 0
        self.stop_reason = ""
        self._incarnation = 0

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages in it."""
        return self._plan.stages

    @property
    def captures(self) -> bool:
        """Whether it reads sources."""
        return bool(self._plan.sources)

    @property
    def reads_live(self) -> bool:
        """Whether it does nothing but read cameras and streams, which are never given up."""
        return self.stages == ("capture",) and all(source.live for source in self._plan.sources)

    @property
    def alive(self) -> bool:
        """Whether the process exists, or will be started again."""
        return self._process is not None or self._due is not None

    @property
    def pid(self) -> int | None:
        """Its process id while it is alive."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Spawn it; its plan goes to its stdin, which stays open as its lifeline."""
        self._due = None
        self.opened = self.begun = self.ready = False
        self._busy_s = 0.0
        self._heard_at = time.monotonic()
        plan = replace(self._plan, incarnation=self._incarnation)
        with self._stderr_path().open("ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.runtime.child"],
                stdin=subprocess.PIPE,
                stdout=stderr,
                stderr=stderr,
                env=inherit_environment(),
                start_new_session=True,  # A Ctrl-C at the terminal is for the supervisor alone.
            )
        stdin = self._process.stdin
        assert stdin is not None
        with contextlib.suppress(BrokenPipeError):
            stdin.write(write_plan(plan))
            stdin.flush()

    def renew(self, plan: WorkerPlan) -> None:
        """Start it again after it has ended, as something else."""
        self._plan = plan
        self._incarnation += 1
        self._keep()
        self.done = self.faulted = False
        self.stop_reason = ""
        self.start()

    def heard(self) -> None:
        """It has said something."""
        self._heard_at = time.monotonic()

    def beat(self, busy_s: float, summary: dict[str, Any]) -> None:
        """Take in a beat."""
        self._busy_s = busy_s
        self._summary = summary

    def finished(self, summary: dict[str, Any]) -> None:
        """It has done all its work and is about to exit."""
        self._summary = summary
        self.done = True

    def summaries(self) -> list[dict[str, Any]]:
        """What each incarnation said last of itself."""
        return [*self._past, self._summary]

    def hung(self) -> bool:
        """Whether it has been silent, or busy with one message, for too long."""
        if self._process is None:
            return False
        silent_s = time.monotonic() - self._heard_at
        if not self.opened:  # Interpreter and libraries load before the first word is said.
            return silent_s > self._policy.open_s
        return silent_s > self._policy.silent_s or self._busy_s > self._policy.busy_s

    def collect(self) -> bool:
        """Whether it has just ended."""
        if self._process is None or self._process.poll() is None:
            return False
        self._exit = self._process.returncode
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._process = None
        if self._exit == 0 and not self.restarts_wanted():
            self.done = True
        return True

    def restarts_wanted(self) -> bool:
        """Whether an exit with code 0 came early: it still reads sources and never said that it was done."""
        return self.captures and not self.done and self.ready

    def plan_restart(self) -> bool:
        """Decide when it comes back; False when its budget is spent. A camera's process has no budget."""
        now = time.monotonic()
        while self._deaths and now - self._deaths[0] > self._policy.window_s:
            self._deaths.popleft()
        if self._exit == EXIT_FAULT or (len(self._deaths) >= self._policy.budget and not self.reads_live):
            return False
        longest_s = self._policy.live_backoff_max_s if self.reads_live else self._policy.backoff_max_s
        backoff_s = self._policy.backoff_s * 2 ** min(len(self._deaths), 30)
        self._deaths.append(now)
        self._due = now + min(backoff_s, longest_s)
        self.restarts += 1
        self._incarnation += 1
        self._keep()
        self.opened = self.begun = self.ready = False
        return True

    def _keep(self) -> None:
        """Keep what the incarnation that ended said; a capture says nothing, and may come back for months."""
        if self.stages != ("capture",):
            self._past.append(self._summary)
        self._summary = {}

    def due(self) -> bool:
        """Whether it is time to start it again."""
        return self._due is not None and time.monotonic() >= self._due

    def kill(self) -> None:
        """End it at once, a stopped one too, and wait for that."""
        self._due = None
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self.collect()

    def how_it_ended(self) -> str:
        """Its exit in words."""
        if self._exit is None:
            return "no exit code"
        if self._exit < 0:
            with contextlib.suppress(ValueError):
                return signal.Signals(-self._exit).name
        return f"exit code {self._exit}"

    def last_words(self) -> str:
        """The last line that it wrote to stderr, if any."""
        path = self._stderr_path()
        lines = path.read_text(errors="replace").split("\n") if path.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "")[:300]

    def _stderr_path(self) -> Path:
        return Path(self._plan.run_dir) / f"{self._plan.name}.stderr"
