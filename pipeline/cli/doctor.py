"""``framewire doctor``: what this machine has, what it lacks, and what to type to get it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipeline.cli.checks import Check, run_checks

__all__ = ["doctor", "verdict"]

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show what this machine has for a pipeline, what is missing, and what to install.

    Exit code 0 when a pipeline can run, warnings or not; 1 when something that it needs is missing.

    Example: framewire doctor
    """
    checks = run_checks()
    if as_json:
        found = {"ok": verdict(checks) == 0, "checks": [asdict(check) for check in checks]}
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    else:
        _print(checks)
    raise typer.Exit(verdict(checks))


def verdict(checks: list[Check]) -> int:
    """The exit code that the findings deserve."""
    return int(any(check.verdict == "fail" for check in checks))


def _print(checks: list[Check]) -> None:
    console = Console(highlight=False)
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        text = Text(check.text)
        if check.hint:
            text.append(f"\n-> {check.hint}", style="bold")
        table.add_row(Text(check.verdict, style=_STYLES[check.verdict]), Text(check.name), text)
    console.print(table)
    failed = [check.name for check in checks if check.verdict == "fail"]
    if failed:
        console.print(Text(f"A pipeline cannot run here yet: {', '.join(failed)}.", style="bold red"))
    else:
        console.print(Text("A pipeline can run here.", style="green"))
