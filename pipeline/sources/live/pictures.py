"""Decoded frames of a stream as pictures, with their times, numbers and epoch."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from av.packet import Packet
from av.video.frame import VideoFrame

from pipeline.messages import Clock
from pipeline.sources.base import Picture, PixelFormat
from pipeline.sources.live.clocks import CameraClock, PtsClock
from pipeline.sources.planes import planes_of

__all__ = ["PictureMaker"]


class PictureMaker:
    """Makes the pictures of one connection.

    Args:
        pixel_format: ``i420`` or ``bgr24``.
        time_base: Seconds per tick of the stream; None where its timestamps are FFmpeg's invention, so that
            the time of arrival is all there is.
        frame_rate: Pictures per second as it declares; None when it does not.
        held_s: For how long FFmpeg holds a picture back after it has arrived, seconds.
        now: Wall clock, UTC seconds.

    Attributes:
        pts_clock: Presentation time.
        camera_clock: The camera's wall clock.
        made: Number of pictures made.
        width: Of the last picture; 0 before it.
        height: Of the last picture; 0 before it.
    """

    def __init__(
        self,
        pixel_format: PixelFormat,
        time_base: Fraction | None = None,
        frame_rate: float | None = None,
        *,
        held_s: float = 0.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.pts_clock = PtsClock(round(1e9 / (frame_rate or 25)))
        self.camera_clock = CameraClock()
        self.made = 0
        self.width = self.height = 0
        self._pixel_format = pixel_format
        self._time_base = time_base
        self._rate: float | None = None
        self._held_s = held_s
        self._now = now
        self._epoch = 0

    def nanoseconds(self, ticks: int | None) -> int | None:
        """A timestamp of the stream in nanoseconds; None without one that means something."""
        if ticks is None or self._time_base is None:
            return None
        return round(ticks * self._time_base * 1_000_000_000)

    def hear(self, packet: Packet[Any]) -> None:
        """Take the camera's UTC time of a packet, which FFmpeg works out from the last sender report."""
        time_ns = self.nanoseconds(packet.pts)
        if time_ns is None or not packet.has_sidedata("prft"):
            return
        (utc_us,) = struct.unpack_from("<q", bytes(packet.get_sidedata("prft")))
        self.camera_clock.report(utc_us * 1000, time_ns, self._now() - self._held_s)

    def make(self, frame: VideoFrame, rate: float | None) -> Picture:
        """The picture that a frame shows.

        Args:
            frame: A whole frame in main memory.
            rate: Pictures per second that the decoder now reads from the stream; None when it reads none.
        """
        captured_ns, now_s = time.monotonic_ns(), self._now()
        time_ns = self.nanoseconds(frame.pts)
        pts_ns = self.pts_clock.next(captured_ns if self._time_base is None else time_ns, captured_ns)
        if frame.format.name == "nv12":  # As graphics cards give it: the same samples, put apart.
            frame = frame.reformat(format="yuv420p")
        planes, owner = planes_of(frame, self._pixel_format)
        height, width = planes[0].shape[:2]
        self._notice(width, height, rate)
        camera_s = self.camera_clock.utc(time_ns)
        clock: Clock = "arrival" if camera_s is None else "rtcp"
        index, self.made = self.made, self.made + 1
        return Picture(
            planes=planes,
            pixel_format=self._pixel_format,
            width=width,
            height=height,
            index=index,
            pts_ns=pts_ns,
            captured_ns=captured_ns,
            captured_at=now_s if camera_s is None else camera_s,
            clock=clock,
            epoch=self._epoch,
            owner=owner,
        )

    def _notice(self, width: int, height: int, rate: float | None) -> None:
        """A new size or declared rate is a new epoch."""
        resized = bool(self.made) and (width, height) != (self.width, self.height)
        paced_anew = bool(self.made) and rate is not None and self._rate is not None and rate != self._rate
        if resized or paced_anew:
            self._epoch += 1
        self.width, self.height = width, height
        self._rate = rate or self._rate
