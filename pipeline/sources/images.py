"""A folder of images, or one image, as a source."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.sources.base import Picture, Pixels
from pipeline.sources.locate import check_source, image_files, local_path

__all__ = ["ImageSource", "decode_image"]

_log = logging.getLogger(__name__)
_INTERVAL_NS = 1_000_000_000


def decode_image(data: bytes) -> NDArray[np.uint8] | None:
    """Decode one image file to BGR.

    Grey, 16-bit, CMYK and transparent images all come out as 8-bit BGR; EXIF orientation is honoured.
    A file that ends early counts as bad, although OpenCV would fill the rest with grey: pixels that
    nobody took are worse than none.

    Args:
        data: The file's bytes.

    Returns:
        (h, w, 3) uint8 BGR, upright; None when it is no whole image.
    """
    if not data or _cut_short(data):
        return None
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:  # e.g. more pixels than OpenCV accepts
        return None
    return None if image is None else np.asarray(image, np.uint8)


def _cut_short(data: bytes) -> bool:
    """Whether the format's own end mark is missing."""
    if data.startswith(b"\xff\xd8"):
        # Within the scan, 0xFF is always stuffed, so this cannot be found in picture data; the search
        # starts there because the EXIF block before it may hold a whole thumbnail.
        return data.find(b"\xff\xd9", _scan_start(data)) < 0
    if data.startswith(b"\x89PNG"):
        return b"IEND" not in data[-64:] and b"\x00\x00\x00\x00IEND" not in data
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return len(data) < int.from_bytes(data[4:8], "little") + 8
    return False


def _scan_start(data: bytes) -> int:
    """Offset of the first scan of a JPEG, or its length when there is none."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == 0xDA:
            return at
        if data[at + 1] == 0xFF:  # fill byte
            at += 1
            continue
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return len(data)


class ImageSource:
    """Images in natural order, one per second of presentation time.

    An image that cannot be decoded is skipped, logged by name and counted in ``decode_errors``; it does not
    stop the run. A change of size raises the epoch.

    Args:
        name: Name of the source.
        url: Path of an image or of a folder.
        pixels: Accepted for uniformity: images are always BGR.
    """

    live = False

    def __init__(self, name: str, url: str, *, pixels: Pixels = "fast") -> None:
        self.name = name
        self.frame_rate: float | None = 1.0
        self.expected_frames: int | None = None
        self.decode_errors = 0
        self._url = url
        self._pending: list[Path] = []
        self._index = 0
        self._epoch = 0
        self._size: tuple[int, int] | None = None

    def open(self, *, skip: int = 0, after_pts_ns: int | None = None) -> None:
        """See `Source.open`; images already taken are decoded again, so that bad ones are counted alike."""
        check_source(self._url)
        files = image_files(local_path(self._url))
        self.expected_frames = len(files)
        self.decode_errors = self._index = self._epoch = 0
        self._size = None
        self._pending = files[::-1]
        while self._index < skip and self.read() is not None:
            pass

    def read(self) -> Picture | None:
        """See `Source.read`.

        Raises:
            SourceError: not one of the images could be decoded.
        """
        while self._pending:
            path = self._pending.pop()
            image = self._decode(path)
            if image is not None:
                return self._picture(path, image)
        if not self._index and self.decode_errors:
            raise SourceError(
                f"{local_path(self._url)}: {self.decode_errors} images, and not one can be decoded",
                hint="check that they open in an image viewer",
                source=self.name,
            )
        return None

    def close(self) -> None:
        """See `Source.close`."""
        self._pending = []

    def _decode(self, path: Path) -> NDArray[np.uint8] | None:
        try:
            image = decode_image(path.read_bytes())
            problem = "it is no whole image"
        except OSError as error:
            image, problem = None, str(error.strerror)
        if image is None:
            self.decode_errors += 1
            _log.warning("[%s] %s skipped: %s", self.name, path, problem)
        return image

    def _picture(self, path: Path, image: NDArray[np.uint8]) -> Picture:
        height, width = image.shape[:2]
        if self._size not in {None, (width, height)}:
            self._epoch += 1
        self._size = (width, height)
        image.flags.writeable = False
        index, self._index = self._index, self._index + 1
        return Picture(
            planes=(image,),
            pixel_format="bgr24",
            width=width,
            height=height,
            index=index,
            pts_ns=index * _INTERVAL_NS,
            captured_ns=time.monotonic_ns(),
            captured_at=time.time(),
            clock="arrival",
            epoch=self._epoch,
            owner=path,
        )
