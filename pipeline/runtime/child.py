"""A stage process: ``python -m pipeline.runtime.child``, its plan on stdin.

stdin stays open afterwards as the lifeline: when the supervisor dies, however it dies, the child reads the
end of the file there and leaves.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import struct
import sys
import threading
import time
from typing import Any

import msgspec
import setproctitle

from pipeline.errors import FramewireError, SourceError
from pipeline.runtime.agent import Agent, AgentLog
from pipeline.runtime.build import Builder, open_stages
from pipeline.runtime.control import Begin, Command, Finished, Go, Opened, Ready, Stop, fault_of
from pipeline.runtime.plan import WorkerPlan
from pipeline.runtime.worker import Worker
from pipeline.stages.base import Stage
from pipeline.stages.capture import CaptureStage
from pipeline.transport.control import ControlClient, Waiter

__all__ = ["EXIT_FAULT", "control_endpoint", "main", "read_plan", "write_plan"]

#: Exit code of a child that has said what is wrong, and that starting again would not help.
EXIT_FAULT = 70

_LENGTH = struct.Struct("<I")
_WAIT_S = 0.25
_SUMMARY_S = 0.5


def control_endpoint(run_dir: str) -> str:
    """Where the supervisor listens."""
    return f"ipc://{run_dir}/control"


def write_plan(plan: WorkerPlan) -> bytes:
    """What a child expects on its stdin."""
    body = msgspec.msgpack.encode(plan)
    return _LENGTH.pack(len(body)) + body


def read_plan(fd: int) -> WorkerPlan:
    """Read a plan from a file descriptor.

    Raises:
        EOFError: it ended early.
    """

    def exactly(count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = os.read(fd, count - len(data))
            if not piece:
                raise EOFError("no plan on stdin")
            data += piece
        return data

    (length,) = _LENGTH.unpack(exactly(_LENGTH.size))
    return msgspec.msgpack.decode(exactly(length), type=WorkerPlan)


class _Child:
    """The life of a child: open, begin, go, work, close."""

    def __init__(self, plan: WorkerPlan) -> None:
        self._plan = plan
        self._builder = Builder(plan, wake=self._wake, on_error=self._source_broke, abandon=_abandon)
        self._agent = Agent(
            lambda: ControlClient(self._builder.context, control_endpoint(plan.run_dir), plan.name),
            lifeline=sys.stdin.fileno(),
        )
        self._waiting: list[Command] = []
        self._worker: Worker | None = None
        root = logging.getLogger()
        root.setLevel(logging.INFO)
        root.addHandler(AgentLog(self._agent, plan.name))

    def run(self) -> int:
        """Run to the end; the exit code."""
        try:
            self._work()
        except FramewireError as error:
            self._agent.report(fault_of(error, stage=self._plan.stages[-1]))
            return EXIT_FAULT
        finally:
            self._agent.close()
            self._builder.close()
        return 0

    def _wake(self) -> None:
        self._agent.wake()

    def _source_broke(self, error: SourceError) -> None:
        self._agent.report(fault_of(error, stage="capture", fatal=False))

    def _await(self, kind: type[Command]) -> Command | None:
        """The first command of that kind; None when we are told to stop first. Keeps the others."""
        waiter = Waiter()
        waiter.add(self._agent.wake_fd)
        while True:
            commands = self._agent.commands()
            for at, command in enumerate(commands):
                if isinstance(command, Stop):
                    return None
                if isinstance(command, kind):
                    self._waiting += commands[at + 1 :]
                    return command
                self._waiting.append(command)
            for at, command in enumerate(self._waiting):
                if isinstance(command, kind):
                    return self._waiting.pop(at)
            waiter.wait(_WAIT_S)

    def _work(self) -> None:
        builder, agent = self._builder, self._agent
        stages = builder.stages()
        captures = builder.captures()
        agent.report(Opened(os.getpid(), open_stages(stages)))
        begin = self._await(Begin)
        if not isinstance(begin, Begin):
            return
        try:
            for stage in stages:
                stage.begin(begin.spec)
            self._serve(stages, captures)
        finally:
            for capture in captures:
                capture.close()
            for stage in stages:
                stage.close()
        agent.report(Finished(self._summary(stages)))

    def _summary(self, stages: list[Stage]) -> dict[str, Any]:
        summary: dict[str, Any] = {"stale": self._worker.stale if self._worker is not None else 0}
        for stage in stages:
            summary |= stage.summary()
        return summary

    def _serve(self, stages: list[Stage], captures: list[CaptureStage]) -> None:
        builder, agent = self._builder, self._agent
        bells = builder.doorbells()
        inlet, outlet = builder.inlet(), builder.outlet()
        worker = Worker(
            stages=stages, captures=captures, inlet=inlet, outlet=outlet, pools=builder.pools, commands=agent
        )
        self._worker = worker
        waiter = Waiter()
        waiter.add(agent.wake_fd)
        if inlet is not None:
            waiter.add(inlet.socket)
        for socket in outlet.sockets if outlet is not None else []:
            waiter.add(socket)
        for bell in bells:
            waiter.add(bell.socket)
        agent.report(Ready())
        if captures:
            if self._await(Go) is None:
                return
            for capture in captures:
                capture.open()
        for command in self._waiting:
            worker.obey(command)
        next_summary = 0.0
        while worker.step() or not worker.finished:
            if time.monotonic() >= next_summary:
                agent.summary = self._summary(stages)
                next_summary = time.monotonic() + _SUMMARY_S
            if worker.idle:
                waiter.wait(min(_WAIT_S, worker.wait_s))
                for bell in bells:
                    bell.silence()


def _fatal_in_thread(args: threading.ExceptHookArgs) -> None:
    """A thread that dies must take the process with it: the supervisor replaces processes, not threads."""
    threading.__excepthook__(args)
    sys.stderr.flush()
    os._exit(1)


def _abandon() -> None:
    """End this process at once: a thread hangs in a library, and no thread can be ended from outside."""
    sys.stderr.write("abandoned: a library did not return\n")
    sys.stderr.flush()
    os._exit(1)


def main() -> int:
    """Entry point of a child process."""
    faulthandler.enable()
    threading.excepthook = _fatal_in_thread
    # The supervisor owns the terminal: a Ctrl-C there is its business, and it tells us to stop in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    plan = read_plan(sys.stdin.fileno())
    setproctitle.setproctitle(f"framewire {plan.name}")
    code = _Child(plan).run()
    if any(thread.name.startswith("read-") for thread in threading.enumerate()):
        # A camera that does not answer still holds the thread that reads it; waiting would take seconds.
        sys.stderr.flush()
        os._exit(code)
    return code


if __name__ == "__main__":
    sys.exit(main())
