"""The ``framewire`` command. Only here are exit codes decided and errors printed.

A sub-command's module is imported when that command is asked for, so ``framewire --help`` stays quick.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from pipeline import __version__
from pipeline.errors import FramewireError

__all__ = ["COMMANDS", "main"]

#: Every sub-command: where it lives (a function, or a Typer of its own) and what it does.
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("pipeline.cli.run:run", "Run the pipeline on files, folders or streams."),
    "demo": ("pipeline.cli.demo:demo", "Run the pipeline on the sample clip."),
    "classify": ("pipeline.cli.images:classify", "Say what whole pictures show."),
    "localize": ("pipeline.cli.images:localize", "Find the one main object of each picture."),
    "detect": ("pipeline.cli.images:detect", "Find all objects of each picture."),
    "tag": ("pipeline.cli.images:tag", "Print what is in a picture as JSON."),
    "serve": ("pipeline.cli.serve:serve", "Answer HTTP requests with tags, objects and classes."),
    "listen": ("pipeline.cli.listen:listen", "Print what a running pipeline publishes."),
    "models": ("pipeline.cli.models:app", "List, fetch and inspect models."),
    "eval": ("pipeline.cli.evaluate:app", "Measure accuracy against truth."),
    "sources": ("pipeline.cli.sources:app", "Find, judge, list, add and remove sources."),
    "keys": ("pipeline.cli.keys:app", "Make, list and revoke keys of those who may subscribe."),
    "reload": ("pipeline.cli.live:reload", "Have a run read its config file again."),
    "validate": ("pipeline.cli.validate:validate", "Check a config without starting anything."),
    "graph": ("pipeline.cli.graph:graph", "Show the processes of a run and how they are joined."),
    "doctor": ("pipeline.cli.doctor:doctor", "Show what this machine has, lacks, and how to get it."),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; ``sys.argv`` when None.

    Returns:
        The exit code: 0 all well, 1 something else, 2 wrong usage or config, 130 interrupted, and the
        codes drawn in `pipeline.errors`.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        _hide_secrets(args)
    try:
        _build(next((arg for arg in args if not arg.startswith("-")), ""))(args, prog_name="framewire")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except FramewireError as error:
        _show(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _hide_secrets(args: list[str]) -> None:
    """Take what a URL holds of passwords out of the list of processes, where every user can read it."""
    if any("://" in arg or "=" in arg for arg in args):
        import setproctitle

        from pipeline.config import redacted_argv

        shown = redacted_argv(args)
        if shown != args:
            setproctitle.setproctitle(" ".join(["framewire", *shown]))


def _build(wanted: str) -> typer.Typer:
    """The app, with the wanted command in full and the others by name only."""
    app = typer.Typer(
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        callback=_top,
        help="Real-time video analytics: camera feeds and recordings in, tracked detection events out."
        "\n\nExample: framewire run street.mp4 --out out/street --annotate",
    )
    for name, (target, summary) in COMMANDS.items():
        if name != wanted:
            app.command(name, help=summary)(_by_name_only)
            continue
        module, _, attribute = target.partition(":")
        command = getattr(import_module(module), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name, short_help=summary)
        else:
            app.command(name)(command)
    return app


def _by_name_only() -> None:
    """Stands in the list of commands; `_build` puts the real one in its place when it is called."""


def _print_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"framewire {__version__}\n")
        raise typer.Exit


def _top(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options before the command."""


def _show(error: FramewireError) -> None:
    """One error, and what to do about it, on stderr; colours only on a terminal."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    text = str(error).removesuffix(f"\n  -> {error.hint}") if error.hint else str(error)
    console.print(Text.assemble(("error: ", "bold red"), text))
    if error.hint:
        console.print(Text.assemble(("  -> ", "bold"), error.hint))
