"""What is wrong with a camera of this computer, before FFmpeg is asked, which says less."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from pipeline.sources.live.faults import device_fault, raised

__all__ = ["check_device"]


def check_device(name: str, path: str) -> None:
    """See whether a V4L2 device is there and may be read.

    Args:
        name: Name of the source.
        path: ``/dev/video0``.

    Raises:
        SourceError: there is none, it may not be read, or it is something else.
    """
    try:
        mode = Path(path).stat().st_mode
        if not stat.S_ISCHR(mode):
            raise OSError(errno.ENOTTY, "no character device")
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))
    except OSError as error:
        fault = device_fault(error, path)
    else:
        return
    raise raised(fault, name)
