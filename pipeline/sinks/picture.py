"""One picture as a file."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SinkError

__all__ = ["write_picture"]

_HINT = "free space there, or name a folder that you may write"


def write_picture(path: Path, bgr: NDArray[np.uint8]) -> None:
    """Encode a picture and put it in place, whole or not at all; folders on the way are made.

    Args:
        path: The file; its suffix (``.jpg``, ``.png``) says the format.
        bgr: uint8 (h, w, 3).

    Raises:
        SinkError: it cannot be encoded or written.
    """
    try:
        done, data = cv2.imencode(path.suffix, bgr)
    except cv2.error as error:  # e.g. a side over 65,535 pixels in a JPEG
        raise SinkError(f"cannot encode {path}: {error.err}", hint="name another format") from error
    if not done:
        raise SinkError(f"cannot encode {path}", hint="name another format")
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data.tobytes())
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise SinkError(f"cannot write {path}: {error.strerror}", hint=_HINT) from error
