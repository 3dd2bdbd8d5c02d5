"""``framewire validate``: check a config and say what it means, without starting anything."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.config import Config, InvalidConfigError, load, redact
from pipeline.errors import ConfigError

__all__ = ["rows", "validate"]


def validate(
    file: Annotated[Path | None, typer.Argument(help="The config file.", show_default=False)] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="The config file.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a config file and print what it means; nothing is started, opened or fetched.

    Exit code 0 when it is good, 2 when it is not.

    Example: framewire validate configs/demo.yaml
    """
    path = config or file
    if path is None or (config is not None and file is not None):
        raise ConfigError("validate takes one config file", hint="type: framewire validate configs/demo.yaml")
    if as_json:
        _as_json(path)
        return
    found = load(path)
    console = Console(highlight=False, soft_wrap=True)
    console.print(Text.assemble((f"{path}: OK", "bold green")))
    table = Table(box=None, show_header=False, pad_edge=False)
    for key, value in rows(found):
        table.add_row(Text(key, style="cyan"), Text(value))
    console.print(table)
    if not found.sources:
        console.print(Text("No sources: give them to `framewire run`, or add `sources:`.", style="yellow"))


def rows(config: Config) -> list[tuple[str, str]]:
    """Every value in force, defaults included, as (key, text); credentials are masked."""
    return _flatten("", config.model_dump(mode="json", by_alias=True))


def _flatten(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, dict) and value:
        below = [(f"{prefix}.{key}" if prefix else key, item) for key, item in value.items()]
    elif _points(value):
        return [(prefix, " ".join(f"({x:g}, {y:g})" for x, y in value))]
    elif isinstance(value, list) and value and isinstance(value[0], dict | list):
        below = [(f"{prefix}[{index}]", item) for index, item in enumerate(value)]
    else:
        return [(prefix, _text(value))]
    return [row for key, item in below for row in _flatten(key, item)]


def _points(value: Any) -> bool:
    """Whether it is a polygon, which reads better in one row."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(
            isinstance(one, list) and len(one) == 2 and all(isinstance(side, float) for side in one)
            for one in value
        )
    )


def _text(value: Any) -> str:
    if value is None or value in ([], {}):
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return redact(", ".join(str(item) for item in value))
    return redact(str(value))


def _as_json(path: Path) -> None:
    """One object on stdout: ``ok``, and the config or the errors."""
    try:
        config = load(path)
    except ConfigError as error:
        problems = error.problems if isinstance(error, InvalidConfigError) else ()
        errors = [{"where": p.where, "key": p.key, "text": p.text, "hint": p.hint} for p in problems]
        errors = errors or [{"where": str(path), "key": "", "text": error.message, "hint": error.hint}]
        _write({"ok": False, "file": str(path), "errors": errors})
        raise typer.Exit(error.exit_code) from error
    plain = config.model_dump(mode="json", by_alias=True)
    _write({"ok": True, "file": str(path), "config": _masked(plain)})


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _masked(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(item) for item in value]
    return redact(value) if isinstance(value, str) else value


def _write(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
