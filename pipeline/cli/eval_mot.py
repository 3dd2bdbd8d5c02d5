"""``framewire eval mot``: how well objects keep their identity, on annotated sequences."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from pipeline.errors import ConfigError, SourceNotFoundError

if TYPE_CHECKING:
    from pipeline.messages import Detections
    from pipeline.tasks.mot import MotSequence
    from pipeline.tasks.mot_scores import MotScores

__all__ = ["mot"]

_TRACKERS = ("sort", "bytetrack", "ocsort", "botsort")
#: What a terminal shows; `--json` and the report have all.
_SHOWN = ("HOTA", "DetA", "AssA", "MOTA", "IDF1", "IDSW", "FP", "FN", "MT", "ML")


def mot(
    gt: Annotated[
        Path, typer.Option(metavar="DIR", help="Sequences in MOTChallenge's layout, or one of them.")
    ],
    det: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Track stored detections: SEQ/det/*.txt or SEQ.txt.")
    ] = None,
    video: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Detect and track in the video of the one sequence.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Only score results: SEQ.txt for each sequence.")
    ] = None,
    tracker: Annotated[
        list[str] | None, typer.Option(help="sort, bytetrack, ocsort or botsort; may be given several times.")
    ] = None,
    model: Annotated[
        str, typer.Option(help="For --video: name from `models list`, or an ONNX file.")
    ] = "default",
    classes: Annotated[str, typer.Option(help="For --video: labels of what is tracked.")] = "person",
    confidence: Annotated[float, typer.Option(min=0.0, max=1.0, help="Leave out detections below it.")] = 0.0,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a report with plots, HTML.")] = None,
    write: Annotated[Path | None, typer.Option(metavar="DIR", help="Write results as SEQ.txt.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")] = False,
) -> None:
    """HOTA, MOTA, IDF1 and identity switches of trackers against MOTChallenge truth (needs the extra `eval`).

    Scores are those of TrackEval, which from MOT16 on leaves results on distractors out.

    Example: framewire eval mot --gt MOT15/train --det MOT15/train --tracker bytetrack --tracker botsort
    """
    from pipeline.tasks.mot import find_sequences, read_rows, write_rows
    from pipeline.tasks.mot_scores import need_mot_scorer, score_mot

    names = _wanted(det, video, results, tracker)
    need_mot_scorer()
    if out is not None:
        from pipeline.tasks.coco_plot import figure_class

        figure_class()
    sequences = {one.name: one for one in find_sequences(gt)}
    found: dict[str, dict[str, Any]] = {}
    if results is not None:
        found["results"] = {name: read_rows(results / f"{name}.txt") for name in sequences}
    else:
        frames = _from_video(video, sequences, model, classes, confidence) if video is not None else None
        with _bar("tracking", len(names) * len(sequences)) as done:
            for name in names:
                found[name] = {}
                for key, sequence in sequences.items():
                    given = frames or _stored(det or gt, sequence, confidence)
                    found[name][key] = _tracked(name, given, sequence)
                    done()
    scores = {name: score_mot(sequences, rows) for name, rows in found.items()}
    for name, each in found.items() if write is not None else ():
        assert write is not None
        for key, rows in each.items():
            write_rows((write / name if len(found) > 1 else write) / f"{key}.txt", rows)
    if out is not None:
        from pipeline.tasks.mot_plot import write_report

        write_report(out, scores, found)
        typer.echo(f"wrote {out}", err=True)
    if as_json:
        plain = {name: _plain(*one) for name, one in scores.items()}
        document = next(iter(plain.values())) if len(plain) == 1 else {"trackers": plain}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return
    for name, (total, each) in scores.items():
        _show(name, total, each)


def _wanted(
    det: Path | None, video: Path | None, results: Path | None, trackers: list[str] | None
) -> list[str]:
    """The trackers that are asked for.

    Raises:
        ConfigError: the options do not go together.
    """
    if sum(given is not None for given in (det, video, results)) != 1:
        raise ConfigError(
            "eval mot scores one thing", hint="give one of --det DIR, --video FILE and --results DIR"
        )
    if results is not None and trackers:
        raise ConfigError("--results has been tracked already", hint="leave --tracker out, or give --det")
    return [_known(name) for name in trackers or ["bytetrack"]]


def _known(name: str) -> str:
    if name not in _TRACKERS:
        near = get_close_matches(name, _TRACKERS, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_TRACKERS)}"
        raise ConfigError(f"there is no tracker {name!r}", hint=hint)
    return name


def _stored(root: Path, sequence: MotSequence, confidence: float) -> list[Detections]:
    from pipeline.tasks.mot import detections_by_frame, read_rows

    folders = (root / sequence.name / "det", root / "det")
    files = [file for folder in folders for file in sorted(folder.glob("*.txt"))] or [
        root / f"{sequence.name}.txt"
    ]
    if len(files) > 1:
        raise ConfigError(
            f"{sequence.name} has several files of detections: {', '.join(file.name for file in files)}",
            hint=f"put the one that is meant into a folder of its own, as {sequence.name}.txt",
        )
    if not files[0].is_file():
        raise SourceNotFoundError(
            f"there are no detections of {sequence.name} in {root}", hint=f"it needs {folders[0]}/det.txt"
        )
    return detections_by_frame(read_rows(files[0]), sequence.length, confidence)


def _from_video(
    video: Path, sequences: dict[str, MotSequence], model: str, classes: str, confidence: float
) -> list[Detections]:
    """What the model sees in each frame; for the trackers all objects are of one class, as in the truth."""
    import numpy as np

    from pipeline.messages import Detections
    from pipeline.sources import build_source
    from pipeline.tasks.analyzer import Analyzer

    if len(sequences) != 1:
        raise ConfigError(f"--gt has {len(sequences)} sequences, the video is of one", hint="name its folder")
    (sequence,) = sequences.values()
    labels = [label.strip() for label in classes.split(",")]
    frames: list[Detections] = []
    source = build_source(video.stem, str(video), pixels="exact")
    with Analyzer(model, task="detect", confidence=confidence or 0.3, classes=labels) as analyzer:
        source.open()
        try:
            with _bar(video.name, sequence.length) as done:
                while (picture := source.read()) is not None:
                    seen = analyzer.read(np.asarray(picture.planes[0])).detections
                    frames.append(Detections(seen.boxes_xyxy, seen.scores, np.zeros(len(seen))))
                    done()
        finally:
            source.close()
    if len(frames) != sequence.length:
        raise ConfigError(
            f"{video.name} has {len(frames)} frames, {sequence.name} {sequence.length}",
            hint="the truth is of another video, or of another frame rate",
        )
    return frames


def _tracked(name: str, frames: list[Detections], sequence: MotSequence) -> Any:
    from pipeline.tasks.mot import track_detections
    from pipeline.tracking import build_tracker

    return track_detections(frames, sequence.frame_rate, build_tracker(name))


def _plain(total: MotScores, each: dict[str, MotScores]) -> dict[str, Any]:
    def values(one: MotScores) -> dict[str, float]:
        return {
            name: int(value) if value.is_integer() and value > 1 else value
            for name, value in one.values.items()
        }

    return {**values(total), "per_sequence": {name: values(one) for name, one in each.items()}}


def _show(name: str, total: MotScores, each: dict[str, MotScores]) -> None:
    table = Table(name, box=None, pad_edge=False, header_style="bold")
    for metric in _SHOWN:
        table.add_column(metric, justify="right")
    rows = {**each, "COMBINED": total} if len(each) > 1 else each
    for key, one in rows.items():
        cells = [
            f"{one.values[metric]:.0f}" if metric in _SHOWN[5:] else f"{100 * one.values[metric]:.1f}"
            for metric in _SHOWN
        ]
        table.add_row(key, *cells, style="bold" if key == "COMBINED" else None)
    Console(width=110 if not sys.stdout.isatty() else None).print(table)


@contextmanager
def _bar(name: str, total: int) -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=total)
        yield lambda: progress.advance(task)
