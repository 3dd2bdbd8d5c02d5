"""What a live source is made of: one connection at a time, opened, read until it breaks, closed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from pipeline.sources.base import Picture

__all__ = ["Connect", "Connection", "StreamFacts"]


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What a stream turned out to be when it was opened.

    Attributes:
        codec: FFmpeg's name of the codec (``h264``, ``hevc``, ``mjpeg``), or ``raw``.
        width: Width in pixels, upright; 0 while it is unknown.
        height: Height in pixels, upright; 0 while it is unknown.
        frame_rate: Pictures per second as the stream declares it; None when it does not.
        decoder: Decoder in force: ``cpu``, or the name of the device (``cuda``, ``vaapi``, …).
        refusals: Why each decoder that was tried before was not taken, one sentence each.
        audio: Codec of the sound that comes with it, which is not read; empty for none.
        transport: How it travels: ``tcp``, ``udp``, ``http``, …
    """

    codec: str
    width: int
    height: int
    frame_rate: float | None
    decoder: str = "cpu"
    refusals: tuple[str, ...] = ()
    audio: str = ""
    transport: str = ""


class Connection(Protocol):
    """One connection to a live stream. Used by one thread and never opened twice.

    ``pts_ns`` of its pictures starts near 0 and never goes back; ``epoch`` starts at 0 and rises when size,
    codec or frame rate change in the middle; ``index`` counts its pictures from 0.
    """

    @property
    def heard_ns(self) -> int:
        """Monotonic time at which data last came from the camera, decodable or not; 0 before the first.

        Another thread may read it.
        """

    @property
    def skipped(self) -> int:
        """Coded pictures that were not decoded on purpose (``max_fps``, schedule, lag)."""

    @property
    def decode_errors(self) -> int:
        """Pictures that could not be decoded whole, and were left out."""

    @property
    def clock_offset_s(self) -> float | None:
        """Camera's clock minus this host's, seconds; None without a camera clock."""

    @property
    def drift_ppm(self) -> float | None:
        """How much faster than ours the camera's clock runs, parts per million; None when unknown."""

    @property
    def bound_s(self) -> float:
        """No call takes longer than this without hearing anything.

        Whoever does is stuck in a library or driver.
        """

    def open(self) -> StreamFacts:
        """Connect.

        Raises:
            SourceError: it cannot be read; ``reason`` is one of ``auth``, ``not_found``, ``timeout``,
                ``codec``, ``network``, ``tls``, and nothing in it holds a credential.
        """

    def read(self) -> Picture | None:
        """The next whole picture; None when the stream has come to its own, final end.

        Raises:
            SourceLostError: it broke, fell silent for the read timeout, or sends what cannot be decoded.
        """

    def interrupt(self) -> None:
        """Have `read` return None as soon as it can; any thread may call it."""

    def close(self) -> None:
        """Give everything back; harmless when closed already, never longer than ``bound_s``."""


#: Makes a connection, not yet opened.
Connect = Callable[[], Connection]
