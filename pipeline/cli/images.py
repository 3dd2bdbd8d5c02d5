"""``framewire classify``, ``localize``, ``detect`` and ``tag``: pictures in this process, videos in a run."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from pipeline.errors import SourceError
from pipeline.messages import ModelSpec, Task
from pipeline.sources.images import decode_image
from pipeline.sources.locate import IMAGE_SUFFIXES, check_source, image_files, local_path
from pipeline.tasks.analyzer import Analyzer
from pipeline.tasks.reading import Found
from pipeline.tasks.records import failed_record, picture_record

__all__ = ["classify", "detect", "localize", "tag"]

#: What a task takes without --model, where it is not `default`.
_DEFAULT = {"classify": "default-classifier"}

_Sources = Annotated[
    list[str],
    typer.Argument(metavar="SOURCE...", help="Images and folders of images; videos and cameras too."),
]
_Model = Annotated[str | None, typer.Option(help="Name from `models list`, or an ONNX file.")]
_Device = Annotated[str, typer.Option(help="auto, cpu, cuda, tensorrt or openvino.")]
_Confidence = Annotated[float, typer.Option(min=0.0, max=1.0, help="Leave out what scores less.")]
_Classes = Annotated[str | None, typer.Option(help="Only these labels: person,car")]
_TopK = Annotated[
    int, typer.Option("--top-k", min=1, max=1000, help="Most classes of one picture, of a classifier.")
]
_AsJson = Annotated[bool, typer.Option("--json", help="One JSON object per picture, and nothing else.")]
_Draw = Annotated[Path | None, typer.Option(metavar="DIR", help="Write annotated copies into this folder.")]
_Recursive = Annotated[bool, typer.Option("--recursive", "-r", help="Look into subfolders, too.")]
_Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")]


def classify(
    sources: _Sources,
    model: _Model = None,
    device: _Device = "auto",
    top_k: _TopK = 5,
    classes: _Classes = None,
    as_json: _AsJson = False,
    draw: _Draw = None,
    recursive: _Recursive = False,
    quiet: _Quiet = False,
) -> None:
    """Say what whole pictures show: the best classes with their scores.

    Exit code 0, or 1 when a picture could not be read; the others are done all the same.

    Example: framewire classify photo.jpg --top-k 3
    """
    options = {"top_k": top_k, "classes": _listed(classes)}
    _work("classify", sources, model, device, options, as_json, draw, recursive, quiet)


def localize(
    sources: _Sources,
    model: _Model = None,
    device: _Device = "auto",
    confidence: _Confidence = 0.4,
    classes: _Classes = None,
    as_json: _AsJson = False,
    draw: _Draw = None,
    recursive: _Recursive = False,
    quiet: _Quiet = False,
) -> None:
    """Find the one object of each picture for which there is most evidence.

    Exit code 0, or 1 when a picture could not be read; the others are done all the same.

    Example: framewire localize photo.jpg --classes dog --json
    """
    options = {"confidence": confidence, "classes": _listed(classes)}
    _work("localize", sources, model, device, options, as_json, draw, recursive, quiet)


def detect(
    sources: _Sources,
    model: _Model = None,
    device: _Device = "auto",
    confidence: _Confidence = 0.4,
    classes: _Classes = None,
    as_json: _AsJson = False,
    draw: _Draw = None,
    recursive: _Recursive = False,
    quiet: _Quiet = False,
) -> None:
    """Find all objects of each picture.

    Exit code 0, or 1 when a picture could not be read; the others are done all the same.

    Example: framewire detect photos/ --json --draw out > objects.jsonl
    """
    options = {"confidence": confidence, "classes": _listed(classes)}
    _work("detect", sources, model, device, options, as_json, draw, recursive, quiet)


def tag(
    sources: _Sources,
    model: _Model = None,
    device: _Device = "auto",
    confidence: _Confidence = 0.4,
    top_k: _TopK = 5,
    classes: _Classes = None,
    as_json: _AsJson = False,
    draw: _Draw = None,
    recursive: _Recursive = False,
    quiet: _Quiet = False,
) -> None:
    """Print what is in a picture as JSON: {"tags": {"auto": {"car": 93}}}, percents by label.

    With more than one picture each line names its picture; with --json also task, model and size. The model
    may be a detector or, with --model, a classifier. Exit code 0, or 1 when a picture could not be read.

    Example: framewire tag photo.jpg
    """
    options = {"confidence": confidence, "top_k": top_k, "classes": _listed(classes)}
    _work("tag", sources, model, device, options, as_json, draw, recursive, quiet)


def _listed(classes: str | None) -> list[str] | None:
    return [label.strip() for label in classes.split(",") if label.strip()] if classes else None


def _work(
    task: Task,
    sources: Sequence[str],
    model: str | None,
    device: str,
    options: dict[str, Any],
    as_json: bool,
    draw: Path | None,
    recursive: bool,
    quiet: bool,
) -> None:
    """Pictures first, in this process, then what moves, in a run of its own."""
    pictures, moving = _sorted_out(sources, recursive)
    name = model or _DEFAULT.get(task, "default")
    failed = 0
    try:
        if pictures:
            failed = _pictures(task, pictures, name, device, options, as_json, draw, quiet)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the pipe, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    code = _moving(task, moving, name, device, options, as_json, draw, quiet) if moving else 0
    if failed or code:
        raise typer.Exit(code or 1)


def _sorted_out(sources: Sequence[str], recursive: bool) -> tuple[list[tuple[Path, Path]], list[str]]:
    """Pictures with the place that a drawn copy gets below its folder; and what has to be run.

    Raises:
        ConfigError: a source can be none.
        SourceError: there is no such file, or a folder without pictures.
    """
    pictures: list[tuple[Path, Path]] = []
    moving: list[str] = []
    for source in sources:
        path = local_path(source)
        if recursive and path.is_dir():
            found = [one for folder in _folders(path) for one in _images_in(folder)]
            if not found:
                raise SourceError(f"no image in {path} or below it", reason="not_found")
            pictures += [(one, one.relative_to(path)) for one in found]
        elif check_source(source) == "images":
            pictures += [(one, Path(one.name)) for one in image_files(path)]
        elif path.is_file() and _is_picture(path):
            pictures.append((path, Path(path.name)))
        else:
            moving.append(source)
    return pictures, moving


def _folders(path: Path) -> Iterator[Path]:
    for folder, names, _ in os.walk(path):
        names[:] = sorted(name for name in names if not name.startswith("."))
        yield Path(folder)


def _images_in(folder: Path) -> list[Path]:
    suffixes = {entry.suffix.lower() for entry in folder.iterdir() if not entry.name.startswith(".")}
    return image_files(folder, quiet=True) if suffixes & IMAGE_SUFFIXES else []


def _is_picture(path: Path) -> bool:
    """Whether a file without an image's suffix is one all the same."""
    from pipeline.web.headers import format_of

    with path.open("rb") as file:
        return bool(format_of(file.read(32)))


