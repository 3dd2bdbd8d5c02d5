"""``framewire eval``: how accurate a model is on annotated pictures, through the same code as a run."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from pipeline.cli.eval_mot import mot

if TYPE_CHECKING:
    from pipeline.messages import ModelSpec
    from pipeline.tasks.coco import Match
    from pipeline.tasks.coco_scores import Scores

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True)
app.command("mot")(mot)

_SHOWN = 12


@app.callback()
def _several() -> None:
    """Measure accuracy against truth.

    Example: framewire eval coco --images val2017 --annotations instances_val2017.json
    """


@app.command("coco")
def coco(
    images: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the pictures.")],
    annotations: Annotated[Path, typer.Option(metavar="FILE", help="COCO JSON: instances_val2017.json.")],
    model: Annotated[str, typer.Option(help="Name from `models list`, or an ONNX file.")] = "default",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, tensorrt or openvino.")] = "auto",
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many pictures, the first ones.")] = None,
    confidence: Annotated[float, typer.Option(min=0.0, max=1.0, help="Leave out what scores less.")] = 0.01,
    nms_iou: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Instead of the model's own threshold.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw precision over recall: a .png or an .html.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")] = False,
) -> None:
    """Average precision of a detector on COCO annotations, by pycocotools (needs the extra `eval`).

    The model's labels and the annotations' categories are matched by name. The confidence of 0.01 is that
    of YOLOX's own evaluation: average precision wants the weak detections, too, where a run leaves them out.

    Example: framewire eval coco --images val2017 --annotations instances_val2017.json --limit 500
    """
    from pipeline.tasks.analyzer import Analyzer
    from pipeline.tasks.coco import load_truth, match_labels
    from pipeline.tasks.coco_plot import check_plot, write_plot
    from pipeline.tasks.coco_scores import coco_rows, detect_all, need_scorer, score

    need_scorer()
    if plot is not None:
        check_plot(plot)
    truth = load_truth(annotations, images, limit)
    analyzer = Analyzer(model, device=device, task="detect", confidence=confidence, nms_iou=nms_iou)
    with analyzer:
        spec = analyzer.spec
        match = match_labels(spec.labels, truth, spec.name)
        _tell_mismatch(match)
        started = time.monotonic()
        with _bar(spec.name, len(truth.pictures)) as done:
            found = detect_all(truth.pictures, analyzer.read, done)
        each_ms = 1e3 * (time.monotonic() - started) / len(truth.pictures)
    scores = score(truth, coco_rows(found, match), match)
    if plot is not None:
        write_plot(plot, scores, f"{spec.name} on {len(truth.pictures)} pictures of {annotations.name}")
    facts = {
        "images": len(truth.pictures),
        "ms_per_image": round(each_ms, 2),
        "confidence": confidence,
        "nms_iou": spec.nms_iou if nms_iou is None else nms_iou,
    }
    if as_json:
        sys.stdout.write(json.dumps(_report(spec, match, scores, facts), indent=2) + "\n")
        return
    _show(spec, scores, facts)
    if plot is not None:
        typer.echo(f"wrote {plot}", err=True)


def _tell_mismatch(match: Match) -> None:
    """Say loudly what is not measured."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    for names, what in (
        (match.only_truth, "of the annotations' categories are unknown to the model and NOT measured"),
        (match.only_model, "of the model's labels are no category of the annotations and NOT measured"),
    ):
        if names:
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            listed = ", ".join(names[:_SHOWN]) + more
            console.print(Text.assemble(("warning: ", "bold yellow"), f"{len(names)} {what}: {listed}"))


@contextmanager
def _bar(name: str, total: int) -> Iterator[Any]:
    """A progress bar on stderr; what it gives is called once a picture."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=total)
        yield lambda: progress.advance(task)


def _report(spec: ModelSpec, match: Match, scores: Scores, facts: dict[str, Any]) -> dict[str, Any]:
    return {
        **scores.metrics,
        "per_class": {
            name: {"AP": one.ap, "AP50": one.ap50, "objects": one.objects}
            for name, one in scores.per_class.items()
        },
        "model": {
            "name": spec.name,
            "sha256": spec.sha256,
            "family": spec.family,
            "input": [spec.input_width, spec.input_height],
        },
        "provider": spec.provider,
        "detections": scores.detections,
        **facts,
        "not_in_model": list(match.only_truth),
        "not_in_annotations": list(match.only_model),
    }


def _show(spec: ModelSpec, scores: Scores, facts: dict[str, Any]) -> None:
    def shown(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    console = Console()
    size = f"{spec.input_width}x{spec.input_height}"
    iou = "in the graph" if facts["nms_iou"] is None else facts["nms_iou"]
    console.print(
        f"{spec.name} ({spec.family} {size}) on {spec.provider}: {facts['images']} pictures, "
        f"{facts['ms_per_image']:.1f} ms each, {scores.detections} detections from confidence "
        f"{facts['confidence']}, NMS {iou}",
        markup=False,
        highlight=False,
    )
    classes = Table("class", box=None, pad_edge=False, header_style="bold")
    for name in ("AP", "AP50", "objects"):
        classes.add_column(name, justify="right")
    for name, one in scores.per_class.items():
        if one.objects:
            classes.add_row(Text(name), shown(one.ap), shown(one.ap50), str(one.objects))
    console.print(classes)
    # Two rows of six: twelve columns do not fit a terminal.
    names, half = list(scores.metrics), len(scores.metrics) // 2
    for part in (names[:half], names[half:]):
        metrics = Table(box=None, pad_edge=False, header_style="bold")
        for name in part:
            metrics.add_column(name, justify="right", min_width=6)
        metrics.add_row(*(shown(scores.metrics[name]) for name in part))
        console.print(metrics)
