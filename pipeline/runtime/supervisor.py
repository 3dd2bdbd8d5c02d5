"""The supervisor: spawns the workers, hears them, brings dead ones back, stops them in order."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import FramewireError, MessageError, StageError
from pipeline.messages import ModelSpec
from pipeline.runtime.child import control_endpoint
from pipeline.runtime.control import (
    Beat,
    Begin,
    Command,
    Fault,
    Finished,
    Go,
    Opened,
    PeerDied,
    Ready,
    Report,
    Said,
    Stop,
    decode_report,
    encode,
    error_of,
)
from pipeline.runtime.plan import RunPlan, WorkerPlan
from pipeline.runtime.process import ChildProcess
from pipeline.transport.control import ControlServer
from pipeline.transport.ledger import Ledger
from pipeline.transport.link import make_context

__all__ = ["Outcome", "Supervisor"]

log = logging.getLogger(__name__)

_POLL_S = 0.1


@dataclass(slots=True)
class Outcome:
    """How a run went.

    Attributes:
        error: The first thing that ended the run or a source before its time; None if nothing did.
        restarts: How often each worker was brought back.
        spec: The model, when it got as far as loading it.
        started: Seconds from spawning to all ready.
        seconds: Seconds from then to the last published frame.
    """

    error: FramewireError | None = None
    restarts: dict[str, int] = field(default_factory=dict)
    spec: ModelSpec | None = None
    started: float = 0.0
    seconds: float = 0.0


class Supervisor:
    """Runs a plan to its end.

    Args:
        plan: What to run.
        ledgers: The books, by source; made before, read here.
        tick: Called about ten times a second from `run`.
    """

    def __init__(
        self, plan: RunPlan, ledgers: dict[str, Ledger], *, tick: Callable[[], None] = lambda: None
    ) -> None:
        self._plan = plan
        self._ledgers = ledgers
        self._tick = tick
        self._context = make_context()
        self._control = ControlServer(self._context, control_endpoint(plan.run_dir))
        self._children = {worker.name: ChildProcess(worker, plan.restart) for worker in plan.workers}
        self._gone = False
        self._stop_reason = ""
        self._stop_by: float | None = None
        self._second_stop = False
        self._winding_down = False
        self._coming: dict[str, WorkerPlan] = {}
        self.outcome = Outcome()

    def stop(self, reason: str) -> None:
        """Stop in order: sources first. A second call gives frames under way no more time.

        Safe in a signal handler.
        """
        if self._stop_reason:
            self._second_stop = True
        else:
            self._stop_reason = reason

    @property
    def running(self) -> bool:
        """Whether all workers were ready and sources are being read."""
        return self._gone

    def summaries(self) -> dict[str, list[dict[str, Any]]]:
        """What the workers said of themselves: by worker, one for each incarnation."""
        return {name: child.summaries() for name, child in self._children.items()}

    def restarts(self) -> dict[str, int]:
        """How often each worker was brought back, those that never were included."""
        return {name: child.restarts for name, child in self._children.items()}

    def pids(self) -> dict[str, int]:
        """Process ids of the living workers."""
        return {name: child.pid for name, child in self._children.items() if child.pid is not None}

    def add_source(self, worker: WorkerPlan, source: str, ledger: Ledger) -> None:
        """Read one more source, or one anew that was removed or is read in another way.

        Its old process, if there is one, is asked to end first.

        Args:
            worker: The process that reads it.
            source: Its name.
            ledger: Its books.
        """
        self._ledgers[source] = ledger
        child = self._children.get(worker.name)
        if child is not None and not (child.done and not child.alive):
            self._coming[worker.name] = worker
            self._end_worker(worker.name, "changed")
            return
        ledger["ended"] = ledger["closing"] = 0
        if child is not None:
            child.renew(worker)
            return
        # First in the order, because it is the first to be stopped.
        self._children = {worker.name: ChildProcess(worker, self._plan.restart), **self._children}
        self._children[worker.name].start()

    def remove_source(self, worker: str) -> None:
        """Read a source no more: what is under way is finished, then its process ends."""
        self._coming.pop(worker, None)
        self._end_worker(worker, "removed")

    def _end_worker(self, name: str, reason: str) -> None:
        child = self._children[name]
        child.stop_reason = child.stop_reason or reason
        if child.ready:
            self._send(name, Stop(child.stop_reason))

    def run(self) -> Outcome:
        """Run to the end. Never raises for what happens in the run: see `Outcome.error`."""
        began = time.monotonic()
        try:
            for child in self._children.values():
                child.start()
            self._until_ready(began + self._plan.ready_timeout_s)
            self.outcome.started = time.monotonic() - began
            if self.outcome.error is None and not self._stop_reason:
                self._go()
                self._until_ended()
            self.outcome.seconds = time.monotonic() - began - self.outcome.started
            self._wind_down()
        finally:
            for child in self._children.values():
                child.kill()
            self._control.close()
            self._context.term()
            self._settle()
        self.outcome.restarts = {n: c.restarts for n, c in self._children.items() if c.restarts}
        return self.outcome

    # --- phases -------------------------------------------------------------------------------------

    def _until_ready(self, deadline: float) -> None:
        while not all(child.ready for child in self._children.values()):
            self._turn()
            if self.outcome.error is not None or self._stop_reason:
                return
            if time.monotonic() > deadline:
                late = [name for name, child in self._children.items() if not child.ready]
                self._fail(
                    StageError(
                        f"not ready after {self._plan.ready_timeout_s:.0f} s: {', '.join(late)}",
                        hint="a large model may need more: raise run.ready_timeout_s",
                    )
                )

    def _go(self) -> None:
        self._gone = True
        for name, child in self._children.items():
            if child.captures:
                self._send(name, Go())

    def _until_ended(self) -> None:
        began = time.monotonic()
        duration_s = self._plan.duration_s
        while True:
            self._turn()
            if not self._coming and all(child.done for child in self._children.values() if child.captures):
                return
            if self._fatal():
                return
            if duration_s is not None and time.monotonic() - began >= duration_s and not self._stop_reason:
                self._stop_reason = "duration"
            if self._stop_reason and self._stop_by is None:
                self._stop_by = time.monotonic() + self._plan.stop_timeout_s
                self._stop_captures()
            if self._stop_by is not None and (self._second_stop or time.monotonic() > self._stop_by):
                log.warning("frames under way did not finish in time; they are counted as lost")
                return

    def _wind_down(self) -> None:
        """Stop what is left, in pipeline order, so that each stage has seen the last of the one before."""
        self._winding_down = True
        for child in self._children.values():
            if child.captures and not child.done and "publish" not in child.stages:
                child.kill()
        for name, child in self._children.items():
            if child.alive:
                self._retire(name, child)

    def _retire(self, name: str, child: ChildProcess) -> None:
        last = "publish" in child.stages
        bound_s = self._plan.close_timeout_s if last else self._plan.restart.silent_s
        if self._gone and not child.ready and not last:
            child.kill()  # It was about to come back, to nothing.
            return
        if child.ready or not self._gone:
            self._send(name, Stop("end of run"))
        # Else it is on its way back to close its files, and is told to stop when it is ready: before that it
        # would leave without them.
        deadline = time.monotonic() + bound_s
        while time.monotonic() < deadline:
            self._turn()
            if not child.alive:
                return
        if last:
            self._fail(StageError(f"did not close its files within {bound_s:.0f} s", stage="publish"))

    def _settle(self) -> None:
        """What was under way and can never arrive is lost; the books say so."""
        cause = "stopped"
        error = self.outcome.error
        if isinstance(error, StageError) and error.stage:
            cause = f"{error.stage}_died"
        for ledger in self._ledgers.values():
            ledger[f"lost_{cause}"] += max(0, ledger.in_flight())
            unresolved = ledger["decoded"] - ledger["admitted"] - sum(ledger.dropped().values())
            ledger["dropped_stopped"] += max(0, unresolved)

    # --- one turn -----------------------------------------------------------------------------------

    def _turn(self) -> None:
        heard = self._control.receive(_POLL_S)
        while heard is not None:
            self._hear(*heard)
            heard = self._control.receive(0)
        for name, child in self._children.items():
            if child.collect():
                self._died(name, child)
            elif child.hung():
                log.warning("%s: silent or stuck, killed", name)
                child.kill()
                self._died(name, child)
            elif child.due():
                child.start()
        for name in [name for name in self._coming if self._children[name].done]:
            child = self._children[name]
            if not child.alive:
                worker = self._coming.pop(name)
                for source in worker.sources:
                    self._ledgers[source.name]["ended"] = self._ledgers[source.name]["closing"] = 0
                child.renew(worker)
        self._tick()

    def _hear(self, name: str, body: bytes) -> None:
        child = self._children.get(name)
        if child is None:
            return
        try:
            report: Report = decode_report(body)
        except MessageError as error:
            log.warning("%s: %s", name, error)
            return
        child.heard()
        match report:
            case Opened():
                child.opened = True
                self.outcome.spec = self.outcome.spec or report.spec
                self._begin()
            case Ready():
                self._joined(name, child)
            case Beat():
                child.beat(report.busy_s, report.summary)
            case Finished():
                child.finished(report.summary)
            case Fault():
                self._faulted(child, report)
            case Said():
                log.log(report.level, "%s", report.text)

    def _joined(self, name: str, child: ChildProcess) -> None:
        child.ready = True
        if self._gone and child.captures:  # It was restarted; everybody else is there already.
            self._send(name, Go())
            if self._stop_by is not None or child.stop_reason:
                self._send(name, Stop(child.stop_reason or self._stop_reason))
        if self._winding_down:  # It was killed while it closed its files: it shall do just that.
            self._send(name, Stop("end of run"))

    def _faulted(self, child: ChildProcess, fault: Fault) -> None:
        error = error_of(fault)
        child.faulted = child.faulted or fault.fatal
        if not fault.fatal and len(self._ledgers) > 1:
            log.error("%s", error)  # The other sources go on, perhaps for long: say it now.
        self._fail(error)

    def _begin(self) -> None:
        if self.outcome.spec is None:
            return
        for name, child in self._children.items():
            if child.opened and not child.begun:
                child.begun = True
                self._send(name, Begin(self.outcome.spec))

    def _died(self, name: str, child: ChildProcess) -> None:
        if child.done or child.faulted or (self._winding_down and "publish" not in child.stages):
            return
        stage = child.stages[-1] if len(child.stages) == 1 else child.stages[0]
        words = child.last_words()
        cause = f"{stage}_died"
        if not child.plan_restart():
            self._fail(
                StageError(
                    f"{name} died {child.restarts + 1} times, last with {child.how_it_ended()}"
                    + (f": {words}" if words else ""),
                    hint="run with --verbose to see what it logged; results so far are kept",
                    stage=stage,
                )
            )
            return
        why = f": {words}" if words else ""
        log.warning("%s died (%s), starting it again%s", name, child.how_it_ended(), why)
        for other, peer in self._children.items():
            if other != name and peer.ready:
                self._send(other, PeerDied(name, cause))

    def _stop_captures(self) -> None:
        for name, child in self._children.items():
            if child.captures:
                self._send(name, Stop(self._stop_reason))

    def _fatal(self) -> bool:
        return any(child.faulted for child in self._children.values()) or isinstance(
            self.outcome.error, StageError
        )

    def _fail(self, error: FramewireError) -> None:
        if self.outcome.error is None or isinstance(error, StageError):
            self.outcome.error = error

    def _send(self, name: str, command: Command) -> None:
        self._control.send(name, encode(command))
