"""Folders of images: natural order, honest pixels, bad ones skipped and counted."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.errors import SourceError
from pipeline.sources.images import ImageSource, decode_image

from .clips import IMAGES, asset, picture, read_all


def encoded(suffix: str, size: tuple[int, int] = (64, 48)) -> bytes:
    ok, data = cv2.imencode(suffix, picture(7, *size))
    assert ok
    return data.tobytes()


def test_order_times_and_epochs(tmp_path: Path) -> None:
    sizes = {"a1.png": (64, 48), "a2.jpg": (64, 48), "a10.bmp": (32, 24), "b.webp": (64, 48)}
    for name, size in sizes.items():
        (tmp_path / name).write_bytes(encoded(Path(name).suffix, size))
    source = ImageSource("v", str(tmp_path))
    pictures = read_all(source)
    assert source.expected_frames == 4
    assert [Path(str(p.owner)).name for p in pictures] == list(sizes)
    assert [(p.width, p.height) for p in pictures] == list(sizes.values())
    assert [(p.index, p.pts_ns, p.epoch) for p in pictures] == [
        (0, 0, 0), (1, 10**9, 0), (2, 2 * 10**9, 1), (3, 3 * 10**9, 2),
    ]  # fmt: skip
    assert {(p.pixel_format, p.clock, p.planes[0].flags.writeable) for p in pictures} == {
        ("bgr24", "arrival", False)
    }
    rest = read_all(source, skip=3, after_pts_ns=2 * 10**9)
    assert [(p.index, p.pts_ns, p.epoch) for p in rest] == [(3, 3 * 10**9, 2)]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_cut_short_images_are_bad(suffix: str) -> None:
    data = encoded(suffix, (640, 480))
    whole = decode_image(data)
    assert whole is not None
    assert whole.shape == (480, 640, 3)
    for part in (0.3, 0.6, 0.9, 0.99):
        assert decode_image(data[: int(len(data) * part)]) is None
    assert decode_image(data + b"trailing bytes") is not None
    assert decode_image(b"") is None
    assert decode_image(b"no image at all") is None


def test_a_thumbnail_does_not_hide_that_a_photo_is_cut_short() -> None:
    data = encoded(".jpg", (640, 480))
    block = b"Exif\x00\x00" + encoded(".jpg", (16, 16))
    with_thumbnail = data[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + data[2:]
    assert decode_image(with_thumbnail) is not None
    assert decode_image(with_thumbnail[: len(with_thumbnail) // 2 + len(block) // 2]) is None


def test_bad_images_are_skipped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "1.png").write_bytes(encoded(".png"))
    (tmp_path / "2.png").write_bytes(b"nonsense")
    (tmp_path / "3.jpg").write_bytes(encoded(".jpg")[:-200])
    (tmp_path / "4.png").write_bytes(encoded(".png"))
    source = ImageSource("v", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        pictures = read_all(source)
    assert [Path(str(p.owner)).name for p in pictures] == ["1.png", "4.png"]
    assert [p.index for p in pictures] == [0, 1]
    assert source.decode_errors == 2
    assert "2.png skipped" in caplog.text
    assert "3.jpg skipped" in caplog.text


def test_nothing_but_bad_images(tmp_path: Path) -> None:
    (tmp_path / "2.png").write_bytes(b"nonsense")
    source = ImageSource("v", str(tmp_path / "2.png"))
    source.open()
    with pytest.raises(SourceError, match="not one can be decoded"):
        source.read()


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("exif_orientation6_bus.jpg", 6.0),
        ("cmyk_bus.jpg", 12.0),
        ("rgba_bus.png", 6.0),
        ("bus.webp", 6.0),
        ("progressive_bus.jpg", 6.0),
    ],
)
def test_kinds_of_images_become_the_same_bgr(name: str, tolerance: float) -> None:
    reference = decode_image(Path(asset("coco_train2017_000000000471.jpg", IMAGES)).read_bytes())
    image = decode_image(Path(asset(f"derived/{name}", IMAGES)).read_bytes())
    assert reference is not None
    assert image is not None
    assert image.dtype == np.uint8
    assert image.shape == reference.shape
    assert np.abs(image.astype(int) - reference).mean() < tolerance


@pytest.mark.parametrize("name", ["gray_bus.jpg", "gray16_bus.png"])
def test_grey_images(name: str) -> None:
    reference = decode_image(Path(asset("coco_train2017_000000000471.jpg", IMAGES)).read_bytes())
    image = decode_image(Path(asset(f"derived/{name}", IMAGES)).read_bytes())
    assert reference is not None
    assert image is not None
    grey = cv2.cvtColor(reference, cv2.COLOR_BGR2GRAY)
    assert np.abs(image.astype(int) - grey[:, :, None]).mean() < 6


@pytest.mark.parametrize(
    ("name", "shape"), [("one_pixel.png", (1, 1, 3)), ("extreme_aspect_640x3.png", (3, 640, 3))]
)
def test_tiny_images(name: str, shape: tuple[int, int, int]) -> None:
    (picture,) = read_all(ImageSource("v", asset(f"derived/{name}", IMAGES)))
    assert picture.planes[0].shape == shape


def test_truncated_jpeg_is_bad() -> None:
    assert decode_image(Path(asset("derived/truncated50pct_bus.jpg", IMAGES)).read_bytes()) is None