def _pictures(
    task: Task,
    pictures: Sequence[tuple[Path, Path]],
    model: str,
    device: str,
    options: dict[str, Any],
    as_json: bool,
    draw: Path | None,
    quiet: bool,
) -> int:
    """Look at each picture and print what is seen; how many could not be read."""
    notes = Console(stderr=True, highlight=False, soft_wrap=True)
    several = len(pictures) > 1
    bar = Progress(
        TextColumn(task),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=notes,
        transient=True,
        redirect_stdout=False,  # it would send what is for the pipe to the terminal
        # Where the answers go to the terminal they are the progress.
        disable=quiet or not several or not notes.is_terminal or sys.stdout.isatty(),
    )
    failed = 0
    with Analyzer(model, device=device, task=task, **options) as analyzer, bar:
        spec = analyzer.spec
        keep = _drawer(draw, spec) if draw is not None else None
        start = time.monotonic()
        for path, place in bar.track(pictures, description=task):
            bgr, problem = _decoded(path)
            if bgr is None:
                failed += 1
                record = failed_record(str(path), spec, task, problem)
                notes.print(Text.assemble(("error: ", "bold red"), f"{_clean(str(path))}: {problem}"))
            else:
                found = analyzer.read(bgr)
                height, width = bgr.shape[:2]
                record = picture_record(str(path), found, spec, task, width, height)
                if keep is not None:
                    keep(place, bgr, found)
            sys.stdout.write("".join(f"{line}\n" for line in _shown(record, as_json, several)))
            sys.stdout.flush()  # who reads along waits for no other picture
        seconds = time.monotonic() - start
    if several and not quiet:
        rate = len(pictures) / seconds if seconds else 0.0
        bad = f", {failed} failed" if failed else ""
        notes.print(
            f"{len(pictures)} pictures{bad} in {seconds:.1f} s ({rate:.1f} a second) "
            f"with {spec.name} on {spec.provider}",
            style="dim",
        )
    return failed


