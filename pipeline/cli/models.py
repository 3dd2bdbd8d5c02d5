"""``framewire models``: what there is, fetching it, and what a file is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from pipeline.errors import ConfigError, ModelError
from pipeline.models.download import Progress as Report
from pipeline.models.store import ALIASES, KNOWN, KnownModel, cache_dir, cached, pull

__all__ = ["app"]

app = typer.Typer(help="List, fetch and look into models.", no_args_is_help=True)

_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead, for programs.")]


@app.command("list")
def list_models(as_json: _AsJson = False) -> None:
    """The models that can be named, and which of them are here.

    Example: framewire models list
    """
    if as_json:
        typer.echo(json.dumps([_row(model) for model in KNOWN.values()], indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("name", "family", "input", "MB", "licence", "here", "note"):
        table.add_column(name, justify="right" if name == "MB" else "left", no_wrap=name != "note")
    for model in KNOWN.values():
        row = _row(model)
        size, megabytes = str(model.size), f"{model.bytes / 1e6:.1f}"
        table.add_row(model.name, model.family, size, megabytes, model.licence, row["state"], model.note)
    Console().print(table)
    typer.echo(f"cache: {cache_dir()}", err=True)


@app.command("pull")
def pull_models(
    names: Annotated[list[str], typer.Argument(help="Names from `framewire models list`.")],
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Take the file from here: for machines without a way out."),
    ] = None,
) -> None:
    """Fetch models into the cache; one that is there is not fetched again.

    A transfer that broke off is continued. FRAMEWIRE_MODEL_MIRROR names base addresses to ask instead of
    the official one; FRAMEWIRE_CACHE another folder.

    Example: framewire models pull yolox-nano yolox-s
    """
    if source is not None and len(names) != 1:
        raise ConfigError("--from gives one file, so it takes one name", hint="pull them one by one")
    for name in names:
        with _bar(name) as report:
            path = pull(name, source_path=source, progress=report)
        typer.echo(f"{name}: {path}")


@app.command("inspect")
def inspect(
    model: Annotated[str, typer.Argument(help="A name from `framewire models list`, or an ONNX file.")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, tensorrt or openvino.")] = "auto",
    as_json: _AsJson = False,
) -> None:
    """What a model takes and gives, which head decodes it and why, and where it would run.

    Example: framewire models inspect yolox-nano.onnx
    """
    report = _inspected(model, device)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in report.items():
        if key == "labels":
            shown = f"{len(value)}: {', '.join(value[:6])}{', …' if len(value) > 6 else ''}"
        elif isinstance(value, list):
            shown = "\n".join(str(one) for one in value)
        elif isinstance(value, dict):
            shown = ", ".join(f"{name} {one}" for name, one in value.items())
        else:
            shown = str(value)
        if shown:
            table.add_row(key, shown)
    Console().print(table, markup=False)


def _row(model: KnownModel) -> dict[str, Any]:
    path = cached(model)
    state = model.origin if model.origin == "embedded" else "cached" if path else "-"
    return {
        "name": model.name,
        "aliases": [alias for alias, name in ALIASES.items() if name == model.name],
        "family": model.family,
        "input": [model.size, model.size],
        "bytes": model.bytes,
        "licence": model.licence,
        "state": state,
        "path": str(path) if path else None,
        "url": model.url or None,
        "sha256": model.sha256 or None,
        "note": model.note,
    }


def _inspected(model: str, device: str) -> dict[str, Any]:
    # onnxruntime takes half a second to import; listing and pulling do without.
    from pipeline.models.base import is_fake, prepare
    from pipeline.models.describe import describe_tensor
    from pipeline.models.onnx import OnnxRunner

    if is_fake(model):
        raise ModelError(
            "the fake model has no file to look into", hint="it is run as fake, or with options as fake?ms=50"
        )
    with _bar(model) as report:
        prepare(model, progress=report)
    runner = OnnxRunner(model, device=device)
    spec = runner.open()
    runner.close()
    return {
        "name": spec.name,
        "sha256": spec.sha256,
        "family": spec.family,
        "why": runner.why,
        "inputs": [describe_tensor(info) for info in runner.signature.inputs],
        "outputs": [describe_tensor(info) for info in runner.signature.outputs],
        "input": {
            "width": spec.input_width,
            "height": spec.input_height,
            "dtype": spec.input_dtype,
            "layout": spec.input_layout,
            "channels": spec.channels,
        },
        "scaling": {"mean": list(spec.mean), "std": list(spec.std)},
        "letterbox": {"mode": spec.letterbox, "pad_value": spec.pad_value},
        "labels": list(spec.labels),
        "provider": spec.provider,
        "not_taken": runner.refusals,
        "metadata": dict(sorted(runner.signature.metadata.items())),
    }


@contextmanager
def _bar(name: str) -> Iterator[Report]:
    """A progress bar on stderr that appears when the first bytes do."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=None, visible=False)

        def report(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, visible=True)

        yield report
