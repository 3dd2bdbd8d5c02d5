"""A drawn scene of moving rectangles whose truth is known exactly; needs no decoder."""

from __future__ import annotations

import time
from urllib.parse import parse_qsl

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.sources.base import Picture, PixelFormat, Pixels
from pipeline.vision.palette import BACKGROUND, LABELS, PALETTE

__all__ = ["SyntheticSource"]

_LIMITS = {
    "frames": (0, 10**9),
    "width": (32, 8192),
    "height": (32, 8192),
    "objects": (0, 64),
    "seed": (0, 2**32 - 1),
    "fps": (1, 1000),
}
_DEFAULTS = {"frames": 100, "width": 640, "height": 360, "objects": 4, "seed": 0, "fps": 25}


class SyntheticSource:
    """Rectangles of one palette colour each, moving to and fro on grey, each in a lane of its own.

    Lanes are apart, so that no rectangle ever hides or touches another; all edges are even, so that I420 and
    BGR show exactly the same rectangles. The scene is a function of the seed and the frame number alone.

    Args:
        name: Name of the source.
        url: ``synthetic:``, with options as ``synthetic://?frames=100&width=640&height=360&objects=4&seed=0&fps=25``;
            ``frames=0`` never ends.
        pixels: ``fast`` gives I420, ``exact`` gives BGR.

    Raises:
        ConfigError: an option is unknown, no whole number, or out of its range.
    """

    live = False
    decode_errors = 0
    labels = LABELS

    def __init__(self, name: str, url: str = "synthetic:", *, pixels: Pixels = "fast") -> None:
        options = _parse(url)
        self.name = name
        self.frames, self.seed = options["frames"], options["seed"]
        self.width, self.height = options["width"], options["height"]
        self.frame_rate: float | None = float(options["fps"])
        self.expected_frames: int | None = self.frames or None
        self._fps = options["fps"]
        self._pixel_format: PixelFormat = "i420" if pixels == "fast" else "bgr24"
        self._index = 0
        self._place(options["objects"])

    def open(self, *, skip: int = 0, after_pts_ns: int | None = None) -> None:
        """See `Source.open`."""
        self._index = skip

    def read(self) -> Picture | None:
        """See `Source.read`."""
        index = self._index
        if self.frames and index >= self.frames:
            return None
        self._index += 1
        planes = self._draw_i420(index) if self._pixel_format == "i420" else (self._draw_bgr(index),)
        for plane in planes:
            plane.flags.writeable = False
        return Picture(
            planes=planes,
            pixel_format=self._pixel_format,
            width=self.width,
            height=self.height,
            index=index,
            pts_ns=index * 1_000_000_000 // self._fps,
            captured_ns=time.monotonic_ns(),
            captured_at=time.time(),
            clock="arrival",
            epoch=0,
        )

    def close(self) -> None:
        """See `Source.close`."""

    def truth(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.int32], NDArray[np.int64]]:
        """What is to be seen in a frame.

        Args:
            index: Number of the frame.

        Returns:
            Boxes (n, 4) float32 xyxy in pixels, ``x2, y2`` exclusive; class ids (n,) int32, indices into
            ``PALETTE``; object ids (n,) int64, the same in all frames.
        """
        corner = self._low + _bounce(self._start + index * self._speed, self._room)
        corner = corner // 2 * 2
        boxes = np.concatenate([corner, corner + self._sizes], axis=1).astype(np.float32)
        return boxes, self._class_ids.copy(), np.arange(len(boxes), dtype=np.int64)

    def _place(self, objects: int) -> None:
        """Draw lots for size, lane, start and speed; pixels, and pixels per frame."""
        random = np.random.default_rng(self.seed)
        lane = self.height // max(objects, 1) // 2 * 2
        margin = max(2, lane // 8 // 2 * 2)
        inner = lane - 2 * margin
        if objects and inner < 4:
            raise ConfigError(
                f"synthetic: {objects} objects do not fit into a height of {self.height} pixels",
                hint=f"write objects={self.height // 12} or less",
                source=self.name,
            )
        heights = random.integers(max(1, inner // 4), inner // 2 + 1, objects) * 2
        widths = random.integers(max(1, self.width // 24), max(2, self.width // 8), objects) * 2
        self._sizes = np.stack([widths, heights], axis=1)
        self._low = np.stack([np.zeros(objects, np.int64), np.arange(objects) * lane + margin], axis=1)
        self._room = np.stack([self.width // 2 * 2 - widths, inner - heights], axis=1)
        self._start = random.uniform(0, 1, (objects, 2)) * self._room
        across = random.uniform(0.1, 0.3, objects) * self.width / self._fps
        self._speed = np.stack([across * random.choice([-1, 1], objects), across * 0.1], axis=1)
        self._class_ids = ((random.integers(len(PALETTE)) + np.arange(objects)) % len(PALETTE)).astype(
            np.int32
        )

    def _draw_bgr(self, index: int) -> NDArray[np.uint8]:
        image = np.full((self.height, self.width, 3), BACKGROUND, np.uint8)
        boxes, class_ids, _ = self.truth(index)
        for (x1, y1, x2, y2), class_id in zip(boxes.astype(int).tolist(), class_ids, strict=True):
            image[y1:y2, x1:x2] = PALETTE[class_id]
        return image

    def _draw_i420(self, index: int) -> tuple[NDArray[np.uint8], ...]:
        grey = _to_yuv((BACKGROUND, BACKGROUND, BACKGROUND))
        half = ((self.height + 1) // 2, (self.width + 1) // 2)
        shapes = ((self.height, self.width), half, half)
        planes = tuple(np.full(shape, level, np.uint8) for shape, level in zip(shapes, grey, strict=True))
        boxes, class_ids, _ = self.truth(index)
        for (x1, y1, x2, y2), class_id in zip(boxes.astype(int).tolist(), class_ids, strict=True):
            luma, blue, red = _to_yuv(PALETTE[class_id])
            planes[0][y1:y2, x1:x2] = luma
            planes[1][y1 // 2 : y2 // 2, x1 // 2 : x2 // 2] = blue
            planes[2][y1 // 2 : y2 // 2, x1 // 2 : x2 // 2] = red
        return planes


def _parse(url: str) -> dict[str, int]:
    _, _, query = url.partition("?")
    if not query and url.removeprefix("synthetic:").strip("/"):
        raise ConfigError(
            f"{url!r} is no synthetic scene", hint="write synthetic: or synthetic://?frames=100"
        )
    options = dict(_DEFAULTS)
    for key, text in parse_qsl(query, keep_blank_values=True):
        if key not in _LIMITS:
            raise ConfigError(f"synthetic: has no option {key!r}", hint=f"it can be {', '.join(_LIMITS)}")
        low, top = _LIMITS[key]
        if not (text.isascii() and text.isdecimal() and low <= int(text) <= top):
            raise ConfigError(f"synthetic: {key}={text}", hint=f"write a whole number from {low} to {top}")
        options[key] = int(text)
    return options


def _bounce(position: NDArray[np.float64], room: NDArray[np.int64]) -> NDArray[np.int64]:
    """Fold a straight way into ``0..room``, as a ball between two walls."""
    phase = np.mod(position, 2 * np.maximum(room, 1))
    folded = np.where(phase > room, 2 * np.maximum(room, 1) - phase, phase)
    return np.asarray(np.clip(folded, 0, room), np.int64)


def _to_yuv(bgr: tuple[int, int, int]) -> tuple[int, int, int]:
    """One colour as Y, U, V, BT.601 limited range, by OpenCV's own arithmetic."""
    tile = cv2.cvtColor(np.full((2, 2, 3), bgr, np.uint8), cv2.COLOR_BGR2YUV_I420).ravel().tolist()
    return int(tile[0]), int(tile[4]), int(tile[5])
