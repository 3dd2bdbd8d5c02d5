"""``framewire models``: what there is, fetching it, what a file is, and files under names of their own."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from pipeline.cli.model_tools import fuse, half, quantize
from pipeline.errors import ConfigError, ModelError
from pipeline.models.download import Progress as Report
from pipeline.models.store import ALIASES, KNOWN, KnownModel, added, cache_dir, cached, pull

__all__ = ["app"]

app = typer.Typer(help="List, fetch, add, look into and quicken models.", no_args_is_help=True)
app.command("fuse")(fuse)
app.command("half")(half)
app.command("quantize")(quantize)

#: What settled the family, in words.
_SOURCES = {
    "card": "its card says so",
    "card within": "the card within the file says so",
    "metadata": "its metadata say so",
    "graph": "from its graph, and the values of a test run",
    None: "a card has to say",
}

#: Characters of one entry of a file's metadata that a table shows.
_MOST_TEXT = 500

#: Columns of text that a table gets where no terminal sets them.
_WIDE = 130

_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead, for programs.")]


@app.command("list")
def list_models(as_json: _AsJson = False) -> None:
    """The models that can be named, and which of them are here.

    Example: framewire models list
    """
    rows = [_row(model) for model in KNOWN.values()] + [_added_row(name) for name in added()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDE)
    columns = ["name", "task", "family", "input", "MB", "here", "licence", "note"]
    if console.width < _WIDE - 20:
        columns.remove("licence")  # --json has it
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name == "MB" else "left", no_wrap=name != "note")
    for row in rows:
        cells = row | {
            "input": "x".join(map(str, row["input"])) if row["input"] else "",
            "MB": f"{row['bytes'] / 1e6:.1f}",
            "here": row["state"],
            "note": "; ".join(filter(None, (", ".join(row["aliases"]), row["note"]))),
        }
        table.add_row(*(escape(str(cells[name] or "")) for name in columns))
    console.print(table)
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
    """What a model takes and gives, which family reads it and how sure that is, and where it would run.

    Where no family fits, or several do, the exit code is 4, and the report still shows what the file holds
    and which card would settle it: a file of the same name with .json added.

    Example: framewire models inspect yolox-nano.onnx
    """
    report, problem = _inspected(model, device)
    if as_json:
        typer.echo(json.dumps(report, indent=2))
    else:
        _show(report)
    if problem is not None:
        raise problem


@app.command("add")
def add(
    file: Annotated[str, typer.Argument(help="An ONNX file; a card beside it counts.")],
    name: Annotated[str, typer.Option(help="What to call it: --model takes this name from then on.")],
    family: Annotated[str | None, typer.Option(help="Family that reads it, where several fit.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="Class names: a text file with one a line, or a,b,c.")
    ] = None,
    channels: Annotated[str | None, typer.Option(help="bgr or rgb.")] = None,
    mean: Annotated[str | None, typer.Option(help="Subtracted from 0..255: one number, or three.")] = None,
    std: Annotated[str | None, typer.Option(help="Divided by then: one number, or three.")] = None,
    letterbox: Annotated[str | None, typer.Option(help="center, topleft, stretch or crop.")] = None,
    pad_value: Annotated[int | None, typer.Option(help="Grey level of the padding.")] = None,
    crop: Annotated[float | None, typer.Option(help="Share of the shorter side that crop shows.")] = None,
    nms_iou: Annotated[str | None, typer.Option(help="0 to 1, or none where the graph does it.")] = None,
    input_size: Annotated[str | None, typer.Option(help="640x480, where the file leaves it free.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(help="An option of the family, as key=value; may be repeated.")
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Keep a link to the file, not a copy.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Replace the model of that name.")] = False,
) -> None:
    """Give a model file a name that works wherever --model does. It is opened and run once before.

    Example: framewire models add best.onnx --name helmets --labels helmet,head,person
    """
    given = {"family": family, "channels": channels, "letterbox": letterbox, "pad_value": pad_value,
             "crop": crop}  # fmt: skip
    card: dict[str, Any] = {field: value for field, value in given.items() if value is not None}
    if labels is not None:
        card["labels"] = _labels(labels)
    for field, text in (("mean", mean), ("std", std)):
        if text is not None:
            card[field] = _triple(text, field)
    if nms_iou is not None:
        card["nms_iou"] = None if nms_iou.lower() == "none" else _number(nms_iou, "--nms-iou")
    if input_size is not None:
        card |= _size(input_size)
    if option:
        card["options"] = dict(map(_option, option))
    from pipeline.models.added import add_model
    from pipeline.models.cards import card_of

    spec = add_model(file, name, card, link=link, replace=replace)
    said = card_of(added()[name])
    assumed = {"channels": spec.channels, "mean": spec.mean, "std": spec.std, "letterbox": spec.letterbox}
    words = [
        f"--{field} {value if isinstance(value, str) else ','.join(f'{one:g}' for one in value)}"
        for field, value in assumed.items()
        if field not in said
    ]
    if words:
        typer.echo(f"no graph says these, so what is usual is assumed: {' '.join(words)}", err=True)
    typer.echo(
        f"{name}: {spec.family}, {spec.input_width}x{spec.input_height}, {len(spec.labels)} classes; "
        f"use it as --model {name}"
    )


@app.command("remove")
def remove(names: Annotated[list[str], typer.Argument(help="Names that were given with `add`.")]) -> None:
    """Take out models that were added; of a linked one only the link goes.

    Example: framewire models remove helmets
    """
    from pipeline.models.added import remove_model

    for name in names:
        typer.echo(f"removed {remove_model(name)}")


def _row(model: KnownModel) -> dict[str, Any]:
    path = cached(model)
    state = model.origin if model.origin == "embedded" else "cached" if path else "-"
    return {
        "name": model.name,
        "aliases": [alias for alias, name in ALIASES.items() if name == model.name],
        "task": model.task,
        "family": model.family,
        "input": list(model.size),
        "bytes": model.bytes,
        "licence": model.licence,
        "state": state,
        "path": str(path) if path else None,
        "url": model.url or None,
        "sha256": model.sha256 or None,
        "note": model.note,
    }


def _added_row(name: str) -> dict[str, Any]:
    from pipeline.models.cards import card_of

    path = added()[name]
    note = f"link to {path.readlink()}" if path.is_symlink() else ""
    card: dict[str, Any] = {}
    try:
        card = card_of(path)
    except ModelError as error:
        note = error.message  # the others are listed all the same
    return {
        "name": name,
        "aliases": [],
        "task": "classify" if card.get("kind") == "classifier" else "detect",
        "family": card.get("family", ""),
        "input": [card["input_width"], card["input_height"]] if "input_width" in card else None,
        "bytes": path.stat().st_size if path.exists() else 0,
        "licence": None,
        "state": ("linked" if path.is_symlink() else "added") if path.exists() else "gone",
        "path": str(path),
        "url": None,
        "sha256": None,
        "note": note,
    }


def _inspected(model: str, device: str) -> tuple[dict[str, Any], ModelError | None]:
    # onnxruntime takes half a second to import; listing and pulling do without.
    from pipeline.models.base import is_fake, is_remote, prepare
    from pipeline.models.inspection import inspect_model

    if is_fake(model):
        raise ModelError(
            "the fake model has no file to look into", hint="it is run as fake, or with options as fake?ms=50"
        )
    if is_remote(model):
        raise ModelError(
            "a model on a server has no file to look into", hint="ask its server, or name a file"
        )
    with _bar(model) as report:
        prepare(model, progress=report)
    found = inspect_model(model, device)
    return found.report, found.problem


def _show(report: dict[str, Any]) -> None:
    """The report as a table; what is empty is left out."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for key, value in report.items():
        shown = _shown(key, value, report)
        if shown:
            table.add_row("card to write" if key == "cards" else key, escape(shown))
    console = Console()
    (console if console.is_terminal else Console(width=_WIDE)).print(table)


