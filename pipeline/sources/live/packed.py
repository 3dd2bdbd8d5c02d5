"""Packed bytes of a picture, as a program sends them, to planes."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import MessageError
from pipeline.sources.base import PixelFormat
from pipeline.sources.images import decode_image
from pipeline.transport.push import MAX_PICTURE_BYTES, PushFormat
from pipeline.vision.tensor import planes_to_bgr

__all__ = ["coded_size", "planes_of_bytes"]

_SIGNATURES = {"jpeg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n"}
#: JPEG markers that start a frame: C0 to CF without tables (C4), extensions (C8) and conditioning (CC).
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_ALONE = frozenset({0x01, *range(0xD0, 0xD9)})


def planes_of_bytes(
    pixels: memoryview, picture_format: PushFormat, width: int | None, height: int | None, *, exact: bool
) -> tuple[tuple[NDArray[np.uint8], ...], PixelFormat]:
    """The planes of a picture in packed bytes, read-only, without a copy where the format allows.

    Args:
        pixels: Rows without padding. ``i420``: Y, U, V; ``nv12``: Y, then U and V by turns; chroma has
            ceil(w/2) by ceil(h/2) samples. ``jpeg``, ``png``: the whole file.
        picture_format: What they are.
        width: Width in pixels; not looked at for ``jpeg`` and ``png``.
        height: Height in pixels; likewise.
        exact: Convert planar pictures to BGR.

    Raises:
        MessageError: they are no such picture.
    """
    if picture_format in ("jpeg", "png"):
        return (_decoded(pixels, picture_format),), "bgr24"
    if width is None or height is None:
        raise MessageError(f"{picture_format} needs width and height")
    half_w, half_h = (width + 1) // 2, (height + 1) // 2
    luma, chroma = width * height, half_w * half_h
    size = {"bgr24": 3 * luma, "rgb24": 3 * luma, "gray8": luma}.get(picture_format, luma + 2 * chroma)
    if pixels.nbytes != size:
        raise MessageError(
            f"{picture_format} of {width}x{height} has {size} bytes, not {pixels.nbytes} (no row padding)"
        )
    if size > MAX_PICTURE_BYTES or 3 * luma > MAX_PICTURE_BYTES:
        raise MessageError(f"{width}x{height} is larger than a picture may be")
    flat = np.frombuffer(pixels, np.uint8)
    if picture_format == "bgr24":
        return (flat.reshape(height, width, 3),), "bgr24"
    if picture_format in ("rgb24", "gray8"):
        code = cv2.COLOR_RGB2BGR if picture_format == "rgb24" else cv2.COLOR_GRAY2BGR
        shape = (height, width, 3) if picture_format == "rgb24" else (height, width)
        return (_frozen(cv2.cvtColor(flat.reshape(shape), code)),), "bgr24"
    y = flat[:luma].reshape(height, width)
    if picture_format == "i420":
        u, v = flat[luma:].reshape(2, half_h, half_w)
    else:
        pairs = flat[luma:].reshape(half_h, half_w, 2)
        u, v = pairs[:, :, 0], pairs[:, :, 1]
    if exact:
        return (_frozen(planes_to_bgr((y, u, v), "i420")),), "bgr24"
    return (y, u, v), "i420"


def coded_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) that a JPEG or PNG announces, before it is decoded; None when it announces none."""
    if data.startswith(_SIGNATURES["png"]):
        if data[12:16] != b"IHDR" or len(data) < 24:
            return None
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in _SOF:
            return int.from_bytes(data[at + 7 : at + 9], "big"), int.from_bytes(data[at + 5 : at + 7], "big")
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _ALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _decoded(pixels: memoryview, picture_format: PushFormat) -> NDArray[np.uint8]:
    """A coded picture in BGR, upright. Its size is read first: a few bytes can announce gigabytes."""
    data = bytes(pixels)
    if not data.startswith(_SIGNATURES[picture_format]):
        raise MessageError(f"the picture is no {picture_format}")
    size = coded_size(data)
    if size is None or 0 in size:
        raise MessageError(f"the {picture_format} is damaged: it does not say how large it is")
    if 3 * size[0] * size[1] > MAX_PICTURE_BYTES:
        raise MessageError(f"{size[0]}x{size[1]} is larger than a picture may be")
    image = decode_image(data)
    if image is None:
        raise MessageError(f"the {picture_format} cannot be decoded whole")
    return _frozen(image)


def _frozen(array: object) -> NDArray[np.uint8]:
    image = np.asarray(array, np.uint8)
    image.flags.writeable = False
    return image
