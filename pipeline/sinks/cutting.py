"""Cut a clip out of coded video without encoding it anew: from the keyframe before, packet by packet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
from av.packet import Packet
from av.video.stream import VideoStream

from pipeline.transport.rings import PACKET_END, came_ns

__all__ = ["Cut", "Span", "cut_file", "cut_ring"]

#: The times of a stream are believed as long as they are so near to those at which packets came.
_APART_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Span:
    """What to cut.

    Attributes:
        start_ns: Time of the first picture that is wanted: monotonic for a live stream, else presentation
            time.
        end_ns: Time after the last.
        at_ns: A moment on that axis whose wall-clock time is known.
        at: Its UTC seconds.
    """

    start_ns: int
    end_ns: int
    at_ns: int
    at: float

    def utc(self, ns: int) -> float:
        """UTC seconds of a moment."""
        return self.at + (ns - self.at_ns) / 1e9


@dataclass(frozen=True, slots=True)
class Cut:
    """What was cut.

    Attributes:
        start: UTC seconds of its first picture, that of a keyframe.
        duration_s: Its length.
    """

    start: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class _Piece:
    """A packet, its content, the stream that it is of, and when it is on the axis of the span."""

    packet: Packet[Any]
    data: bytes
    stream: VideoStream
    at_ns: int


def cut_file(source: Path, span: Span, target: Path) -> Cut | None:
    """Cut a clip out of a recording, whose axis is presentation time from its start.

    Returns:
        What was cut; None when the recording has nothing there.

    Raises:
        av.FFmpegError: the recording cannot be read, or the clip not be written.
        OSError: likewise.
    """
    with av.open(str(source)) as container:
        stream = container.streams.video[0]
        time_base = Fraction(stream.time_base or Fraction(1, av.time_base))
        first = stream.start_time or 0
        wanted = first + int(max(0, span.start_ns) / 1e9 / time_base)
        container.seek(wanted, stream=stream, backward=True)

        def pieces() -> Iterator[_Piece]:
            for packet in container.demux(stream):
                if packet.size and packet.pts is not None:
                    yield _Piece(packet, bytes(packet), stream, int((packet.pts - first) * time_base * 10**9))

        return _write(pieces(), span, target)


def cut_ring(files: Sequence[Path], span: Span, target: Path) -> Cut | None:
    """Cut a clip out of a packet ring, whose axis is the monotonic time at which packets came.

    Args:
        files: The files of the ring, oldest first (`pipeline.transport.rings`).
        span: What to cut.
        target: The clip.

    Returns:
        What was cut; None when the ring has nothing there.

    Raises:
        av.FFmpegError: the clip cannot be written.
        OSError: likewise.
    """
    came = [came_ns(path) for path in files]
    begin = max((at for at, ns in enumerate(came) if ns <= span.start_ns), default=0)

    def pieces() -> Iterator[_Piece]:
        for path, began_ns in zip(files[begin:], came[begin:], strict=True):
            if began_ns >= span.end_ns:
                return
            try:
                with av.open(str(path)) as container:
                    yield from _of_group(container, began_ns)
            except (FileNotFoundError, av.error.InvalidDataError):
                continue  # It was forgotten in this moment, or has not even a whole header yet.

    return _write(pieces(), span, target)


def _of_group(container: Any, began_ns: int) -> Iterator[_Piece]:
    stream = container.streams.video[0]
    time_base = Fraction(stream.time_base)
    first: int | None = None
    for packet in container.demux(stream):
        data = bytes(packet)
        if packet.dts is not None and data.endswith(PACKET_END):
            first = packet.dts if first is None else first
            yield _Piece(
                packet,
                data.removesuffix(PACKET_END),
                stream,
                began_ns + int((packet.dts - first) * time_base * 10**9),
            )


def _write(pieces: Iterator[_Piece], span: Span, target: Path) -> Cut | None:
    """Mux what lies in the span into an MP4 with its index in front, under its name only when it is whole."""
    first = next((piece for piece in pieces if piece.packet.is_keyframe), None)
    if first is None or first.at_ns >= span.end_ns:
        return None
    scratch = target.with_name(f"{target.name}.tmp")
    moment = datetime.fromtimestamp(span.utc(first.at_ns), UTC)
    with av.open(str(scratch), "w", format="mp4", options={"movflags": "faststart"}) as out:
        out.metadata["creation_time"] = moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
        muxer = _Muxer(out, first)
        muxer.add(first)
        for piece in pieces:
            if piece.at_ns >= span.end_ns or not muxer.add(piece):
                break
    scratch.replace(target)
    return Cut(moment.timestamp(), muxer.seconds)


class _Muxer:
    """Puts packets into a container, their times from 0 on, over the seams of groups and connections."""

    def __init__(self, out: Any, first: _Piece) -> None:
        self._out = out
        self._stream = out.add_stream_from_template(first.stream)
        if first.stream.codec_context.name in ("hevc", "libx265"):
            self._stream.codec_context.codec_tag = "hvc1"  # the one of the two names that browsers know
        self._time_base = Fraction(first.packet.time_base or first.stream.time_base or Fraction(1, 90_000))
        self._size = (first.stream.width, first.stream.height)
        self._first_ns = first.at_ns
        self._offset = first.packet.dts if first.packet.dts is not None else (first.packet.pts or 0)
        self._last = -1
        self.seconds = 0.0

    def add(self, piece: _Piece) -> bool:
        """Mux one packet; False when it cannot be in one file with the others."""
        if (piece.stream.width, piece.stream.height) != self._size:
            return False
        packet = piece.packet
        base = Fraction(packet.time_base or self._time_base)
        dts, pts = ((packet.pts if value is None else value) for value in (packet.dts, packet.pts))
        if dts is None or pts is None:
            return True
        dts, pts = (int(value * base / self._time_base) for value in (dts, pts))
        came = int((piece.at_ns - self._first_ns) / 1e9 / self._time_base)
        if abs(dts - self._offset - came) * self._time_base > Fraction(_APART_NS, 10**9):
            self._offset = dts - max(came, self._last + 1)  # The stream's times began anew.
        copy = cast("Packet[Any]", av.Packet(piece.data))
        copy.stream, copy.time_base, copy.is_keyframe = self._stream, self._time_base, packet.is_keyframe
        copy.dts = max(dts - self._offset, self._last + 1)
        copy.pts = max(pts - self._offset, copy.dts)
        if packet.duration:
            copy.duration = int(packet.duration * base / self._time_base)
        self._last = copy.dts
        self._out.mux(copy)
        self.seconds = max(self.seconds, float((pts - self._offset) * self._time_base))
        return True
