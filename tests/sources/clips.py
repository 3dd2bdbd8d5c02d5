"""Small clips made on the spot, and where the shared ones lie."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.sources import Picture, Source

VIDEOS = Path(__file__).resolve().parents[3] / "shared" / "assets" / "videos"
IMAGES = VIDEOS.parent / "images"


def asset(name: str, folder: Path = VIDEOS) -> str:
    """Path of a shared file; skips the test where there is none."""
    path = folder / name
    if not path.exists():
        pytest.skip(f"shared asset {name} is not on this machine")
    return str(path)


def picture(number: int, width: int = 64, height: int = 48) -> NDArray[np.uint8]:
    """BGR picture (h, w, 3) whose grey level tells its number; the left edge is black."""
    image = np.full((height, width, 3), 40 + 5 * (number % 40), np.uint8)
    image[:, : width // 4] = 0
    return image


def write_clip(
    path: Path,
    frames: int = 30,
    *,
    codec: str = "libx264",
    size: tuple[int, int] = (64, 48),
    rate: int = 10,
    pix_fmt: str = "yuv420p",
    times: list[int] | None = None,
    options: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """Encode `picture` 0, 1, 2, ... into a video; ``times`` are presentation times in frame intervals."""
    with av.open(str(path), "w") as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=rate, options=options or {})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = Fraction(1, rate)
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="bgr24")
            frame.pts = times[number] if times else number
            frame.time_base = Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def read_all(source: Source, *, skip: int = 0, after_pts_ns: int | None = None) -> list[Picture]:
    """All pictures of a source, which is closed afterwards."""
    source.open(skip=skip, after_pts_ns=after_pts_ns)
    try:
        pictures = []
        while (item := source.read()) is not None:
            pictures.append(item)
        return pictures
    finally:
        source.close()
