"""Formats and sizes from first bytes, held against what really decodes them."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.web.headers import FORMATS, format_of, scans_of, size_of


def encoded(suffix: str, width: int = 37, height: int = 21, *options: int) -> bytes:
    picture = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    done, data = cv2.imencode(suffix, picture, options)
    assert done
    return data.tobytes()


def bomb(width: int, height: int) -> bytes:
    """A small PNG whose header promises that many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1_000_000)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("jpeg", encoded(".jpg")),
        ("jpeg", encoded(".jpg", 37, 21, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
        ("jpeg", encoded(".jpg", 37, 21, cv2.IMWRITE_JPEG_RST_INTERVAL, 2)),
        ("png", encoded(".png")),
        ("webp", encoded(".webp", 37, 21, cv2.IMWRITE_WEBP_QUALITY, 80)),
        ("webp", encoded(".webp", 37, 21, cv2.IMWRITE_WEBP_QUALITY, 101)),
        ("bmp", encoded(".bmp")),
    ],
    ids=["jpeg", "progressive", "restart markers", "png", "webp lossy", "webp lossless", "bmp"],
)
def test_sizes(name: str, data: bytes) -> None:
    assert format_of(data[:32]) == name
    assert name in FORMATS
    assert size_of(data) == (37, 21)
    for end in range(12):
        assert size_of(data[:end]) is None


def test_other_shapes_of_headers() -> None:
    extended = b"RIFF\x00\x00\x00\x00WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0"
    extended += (4000 - 1).to_bytes(3, "little") + (3000 - 1).to_bytes(3, "little")
    assert size_of(extended) == (4000, 3000)
    core = b"BM" + bytes(12) + struct.pack("<IHH", 12, 8, 5)
    assert size_of(core) == (8, 5)
    top_down = b"BM" + bytes(12) + struct.pack("<Iii", 40, 8, -5)
    assert size_of(top_down) == (8, 5)
    # An APP segment, fill bytes, and a thumbnail's own frame in it, which is not the picture's.
    data = encoded(".jpg")
    thumbnail = b"\xff\xc0\x00\x11\x08\x00\x01\x00\x01" + bytes(20)
    filled = (
        data[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(thumbnail)) + thumbnail + b"\xff\xff" + data[2:]
    )
    assert size_of(filled) == (37, 21)


SCAN = b"\xff\xda\x00\x02"
PROGRESSIVE = encoded(".jpg", 37, 21, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
SEGMENT = b"\xff\xe2\x00\x06" + SCAN
NO_FRAME = b"\xff\xd8" + b"\xff\xe0\x00\x02" * 100_000


@pytest.mark.parametrize(
    ("data", "scans"),
    [
        pytest.param(b"", 0, id="nothing"),
        pytest.param(encoded(".png"), 0, id="another format"),
        pytest.param(encoded(".jpg"), 1, id="baseline"),
        pytest.param(encoded(".jpg", 37, 21, cv2.IMWRITE_JPEG_RST_INTERVAL, 1), 1, id="restart markers"),
        pytest.param(PROGRESSIVE, 10, id="progressive"),
        pytest.param(PROGRESSIVE[:-2] + SCAN * 10, 20, id="just as many"),
        pytest.param(PROGRESSIVE[:-2] + SCAN * 11, 21, id="one too many"),
        pytest.param(PROGRESSIVE[:-2] + b"\xff\xff\xd0" + SCAN * 9999, 21, id="far too many"),
        pytest.param(PROGRESSIVE + SCAN * 99, 10, id="after its end"),
        pytest.param(
            PROGRESSIVE[:2] + SEGMENT * 99 + PROGRESSIVE[2:], 10, id="in a segment, as of a preview"
        ),
        pytest.param(NO_FRAME, 21, id="more segments than are counted"),
    ],
)
def test_scans_of_a_jpeg(data: bytes, scans: int) -> None:
    assert scans_of(data, 20) == scans


@pytest.mark.parametrize(
    "data",
    [NO_FRAME, NO_FRAME + encoded(".jpg")[2:], b"\xff\xd8\xff\xda\x00\x02" + encoded(".jpg")[2:], b"",
     b"GIF89a" + bytes(30), b"II*\0" + bytes(30), b"<svg/>", b"\xff\xd8\xff\xd9", b"BM" + bytes(40)],
)  # fmt: skip
def test_what_has_no_size(data: bytes) -> None:
    assert size_of(data) is None


@given(st.sampled_from([encoded(s) for s in (".jpg", ".png", ".webp", ".bmp")]), st.data())
def test_damage_never_raises_and_never_gives_less_than_a_pixel(data: bytes, draw: st.DataObject) -> None:
    damaged = bytearray(data[: draw.draw(st.integers(0, len(data)))])
    for _ in range(draw.draw(st.integers(0, 4))):
        if damaged:
            damaged[draw.draw(st.integers(0, len(damaged) - 1))] = draw.draw(st.integers(0, 255))
    size = size_of(bytes(damaged))
    assert 0 <= scans_of(bytes(damaged), 3) <= 4
    assert size is None or min(size) > 0


def test_real_pictures(assets: Path) -> None:
    seen = 0
    for path in sorted((assets / "images").rglob("*.*")):
        data = path.read_bytes()
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if not format_of(data) or picture is None:
            continue
        seen += 1
        # Unchanged, so not turned as EXIF asks: what the header says.
        assert size_of(data) == (picture.shape[1], picture.shape[0]), path
        assert scans_of(data, 20) <= 20, path
    assert seen > 20
