"""The sources of a run that goes on: listed, added, removed and changed while the others are not touched."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from pipeline.config import Config, from_mapping
from pipeline.config.source import Source
from pipeline.errors import ConfigError
from pipeline.messages import Scene
from pipeline.runtime.build import ledger_name
from pipeline.runtime.plan import RunPlan, SourcePlan, WorkerPlan
from pipeline.runtime.reload import compare
from pipeline.runtime.scenes import SceneFiles, TuningFiles, scene_of
from pipeline.runtime.supervisor import Supervisor
from pipeline.sources import CONNECTIONS, check_source, detect_kind
from pipeline.transport.ledger import Ledger

__all__ = ["Sources", "source_plan"]

log = logging.getLogger(__name__)


def source_plan(name: str, source: Source, *, realtime: bool) -> SourcePlan:
    """What the process that reads a source is told.

    Raises:
        ConfigError: a file that holds its password cannot be read.
    """
    for caution in source.cautions():
        log.warning("[%s] %s", name, caution)
    return SourcePlan(
        name,
        source.address(),
        realtime=realtime if source.realtime is None else source.realtime,
        live=detect_kind(source.url) in CONNECTIONS,
        options=source.options(),
        admission=source.admission(),
    )


class Sources:
    """The sources of one run.

    Args:
        config: The config with which it began.
        run_id: Id of the run.
        plan: Its plan.
        supervisor: Its supervisor.
        ledgers: The books, by source; new ones are added.
        scenes: What is drawn for each source, for the stages to read.
        tuning: What was set for each source, for the stages to read.
    """

    def __init__(
        self,
        config: Config,
        run_id: str,
        plan: RunPlan,
        supervisor: Supervisor,
        ledgers: dict[str, Ledger],
        scenes: SceneFiles,
        tuning: TuningFiles,
    ) -> None:
        self._config = config
        self._drawn = config
        self._run_id = run_id
        self._supervisor = supervisor
        self._ledgers = ledgers
        self._scenes = scenes
        self._tuning = tuning
        self._sources: dict[str, Source] = dict(config.sources)
        self._plans = {source.name: source for worker in plan.workers for source in worker.sources}
        first = next(worker for worker in plan.workers if worker.sources)
        # One process for each source can be copied; one for all of them cannot.
        self._pattern: WorkerPlan | None = first if "postprocess" not in first.stages else None

    def obey(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Do what a request asks; see `pipeline.runtime.admin`.

        Raises:
            ConfigError: it asks for what cannot be.
        """
        name = str(request.get("name", ""))
        match request.get("do"):
            case "list":
                return {"sources": self.table()}
            case "add":
                given = from_mapping({"sources": {name: request.get("source")}}, "the request")
                self.add(name, given.sources[name])
            case "remove":
                self.remove(name)
            case "tune":
                return self.tune(name, request)
            case other:
                raise ConfigError(
                    f"there is no request {other!r}", hint="use list, add, remove, tune or reload"
                )
        return {}

    def table(self) -> list[dict[str, Any]]:
        """State and books of every source, as plain data."""
        now_ns = time.monotonic_ns()
        rows: list[dict[str, Any]] = []
        for name, ledger in self._ledgers.items():
            last = ledger.journal.last()
            row: dict[str, Any] = {
                "source": name,
                "state": last.state if last is not None else "connecting",
                "since_s": round((now_ns - last.at_ns) / 1e9, 1) if last is not None else 0.0,
                "live": bool(ledger["live"]),
                "width": ledger["width"],
                "height": ledger["height"],
                "decoded": ledger["decoded"],
                "published": ledger["published"],
                "skipped": ledger["skipped"],
                "decode_errors": ledger["decode_errors"],
                "dropped": ledger.dropped(),
                "lost": ledger.lost(),
            }
            if last is not None and last.reason:
                row |= {"reason": last.reason, "message": last.message}
            if ledger["clocked"]:
                row |= {
                    "clock_offset_s": ledger["clock_offset_us"] / 1e6,
                    "drift_ppm": ledger["drift_ppb"] / 1000,
                }
            rows.append(row)
        return rows

    def add(self, name: str, source: Source) -> None:
        """Read one more source.

        Raises:
            ConfigError: there is one of that name, or it cannot be one, or this run cannot take it.
        """
        if name in self._sources:
            raise ConfigError(
                f"there is a source {name} already", hint="remove it first, or choose another name"
            )
        self._scenes.put(name, Scene(moving=source.moving))
        self._start(name, source)
        log.warning("[%s] added", name)

    def remove(self, name: str) -> None:
        """Read a source no more.

        Raises:
            ConfigError: there is none of that name.
        """
        if name not in self._sources:
            known = ", ".join(self._sources) or "none"
            raise ConfigError(f"there is no source {name}", hint=f"the sources of this run: {known}")
        worker = self._worker(name)
        del self._sources[name], self._plans[name]
        self._supervisor.remove_source(worker.name)
        log.warning("[%s] removed", name)

    def tune(self, name: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Switch detection of a source on or off, set its confidence, or neither; how it is set then.

        What is set holds until the run ends, over a reload of its config too.

        Raises:
            ConfigError: there is no such source, or what is to be set makes no sense.
        """
        if name not in self._sources:
            known = ", ".join(self._sources) or "none"
            raise ConfigError(f"there is no source {name}", hint=f"the sources of this run: {known}")
        tuning = self._tuning.get(name)
        wanted = {key: request[key] for key in ("enabled", "confidence") if request.get(key) is not None}
        confidence = wanted.get("confidence", 0.0)
        if not isinstance(wanted.get("enabled", True), bool):
            raise ConfigError(f"enabled is {wanted['enabled']!r}", hint="say true or false")
        if (
            isinstance(confidence, bool)
            or not isinstance(confidence, int | float)
            or not 0 <= confidence <= 1
        ):
            raise ConfigError(f"confidence is {confidence!r}", hint="say a number from 0 to 1")
        if wanted:
            tuning = replace(tuning, **wanted)
            self._tuning.put(name, tuning)
            log.warning("[%s] tuned: %s", name, ", ".join(f"{key} {wanted[key]}" for key in wanted))
        default = self._config.model.confidence
        return {
            "enabled": tuning.enabled,
            "confidence": default if tuning.confidence is None else tuning.confidence,
        }

    def take_over(self, config: Config) -> dict[str, Any]:
        """Go over to another config, as far as that is possible without a restart; what was done.

        Raises:
            ConfigError: a source of it cannot be one; then nothing was done.
        """
        drawn = {key: getattr(self._drawn, key) for key in ("zones", "lines", "masks", "ground")}
        now = self._config.model_copy(update={"sources": dict(self._sources), **drawn})
        changes = compare(now, config)
        for name in changes.added:
            check_source(config.sources[name].url)
        realtime = self._config.run.realtime
        plans = {
            name: source_plan(name, source, realtime=realtime) for name, source in config.sources.items()
        }
        # By plan and not by config: what a password file holds may have changed.
        changed = [name for name in plans if name in self._plans and plans[name] != self._plans[name]]
        for name in changed:
            check_source(config.sources[name].url)
        for name in (*changes.added, *changes.redrawn):
            self._scenes.put(name, scene_of(config, name))
        self._drawn = config
        for name in changes.redrawn:
            log.warning("[%s] zones, lines, masks and ground were drawn anew", name)
        for name in changes.removed:
            self.remove(name)
        for name in (*changes.added, *changed):
            self._start(name, config.sources[name])
            log.warning("[%s] %s", name, "added" if name in changes.added else "changed")
        if changes.restart:
            log.warning("these take a restart: %s", ", ".join(changes.restart))
        return {
            "added": list(changes.added),
            "removed": list(changes.removed),
            "changed": changed,
            "redrawn": list(changes.redrawn),
            "restart": list(changes.restart),
        }

    def _start(self, name: str, source: Source) -> None:
        check_source(source.url)
        plan = source_plan(name, source, realtime=self._config.run.realtime)
        worker = replace(self._worker(name), sources=(plan,))
        ledger = self._ledgers.get(name)
        if ledger is None:
            ledger = self._ledgers[name] = Ledger.named(ledger_name(self._run_id, name), create=True)
        self._sources[name] = source
        self._plans[name] = plan
        self._supervisor.add_source(worker, name, ledger)

    def _worker(self, name: str) -> WorkerPlan:
        if self._pattern is None:
            raise ConfigError(
                "this run reads all sources in one process, so they cannot change while it goes on",
                hint="restart it, or leave postprocess out of the group with capture",
            )
        return replace(self._pattern, name=f"{'+'.join(self._pattern.stages)}-{name}")
