"""Decoded FFmpeg frames as planes, without a copy where the decoder's own format will do."""

from __future__ import annotations

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from pipeline.sources.base import PixelFormat

__all__ = ["planes_of"]

_FULL_RANGE = 2  # AVCOL_RANGE_JPEG


def planes_of(
    frame: VideoFrame, pixel_format: PixelFormat
) -> tuple[tuple[NDArray[np.uint8], ...], VideoFrame]:
    """The planes of a frame, upright, and the frame that owns their memory.

    Args:
        frame: A decoded frame in main memory.
        pixel_format: ``bgr24`` gives one (h, w, 3) uint8, the bytes that ``cv2.VideoCapture`` would give;
            ``i420`` gives Y (h, w), U and V (ceil(h/2), ceil(w/2)) uint8 of limited range, without a copy
            where the decoder gives just that.
    """
    if pixel_format == "bgr24":
        if frame.format.name != "bgr24":
            frame = frame.reformat(format="bgr24")
        view = _view(frame, 0, frame.height, frame.width * 3)
        planes: tuple[NDArray[np.uint8], ...] = (view.reshape(frame.height, frame.width, 3),)
    else:
        plain = frame.format.name == "yuv420p" and frame.color_range != _FULL_RANGE
        if not plain or any(plane.line_size <= 0 for plane in frame.planes):
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU601", dst_color_range="MPEG")
        half_h, half_w = (frame.height + 1) // 2, (frame.width + 1) // 2
        sizes = ((frame.height, frame.width), (half_h, half_w), (half_h, half_w))
        planes = tuple(_view(frame, number, *size) for number, size in enumerate(sizes))
    turns = frame.rotation // 90 % 4
    return (tuple(np.rot90(plane, turns) for plane in planes) if turns else planes), frame


def _view(frame: VideoFrame, number: int, height: int, row_bytes: int) -> NDArray[np.uint8]:
    """Rows of one plane, (height, row_bytes), without a copy and read-only."""
    plane = frame.planes[number]
    rows = np.frombuffer(memoryview(plane), np.uint8)[: plane.line_size * height].reshape(
        height, plane.line_size
    )
    view: NDArray[np.uint8] = rows[:, :row_bytes]
    view.flags.writeable = False
    return view
