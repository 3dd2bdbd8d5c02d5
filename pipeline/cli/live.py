"""``framewire sources list|add|remove`` and ``framewire reload``: commands to a run that goes on."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.config import expand
from pipeline.config.document import parse
from pipeline.errors import ConfigError
from pipeline.runtime.admin import ask, find_run

__all__ = ["add", "list_sources", "reload", "remove"]

_Run = Annotated[str, typer.Option("--run", help="Id of a run, or how it begins; needed when several go on.")]
_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead, for programs.")]

_COLUMNS = ("source", "state", "for", "size", "decoded", "dropped", "published", "camera's clock")
_NUMBERS = ("for", "decoded", "dropped", "published", "camera's clock")
_STYLES = {"running": "green", "stalled": "yellow", "reconnecting": "yellow", "failed": "red"}


def list_sources(run: _Run = "", as_json: _AsJson = False) -> None:
    """The sources of a run that goes on: their state, why, and their books.

    What was dropped for which cause, lost or skipped is shown with --json.

    Example: framewire sources list
    """
    rows: list[dict[str, Any]] = ask(find_run(run), {"do": "list"})["sources"]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in _COLUMNS:
        table.add_column(name, justify="right" if name in _NUMBERS else "left", no_wrap=True)
    for row in rows:
        table.add_row(
            Text(row["source"]),
            Text(row["state"], style=_STYLES.get(row["state"], "")),
            _duration(row["since_s"]),
            f"{row['width']}x{row['height']}" if row["width"] else "-",
            str(row["decoded"]),
            str(sum(row["dropped"].values())),
            str(row["published"]),
            f"{row['clock_offset_s']:+.3f} s" if "clock_offset_s" in row else "-",
        )
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    for row in rows:
        if row.get("message"):
            console.print(Text.assemble((row["source"], "bold"), f": {row['message']}"))


def add(
    name: Annotated[str, typer.Argument(help="Name of the new source.")],
    url: Annotated[str, typer.Argument(help="Path or URL; ${NAME} is taken from the environment.")],
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="A key of the source, as in a config: max_fps=10. May be repeated."),
    ] = None,
    run: _Run = "",
) -> None:
    """Read one more source in a run that goes on; the others are not touched.

    Example: framewire sources add yard 'rtsp://viewer:${YARD_PASSWORD}@10.0.0.8/stream1' --set max_fps=10
    """
    source: dict[str, Any] = {"url": expand(url, os.environ)}
    for text in setting or ():
        key, equals, value = text.partition("=")
        if not equals:
            raise ConfigError(f"--set {text} has no value", hint="write it as --set max_fps=10")
        source |= parse(f"{key}: {value}", f"--set {key}").data
    ask(find_run(run), {"do": "add", "name": name, "source": source})
    typer.echo(f"{name} is being connected; see: framewire sources list", err=True)


def remove(
    name: Annotated[str, typer.Argument(help="Name of the source.")],
    run: _Run = "",
) -> None:
    """Read a source no more; frames under way are finished, the other sources are not touched.

    Example: framewire sources remove yard
    """
    ask(find_run(run), {"do": "remove", "name": name})
    typer.echo(f"{name} is being removed", err=True)


def reload(run: _Run = "") -> None:
    """Have a run read its config file again: sources come, go and change without a hiccup on the others.

    Zones, lines, masks and ground hold at once, and nobody loses a track by it. What else has changed is
    named, and takes a restart.

    Example: framewire reload
    """
    done = ask(find_run(run), {"do": "reload"})
    for what in ("added", "removed", "changed", "redrawn"):
        if done[what]:
            typer.echo(f"{what}: {', '.join(done[what])}")
    if done["restart"]:
        typer.echo(f"takes a restart: {', '.join(done['restart'])}")
    if not any(done[what] for what in ("added", "removed", "changed", "redrawn", "restart")):
        typer.echo("nothing has changed")


def _duration(seconds: float) -> str:
    """Seconds as a person reads them: 42 s, 5 min, 3 h, 12 d."""
    for limit, length, unit in ((120, 1, "s"), (7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"
