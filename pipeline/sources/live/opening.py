"""Opening a stream: a connection within its time, the video in it, and what it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, cast

import av
from av.codec.context import CodecContext
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition, Stream
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from pipeline.errors import ConfigError, SourceError
from pipeline.sources.live import avlog, faults
from pipeline.sources.live.address import Address, ffmpeg_options, resolve
from pipeline.sources.live.avlog import Line
from pipeline.sources.live.faults import Fault
from pipeline.sources.packets import PacketRing

__all__ = ["Deadline", "Opened", "connect", "rate_of", "time_base_of"]

_CERTIFICATE_S = 2.0


class Deadline:
    """A point in time; as a number, the seconds left until then, at least a little.

    PyAV takes a timeout for connecting and the same again for looking into the stream. It asks for the
    number each time anew, so one deadline bounds both.
    """

    def __init__(self, seconds: float) -> None:
        self._at = time.monotonic() + seconds

    def __float__(self) -> float:
        return max(self._at - time.monotonic(), 0.001)

    @property
    def over(self) -> bool:
        """Whether it has passed, or is about to."""
        return time.monotonic() > self._at - 0.05


@dataclass(frozen=True, slots=True)
class Opened:
    """A stream that is open.

    Attributes:
        container: FFmpeg's context; whoever has it closes it.
        stream: The video in it.
        context: Its decoder on the processor, not yet opened.
        codec: FFmpeg's name of the codec.
        audio: Codec of the sound in it; empty for none.
        duration_ns: Length of a recording; 0 for a live stream.
        lines: What FFmpeg logged while it looked into the stream.
        recorder: Keeps packets for clips; None for nobody.
    """

    container: InputContainer
    stream: VideoStream
    context: VideoCodecContext
    codec: str
    audio: str
    duration_ns: int
    lines: tuple[Line, ...]
    recorder: PacketRing | None = None

    def packets(self) -> Iterator[Packet[Any]]:
        """All packets from here on; those of the video are kept by the recorder on their way."""
        for packet in self.container.demux():
            if self.recorder is not None and packet.stream_index == self.stream.index and packet.size:
                self.recorder.add(packet, self.stream, time.monotonic_ns())
            yield packet


def connect(
    name: str,
    address: Address,
    *,
    options: dict[str, str],
    timeout_s: float,
    read_timeout_s: float,
    tls_verify: bool,
    tls_ca: str | None,
    recorder: PacketRing | None = None,
) -> Opened:
    """Open a stream.

    Args:
        name: Name of the source.
        address: Where it is.
        options: FFmpeg's options, over those that suit the address; ``format`` names a demuxer.
        timeout_s: Longest time for all of it.
        read_timeout_s: Longest silence afterwards.
        tls_verify: Whether the certificate must be valid.
        tls_ca: Certificates to trust instead of the system's.
        recorder: Keeps packets for clips.

    Raises:
        ConfigError: it can never be opened like this.
        SourceError: it cannot be opened now.
    """
    deadline = Deadline(timeout_s)
    resolve(name, address, float(deadline))
    demuxer, wanted = ffmpeg_options(
        address, timeout_s=max(timeout_s, read_timeout_s), tls_verify=tls_verify, tls_ca=tls_ca
    )
    wanted |= options
    demuxer = wanted.pop("format", demuxer)
    with avlog.listen() as lines:
        try:
            timeout = cast(Any, (deadline, read_timeout_s))
            container = av.open(address.url, "r", format=demuxer, options=wanted, timeout=timeout)
        except ValueError as error:  # Not every FFmpegError is an OSError; no such demuxer is this.
            failure: Exception | None = error
        except (av.FFmpegError, OSError) as error:
            failure = error
        else:
            failure = None
    if failure is not None:
        fault = faults.connect_fault(failure, lines, address, timed_out=deadline.over, timeout_s=timeout_s)
        failure = None  # Its text and those of its causes hold the URL: no traceback may show them.
        if fault.reason == "tls":
            fault = faults.certificate_fault(address, tls_ca, _CERTIFICATE_S) or fault
        raise faults.raised(fault, name)
    try:
        opened = _look_into(name, address, container, tuple(lines))
        return replace(opened, recorder=recorder)
    except (SourceError, ConfigError):
        container.close()
        raise


def rate_of(value: Any) -> float | None:
    """A rational of PyAV (Fraction up to 18, a type of its own from 19) as a number; None for none or 0."""
    return value.numerator / value.denominator if value and value.denominator else None


def time_base_of(stream: VideoStream) -> Fraction:
    """Seconds per tick of a stream."""
    value = stream.time_base
    return Fraction(value.numerator, value.denominator) if value else Fraction(1, av.time_base)


def _look_into(name: str, address: Address, container: InputContainer, lines: tuple[Line, ...]) -> Opened:
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    sounds = [context.name for s in container.streams.audio if (context := _decoder(s)) is not None]
    # Of several renditions (HLS) the largest; the others are then not even fetched.
    stream = max(streams, key=_pixels, default=None)
    context = None if stream is None else _decoder(stream)
    if stream is None:
        what = "sends sound only, no video" if container.streams.audio else "sends no video"
        hint = "check the URL's path, and that its video is switched on"
        raise faults.raised(Fault("codec", f"{address.shown} {what}", hint), name)
    if context is None:
        what = "this FFmpeg has no decoder for its video"
        raise faults.raised(Fault("codec", f"{address.shown}: {what}", "set the camera to H.264"), name)
    for other in container.streams:
        if other is not stream:
            other.discard = Discard.all
    return Opened(
        container=container,
        stream=stream,
        context=cast(VideoCodecContext, context),
        codec=context.codec.canonical_name,
        audio=sounds[0] if sounds else "",
        duration_ns=(container.duration or 0) * 1000,
        lines=lines,
    )


def _decoder(stream: Stream) -> CodecContext | None:
    """Decoder of a stream; PyAV leaves it out where FFmpeg has none, which its types do not say."""
    return cast("CodecContext | None", stream.codec_context)


def _pixels(stream: VideoStream) -> int:
    context = cast("VideoCodecContext | None", _decoder(stream))
    return -1 if context is None else context.width * context.height
