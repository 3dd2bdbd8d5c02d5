"""Precision over recall as a PNG picture, or as an HTML page that needs nothing else."""

from __future__ import annotations

import html
import io
import logging
from pathlib import Path
from typing import Any

from pipeline.errors import ConfigError, SinkError
from pipeline.tasks.coco_scores import Scores

__all__ = ["check_plot", "figure_class", "write_plot"]

_SUFFIXES = (".png", ".html")


def check_plot(path: Path) -> None:
    """Make sure that a plot can be written there, before the model runs for an hour.

    Raises:
        ConfigError: the name ends in neither .png nor .html, or matplotlib is not installed.
        SinkError: there is no such folder.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise ConfigError(f"--plot {path} is of no kind that is drawn", hint="end its name in .png or .html")
    if not path.parent.is_dir():
        raise SinkError(f"there is no folder {path.parent} for the plot", hint=f"mkdir -p {path.parent}")
    figure_class()


def write_plot(path: Path, scores: Scores, title: str) -> None:
    """Draw the curves of `Scores`.

    Args:
        path: File to write, ending in .png or .html; one that is there is replaced.
        scores: What was measured.
        title: Stands above them.

    Raises:
        ConfigError: the name ends otherwise, or matplotlib is not installed.
        SinkError: the file cannot be written.
    """
    check_plot(path)
    figure = _drawn(scores, title)
    drawn = io.BytesIO()
    if path.suffix.lower() == ".png":
        figure.savefig(drawn, format="png", dpi=120)
        data = drawn.getvalue()
    else:
        # Without the date, the same figures give the same bytes.
        figure.savefig(drawn, format="svg", metadata={"Date": None})
        picture = drawn.getvalue().decode("utf-8")
        data = _page(scores, title, picture[picture.index("<svg") :]).encode("utf-8")
    try:
        path.write_bytes(data)
    except OSError as error:
        raise SinkError(f"the plot {path} cannot be written: {error.strerror}") from error


def figure_class() -> Any:
    """Matplotlib's figure, without a window system or state.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    # The first import builds a list of fonts, and says so.
    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            "drawing a plot needs matplotlib, which is not installed", hint="pip install 'framewire[eval]'"
        ) from error
    return Figure


def _drawn(scores: Scores, title: str) -> Any:
    # A figure of its own and not pyplot: no window system, no state.
    figure = figure_class()(figsize=(7, 5), layout="constrained")
    axes = figure.add_subplot()
    for name, precision in scores.curves.items():
        axes.plot(scores.recall, precision, label=f"{name} (mean {precision.mean():.3f})")
    axes.set(xlabel="recall", ylabel="precision, mean over the classes", title=title)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(visible=True, alpha=0.3)
    axes.legend()
    return figure


def _page(scores: Scores, title: str, picture: str) -> str:
    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    summary = "".join(
        f"<tr><td>{name}</td><td>{shown(value)}</td></tr>" for name, value in scores.metrics.items()
    )
    classes = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{shown(one.ap)}</td><td>{shown(one.ap50)}</td>"
        f"<td>{one.objects}</td></tr>"
        for name, one in scores.per_class.items()
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f"<title>{html.escape(title)}</title><style>"
        "body{font-family:sans-serif;margin:2em;max-width:60em}"
        "table{border-collapse:collapse;margin:1em 0}"
        "td,th{padding:.2em 1em .2em 0;text-align:right}"
        "td:first-child,th:first-child{text-align:left}"
        "</style></head><body>"
        f"<h1>{html.escape(title)}</h1>\n{picture}\n"
        f"<table><tr><th>metric</th><th>value</th></tr>{summary}</table>\n"
        f"<table><tr><th>class</th><th>AP</th><th>AP50</th><th>objects</th></tr>{classes}</table>\n"
        "</body></html>\n"
    )
