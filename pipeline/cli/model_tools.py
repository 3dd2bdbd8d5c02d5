"""``framewire models fuse``, ``half`` and ``quantize``: a model file made quicker, and what that costs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from pipeline.models.graph.compare import Agreement, Trial
    from pipeline.models.graph.network import Network
    from pipeline.tasks.reading import Found

__all__ = ["fuse", "half", "quantize"]

#: An int8 network that finds less than this of what the float one finds, or so much more, has suffered.
_LEAST_AGAIN, _MOST_EXTRA = 0.85, 0.25
#: Timings of the same network differ by less than this.
_NOISE = 0.9
#: Fewer objects than this in the frames for checking prove nothing.
_FEW = 20
#: Average precision is measured down to this score, as `framewire eval coco` does.
_LOW = 0.01


class _Method(StrEnum):
    minmax = "minmax"
    percentile = "percentile"
    entropy = "entropy"


_File = Annotated[str, typer.Argument(help="A name from `framewire models list`, or an ONNX file.")]
_AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead, for programs.")]
_Out = Annotated[Path, typer.Option("--out", "-o", help="The new file; never the one that is read.")]


def fuse(
    file: _File,
    out: _Out,
    top_k: Annotated[
        int | None, typer.Option("--top-k", min=1, help="Leave only so many rows, the best, in the outputs.")
    ] = None,
    fp16: Annotated[bool, typer.Option("--fp16", help="Compute in float16 inside, for GPUs.")] = False,
    as_json: _AsJson = False,
) -> None:
    """Take uint8 pixels as they lie in a frame, scaled inside the graph; give few rows instead of thousands.

    The new file says itself what it is: framewire run takes it like any other model.

    Example: framewire models fuse yolox_s.onnx --out yolox_s_fused.onnx --top-k 300
    """
    from pipeline.models.graph.fuse import fuse as fused
    from pipeline.models.graph.fuse import takes_pixels
    from pipeline.models.graph.half import halve
    from pipeline.models.graph.network import check_target, read_network
    from pipeline.models.graph.topk import keep_best

    network = before = read_network(file)
    check_target(out, before.path)
    if not (takes_pixels(before.spec) and (top_k or fp16)):
        network = fused(network)
    if top_k:
        network = keep_best(network, top_k)
    if fp16:
        network = halve(network)
    _write(before, network, out, as_json)


def half(file: _File, out: _Out, as_json: _AsJson = False) -> None:
    """Compute in float16 inside; inputs, outputs and the decoder stay as they are. For GPUs.

    Example: framewire models half yolox_s.onnx --out yolox_s_fp16.onnx
    """
    from pipeline.models.graph.half import halve
    from pipeline.models.graph.network import check_target, read_network

    before = read_network(file)
    check_target(out, before.path)
    _write(before, halve(before), out, as_json)


def quantize(
    file: _File,
    frames: Annotated[
        str,
        typer.Option("--frames", help="Video or folder of pictures of the scene, to calibrate and check."),
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The new file; without it, FILE with _int8 added, here."),
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="Frames to calibrate with.")] = 100,
    method: Annotated[
        _Method, typer.Option("--method", help="How ranges follow from what was seen.")
    ] = _Method.minmax,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", help="A node to leave in float; may be given again.")
    ] = None,
    coco: Annotated[
        tuple[Path, Path] | None,
        typer.Option("--coco", metavar="IMAGES ANNOTATIONS", help="Measure average precision on these too."),
    ] = None,
    as_json: _AsJson = False,
) -> None:
    """Quantise a float32 model to int8 on your own frames, and say what it lost.

    The new file takes uint8 pixels. A third as many frames again are kept from calibration, and what both
    models find in these is compared. Some networks do not survive int8: then this says so.

    Example: framewire models quantize nanodet_m.onnx --frames gate.mp4 --out nanodet_m_int8.onnx
    """
    from pipeline.models.graph.compare import Trial, agreement_of, milliseconds_of, tensors_of
    from pipeline.models.graph.fuse import fuse as fused
    from pipeline.models.graph.fuse import takes_pixels
    from pipeline.models.graph.network import check_target, read_network, write_network
    from pipeline.models.graph.quantize import quantize as quantized

    before = read_network(file)
    out = out or Path(f"{before.path.stem}_int8.onnx")
    check_target(out, before.path)
    network = before if takes_pixels(before.spec) else fused(before)
    scorer = None if coco is None else _Scorer(before, *coco)
    with _bars() as bar:
        wanted = count + max(count // 3, 1)
        tensors = tensors_of(_frames_of(frames, wanted), network.spec, bar("reading frames", wanted))
        # Every fourth is kept from calibration: from all over the scene, as the others are.
        held = tensors[3::4]
        seen = [tensor for index, tensor in enumerate(tensors) if index % 4 != 3]
        small = quantized(
            network, seen, method=method.value, exclude=exclude or (), step=bar("calibrating", len(seen))
        )
        first, other = Trial(network), Trial(small)
        checked = held or seen
        agreement = agreement_of(first, other, checked, bar("comparing", len(checked)))
        times = milliseconds_of((first, other), checked[0])
        report: dict[str, Any] = {
            "model": before.spec.name,
            "out": str(out),
            "method": method.value,
            "calibrated_on": len(seen),
            "bytes": {"before": before.path.stat().st_size, "after": small.model.ByteSize()},
            "ms": {"before": round(times[0], 3), "after": round(times[1], 3)},
            "ratio": round(times[0] / times[1], 3),
            "agreement": _told(agreement),
            "coco": None,
        }
        if scorer is not None:
            report["coco"] = {
                "pictures": scorer.pictures,
                "before": scorer.score(first, bar("average precision, before", scorer.pictures)),
                "after": scorer.score(other, bar("average precision, after", scorer.pictures)),
            }
        report["survives"] = _survives(agreement)
        write_network(small, out)
    _show(report, as_json)
    _warn(report, held=bool(held))


class _Scorer:
    """Average precision on annotated pictures; what is wrong with them is told before the long work."""

    def __init__(self, network: Network, images: Path, annotations: Path) -> None:
        from pipeline.tasks.coco import load_truth, match_labels
        from pipeline.tasks.coco_scores import need_scorer
        from pipeline.tasks.reading import Reader
        from pipeline.vision.tensor import TensorFiller

        need_scorer()
        Reader(network.spec)  # a classifier has no boxes to score
        self._truth = load_truth(annotations, images)
        self._match = match_labels(network.spec.labels, self._truth, network.spec.name)
        self._filler, self._reader = TensorFiller, Reader
        self.pictures = len(self._truth.pictures)

    def score(self, trial: Trial, step: Callable[[int], None]) -> dict[str, float]:
        """AP and AP50 of a network, 0..1."""
        import numpy as np

        from pipeline.tasks.coco_scores import coco_rows, detect_all, score

        filler, reader = self._filler(trial.spec), self._reader(trial.spec, confidence=_LOW)
        tensor = np.zeros(filler.shape, trial.spec.input_dtype)
        done = 0

        def read(bgr: NDArray[np.uint8]) -> Found:
            where = filler.fill((bgr,), "bgr24", tensor)
            return reader.read(trial.run(tensor), where)

        def count() -> None:
            nonlocal done
            done += 1
            step(done)

        rows = coco_rows(detect_all(self._truth.pictures, read, count), self._match)
        metrics = score(self._truth, rows, self._match).metrics
        return {name: round(metrics[name] or 0.0, 4) for name in ("AP", "AP50")}


def _write(before: Network, network: Network, out: Path, as_json: bool) -> None:
    """Write the file and show what has changed."""
    from pipeline.models.graph.network import bytes_in, bytes_out, write_network

    write_network(network, out)
    report = {
        "model": before.spec.name,
        "out": str(out),
        "family": network.spec.family,
        "bytes": {"before": before.path.stat().st_size, "after": out.stat().st_size},
        "bytes_in": {"before": bytes_in(before), "after": bytes_in(network)},
        "bytes_out": {"before": bytes_out(before), "after": bytes_out(network)},
    }
    _show(report, as_json)


def _frames_of(url: str, wanted: int) -> Iterator[NDArray[np.uint8]]:
    """Frames spread evenly over a recording or folder, as BGR; fewer where there are fewer."""
    from pipeline.sources import build_source, check_source

    if check_source(url) not in ("file", "images", "synthetic"):
        raise ConfigError(
            f"calibration reads recordings, not the live source {url.partition('://')[0]}://…",
            hint="record a few minutes first, and name the file with --frames",
        )
    source = build_source("frames", url, pixels="exact")
    source.open()
    try:
        every = max((source.expected_frames or wanted) / wanted, 1.0)
        given = 0
        while given < wanted and (picture := source.read()) is not None:
            if picture.index >= int(given * every):
                given += 1
                yield picture.planes[0]
    finally:
        source.close()


def _told(agreement: Agreement) -> dict[str, Any]:
    return {
        "frames": agreement.frames,
        "expected": agreement.expected,
        "found_again": round(agreement.share, 4),
        "extra": round(agreement.extra_share, 4),
    }


def _survives(agreement: Agreement) -> bool | None:
    """Whether the network is still itself; None where too little was seen to tell."""
    if agreement.share < _LEAST_AGAIN or agreement.extra_share > _MOST_EXTRA:
        return False if agreement.expected >= _FEW or agreement.extra >= _FEW else None
    return True if agreement.expected >= _FEW else None


def _show(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(report, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "before", "after", "ratio"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    named = {"bytes": "file, MB", "bytes_in": "input, kB", "bytes_out": "outputs, kB", "ms": "inference, ms"}
    for key, title in named.items():
        if key in report:
            old, new = report[key]["before"], report[key]["after"]
            scale = 1e6 if key == "bytes" else 1e3 if key.startswith("bytes") else 1.0
            table.add_row(title, f"{old / scale:.2f}", f"{new / scale:.2f}", f"{new / old:.3f}")
    for figure in ("AP", "AP50"):
        if report.get("coco"):
            old, new = report["coco"]["before"][figure], report["coco"]["after"][figure]
            table.add_row(figure, f"{old:.3f}", f"{new:.3f}", f"{new - old:+.3f}")
    Console().print(table)
    if "agreement" in report:
        found = report["agreement"]
        typer.echo(
            f"of {found['expected']} objects in {found['frames']} frames {found['found_again']:.1%} found "
            f"again, {found['extra']:.1%} extra (confidence 0.4, IoU 0.5, same class)"
        )
    typer.echo(f"wrote {report['out']}")


def _warn(report: dict[str, Any], *, held: bool) -> None:
    """What a user must not miss, on stderr."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if not held:
        console.print("so few frames: compared on those that it was calibrated with", style="yellow")
    if report["survives"] is None:
        console.print(
            f"only {report['agreement']['expected']} objects in the frames compared: name frames with more "
            "in them before you trust this file",
            style="yellow",
        )
    elif not report["survives"]:
        console.print(
            f"WARNING: {report['model']} does not survive int8: the new file finds "
            f"{report['agreement']['found_again']:.0%} of what the old one does, "
            f"and {report['agreement']['extra']:.0%} that it does not. Do not use it.",
            style="bold red",
        )
        other = "minmax" if report["method"] == "percentile" else "percentile"
        console.print(f"  -> try --method {other}, or on a GPU: framewire models half", style="bold")
    if report["ratio"] < _NOISE:
        console.print(
            f"int8 is slower here: {report['ms']['after']:.1f} ms, not {report['ms']['before']:.1f} ms. "
            f"On this machine {report['model']} serves better as it is.",
            style="yellow",
        )


@contextmanager
def _bars() -> Iterator[Callable[[str, int], Callable[[int], None]]]:
    """Progress bars on stderr, one after the other; gone at the end."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:

        def bar(title: str, total: int) -> Callable[[int], None]:
            task = progress.add_task(title, total=total)
            return lambda done: progress.update(task, completed=done)

        yield bar
