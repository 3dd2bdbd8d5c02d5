"""What a picture's first bytes say of its format and size, before anything decodes it. Pure.

A few kilobytes can unfold to gigabytes of pixels: who takes pictures from strangers has to look here first.
Formats: ITU-T T.81 (JPEG), W3C PNG, RFC 9649 (WebP), and the headers of Windows bitmaps.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from itertools import islice

__all__ = ["FORMATS", "format_of", "scans_of", "size_of"]

#: Formats that are taken, with their media type.
FORMATS: dict[str, str] = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "bmp": "image/bmp",
}

#: Markers of a JPEG frame: all SOFn but those that share the range (DHT, JPG, DAC).
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
#: A JPEG marker with a segment, or the end: not a stuffed 0xFF, a fill byte, TEM, a restart or a start.
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")
_END, _SCAN = 0xD9, 0xDA
#: Large files with profiles and previews have hundreds.
_MOST_SEGMENTS = 10_000


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


def scans_of(data: bytes, most: int) -> int:
    """How many scans a JPEG has. A decoder goes over all pixels for each, though it may be of 33 bytes.

    Args:
        data: The file.
        most: Where to stop counting.

    Returns:
        The number, 0 for other formats; no more than ``most`` + 1, and that, too, for a file of so many
        segments that counting them would take long.
    """
    count = 0
    segments = _segments(data) if format_of(data) == "jpeg" else iter(())
    for number, (marker, _) in enumerate(segments, 1):
        count += marker == _SCAN
        if count > most or number > _MOST_SEGMENTS:
            return most + 1
    return count


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Markers of a JPEG up to its end, and where each one's segment begins; read as libjpeg does."""
    at = 2
    while (found := _MARKER.search(data, at)) is not None and found[0][1] != _END:
        at = found.end()
        yield found[0][1], at
        at += int.from_bytes(data[at : at + 2], "big")


def _jpeg(data: bytes) -> tuple[int, int] | None:
    for marker, at in islice(_segments(data), _MOST_SEGMENTS):
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 3)
            return width, height
        if marker == _SCAN:  # and no frame before it
            break
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
