"""The contract of a sink: open, write, close.

A run may outlive the process that publishes: killed with SIGKILL, it is started again and ``open`` is called
with files of the same run already there. Two rules make that safe. Each sink says in `Resume` how far it is,
and first of all is given the events of the log from there on; and each sink by itself passes over what it
holds already, so a frame that only some of them had received may be handed to all again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pipeline.messages import FrameHeader, ModelSpec, Result, Scene

__all__ = ["Follower", "LogView", "Publication", "Resume", "Sink"]


@dataclass(frozen=True, slots=True)
class Publication:
    """What one frame, or the end of a stream, brings.

    Attributes:
        header: Identity and time of the frame; None for the end of a stream.
        frame: Its record (`pipeline.sinks.records.frame_record`); None for the end of a stream.
        events: Event records that it caused, in order.
        picture: Makes the frame's pixels, uint8 (h, w, 3) BGR, or None when they are gone. It may view
            memory that is reused after ``write`` returns: whoever keeps pixels copies them.
        result: The result itself, for whoever draws; None for the end of a stream.
        scene: What its owner has drawn for the source.
        inside: Objects in each of its zones, by name.
    """

    header: FrameHeader | None
    frame: dict[str, Any] | None
    events: tuple[dict[str, Any], ...]
    picture: Callable[[], NDArray[np.uint8] | None]
    result: Result | None
    scene: Scene = Scene()  # noqa: RUF009  (frozen)
    inside: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Resume:
    """What an earlier incarnation of the publisher had written in this run; empty on a fresh start.

    Attributes:
        next_seq: By source, the first frame that this sink does not hold. A sink that cannot tell (nothing
            is left of a frame without events in an event log) leaves it empty.
        next_sequence: Number of the first event that it does not hold; None for a sink that holds no events.
    """

    next_seq: dict[str, int] = field(default_factory=dict)
    next_sequence: int | None = None


class LogView(Protocol):
    """The event log, as far as a sink may look at it."""

    log_id: str
    run_id: str
    path: Path
    first: int
    next: int
    oldest: int


@runtime_checkable
class Follower(Protocol):
    """A sink that goes with the event log.

    Attributes:
        name: What it is called in metrics.
    """

    name: str

    def attach(self, log: LogView) -> None:
        """Told before ``open``."""

    def tick(self) -> None:
        """Called several times a second, whether frames come or not.

        Raises:
            SinkError: it cannot go on.
        """

    def stats(self) -> dict[str, int]:
        """Numbers for metrics."""


class Sink(Protocol):
    """Where results go. Options come to the constructor as plain keywords; it touches nothing yet."""

    def open(self, spec: ModelSpec) -> Resume:
        """Get ready, and say what is there already.

        Raises:
            SinkError: the place cannot be written or bound.
        """

    def write(self, item: Publication) -> None:
        """Take one publication; what it wrote survives a SIGKILL of this process.

        Raises:
            SinkError: the place cannot be written any more (full disk, lost permission).
        """

    def close(self) -> list[str]:
        """Finish, and name the files written."""
