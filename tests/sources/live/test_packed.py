"""Packed bytes to planes: every format, odd sizes, and what is no picture."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import MessageError
from pipeline.sources.live.packed import coded_size, planes_of_bytes
from pipeline.vision.tensor import planes_to_bgr

Image = NDArray[np.uint8]


def noise(*shape: int) -> Image:
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def packed(y: Image, u: Image, v: Image, form: str) -> bytes:
    chroma = (u, v) if form == "i420" else (np.dstack([u, v]),)
    return b"".join(plane.tobytes() for plane in (y, *chroma))


@pytest.mark.parametrize("form", ["i420", "nv12"])
@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 1), (2, 1), (1, 3)])
def test_planar_pictures_keep_their_planes_without_a_copy(form: Any, size: tuple[int, int]) -> None:
    width, height = size
    half = ((height + 1) // 2, (width + 1) // 2)
    y, u, v = noise(height, width), noise(*half), 255 - noise(*half)
    raw = memoryview(packed(y, u, v, form))
    planes, pixel_format = planes_of_bytes(raw, form, width, height, exact=False)
    assert pixel_format == "i420"
    for plane, expected in zip(planes, (y, u, v), strict=True):
        assert np.array_equal(plane, expected)
        assert np.shares_memory(plane, np.frombuffer(raw, np.uint8))
    (bgr,), pixel_format = planes_of_bytes(raw, form, width, height, exact=True)
    assert pixel_format == "bgr24"
    assert np.array_equal(bgr, planes_to_bgr((y, u, v), "i420"))


@pytest.mark.parametrize("exact", [False, True])
def test_rgb_and_grey_become_bgr(exact: bool) -> None:
    image = noise(5, 7, 3)
    rgb = memoryview(image[:, :, ::-1].tobytes())
    assert np.array_equal(planes_of_bytes(rgb, "rgb24", 7, 5, exact=exact)[0][0], image)
    plain = image[:, :, 0].copy()
    (bgr,), pixel_format = planes_of_bytes(plain.data.cast("B"), "gray8", 7, 5, exact=exact)
    assert pixel_format == "bgr24"
    assert all(np.array_equal(bgr[:, :, channel], plain) for channel in range(3))
    assert not bgr.flags.writeable


def coded(form: str, image: Image, *options: int) -> bytes:
    done, data = cv2.imencode(f".{form}", image, options)
    assert done
    return data.tobytes()


SMOOTH: Image = np.asarray(cv2.resize(noise(2, 2, 3), (45, 33)), np.uint8)  # what a JPEG can hold


@pytest.mark.parametrize(
    ("form", "options", "error"),
    [
        ("png", (), 0),
        ("jpeg", (cv2.IMWRITE_JPEG_QUALITY, 98), 12),
        ("jpeg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_QUALITY, 98), 12),
        ("jpeg", (cv2.IMWRITE_JPEG_RST_INTERVAL, 1, cv2.IMWRITE_JPEG_QUALITY, 98), 12),
    ],
)
def test_coded_pictures(form: Any, options: tuple[int, ...], error: int) -> None:
    data = coded(form, SMOOTH, *options)
    assert coded_size(data) == (45, 33)
    (image,), pixel_format = planes_of_bytes(memoryview(data), form, None, None, exact=False)
    assert pixel_format == "bgr24"
    assert np.abs(image.astype(int) - SMOOTH).max() <= error


JPEG, PNG = coded("jpeg", SMOOTH), coded("png", SMOOTH)


def sized(width: int, height: int) -> bytes:
    """A small PNG that announces another size."""
    return PNG[:16] + width.to_bytes(4, "big") + height.to_bytes(4, "big") + PNG[24:]


@pytest.mark.parametrize(
    ("data", "form", "size", "words"),
    [
        (b"", "bgr24", (1, 1), "has 3 bytes, not 0"),
        (bytes(17), "bgr24", (2, 3), "has 18 bytes, not 17"),
        (bytes(19), "rgb24", (2, 3), "has 18 bytes, not 19"),
        (bytes(9), "i420", (3, 3), "has 17 bytes"),
        (bytes(6), "gray8", (None, 3), "needs width and height"),
        (JPEG[: len(JPEG) // 2], "jpeg", (None, None), "cannot be decoded whole"),
        (JPEG[:-2], "jpeg", (None, None), "cannot be decoded whole"),
        (PNG[: len(PNG) // 2], "png", (None, None), "cannot be decoded whole"),
        (JPEG[:5], "jpeg", (None, None), "how large"),
        (PNG[:20], "png", (None, None), "how large"),
        (PNG, "jpeg", (None, None), "is no jpeg"),
        (JPEG, "png", (None, None), "is no png"),
        (b"BM" + bytes(60), "jpeg", (None, None), "is no jpeg"),
        (sized(60_000, 60_000), "png", (None, None), "60000x60000 is larger"),
        (sized(0, 5), "png", (None, None), "how large"),
    ],
)
def test_what_is_no_picture(data: bytes, form: Any, size: tuple[Any, Any], words: str) -> None:
    with pytest.raises(MessageError, match=words):
        planes_of_bytes(memoryview(data), form, *size, exact=False)


def test_a_picture_that_would_grow_beyond_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.sources.live.packed.MAX_PICTURE_BYTES", 100)
    assert planes_of_bytes(memoryview(bytes(33)), "gray8", 33, 1, exact=False)
    with pytest.raises(MessageError, match="34x1 is larger"):
        planes_of_bytes(memoryview(bytes(34)), "gray8", 34, 1, exact=False)


@pytest.mark.parametrize("seed", range(60))
def test_damaged_coded_pictures_are_decoded_or_refused(seed: int, capfd: pytest.CaptureFixture[str]) -> None:
    draw = np.random.default_rng(seed)
    whole = np.frombuffer(JPEG if seed % 2 else PNG, np.uint8).copy()
    whole[draw.integers(0, len(whole), 4)] = draw.integers(0, 256, 4)
    form: Any = "jpeg" if seed % 2 else "png"
    try:
        (image,), _ = planes_of_bytes(whole.data, form, None, None, exact=False)
    except MessageError:
        return
    assert image.ndim == 3
    assert 0 < image.nbytes <= 128 * 2**20
