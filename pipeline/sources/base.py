"""What every source gives: decoded pictures with their time, in order, until the end or a break."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.messages import Clock

__all__ = ["Picture", "PixelFormat", "Pixels", "Source"]

PixelFormat = Literal["bgr24", "i420"]
#: ``exact``: full-size BGR, as ordinary tools give it. ``fast``: the decoder's own planes where it has them.
Pixels = Literal["fast", "exact"]


@dataclass(frozen=True, slots=True)
class Picture:
    """One decoded frame, not yet admitted.

    Attributes:
        planes: ``bgr24``: one (h, w, 3) uint8; ``i420``: Y (h, w), U and V (ceil(h/2), ceil(w/2)) uint8,
            limited range. They may be strided read-only views into the decoder's memory, valid for as
            long as this object lives.
        pixel_format: ``bgr24`` or ``i420``.
        width: Width in pixels, upright.
        height: Height in pixels, upright.
        index: Number of the picture in its source, from 0, without gaps.
        pts_ns: Presentation time in nanoseconds from the start of the stream, never decreasing.
        captured_ns: Monotonic time of decoding (of delivery, for a paced source).
        captured_at: UTC seconds of the picture.
        clock: Where ``captured_at`` comes from.
        epoch: Rises when the size changes in mid-stream.
        owner: Keeps the memory behind ``planes`` alive.
    """

    planes: tuple[NDArray[np.uint8], ...]
    pixel_format: PixelFormat
    width: int
    height: int
    index: int
    pts_ns: int
    captured_ns: int
    captured_at: float
    clock: Clock
    epoch: int
    owner: object = None


class Source(Protocol):
    """A sequence of pictures.

    Attributes:
        name: Name of the source.
        live: Whether a picture loses its worth with time, so that only the newest matters.
    """

    name: str
    live: bool

    @property
    def frame_rate(self) -> float | None:
        """Nominal pictures per second, once open; None when unknown."""

    @property
    def expected_frames(self) -> int | None:
        """About how many pictures there will be, for progress only; None when unknown."""

    @property
    def decode_errors(self) -> int:
        """Pictures that could not be decoded and were skipped, since `open`."""

    def open(self, *, skip: int = 0, after_pts_ns: int | None = None) -> None:
        """Get ready to read.

        Args:
            skip: Number of pictures that an earlier, killed incarnation has already taken.
            after_pts_ns: Presentation time of the last of them.

        Raises:
            SourceError: it cannot be read; the message says what is wrong with it.
        """

    def read(self) -> Picture | None:
        """The next picture, or None at the end of the stream.

        Raises:
            SourceLostError: it broke after it was opened; pictures read before stay valid.
        """

    def close(self) -> None:
        """Give everything back; harmless when closed already."""
