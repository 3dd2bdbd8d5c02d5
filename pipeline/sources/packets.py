"""The newest packets of a live stream, kept as they came, so that a clip can begin before its event.

Each group of pictures is a file of its own in FFmpeg's container NUT: every packet is in the file once it is
muxed, and a file cut anywhere reads up to the cut. The name of a file ends in the monotonic time at which its
first packet came. The files lie where the frame pools do, so a run that is killed leaves none behind.
"""

from __future__ import annotations

import contextlib
import logging
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from pipeline.transport.rings import PACKET_END, came_ns, ring_file, ring_files

__all__ = ["PacketRing"]

log = logging.getLogger(__name__)


class PacketRing:
    """Keeps packets for a while; used by the thread that reads the stream.

    Args:
        prefix: Path of the files, without the time at their end.
        keep_s: Packets stay at least so long, as far as ``max_bytes`` allows.
        max_bytes: The oldest go when there are more bytes; a group of pictures larger than half of it is not
            kept to its end.
    """

    def __init__(self, prefix: Path, keep_s: float, max_bytes: int) -> None:
        self._prefix = prefix
        self._keep_ns = int(keep_s * 1e9)
        self._max_bytes = max_bytes
        self._container: OutputContainer | None = None
        self._stream: Any = None
        self._size = 0
        self._timeless: tuple[Packet[Any], int] | None = None
        self._broken = False
        # An earlier incarnation of this process was killed: what it kept is still good.
        self._files = [(path, path.stat().st_size) for path in ring_files(prefix)]

    def add(self, packet: Packet[Any], stream: VideoStream, now_ns: int) -> None:
        """Keep one packet that came now; never raises for the disk's sake.

        Args:
            packet: The packet, which is not changed.
            stream: The stream that it is of.
            now_ns: Monotonic time.
        """
        try:
            if packet.is_keyframe:
                self._begin(stream, now_ns)
            if self._container is not None:
                self._take(packet, now_ns)
                if self._size > self._max_bytes // 2:
                    self._end()
        except (av.FFmpegError, OSError, ValueError) as error:
            self._end()
            if not self._broken:
                log.warning("packets for clips cannot be kept: %s", error)
            self._broken = True

    def close(self) -> None:
        """Finish the file; all stay, for who still reads them."""
        self._end()

    def _begin(self, stream: VideoStream, now_ns: int) -> None:
        self._end()
        path = ring_file(self._prefix, now_ns)
        self._container = av.open(str(path), "w", format="nut", options={"flush_packets": "1"})
        self._stream = self._container.add_stream_from_template(stream)
        self._files.append((path, 0))
        self._forget(now_ns)

    def _take(self, packet: Packet[Any], now_ns: int) -> None:
        """Mux a packet; one without a time waits for the next, as does the first of many RTSP cameras."""
        dts = packet.dts if packet.dts is not None else packet.pts
        if dts is None:
            self._timeless = (packet, now_ns)
            return
        if self._timeless is not None:
            (before, came_at_ns), self._timeless = self._timeless, None
            ticks = Fraction(now_ns - came_at_ns, 10**9) / Fraction(packet.time_base)
            early = max(0, min(dts - 1, dts - int(ticks)))
            self._mux(before, early, early, packet.time_base)
        self._mux(packet, dts, packet.pts if packet.pts is not None else dts, packet.time_base)

    def _mux(self, packet: Packet[Any], dts: int, pts: int, time_base: Fraction) -> None:
        assert self._container is not None
        data = bytes(packet) + PACKET_END
        copy = cast("Packet[Any]", av.Packet(data))
        copy.stream, copy.time_base = self._stream, time_base
        copy.dts, copy.pts = dts, pts
        copy.is_keyframe = packet.is_keyframe
        self._container.mux(copy)
        self._size += len(data)

    def _end(self) -> None:
        container, self._container, self._timeless = self._container, None, None
        if container is not None:
            with contextlib.suppress(av.FFmpegError, OSError):
                container.close()
            path = self._files[-1][0]
            with contextlib.suppress(FileNotFoundError):
                self._files[-1] = (path, path.stat().st_size)
        self._size = 0

    def _forget(self, now_ns: int) -> None:
        """Remove the oldest files, as long as the one after them is old enough to begin with."""
        held = sum(size for _, size in self._files)
        while len(self._files) > 2:
            old = came_ns(self._files[1][0]) < now_ns - self._keep_ns
            if not old and held <= self._max_bytes:
                return
            path, size = self._files.pop(0)
            held -= size
            path.unlink(missing_ok=True)
