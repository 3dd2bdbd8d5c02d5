"""What a run leaves behind and whom it tells, as plans: sinks, connectors and the event log."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Sequence
from pathlib import Path

from pipeline.config import Config, DeliveredSink, ZmqSink
from pipeline.runtime.plan import ClipsPlan, LogPlan, SinkPlan, SourcePlan
from pipeline.sources import detect_kind
from pipeline.sources.locate import local_path

__all__ = ["clips_of", "keep_of", "log_of", "sinks_of", "state_folder"]

log = logging.getLogger(__name__)

#: Sinks with something of their own for each source.
_BY_SOURCE = frozenset({"heatmap", "mot", "onvif", "stream", "video"})
#: A clip begins after all that: a frame on its way through the stages, and the keyframe before.
_RING_SLACK_S = 30.0
#: A log that goes with its run lies where sockets do, which may be in memory.
_PASSING_BYTES = 64 * 2**20


def sinks_of(config: Config, out: Path | None) -> list[SinkPlan]:
    """The sinks of a run: those that an out folder has, and those of ``publish``."""
    names = tuple(config.sources)
    sinks: list[SinkPlan] = []
    if out is not None:
        sinks.append(SinkPlan("jsonl", {"path": str(out / "detections.jsonl"), "what": "detections"}))
        sinks.append(SinkPlan("jsonl", {"path": str(out / "events.jsonl"), "what": "events"}))
        if config.run.annotate:
            sinks.append(SinkPlan("video", {"path": str(out / "annotated.mp4"), "sources": names}))
        if config.run.contact_sheet:
            sinks.append(SinkPlan("contact_sheet", {"path": str(out / "contact-sheet.png")}))
        if config.run.heatmap:
            sinks.append(SinkPlan("heatmap", {"path": str(out / "heatmap.png"), "sources": names}))
    for sink in config.publish:
        options = sink.options()
        if isinstance(sink, DeliveredSink):
            sinks.append(SinkPlan(sink.kind, options, sink.delivery()))
            continue
        if "path" in options:
            options["path"] = str((out or Path()) / options["path"])
        if sink.kind == "stream" and "://" not in options["url"]:
            options["url"] = str((out or Path()) / options["url"])
        if sink.kind in _BY_SOURCE:
            options["sources"] = names
        sinks.append(SinkPlan(sink.kind, options))
    return sinks


def log_of(config: Config, out: Path | None, run_dir: Path, origin: Path | None) -> LogPlan:
    """Where the event log is, and what it keeps.

    Args:
        config: The config.
        out: The run's folder for results, if any.
        run_dir: The folder that goes with the run.
        origin: The config file, if there is one.
    """
    given = config.event_log
    keep_s, max_bytes = given.keep_days * 86400, int(given.max_mb * 2**20)
    if given.path is not None:
        path = Path(given.path).expanduser()
        return LogPlan(str((out or Path()) / path), keep_s, max_bytes, given.sync)
    followed = any(
        isinstance(sink, DeliveredSink) or (isinstance(sink, ZmqSink) and sink.events)
        for sink in config.publish
    )
    if followed and origin is not None:
        folder = state_folder() / f"{origin.stem}-{zlib.crc32(str(origin.resolve()).encode()):08x}"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            log.warning(
                "the event log goes with this run, for %s cannot be made (%s): set event_log.path to keep it",
                folder, error.strerror,
            )  # fmt: skip
        else:
            return LogPlan(str(folder / "events.db"), keep_s, max_bytes, given.sync)
    return LogPlan(str(run_dir / "events.db"), keep_s, min(max_bytes, _PASSING_BYTES))


def clips_of(config: Config, sources: Sequence[SourcePlan]) -> ClipsPlan | None:
    """What is cut out of the video of the sources; None where nothing is."""
    if config.clips is None:
        return None
    files = {
        source.name: str(local_path(source.url))
        for source in sources
        if not source.live and detect_kind(source.url) == "file"
    }
    return ClipsPlan(
        config.clips.options(),
        config.clips.pre_s + _RING_SLACK_S,
        int(config.clips.ring_mb * 2**20),
        files,
        tuple(source.name for source in sources if source.live),
    )


def keep_of(config: Config) -> tuple[float | None, int | None]:
    """Age in seconds and size in bytes above which snapshots and clips go."""
    days, gigabytes = config.run.keep_days, config.run.keep_gb
    return (
        None if days is None else days * 86400,
        None if gigabytes is None else int(gigabytes * 2**30),
    )


def state_folder() -> Path:
    """Where what outlives a run is kept: systemd's state directory, else that of this user."""
    for variable in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
        chosen = os.environ.get(variable, "").partition(":")[0]
        if chosen:
            return Path(chosen) if variable == "STATE_DIRECTORY" else Path(chosen) / "framewire"
    return Path.home() / ".local" / "state" / "framewire"