def _shown(key: str, value: Any, report: dict[str, Any]) -> str:
    """One entry of the report as text."""
    if value in (None, "", [], {}) or key in ("ranges", "kind"):
        return ""
    if key == "certainty":
        shown = f"{value['word']}, {value['confidence']:.0%}: {_SOURCES[value['source']]}"
    elif key == "outputs":
        ranges = {name: f": {low:g} to {high:g}" for name, (low, high) in report["ranges"].items()}
        # "NAME DTYPE [SIZES]"
        names = [line.rpartition(" [")[0].rpartition(" ")[0] for line in value]
        shown = "\n".join(line + ranges.get(name, "") for line, name in zip(value, names, strict=True))
    elif key == "candidates":
        shown = "\n".join(
            f"{one['family']} {one['confidence']:.0%} ({one['word']}): {one['why']}" for one in value
        )
    elif key == "labels":
        shown = f"{len(value)}: {', '.join(value[:6])}{', …' if len(value) > 6 else ''}"
    elif key == "assumed":
        shown = f"{', '.join(value)}: no graph says these; a card beside the file corrects them"
    elif isinstance(value, list):
        shown = "\n".join(str(one) for one in value)
    elif isinstance(value, dict):
        shown = ", ".join(f"{name} {_cut(str(one))}" for name, one in value.items())
    else:
        shown = str(value)
    return shown


def _cut(text: str) -> str:
    return (
        text if len(text) <= _MOST_TEXT else f"{text[:_MOST_TEXT]}… ({len(text)} characters; --json has all)"
    )


def _labels(text: str) -> list[str]:
    """Names of a file with one a line, or of a list with commas.

    Raises:
        ConfigError: there is no such file, or it is no text.
    """
    path = Path(text).expanduser()
    if "," not in text and (path.suffix or path.exists()):
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"--labels {text} cannot be read: {error}", hint="a text file with one name a line, or a,b,c"
            ) from error
        return [line.strip() for line in lines if line.strip()]
    return [part.strip() for part in text.split(",") if part.strip()]


def _number(text: str, option: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"{option} {text} is no number", hint=f"for example {option} 0.5") from error


def _triple(text: str, field: str) -> list[float]:
    numbers = [_number(part, f"--{field}") for part in text.split(",")]
    return numbers * 3 if len(numbers) == 1 else numbers


def _size(text: str) -> dict[str, int]:
    width, _, height = text.lower().partition("x")
    if not (width.isdecimal() and height.isdecimal()):
        raise ConfigError(f"--input-size {text} is no size", hint="for example --input-size 640x480")
    return {"input_width": int(width), "input_height": int(height)}


def _option(text: str) -> tuple[str, Any]:
    """``key=value``, the value as JSON where it is that."""
    key, found, value = text.partition("=")
    if not (key and found):
        raise ConfigError(f"--option {text} is not key=value", hint="for example --option scores=sigmoid")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


@contextmanager
def _bar(name: str) -> Iterator[Report]:
    """A progress bar on stderr that appears when the first bytes do."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=None, visible=False)

        def report(done: int, total: int) -> None:
            progress.update(task, completed=done, total=total, visible=True)

        yield report