def _decoded(path: Path) -> tuple[NDArray[np.uint8] | None, str]:
    try:
        bgr = decode_image(path.read_bytes())
    except OSError as error:
        return None, f"it cannot be read: {error.strerror}"
    return bgr, "" if bgr is not None else "it is no whole image: damaged, cut short, or of another format"


def _drawer(folder: Path, spec: ModelSpec) -> Callable[[Path, NDArray[np.uint8], Found], None]:
    """Writes annotated copies, each at a place of its own."""
    from pipeline.sinks.picture import write_picture
    from pipeline.vision.draw import draw

    taken: set[Path] = set()

    def keep(place: Path, bgr: NDArray[np.uint8], found: Found) -> None:
        suffix = ".jpg" if place.suffix.lower() in (".jpg", ".jpeg", ".jpe") else ".png"
        path = place.with_suffix(suffix)
        number = 1
        while path in taken:
            number += 1
            path = place.with_name(f"{place.stem}-{number}{suffix}")
        taken.add(path)
        write_picture(folder / path, draw(bgr, found.detections, spec.labels, found.classes))

    return keep


def _shown(record: dict[str, Any], as_json: bool, several: bool) -> Iterator[str]:
    if as_json or record["status"] == "failed":
        if as_json or record["task"] == "tag":
            yield json.dumps(record)
        return
    if record["task"] == "tag":
        yield json.dumps(({"image": record["image"]} if several else {}) | {"tags": record["tags"]})
        return
    yield f"{_clean(record['image'])}  {record['width']}x{record['height']}"
    rows = record.get("classes", record.get("detections"))
    if rows is None:
        rows = [record["object"]] if record["object"] else []
    wide = max((len(row["label"]) for row in rows), default=0)
    for row in rows:
        line = f"  {row['label']:<{wide}}  {row['confidence']:.2f}"
        if "box_xyxy" in row:
            x1, y1, x2, y2 = row["box_xyxy"]
            line += f"  {x1:.0f},{y1:.0f} to {x2:.0f},{y2:.0f}"
        yield line
    if not rows:
        yield "  nothing found"


def _clean(text: str) -> str:
    """File names may hold what would steer the terminal."""
    return "".join(char if char.isprintable() else "?" for char in text)


def _moving(
    task: Task,
    sources: Sequence[str],
    model: str,
    device: str,
    options: dict[str, Any],
    as_json: bool,
    draw: Path | None,
    quiet: bool,
) -> int:
    """Videos and live sources: the pipeline runs; its exit code."""
    from pipeline.cli.display import Display
    from pipeline.cli.relay import Relay
    from pipeline.cli.run import execute, merged
    from pipeline.config import expand, name_sources

    with contextlib.ExitStack() as stack:
        sinks = None
        if as_json:
            sinks = [{"jsonl": str(stack.enter_context(Relay()).path), "what": "detections"}]
        named = name_sources(sources).items()
        given = {
            "sources": {key: expand(url, os.environ, subject=f"the source {key}") for key, url in named},
            "model.name": model,
            "model.task": task,
            "model.device": device,
            "run.out": str(draw) if draw is not None else None,
            "run.annotate": True if draw is not None else None,
            "publish": sinks,
        } | {f"model.{key}": value for key, value in options.items()}
        return execute(merged(None, given), Display(quiet=quiet), quiet=quiet or as_json)
