"""One run, from a config to a summary: prepare, supervise, settle, write down."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pipeline.config import Config
from pipeline.errors import ConfigError, FramewireError, SinkError
from pipeline.models.threads import threads_for, usable_cores
from pipeline.runtime.admin import AdminServer
from pipeline.runtime.build import ledger_name
from pipeline.runtime.outputs import clips_of, keep_of, log_of, sinks_of
from pipeline.runtime.plan import CascadePlan, RestartPolicy, RunPlan, Settings
from pipeline.runtime.report import summarise
from pipeline.runtime.rundir import RunDir, sweep
from pipeline.runtime.scenes import SceneFiles, TuningFiles, scene_of
from pipeline.runtime.sources import Sources, source_plan
from pipeline.runtime.supervisor import Outcome, Supervisor
from pipeline.runtime.topology import Placement, plan_workers
from pipeline.transport.ledger import STATES, Ledger

if TYPE_CHECKING:
    from pipeline.runtime.exporter import MetricsServer

__all__ = ["Finished", "Progress", "Run", "auto_replicas", "placement_of", "settings_of"]

log = logging.getLogger(__name__)

_MAX_AUTO_REPLICAS = 8


@dataclass(frozen=True, slots=True)
class Progress:
    """Where one source is.

    Attributes:
        source: Its name.
        state: Its state.
        message: Why it is in that state, if something is wrong.
        published: Frames accounted for, lost ones included.
        expected: Frames to come in all; 0 when that is unknown.
        dropped: Frames dropped so far.
    """

    source: str
    state: str
    message: str
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


def auto_replicas(device: str, threads: int) -> int:
    """Replicas of ``infer`` when the config leaves it open.

    On a CPU several one-thread sessions beat one session with several threads; on an accelerator one
    session fills it.
    """
    if device not in ("auto", "cpu") or (device == "auto" and Path("/dev/nvidia0").exists()):
        return 1
    return max(1, min(_MAX_AUTO_REPLICAS, math.floor(usable_cores().count) // max(1, threads)))


def settings_of(config: Config, replicas: int) -> Settings:
    """What the stages are told."""
    batch = config.stages.infer.batch
    # What keeps the replicas busy in all, a batch in work and one ready behind it, shared among the sources.
    share = -(-2 * replicas * batch // max(1, len(config.sources)))
    return Settings(
        model=config.model.name,
        device=config.model.device,
        precision=config.model.precision,
        threads=threads_for(config.model.threads, replicas=replicas).threads,
        input_size=config.model.input_size,
        preprocess=config.preprocess,
        confidence=config.model.confidence,
        nms_iou=config.model.nms_iou,
        classes=config.model.classes,
        task=config.model.task,
        top_k=config.model.top_k,
        algorithm=_algorithm(config),
        track_options=_track_options(config),
        reid=config.track.reid or "",
        closing=config.closing.options() if config.closing is not None else None,
        privacy=config.privacy.options() if config.privacy is not None else None,
        snapshots=config.run.out or "" if config.run.snapshots else "",
        update_interval_s=config.events.update_interval_s,
        lost_after_s=config.track.lost_after_s,
        # Two frames for each replica keep it busy, the rest covers the stages around it.
        slots=max(config.run.slots, 2 * replicas + 4, share + 4),
        # Of a live source one frame may wait while the others are in work: age is bounded by that.
        in_flight=replicas * batch + 1,
        batch=batch,
        cascades=tuple(
            CascadePlan(name, cascade.model, cascade.options()) for name, cascade in config.cascades.items()
        ),
    )


def _algorithm(config: Config) -> str:
    if config.model.task == "localize" and config.track.algorithm != "none":
        return "single"  # one object needs no association
    # With a fixed camera: which source has a moving one is asked where it is followed.
    chosen = config.track.algorithm_for(moving=False)
    return "auto" if config.track.algorithm == "auto" and chosen == "bytetrack" else chosen


def _track_options(config: Config) -> dict[str, Any]:
    if config.track.algorithm == "none":
        return {}
    # One window for both: what the tracker could still find again has not ended.
    window = {"lost_s": config.track.lost_after_s}
    if config.model.task == "localize":
        return window | {"smoothing_s": config.track.smoothing_s}
    return window | config.track.options()


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


class Run:
    """One run of a config.

    Args:
        config: The config.
        tick: Called about ten times a second while it runs.
        reread: Reads the config again, for ``framewire reload``; None when it came from the command line.
        restart: Overrides the restart policy of the config; for tests.
        origin: The config file, whose event log goes on from run to run; None when there is none.
    """

    def __init__(
        self,
        config: Config,
        *,
        tick: Callable[[Run], None] = lambda _: None,
        reread: Callable[[], Config] | None = None,
        restart: RestartPolicy | None = None,
        origin: Path | None = None,
    ) -> None:
        if not config.sources:
            raise ConfigError("there is no source", hint="name one: framewire run video.mp4")
        self._config = config
        self._tick = tick
        self._reread = reread
        self._origin = origin
        self._reload_wanted = False
        given = config.run.restart
        self._restart = restart or RestartPolicy(
            given.budget, given.window_s, given.backoff_s, given.backoff_max_s
        )
        self._ledgers: dict[str, Ledger] = {}
        self._admin: AdminServer | None = None
        self._sources: Sources | None = None
        self._metrics: MetricsServer | None = None
        self._supervisor: Supervisor | None = None
        self._stop = ""
        self.out = Path(config.run.out) if config.run.out is not None else None

    @property
    def threads(self) -> str:
        """How many threads the sessions of `infer` get on a CPU: ``1 thread in each of 2 sessions``."""
        replicas = (placement_of(self._config).replicas or {}).get("infer", 1)
        count = threads_for(self._config.model.threads, replicas=replicas).threads
        words = "1 thread" if count == 1 else f"{count} threads"
        return words if replicas == 1 else f"{words} in each of {replicas} sessions"

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
                last.message if (last := ledger.journal.last()) is not None else "",
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
                scenes = SceneFiles(rundir.path)
                for name in self._config.sources:
                    scenes.put(name, scene_of(self._config, name))
                    self._ledgers[name] = Ledger.named(ledger_name(rundir.run_id, name), create=True)
                self._supervisor = Supervisor(plan, self._ledgers, tick=self._turn)
                self._sources = Sources(
                    self._config, rundir.run_id, plan, self._supervisor, self._ledgers, scenes,
                    TuningFiles(rundir.path),
                )  # fmt: skip
                self._admin = AdminServer(str(rundir.path), self._obey)
                self._metrics = self._measured()
                if self._stop:
                    self._supervisor.stop(self._stop)
                outcome = self._supervisor.run()
                return self._finish(rundir.run_id, outcome)
            finally:
                if self._metrics is not None:
                    self._metrics.close()
                if self._admin is not None:
                    self._admin.close()
                for ledger in self._ledgers.values():
                    ledger.close()
                self._ledgers = {}

    def reload(self) -> None:
        """Read the config again at the next turn. Safe in a signal handler."""
        self._reload_wanted = True

    def _turn(self) -> None:
        assert self._admin is not None
        self._admin.serve()
        if self._metrics is not None:
            self._metrics.serve()
        if self._reload_wanted:
            self._reload_wanted = False
            try:
                self._reloaded()
            except FramewireError as error:
                log.error("the config was not taken over: %s", error)
        self._tick(self)

    def _measured(self) -> MetricsServer | None:
        """The metrics page, if one is wanted.

        Raises:
            ConfigError: its address is taken.
        """
        address = self._config.metrics.address()
        if address is None:
            return None
        from pipeline.runtime.exporter import MetricsServer  # only what is used is loaded
        from pipeline.runtime.metrics import View

        def view() -> View:
            supervisor = self.supervisor
            spec = supervisor.outcome.spec
            return View(self._ledgers, supervisor.summaries(), supervisor.restarts(), supervisor.pids(), spec)

        return MetricsServer(self._config.metrics.listen or "", view)

    def _obey(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._sources is not None
        if request.get("do") == "reload":
            return self._reloaded()
        return self._sources.obey(request)

    def _reloaded(self) -> dict[str, Any]:
        assert self._sources is not None
        if self._reread is None:
            raise ConfigError(
                "this run was started without a config file", hint="use: framewire sources add, remove"
            )
        return self._sources.take_over(self._reread())

    def _plan(self, rundir: RunDir) -> RunPlan:
        config = self._config
        placement = placement_of(config)
        replicas = (placement.replicas or {}).get("infer", 1)
        sources = [
            source_plan(name, source, realtime=config.run.realtime) for name, source in config.sources.items()
        ]
        log.info("threads of infer: %s", threads_for(config.model.threads, replicas=replicas).why)
        workers = plan_workers(
            run_id=rundir.run_id,
            run_dir=str(rundir.path),
            sources=sources,
            sinks=sinks_of(config, self.out),
            event_log=log_of(config, self.out, rundir.path, self._origin),
            out=str(self.out) if self.out is not None else "",
            clips=clips_of(config, sources),
            keep=keep_of(config),
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
        path = self.out / "summary.json" if self.out is not None else None
        summary = summarise(
            ledgers=self._ledgers,
            summaries=self.supervisor.summaries(),
            spec=outcome.spec,
            seconds=outcome.seconds,
            restarts=outcome.restarts,
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
