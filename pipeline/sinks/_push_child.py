"""The program that encodes and sends one stream: pictures come in on standard input, FFmpeg takes them out.

It is a process of its own, for FFmpeg's calls into the network cannot be given up: PyAV holds the interpreter
lock while it connects and while it hangs up, and no timeout of FFmpeg covers all that an RTMP or RTSP server
can leave undone. Here a timer of the kernel ends the process when a call takes too long, and nobody else
notices. Its address comes on standard input too: an argument would be in the process list.

Run as a file, so that nothing of framewire is loaded. Input: 4 bytes (little-endian) length of the settings,
the settings (JSON), then for each picture 8 bytes time in ticks, 1 byte "keyframe", and its planes (I420).
Output: one JSON object a line: ``{"open": true}``, ``{"sent": true}``, or at the end ``{"failed": "why"}``.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any, NoReturn, cast

import av
import av.logging
from av.container import OutputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType
from av.video.stream import VideoStream

__all__ = ["ENCODERS", "PICTURE", "SETTINGS", "TICKS", "main"]

#: Ticks a second: RTP's clock for video.
TICKS = 90_000
#: Length of the settings; time in ticks and whether it is to be a keyframe.
SETTINGS, PICTURE = struct.Struct("<I"), struct.Struct("<q?")
#: Encoders of H.264, the best first.
ENCODERS = ("libx264", "libopenh264")

_BT601 = 6  # AVCOL_SPC_SMPTE170M: the matrix of the pictures that come
_LIMITED = 1  # AVCOL_RANGE_MPEG
_REASONS: tuple[tuple[type[BaseException], str], ...] = (
    (ConnectionRefusedError, "nobody listens there (connection refused)"),
    (av.error.HTTPUnauthorizedError, "the server wants another user name or password"),
    (av.error.HTTPForbiddenError, "the server does not let us publish there"),
    (av.error.HTTPNotFoundError, "the server knows no such path, or takes no streams there"),
    (av.error.HTTPClientError, "the server refuses the stream"),
    (av.error.HTTPServerError, "the server reports a fault of its own"),
    (av.error.InvalidDataError, "the server does not speak this protocol"),
    (ConnectionError, "the server closed the connection"),
    (EOFError, "the server closed the connection"),
    (TimeoutError, "the server does not answer"),
)


class _Over(Exception):  # noqa: N818 - not an error: the sender has no more pictures
    """Standard input has ended."""


def main() -> NoReturn:
    """Send until standard input ends or the server does."""
    # The sender says when it is over: signals for the whole run come to it, and may come here first.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGALRM,))
    av.logging.set_level(av.logging.ERROR)
    said: list[str] = []
    try:
        _run(json.loads(_exactly(SETTINGS.unpack(_exactly(SETTINGS.size))[0])), said)
    except _Over:
        pass
    except (av.FFmpegError, OSError, ValueError) as error:
        _say(failed=_reason(error, said))
    # FFmpeg's destructors could wait for the server again.
    os._exit(0)


def _run(settings: dict[str, Any], said: list[str]) -> None:
    width, height, limit_s = settings["width"], settings["height"], settings["stall_s"]
    with _within(limit_s), av.logging.Capture(local=False) as lines:
        try:
            container = av.open(settings["url"], "w", format=settings["format"], options=settings["options"])
            stream = _stream(container, settings)
            container.start_encoding()
        finally:
            said += [text for _, _, text in lines]
    _say(open=True)
    out = _Out(container, settings)
    planes = bytearray(width * height * 3 // 2)
    try:
        while True:
            ticks, key = PICTURE.unpack(_exactly(PICTURE.size))
            _exactly(len(planes), planes)
            with _within(limit_s):
                out.mux(stream.encode(_frame(planes, width, height, ticks, key)))
            _say(sent=True)
    except _Over:
        with _within(min(limit_s, 2.0)):
            out.mux(stream.encode(None))
            out.close()


class _Out:
    """The way to the muxer, which for HLS leads past a packet that waits for the next one.

    The MP4 muxer reckons where a segment begins from how long the packet before it lasts, and the encoder
    knows of no duration but the nominal one; a server gets each packet at once.
    """

    def __init__(self, container: OutputContainer, settings: dict[str, Any]) -> None:
        self._container = container
        self._waits = settings["format"] == "hls"
        self._held: av.Packet[VideoStream] | None = None

    def mux(self, packets: list[av.Packet[VideoStream]]) -> None:
        for packet in packets:
            if not self._waits:
                self._container.mux(packet)
                continue
            held, self._held = self._held, packet
            if held is not None:
                held.duration = (packet.pts or 0) - (held.pts or 0)
                self._container.mux(held)

    def close(self) -> None:
        if self._held is not None:
            self._container.mux(self._held)
        self._container.close()


def _stream(container: OutputContainer, settings: dict[str, Any]) -> VideoStream:
    codec = settings["encoder"]
    stream = cast(VideoStream, container.add_stream(codec, rate=settings["fps"], options=settings["codec"]))
    stream.width, stream.height, stream.pix_fmt = settings["width"], settings["height"], "yuv420p"
    context: VideoCodecContext = stream.codec_context
    stream.time_base = context.time_base = Fraction(1, TICKS)
    # Keyframes come by time, as the sender wants them: how many pictures a second has is not known.
    context.gop_size = 10_000
    context.max_b_frames = 0
    context.colorspace, context.color_range = _BT601, _LIMITED
    if settings["bitrate"]:
        context.bit_rate = settings["bitrate"]
    return stream


def _frame(planes: bytearray, width: int, height: int, ticks: int, key: bool) -> av.VideoFrame:
    frame = av.VideoFrame(width, height, "yuv420p")
    view, at = memoryview(planes), 0
    for plane in frame.planes:
        there = memoryview(plane)
        wide, step = plane.width, plane.line_size
        if wide == step:
            there[: wide * plane.height] = view[at : at + wide * plane.height]
        else:
            for row in range(plane.height):
                there[row * step : row * step + wide] = view[at + row * wide : at + (row + 1) * wide]
        at += wide * plane.height
    frame.pts, frame.time_base = ticks, Fraction(1, TICKS)
    frame.pict_type = PictureType.I if key else PictureType.NONE
    return frame


@contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Should it take longer, the kernel ends this process: Python's own handlers would never run."""
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _exactly(length: int, into: bytearray | None = None) -> bytearray:
    data = bytearray(length) if into is None else into
    view = memoryview(data)
    while view:
        count = os.readv(0, [view])
        if not count:
            raise _Over
        view = view[count:]
    return data


def _say(**news: Any) -> None:
    try:
        sys.stdout.write(json.dumps(news) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise _Over from None


def _reason(error: Exception, said: list[str]) -> str:
    """Why, in words of ours: FFmpeg's may hold the address."""
    if any("resolve" in text for text in said):
        return "nobody knows the name of that host"
    if any("certificate" in text for text in said):
        return "the certificate of the server is not trusted"
    for kind, words in _REASONS:
        if isinstance(error, kind):
            return words
    return f"FFmpeg gave up ({getattr(error, 'strerror', None) or type(error).__name__})"


if __name__ == "__main__":
    main()
