"""``framewire graph``: the processes of a run and how they are joined, without starting it.

``--frame`` is in `pipeline.cli.frame`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sized
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.config import Config, from_mapping, load, name_sources, redact
from pipeline.errors import ConfigError
from pipeline.runtime.plan import Settings, SourcePlan, WorkerPlan
from pipeline.runtime.run import placement_of
from pipeline.runtime.topology import Edge, edges, plan_workers

__all__ = ["Picture", "Style", "dot", "draw", "graph", "mermaid", "text"]

_RUN_DIR = "RUN"


class Style(StrEnum):
    """How the picture is written."""

    TEXT = "text"
    DOT = "dot"
    MERMAID = "mermaid"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class Picture:
    """The topology of a run.

    Attributes:
        workers: Its processes, in pipeline order.
        edges: The links between them.
        sources: Redacted URL by name.
        sinks: Kind and redacted target of each sink.
        drops: Where and when frames may be dropped.
    """

    workers: tuple[WorkerPlan, ...]
    edges: tuple[Edge, ...]
    sources: dict[str, str]
    sinks: tuple[tuple[str, str], ...]
    drops: str


def graph(
    sources: Annotated[
        list[str] | None,
        typer.Argument(help="Files, folders or URLs, in place of a config's.", show_default=False),
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="The config file.", show_default=False)
    ] = None,
    as_dot: Annotated[bool, typer.Option("--dot", help="Write it for Graphviz.")] = False,
    as_mermaid: Annotated[bool, typer.Option("--mermaid", help="Write it for Mermaid.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    frame: Annotated[
        Path | None,
        typer.Option(
            help="Instead: write one picture of each source here, with its zones and lines and a ruler.",
            show_default=False,
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="With --frame: this source alone.", show_default=False)
    ] = None,
    at: Annotated[
        float, typer.Option(min=0, help="With --frame: of recordings, the picture at this time, seconds.")
    ] = 0.0,
    timeout: Annotated[
        float, typer.Option(min=0.1, max=3600, help="With --frame: longest wait for a camera, seconds.")
    ] = 15.0,
) -> None:
    """Show which processes a run has, and where frames wait or may be dropped; nothing is started.

    With --frame, show instead where zones and lines lie, or read off where they should.

    Example: framewire graph -c configs/demo.yaml
    Example: framewire graph video.mp4 --frame where.png
    """
    styles = [s for s, on in ((Style.DOT, as_dot), (Style.MERMAID, as_mermaid), (Style.JSON, as_json)) if on]
    if len(styles) > 1:
        raise ConfigError("graph writes one form at a time", hint="give one of --dot, --mermaid and --json")
    given = {"sources": name_sources(sources or [])} if sources else {}
    found = load(config, given) if config else from_mapping(given, "command line")
    if not found.sources:
        raise ConfigError("there is no source to draw", hint="type: framewire graph video.mp4, or -c FILE")
    if frame is not None:
        if styles:
            raise ConfigError(f"--frame and --{styles[0]} cannot go together", hint="give one of them")
        from pipeline.cli.frame import draw_frames  # loads OpenCV

        draw_frames(found, frame, only=source, at_s=at, timeout_s=timeout)
        return
    if source is not None or at:
        raise ConfigError("--source and --at go with --frame", hint="add --frame where.png")
    sys.stdout.write(draw(found, styles[0] if styles else Style.TEXT))


def draw(config: Config, style: Style) -> str:
    """The topology of a config, as text that ends in a line break."""
    picture = _picture(config)
    match style:
        case Style.DOT:
            return dot(picture)
        case Style.MERMAID:
            return mermaid(picture)
        case Style.JSON:
            return json.dumps(_plain(picture), indent=2) + "\n"
    return text(picture)


def _picture(config: Config) -> Picture:
    placement = placement_of(config)
    workers = plan_workers(
        run_id=_RUN_DIR,
        run_dir=_RUN_DIR,
        sources=[SourcePlan(name, source.url) for name, source in config.sources.items()],
        sinks=(),
        settings=Settings(model=config.model.name),
        placement=placement,
    )
    sinks = [(sink.kind, redact(sink.target)) for sink in config.publish]
    if config.run.out is not None:
        sinks.append(("folder", config.run.out))
    drops = (
        "at capture only: a frame that is not taken before the next one comes is dropped and counted"
        if config.run.realtime
        else "nowhere: recordings wait for the slowest stage"
    )
    urls = {name: redact(source.url) for name, source in config.sources.items()}
    return Picture(workers, tuple(edges(workers)), urls, tuple(sinks), drops)


def _plain(picture: Picture) -> dict[str, Any]:
    return {
        "processes": [
            {"name": w.name, "stages": list(w.stages), "sources": [s.name for s in w.sources]}
            for w in picture.workers
        ],
        "edges": [asdict(edge) for edge in picture.edges],
        "sources": picture.sources,
        "sinks": [{"kind": kind, "target": target} for kind, target in picture.sinks],
        "drops": picture.drops,
    }


def _kind(endpoint: str) -> str:
    """What to call an endpoint: a local socket by its kind, a tcp one by its address."""
    return "ipc" if endpoint.startswith("ipc://") else endpoint


def text(picture: Picture) -> str:
    """The picture for a terminal: one row of processes under another, links between them."""
    rows: dict[tuple[str, ...], list[WorkerPlan]] = {}
    for worker in picture.workers:
        rows.setdefault(worker.stages, []).append(worker)
    lines = [f"{_count(picture.workers, 'process', 'es')}, {_count(picture.sources, 'source', 's')}", ""]
    for stages, workers in rows.items():
        replicas = f" x {len(workers)}" if len(workers) > 1 else ""
        lines.append(f"[{' + '.join(stages)}]{replicas}   {', '.join(worker.name for worker in workers)}")
        for worker in workers:
            lines += [f"  |  reads {source.name}: {redact(source.url)}" for source in worker.sources]
        first = workers[0]
        if first.outlets:
            kinds = ", ".join(dict.fromkeys(_kind(peer.endpoint) for peer in first.outlets))
            pixels = "pixels inline" if first.inline else "pixels in shared memory"
            sharded = "; each source keeps to one replica" if first.sharded else ""
            lines += ["  |", f"  |  {kinds}, {first.outlet_window} credits a link, {pixels}{sharded}", "  v"]
    lines += [f"  ->  {kind}: {target}" for kind, target in picture.sinks]
    return "\n".join([*lines, "", f"Frames may be dropped: {picture.drops}.", ""])


def _count(things: Sized, name: str, plural: str) -> str:
    return f"{len(things)} {name}{plural if len(things) != 1 else ''}"


def dot(picture: Picture) -> str:
    """The picture for Graphviz."""
    lines = ["digraph framewire {", "  rankdir=LR;", "  node [shape=box];"]
    for name, url in picture.sources.items():
        lines.append(f"  {_quote(f'source {name}')} [shape=plain, label={_quote(f'{name}: {url}')}];")
    for worker in picture.workers:
        lines.append(f"  {_quote(worker.name)};")
        lines += [f"  {_quote(f'source {s.name}')} -> {_quote(worker.name)};" for s in worker.sources]
    for edge in picture.edges:
        label = _quote(f"{_kind(edge.endpoint)}, {edge.credits} credits")
        lines.append(f"  {_quote(edge.producer)} -> {_quote(edge.consumer)} [label={label}];")
    for index, (kind, target) in enumerate(picture.sinks):
        lines.append(f"  sink{index} [shape=note, label={_quote(f'{kind}: {target}')}];")
        lines.append(f"  {_quote(picture.workers[-1].name)} -> sink{index};")
    return "\n".join([*lines, "}", ""])


def _quote(words: str) -> str:
    return '"' + words.replace("\\", "\\\\").replace('"', '\\"') + '"'


def mermaid(picture: Picture) -> str:
    """The picture for Mermaid, as GitHub draws it."""
    lines = ["flowchart LR"]
    number = {worker.name: f"w{index}" for index, worker in enumerate(picture.workers)}
    sources = {name: f"s{index}" for index, name in enumerate(picture.sources)}
    lines += [f"  {sources[name]}([{_label(f'{name}: {url}')}])" for name, url in picture.sources.items()]
    for worker in picture.workers:
        lines.append(f"  {number[worker.name]}[{_label(worker.name)}]")
        lines += [f"  {sources[source.name]} --> {number[worker.name]}" for source in worker.sources]
    for edge in picture.edges:
        label = _label(f"{_kind(edge.endpoint)}, {edge.credits} credits")
        lines.append(f"  {number[edge.producer]} -->|{label}| {number[edge.consumer]}")
    last = number[picture.workers[-1].name]
    for index, (kind, target) in enumerate(picture.sinks):
        lines.append(f"  {last} --> k{index}[/{_label(f'{kind}: {target}')}/]")
    return "\n".join([*lines, ""])


def _label(words: str) -> str:
    return '"' + words.replace('"', "#quot;") + '"'
