"""A recording delivered at its own pace, as a camera would deliver it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from pipeline.sources.base import Picture, Source

__all__ = ["Paced"]


class Paced:
    """Makes any source live: each picture comes when its presentation time has come.

    A late picture is delivered at once and never skipped here: what is fresh enough is for ``capture``
    to decide. The pace starts at the first picture read after `open`, so a resumed recording goes on
    from where it was and does not rush to catch up.

    Args:
        source: The source to pace.
        now_ns: Monotonic clock, nanoseconds.
        sleep: Waits that many seconds; None for one that `interrupt` ends.
    """

    live = True

    def __init__(
        self,
        source: Source,
        *,
        now_ns: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self._source = source
        self._now_ns = now_ns
        self._interrupted = threading.Event()
        self._sleep = sleep or self._interrupted.wait
        self._zero_ns: int | None = None
        self.name = source.name

    @property
    def frame_rate(self) -> float | None:
        """Nominal pictures per second."""
        return self._source.frame_rate

    @property
    def expected_frames(self) -> int | None:
        """About how many pictures there will be."""
        return self._source.expected_frames

    @property
    def decode_errors(self) -> int:
        """Pictures that could not be decoded."""
        return self._source.decode_errors

    def open(self, *, skip: int = 0, after_pts_ns: int | None = None) -> None:
        """See `Source.open`."""
        self._zero_ns = None
        self._source.open(skip=skip, after_pts_ns=after_pts_ns)

    def read(self) -> Picture | None:
        """See `Source.read`; waits until the picture is due and stamps it then."""
        picture = self._source.read()
        if picture is None:
            return None
        now = self._now_ns()
        if self._zero_ns is None:
            self._zero_ns = now - picture.pts_ns
        wait_ns = self._zero_ns + picture.pts_ns - now
        if wait_ns <= 0:
            return picture
        self._sleep(wait_ns / 1e9)
        if self._interrupted.is_set():
            return None
        # The wait is no latency: a camera would have exposed the picture only now.
        captured_at = picture.captured_at + (wait_ns / 1e9 if picture.clock == "arrival" else 0.0)
        return replace(picture, captured_ns=self._now_ns(), captured_at=captured_at)

    def interrupt(self) -> None:
        """Ask `read` to return None at once; any thread may call it."""
        self._interrupted.set()

    def close(self) -> None:
        """See `Source.close`."""
        self._source.close()
