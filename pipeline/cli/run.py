"""``framewire run``: the pipeline on files, folders or streams."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from pipeline.cli.display import Display, summary_tables
from pipeline.config import Config, expand, from_mapping, load, name_sources
from pipeline.errors import ConfigError
from pipeline.models.base import prepare
from pipeline.runtime.run import Run
from pipeline.sources import check_source

__all__ = ["execute", "merged", "run"]

_STOPPED = {signal.SIGINT: 130, signal.SIGTERM: 0, signal.SIGHUP: 129}


def run(
    sources: Annotated[
        list[str] | None,
        typer.Argument(help="Cameras (rtsp://…, 0), videos, image folders, synthetic:.", show_default=False),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="A YAML config; options here override it.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for detections, events and summary.")] = None,
    model: Annotated[str | None, typer.Option(help="Name from `models list`, or an ONNX file.")] = None,
    task: Annotated[str | None, typer.Option(help="detect, localize, classify or tag.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda, tensorrt or openvino.")] = None,
    confidence: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Drop detections below it.")
    ] = None,
    tracker: Annotated[
        str | None, typer.Option(help="auto, sort, bytetrack, ocsort, botsort or none.")
    ] = None,
    classes: Annotated[str | None, typer.Option(help="Only these labels: person,car")] = None,
    annotate: Annotated[bool, typer.Option("--annotate", help="Write annotated.mp4 to --out.")] = False,
    contact_sheet: Annotated[
        bool, typer.Option("--contact-sheet", help="Write contact-sheet.png to --out.")
    ] = False,
    snapshots: Annotated[
        bool, typer.Option("--snapshots", help="Write the best picture of each object to --out.")
    ] = False,
    heatmap: Annotated[
        bool, typer.Option("--heatmap", help="Write where objects were to --out, as a picture.")
    ] = False,
    realtime: Annotated[
        bool, typer.Option("--realtime", help="Play at the recording's own pace; the newest frame wins.")
    ] = False,
    duration: Annotated[float | None, typer.Option(min=0.0, help="Stop after so many seconds.")] = None,
    preprocess: Annotated[str | None, typer.Option(help="fast or exact.")] = None,
    infer_replicas: Annotated[int | None, typer.Option(min=1, help="Processes that run the model.")] = None,
    publish: Annotated[
        str | None, typer.Option(help="Publish over ZeroMQ at this address: tcp://127.0.0.1:5556")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show only warnings and errors.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show what the workers log.")] = False,
) -> None:
    """Find, label and track objects in cameras, recordings and folders of images.

    Exit code 0 when every source ended well, 130 after Ctrl-C, else as drawn in the docs: 2 wrong usage or
    config, 3 a source, 4 the model, 5 a result file or address, 6 transport, 7 a stage.

    Example: framewire run street.mp4 --out out/street --annotate
    """
    given = {
        "sources": _typed(sources) if sources else None,
        "model.name": model,
        "model.task": task,
        "model.device": device,
        "model.confidence": confidence,
        "model.classes": [label.strip() for label in classes.split(",")] if classes else None,
        "track.algorithm": tracker,
        "preprocess": preprocess,
        "stages.infer.replicas": infer_replicas,
        "run.out": str(out) if out else None,
        "run.annotate": annotate or None,
        "run.contact_sheet": contact_sheet or None,
        "run.snapshots": snapshots or None,
        "run.heatmap": heatmap or None,
        "run.realtime": realtime or None,
        "run.duration_s": duration,
        "publish": [{"zmq": publish}] if publish else None,
    }
    code = execute(
        merged(config, given),
        Display(quiet=quiet or as_json, verbose=verbose),
        as_json=as_json,
        quiet=quiet,
        reread=(lambda: merged(config, given)) if config is not None else None,
        origin=config,
    )
    if code:
        raise typer.Exit(code)


def _typed(urls: list[str]) -> dict[str, str]:
    """Sources typed on the command line, named before variables are filled in: those may be secret."""
    return {
        name: expand(url, os.environ, subject=f"the source {name}")
        for name, url in name_sources(urls).items()
    }


def merged(path: Path | None, given: dict[str, Any]) -> Config:
    """A config file with what was typed on the command line on top.

    Args:
        path: The config file, if any.
        given: Values by dotted key; None for what was not typed.

    Raises:
        ConfigError: the file or a value is wrong.
    """
    overrides: dict[str, Any] = {}
    for key, value in given.items():
        if value is None:
            continue
        *sections, last = key.split(".")
        place = overrides
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    config = load(path, overrides) if path is not None else from_mapping(overrides, "command line")
    if not config.sources:
        raise ConfigError(
            "there is no source", hint="name one, such as: framewire run video.mp4 (or: framewire demo)"
        )
    return config


def execute(
    config: Config,
    display: Display,
    *,
    as_json: bool = False,
    quiet: bool = False,
    reread: Callable[[], Config] | None = None,
    origin: Path | None = None,
) -> int:
    """Run a config with the display; the exit code.

    Args:
        config: The config.
        display: What the user sees.
        as_json: Print the summary as JSON on stdout.
        quiet: Print no summary.
        reread: Reads the config again: on ``framewire reload``, and on SIGHUP where there is no terminal.

        origin: The config file, if there is one.

    Raises:
        FramewireError: something was wrong before, or ended, the run.
    """
    for source in config.sources.values():
        check_source(source.url)
    for model in (config.model.name, *(cascade.model for cascade in config.cascades.values())):
        prepare(model)
    work = Run(config, tick=display.tick, reread=reread, origin=origin)
    received: list[int] = []

    def on_signal(number: int, _: FrameType | None) -> None:
        if number == signal.SIGHUP and reread is not None and not sys.stderr.isatty():
            work.reload()  # A daemon has no terminal that could hang up.
            return
        received.append(number)
        if number == signal.SIGHUP:
            display.hang_up()
        elif len(received) == 1:
            display.say("stopping: frames under way are finished first (once more to stop at once)")
        work.stop(signal.Signals(number).name)

    before = {number: signal.signal(number, on_signal) for number in _STOPPED}
    try:
        with display.shown():
            finished = work.execute()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    hung_up = signal.SIGHUP in received
    if not hung_up and as_json:
        sys.stdout.write(msgspec.json.encode(finished.summary).decode() + "\n")
    elif not hung_up and not quiet and finished.outcome.spec is not None:
        Console(highlight=False, soft_wrap=True).print(summary_tables(finished.summary))
    if finished.outcome.error is not None:
        raise finished.outcome.error
    return _STOPPED[signal.Signals(received[0])] if received else 0
