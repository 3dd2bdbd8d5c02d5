"""Numbered moving pictures, encoded once per test session: every frame says which one it is."""

from __future__ import annotations

import atexit
import functools
import itertools
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

__all__ = ["BLOCK", "NUMBERS", "Clip", "burn", "clip", "make_folder", "pictures", "read_number"]

VIDEOS = Path(__file__).resolve().parents[3] / "shared" / "assets" / "videos"
REAL = ("vtest.avi", "car-detection.mp4")

#: Side of one block of the frame number, pixels: a macroblock, so that coding leaves it whole.
BLOCK = 16
#: Numbers that fit beside their check digit; counting starts again after that.
NUMBERS = 4096

_COLUMNS, _ROWS = 8, 4
_WORD = 16  # bits: a number, its check digit; the same again, inverted
_ENCODERS = {
    # Sliced threads would split a picture; the delimiter in front of each picture is where the server cuts.
    "h264": (
        "libx264",
        {"preset": "veryfast", "x264-params": "sliced-threads=0:slices=1:aud=1:scenecut=0:repeat-headers=1"},
    ),
    "h265": (
        "libx265",
        {
            "preset": "ultrafast",
            "x265-params": "aud=1:repeat-headers=1:scenecut=0:open-gop=0:frame-threads=1:pools=none"
            ":log-level=none",
        },
    ),
}


@dataclass(frozen=True, slots=True)
class Clip:
    """An elementary stream (Annex B, one access unit delimiter per picture).

    Attributes:
        path: File of the coded pictures.
        codec: ``h264`` or ``h265``.
        frames: How many pictures; their numbers are ``first`` to ``first + frames - 1``.
        first: Number burnt into the first picture.
        fps: Pictures per second that its headers declare.
        size: Width and height in pixels.
        gop: Pictures from one keyframe to the next.
    """

    path: Path
    codec: str
    frames: int
    first: int
    fps: int
    size: tuple[int, int]
    gop: int


@functools.cache
def make_folder() -> Path:
    """A folder that lasts as long as this test process."""
    folder = Path(tempfile.mkdtemp(prefix="fwtest-servers-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _check(number: int) -> int:
    return (number ^ number >> 4 ^ number >> 8 ^ 0b0101) & 15


def burn(image: NDArray[np.uint8], number: int) -> None:
    """Write a number into the top left corner (128x64 pixels) of a picture, (h, w) or (h, w, 3) uint8."""
    number %= NUMBERS
    word = number << 4 | _check(number)
    for at in range(_COLUMNS * _ROWS):
        row, column = divmod(at, _COLUMNS)
        top, left = row * BLOCK, column * BLOCK
        white = (word >> (15 - at % _WORD) & 1) ^ at // _WORD
        image[top : top + BLOCK, left : left + BLOCK] = 255 * white


def read_number(picture: NDArray[np.uint8]) -> int | None:
    """The number burnt into a picture; None where there is none, or it is too damaged to be sure.

    Args:
        picture: Luma plane (h, w) or BGR (h, w, 3), uint8, at the size that was encoded.
    """
    if picture.shape[0] < _ROWS * BLOCK or picture.shape[1] < _COLUMNS * BLOCK:
        return None
    corner = picture[: _ROWS * BLOCK, : _COLUMNS * BLOCK].astype(np.float32)
    corner = corner.mean(axis=2) if corner.ndim == 3 else corner
    blocks = corner.reshape(_ROWS, BLOCK, _COLUMNS, BLOCK)[:, 4:-4, :, 4:-4].mean(axis=(1, 3)).ravel()
    if np.any(np.abs(blocks - 126) < 40):
        return None
    word, inverse = (
        sum(1 << (15 - at) for at in range(_WORD) if half[at]) for half in np.split(blocks > 126, 2)
    )
    number = word >> 4
    return number if word & 15 == _check(number) and word ^ inverse == 0xFFFF else None


def pictures(
    frames: int, size: tuple[int, int] = (640, 360), *, first: int = 0
) -> Iterator[NDArray[np.uint8]]:
    """Numbered pictures, (h, w, 3) uint8 BGR: a real street where the shared videos are, else drawn ones."""
    width, height = size
    source = _real(size) or _drawn(size)
    for number, image in zip(range(first, first + frames), source, strict=False):
        picture = image[:height, :width].copy()
        burn(picture, number)
        yield picture


def _real(size: tuple[int, int]) -> Iterator[NDArray[np.uint8]] | None:
    path = next((VIDEOS / name for name in REAL if (VIDEOS / name).exists()), None)
    return None if path is None else _decode(path, size)


def _decode(path: Path, size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    while True:
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                yield np.asarray(frame.to_ndarray(width=size[0], height=size[1], format="bgr24"), np.uint8)


def _drawn(size: tuple[int, int]) -> Iterator[NDArray[np.uint8]]:
    """Textured boxes that wander over a gradient: something to predict and something to code."""
    width, height = size
    rng = np.random.default_rng(5)
    y, x = np.mgrid[0:height, 0:width]
    ground = np.stack([x * 160 // width + 40, y * 160 // height + 40, (x + y) % 64 + 90], 2).astype(np.uint8)
    boxes = [rng.integers(0, 255, (height // 6, width // 6, 3), np.uint8) for _ in range(3)]
    for step in itertools.count():
        image = ground.copy()
        for which, box in enumerate(boxes):
            top = (step * (which + 1) * 2 + which * 40) % (height - box.shape[0])
            left = (step * (which + 2) * 3 + which * 90) % (width - box.shape[1])
            image[top : top + box.shape[0], left : left + box.shape[1]] = box
        yield image


@functools.cache
def clip(
    codec: str = "h264",
    *,
    frames: int = 100,
    fps: int = 20,
    size: tuple[int, int] = (640, 360),
    first: int = 0,
    gop: int = 20,
) -> Clip:
    """Encode numbered pictures as a camera would: no B-frames, closed GOPs, headers before each keyframe.

    Made once for each set of arguments and kept for the test session. ``frames`` should be a multiple of
    ``gop``, so that a server that loops the file keeps its keyframes evenly spaced.
    """
    encoder, options = _ENCODERS[codec]
    name = f"{codec}-{frames}-{fps}-{size[0]}x{size[1]}-{first}-{gop}.{codec}"
    path = make_folder() / name
    context = av.CodecContext.create(encoder, "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt = *size, "yuv420p"
    context.framerate, context.time_base = Fraction(fps), Fraction(1, fps)
    context.gop_size, context.max_b_frames = gop, 0
    context.options = {**options, "bf": "0", "g": str(gop), "threads": "1"}
    with path.open("wb") as file:
        for number, image in enumerate(pictures(frames, size, first=first)):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format="yuv420p")
            frame.pts = number
            for packet in context.encode(frame):
                file.write(bytes(packet))
        for packet in context.encode(None):
            file.write(bytes(packet))
    return Clip(path, codec, frames, first, fps, size, gop)
