"""When frames were published: a sink that notes it inside the real pipeline, and what follows from it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.messages import ModelSpec
from pipeline.sinks.base import Publication, Resume

__all__ = ["StampSink", "rate", "steady"]


class StampSink:
    """Notes the monotonic time of each frame, in nanoseconds; a JSON list at the end.

    Args:
        path: Where the list goes.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._stamps: list[int] = []

    def open(self, spec: ModelSpec) -> Resume:
        """Nothing to prepare."""
        return Resume()

    def write(self, item: Publication) -> None:
        """Note the time."""
        if item.frame is not None:
            self._stamps.append(time.monotonic_ns())

    def close(self) -> list[str]:
        """Write the list; it is the benchmark's own, so it is not named among the results."""
        self._path.write_text(json.dumps(self._stamps))
        return []


def rate(stamps_ns: Sequence[int]) -> float:
    """Frames per second between the first and the last stamp: n stamps bound n - 1 intervals."""
    elapsed = stamps_ns[-1] - stamps_ns[0] if stamps_ns else 0
    return (len(stamps_ns) - 1) * 1e9 / elapsed if elapsed > 0 else 0.0


def steady(stamps_ns: Sequence[int], drain: int) -> Sequence[int]:
    """The stamps without the first tenth (queues fill, caches warm) and the last ``drain`` (they empty)."""
    inner = stamps_ns[max(10, len(stamps_ns) // 10) : len(stamps_ns) - drain]
    return inner if len(inner) > 10 else stamps_ns
