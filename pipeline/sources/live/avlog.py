"""What FFmpeg says while a call runs: kept for explanations, never printed.

FFmpeg tells through its log what its return values do not: that RTP packets are missing, why a certificate
was refused, which reply the server gave. The lines are kept per thread, only while a stream is open.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import av.logging

__all__ = ["Line", "listen", "listening"]

_lock = threading.Lock()
_open = 0


@dataclass(frozen=True, slots=True)
class Line:
    """One line of FFmpeg's log; it may hold a URL with a password, so it is matched against, never shown.

    Attributes:
        level: FFmpeg's level: 16 is an error, 24 a warning.
        origin: Part of FFmpeg that said it (``rtsp``, ``tls``, ``h264``).
        text: What it said.
    """

    level: int
    origin: str
    text: str


def listening(on: bool) -> None:
    """Begin (or end) having FFmpeg's log; calls are counted, so that streams need not know of each other."""
    global _open  # noqa: PLW0603 - FFmpeg has one log for the whole process
    with _lock:
        _open += 1 if on else -1
        if on and _open == 1:
            # What other threads of FFmpeg say would else go to the handlers of the root logger.
            logger = logging.getLogger("libav")
            logger.propagate = False
            if not logger.handlers:
                logger.addHandler(logging.NullHandler())
            av.logging.set_skip_repeated(False)  # The same packet count may be missing twice.
            av.logging.set_level(av.logging.WARNING)
        elif not on and not _open:
            av.logging.set_level(None)
            av.logging.set_skip_repeated(True)


@contextmanager
def listen() -> Iterator[list[Line]]:
    """The lines that this thread's calls into FFmpeg log; the list is complete when the block ends."""
    lines: list[Line] = []
    with av.logging.Capture() as captured:
        try:
            yield lines
        finally:
            lines += [Line(level, origin, text.strip()) for level, origin, text in captured]
