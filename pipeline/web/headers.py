"""What a picture's first bytes say of its format and size, before anything decodes it. Pure.

A few kilobytes can unfold to gigabytes of pixels: who takes pictures from strangers has to look here first.
Formats: ITU-T T.81 (JPEG), W3C PNG, RFC 9649 (WebP), and the headers of Windows bitmaps.
"""

from __future__ import annotations

import struct

__all__ = ["FORMATS", "format_of", "size_of"]

#: Formats that are taken, with their media type.
FORMATS: dict[str, str] = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "bmp": "image/bmp",
}

#: Markers of a JPEG frame: all SOFn but those that share the range (DHT, JPG, DAC).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: JPEG markers without a length.
_BARE = frozenset({0x01, *range(0xD0, 0xD9)})


def format_of(data: bytes) -> str:
    """The format, a key of `FORMATS`, by its own mark; empty for any other.

    Args:
        data: The first 16 bytes or more.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    return "bmp" if data.startswith(b"BM") else ""


def size_of(data: bytes) -> tuple[int, int] | None:
    """Width and height in pixels, as the header states them; not turned as EXIF asks.

    Args:
        data: The file.

    Returns:
        The size; None where the format is none of `FORMATS` or the header is not whole or holds no size.
    """
    readers = {"jpeg": _jpeg, "png": _png, "webp": _webp, "bmp": _bmp}
    reader = readers.get(format_of(data))
    try:
        size = reader(data) if reader is not None else None
    except (struct.error, IndexError):
        return None
    return size if size is not None and min(size) > 0 else None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker in _BARE:
            at += 2
        elif marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        else:
            (length,) = struct.unpack_from(">H", data, at + 2)
            if marker in (0xD9, 0xDA) or length < 2:  # the end or the scan, and no frame before it
                return None
            at += 2 + length
    return None


def _png(data: bytes) -> tuple[int, int] | None:
    width, height = struct.unpack_from(">II", data, 16)
    return (width, height) if data[12:16] == b"IHDR" else None


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)) if data[20] == 0x2F else None
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _bmp(data: bytes) -> tuple[int, int] | None:
    (length,) = struct.unpack_from("<I", data, 14)
    if length == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return width, height
    width, height = struct.unpack_from("<ii", data, 18)
    return (width, abs(height)) if length >= 40 else None
