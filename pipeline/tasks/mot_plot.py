"""Scores of trackers as one HTML page that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SinkError
from pipeline.tasks.coco_plot import figure_class
from pipeline.tasks.mot_scores import METRICS, MotScores

__all__ = ["write_report"]

_ALPHAS = np.arange(0.05, 0.99, 0.05)
_COUNTS = METRICS[METRICS.index("FP") :]
#: Rows of a timeline; more cannot be told from each other.
_MOST_TRACKS = 60


def write_report(
    path: Path,
    scores: Mapping[str, tuple[MotScores, Mapping[str, MotScores]]],
    results: Mapping[str, Mapping[str, NDArray[np.float64]]],
) -> None:
    """Write the page.

    Args:
        path: The file.
        scores: By tracker: of all sequences together, and of each.
        results: By tracker and sequence: rows of `pipeline.tasks.mot`.

    Raises:
        SinkError: it cannot be written.
        ConfigError: matplotlib is not installed.
    """
    parts = [
        "<h1>Multi-object tracking</h1>",
        _table({name: one[0] for name, one in scores.items()}, "tracker"),
    ]
    parts.append(_image(_curves(scores)))
    parts.append(_image(_bars(scores)))
    for tracker, (_, each) in scores.items():
        parts += [f"<h2>{html.escape(tracker)}</h2>", _table(each, "sequence")]
        parts += [_image(_timeline(name, rows)) for name, rows in results[tracker].items()]
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Multi-object tracking</title>'
        "<style>body{font-family:sans-serif;margin:2em}img{max-width:100%}"
        "table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em .2em 0;text-align:right}"
        "td:first-child,th:first-child{text-align:left}"
        f"</style></head><body>{''.join(parts)}</body></html>\n"
    )
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise SinkError(f"cannot write {path}: {error.strerror}", hint="choose another file") from error


def _table(scores: Mapping[str, MotScores], what: str) -> str:
    head = "".join(f"<th>{name}</th>" for name in METRICS)
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td>"
        + "".join(
            f"<td>{one.values[metric]:.0f}</td>"
            if metric in _COUNTS
            else f"<td>{100 * one.values[metric]:.1f}</td>"
            for metric in METRICS
        )
        + "</tr>"
        for name, one in scores.items()
    )
    return f"<table><tr><th>{what}</th>{head}</tr>{rows}</table>"


def _curves(scores: Mapping[str, tuple[MotScores, Mapping[str, MotScores]]]) -> Any:
    figure = figure_class()(figsize=(11, 3.6), layout="constrained")
    for axes, metric in zip(figure.subplots(1, 3, sharey=True), ("HOTA", "DetA", "AssA"), strict=True):
        for name, (total, _) in scores.items():
            axes.plot(_ALPHAS, total.curves[metric], label=name)
        axes.set(title=metric, xlabel="localisation threshold", xlim=(0, 1), ylim=(0, 1))
        axes.grid(visible=True, alpha=0.3)
    axes.legend()
    return figure


def _bars(scores: Mapping[str, tuple[MotScores, Mapping[str, MotScores]]]) -> Any:
    names = list(next(iter(scores.values()))[1])
    figure = figure_class()(figsize=(11, 3.6), layout="constrained")
    width = 0.8 / len(scores)
    for axes, metric in zip(figure.subplots(1, 2, sharey=True), ("HOTA", "IDF1"), strict=True):
        for at, (tracker, (_, each)) in enumerate(scores.items()):
            places = np.arange(len(names)) + (at + 0.5) * width - 0.4
            axes.bar(places, [each[name].values[metric] for name in names], width, label=tracker)
        axes.set(title=metric, ylim=(0, 1))
        axes.set_xticks(np.arange(len(names)), names, rotation=30, ha="right", fontsize=8)
    axes.legend()
    return figure


def _timeline(name: str, rows: NDArray[np.float64]) -> Any:
    """When each track was seen: gaps and short lives show where identities are lost."""
    figure = figure_class()(figsize=(11, 3), layout="constrained")
    axes = figure.add_subplot()
    ids, counts = np.unique(rows[:, 1], return_counts=True)
    shown = np.sort(ids[np.argsort(-counts)[:_MOST_TRACKS]])
    for at, track_id in enumerate(shown):
        frames = rows[rows[:, 1] == track_id, 0]
        axes.plot(frames, np.full(len(frames), at), ".", markersize=2)
    left = f", the {len(shown)} longest" if len(shown) < len(ids) else ""
    axes.set(title=f"{name}: {len(ids)} tracks{left}", xlabel="frame", ylabel="track", yticks=[])
    return figure


def _image(figure: Any) -> str:
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=90)
    return f'<p><img alt="" src="data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"></p>'
