"""What a person at the terminal sees of a run: progress while it goes, tables at its end."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console, Group
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from pipeline.runtime.run import Run
from pipeline.stages.base import STAGES

__all__ = ["Display", "summary_tables"]

_PLAIN_EVERY_S = 5.0
_PLAIN_RAREST_S = 600.0
_RATE_WINDOW_S = 2.0


class _Lines(logging.Handler):
    """Log records as lines above the progress bars."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        style = "bold red" if record.levelno >= logging.ERROR else "yellow"
        text = Text.assemble((f"{level}: ", style if record.levelno >= logging.WARNING else "dim"))
        self._console.print(text.append(self.format(record)), soft_wrap=True)


class Display:
    """Shows a run on stderr: bars on a terminal, a line now and then elsewhere.

    Args:
        quiet: Show only warnings and errors.
        verbose: Show what the workers log, too.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._quiet = quiet
        self._tasks: dict[str, TaskID] = {}
        self._rates: dict[str, list[tuple[float, int]]] = {}
        self._announced = False
        self._line_every_s = _PLAIN_EVERY_S
        self._next_line = time.monotonic() + _PLAIN_EVERY_S
        self._dead = False
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[count]}"),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )
        level = logging.INFO if verbose else logging.WARNING
        logging.basicConfig(level=level, handlers=[_Lines(self._console)], force=True)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show progress within the block."""
        with self._progress:
            yield

    def hang_up(self) -> None:
        """The terminal has gone: write nothing more to it."""
        self._dead = True
        logging.disable(logging.CRITICAL)

    def say(self, text: str, style: str = "") -> None:
        """One line, unless quiet."""
        if not self._quiet and not self._dead:
            self._console.print(Text(text, style=style))

    def tick(self, run: Run) -> None:
        """Show where the run is; called about ten times a second."""
        if self._quiet or self._dead:
            return
        spec = run.supervisor.outcome.spec
        if run.supervisor.running and not self._announced and spec is not None:
            self._announced = True
            size = f"{spec.input_width}x{spec.input_height}"
            threads = f", {run.threads}" if spec.provider == "CPUExecutionProvider" else ""
            self.say(f"model {spec.name} ({spec.family} {size}) on {spec.provider}{threads}", "dim")
        now = time.monotonic()
        lines = []
        for at in run.progress():
            rate = self._rate(at.source, now, at.published)
            count = f"{at.published}/{at.expected}" if at.expected else str(at.published)
            dropped = f", {at.dropped} dropped" if at.dropped else ""
            shown: dict[str, Any] = {"count": f"{count} frames{dropped}", "rate": f"{rate:.1f} fps"}
            if at.source not in self._tasks:
                self._tasks[at.source] = self._progress.add_task(at.source, total=None, **shown)
            at_work = "starting" if not run.supervisor.running else at.state
            state = at.source if at_work == "running" else f"{at.source} ({at_work})"
            self._progress.update(
                self._tasks[at.source],
                description=state,
                completed=at.published,
                total=max(at.expected, at.published) or None,
                **shown,
            )
            lines.append(f"{state}: {shown['count']}, {shown['rate']}")
        if not self._console.is_terminal and now >= self._next_line:
            self._next_line = now + self._line_every_s
            if not all(at.expected for at in run.progress()):
                # A camera runs for months: its log shall not be full of this.
                self._line_every_s = min(1.5 * self._line_every_s, _PLAIN_RAREST_S)
            self.say("; ".join(lines))

    def _rate(self, source: str, now: float, published: int) -> float:
        stamps = self._rates.setdefault(source, [])
        stamps.append((now, published))
        while len(stamps) > 2 and now - stamps[0][0] > _RATE_WINDOW_S:
            stamps.pop(0)
        (began, first), (end, last) = stamps[0], stamps[-1]
        return (last - first) / (end - began) if end > began else 0.0


def _counts(counts: dict[str, int], between: str = ", ") -> str:
    return between.join(f"{name} {count}" for name, count in counts.items()) or "-"


def summary_tables(summary: dict[str, Any]) -> Group:
    """The tables at the end of a run.

    Args:
        summary: The content of ``summary.json``.
    """
    books = Table(
        Column("source", overflow="fold"),
        "state",
        "decoded",
        Column("dropped", no_wrap=True),
        "admitted",
        Column("lost", no_wrap=True),
        "published",
        "fps",
    )
    for name, source in summary["sources"].items():
        books.add_row(
            name,
            source["state"],
            str(source["decoded"]),
            _counts(source["dropped"], "\n"),
            str(source["admitted"]),
            _counts(source["lost"], "\n"),
            str(source["published"]) + (f" ({source['failed']} failed)" if source["failed"] else ""),
            f"{source['fps']:.1f}",
        )
    times = Table("stage", "wait p50", "p95", "p99", "service p50", "p95", "p99", title="latency, ms")
    for stage in (*STAGES, "total"):
        entry = summary["latency_ms"].get(stage)
        if entry is None:
            continue
        waits = [f"{entry.get('wait', {}).get(p, 0):.1f}" for p in ("p50", "p95", "p99")]
        times.add_row(
            "capture to publish" if stage == "total" else stage,
            *(waits if stage != "total" else [""] * 3),
            *(f"{entry[p]:.1f}" for p in ("p50", "p95", "p99")),
        )
    balance = "books balance" if summary["books_balance"] else "BOOKS DO NOT BALANCE"
    lines = [
        f"{balance}: decoded = admitted + dropped, admitted = published + lost",
        f"objects by label: {_counts(summary['objects'])}",
    ]
    for name, source in summary["sources"].items():
        for line, ways in source.get("lines", {}).items():
            lines.append(f"{name}, line {line}: {_counts(ways)}")
        if "zones" in source:
            lines.append(f"{name}, zones entered: {_counts(source['zones'])}")
    if summary["restarts"]:
        lines.append(f"restarted: {_counts(summary['restarts'])}")
    parts: list[Any] = [books]
    if times.row_count:
        parts.append(times)
    parts += [Text(line) for line in lines]
    parts += [Text(f"wrote {file}") for file in summary["files"]]
    return Group(*parts)
