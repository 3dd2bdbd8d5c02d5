"""One run, from a config to a summary: prepare, supervise, settle, write down."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pipeline.config import Config
from pipeline.errors import ConfigError, FramewireError, SinkError
from pipeline.runtime.build import ledger_name
from pipeline.runtime.plan import RestartPolicy, RunPlan, Settings, SinkPlan, SourcePlan
from pipeline.runtime.report import summarise
from pipeline.runtime.rundir import RunDir, sweep
from pipeline.runtime.supervisor import Outcome, Supervisor
from pipeline.runtime.topology import Placement, plan_workers
from pipeline.transport.ledger import STATES, Ledger

__all__ = ["Finished", "Progress", "Run", "auto_replicas", "placement_of", "settings_of"]

_MAX_AUTO_REPLICAS = 8


@dataclass(frozen=True, slots=True)
class Progress:
    """Where one source is.

    Attributes:
        source: Its name.
        state: Its state.
        published: Frames accounted for, lost ones included.
        expected: Frames to come in all; 0 when that is unknown.
        dropped: Frames dropped so far.
    """

    source: str
    state: str
    published: int
    expected: int
    dropped: int


@dataclass(frozen=True, slots=True)
class Finished:
    """A run that is over.

    Attributes:
        summary: The content of ``summary.json``.
        outcome: How it ended.
        exit_code: 0 if every source ended well or was stopped on request.
    """

    summary: dict[str, Any]
    outcome: Outcome
    exit_code: int


def _available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def auto_replicas(device: str, threads: int) -> int:
    """Replicas of ``infer`` when the config leaves it open.

    On a CPU several one-thread sessions beat one session with several threads; on an accelerator one
    session fills it.
    """
    if device not in ("auto", "cpu") or (device == "auto" and Path("/dev/nvidia0").exists()):
        return 1
    return max(1, min(_MAX_AUTO_REPLICAS, _available_cores() // max(1, threads)))


def settings_of(config: Config, replicas: int) -> Settings:
    """What the stages are told."""
    return Settings(
        model=config.model.name,
        device=config.model.device,
        threads=config.model.threads or 1,
        input_size=config.model.input_size,
        preprocess=config.preprocess,
        confidence=config.model.confidence,
        nms_iou=config.model.nms_iou,
        classes=config.model.classes,
        algorithm=config.track.algorithm,
        # One window for both: what the tracker could still find again has not ended.
        track_options={} if config.track.algorithm == "none" else {"lost_s": config.track.lost_after_s},
        update_interval_s=config.events.update_interval_s,
        lost_after_s=config.track.lost_after_s,
        # Two frames for each replica keep it busy, the rest covers the stages around it.
        slots=max(config.run.slots, 2 * replicas + 4),
        # Of a live source one frame may wait while the others are in work: age is bounded by that.
        in_flight=replicas + 1,
    )


def placement_of(config: Config) -> Placement:
    """How the stages are spread over processes, ``auto`` resolved."""
    replicas: dict[str, int] = {}
    for group in config.placement():
        for stage in group:
            if stage == "capture":
                continue
            count = config.replicas(stage)
            if count == "auto":
                fused = "capture" in group or "publish" in group
                count = 1 if fused else auto_replicas(config.model.device, config.model.threads or 1)
            replicas[stage] = count
    address = config.stages.infer.address
    return Placement(config.groups, replicas, {} if address == "ipc" else {"infer": address})


def _sinks(config: Config, out: Path | None) -> list[SinkPlan]:
    names = tuple(config.sources)
    sinks: list[SinkPlan] = []
    if out is not None:
        sinks.append(SinkPlan("jsonl", {"path": str(out / "detections.jsonl"), "what": "detections"}))
        sinks.append(SinkPlan("jsonl", {"path": str(out / "events.jsonl"), "what": "events"}))
        if config.run.annotate:
            sinks.append(SinkPlan("video", {"path": str(out / "annotated.mp4"), "sources": names}))
        if config.run.contact_sheet:
            sinks.append(SinkPlan("contact_sheet", {"path": str(out / "contact-sheet.png")}))
    for sink in config.publish:
        options = sink.options()
        if "path" in options:
            options["path"] = str((out or Path()) / options["path"])
        if sink.kind == "video":
            options["sources"] = names
        sinks.append(SinkPlan(sink.kind, options))
    return sinks


class Run:
    """One run of a config.

    Args:
        config: The config.
        tick: Called about ten times a second while it runs.
        restart: Overrides the restart policy of the config; for tests.
    """

    def __init__(
        self,
        config: Config,
        *,
        tick: Callable[[Run], None] = lambda _: None,
        restart: RestartPolicy | None = None,
    ) -> None:
        if not config.sources:
            raise ConfigError("there is no source", hint="name one: framewire run video.mp4")
        self._config = config
        self._tick = tick
        given = config.run.restart
        self._restart = restart or RestartPolicy(
            given.budget, given.window_s, given.backoff_s, given.backoff_max_s
        )
        self._ledgers: dict[str, Ledger] = {}
        self._supervisor: Supervisor | None = None
        self._stop = ""
        self.out = Path(config.run.out) if config.run.out is not None else None

    @property
    def supervisor(self) -> Supervisor:
        """The supervisor, once `execute` has begun."""
        assert self._supervisor is not None
        return self._supervisor

    def stop(self, reason: str) -> None:
        """Stop in order; a second call waits for nothing more. Safe in a signal handler."""
        self._stop = self._stop or reason
        if self._supervisor is not None:
            self._supervisor.stop(reason)

    def progress(self) -> list[Progress]:
        """Where each source is, read from the books."""
        return [
            Progress(
                name,
                STATES[ledger["state"]],
                ledger["next_publish"],
                ledger["expected"],
                sum(ledger.dropped().values()),
            )
            for name, ledger in self._ledgers.items()
        ]

    def execute(self) -> Finished:
        """Run to the end.

        Raises:
            FramewireError: it could not even begin.
        """
        sweep()
        if self.out is not None:
            try:
                self.out.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise SinkError(
                    f"cannot make the folder {self.out}: {error.strerror}",
                    hint="choose another one with --out",
                ) from error
        with RunDir() as rundir:
            plan = self._plan(rundir)
            try:
                for name in self._config.sources:
                    self._ledgers[name] = Ledger.named(ledger_name(rundir.run_id, name), create=True)
                self._supervisor = Supervisor(plan, self._ledgers, tick=lambda: self._tick(self))
                if self._stop:
                    self._supervisor.stop(self._stop)
                outcome = self._supervisor.run()
                return self._finish(rundir.run_id, outcome)
            finally:
                for ledger in self._ledgers.values():
                    ledger.close()
                self._ledgers = {}

    def _plan(self, rundir: RunDir) -> RunPlan:
        config = self._config
        placement = placement_of(config)
        replicas = (placement.replicas or {}).get("infer", 1)
        sources = [
            SourcePlan(name, source.url, realtime=config.run.realtime)
            for name, source in config.sources.items()
        ]
        workers = plan_workers(
            run_id=rundir.run_id,
            run_dir=str(rundir.path),
            sources=sources,
            sinks=_sinks(config, self.out),
            settings=settings_of(config, replicas),
            placement=placement,
        )
        return RunPlan(
            rundir.run_id,
            str(rundir.path),
            workers,
            restart=self._restart,
            stop_timeout_s=config.run.stop_timeout_s,
            duration_s=config.run.duration_s,
        )

    def _finish(self, run_id: str, outcome: Outcome) -> Finished:
        reasons = {}
        if outcome.error is not None and outcome.error.source:
            reasons[outcome.error.source] = outcome.error.message
        path = self.out / "summary.json" if self.out is not None else None
        summary = summarise(
            ledgers=self._ledgers,
            summaries=self.supervisor.summaries(),
            spec=outcome.spec,
            seconds=outcome.seconds,
            restarts=outcome.restarts,
            reasons=reasons,
            run_id=run_id,
            extra_files=[str(path)] if path else [],
        )
        error: FramewireError | None = outcome.error
        if path is not None:
            try:
                path.write_text(json.dumps(msgspec.to_builtins(summary), indent=2) + "\n")
            except OSError as failure:
                error = error or SinkError(f"cannot write {path}: {failure.strerror}")
                outcome.error = error
        return Finished(summary, outcome, error.exit_code if error is not None else 0)
