"""Parts of an annotated video: written packet by packet while the run lasts, joined into one MP4 at its end.

An MP4 is worthless until its index is written, and even a fragmented one holds back the newest frame (its
duration is unknown until the next one comes). So parts are NUT, FFmpeg's own container: every packet is in
the file once it is muxed, any time base is kept exactly, and a file cut anywhere reads up to the cut.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream
from numpy.typing import NDArray

__all__ = ["TICKS", "PartInfo", "PartWriter", "join_parts", "read_part"]

_log = logging.getLogger(__name__)

#: Ticks a second of the time base: exact for 24, 25, 30 and 29.97 fps, and the most that MPEG-4 part 2 allows
#: (a denominator below 65536) in round figures; any other time is off by 8 us at most.
TICKS = 60_000

# Ends every packet in a part, so that one cut short by a kill or a full disk is known: NUT's reader hands out
# whatever is left of it. To an H.264 decoder it is an empty filler unit; joining takes it off.
_END = b"\x00\x00\x00\x01\x0c\x80"

_BT601 = 6  # AVCOL_SPC_SMPTE170M: the matrix of the conversion below; players would guess BT.709 for HD
_LIMITED = 1  # AVCOL_RANGE_MPEG


class PartInfo(NamedTuple):
    """What a part holds.

    Attributes:
        width: Width in pixels.
        height: Height in pixels.
        epoch: Epoch of its frames.
        offset: Ticks added to their presentation times.
        last: Time of the last whole frame, in ticks; -1 when there is none.
    """

    width: int
    height: int
    epoch: int
    offset: int
    last: int


class PartWriter:
    """Encode one part; each frame is in the file when ``write`` returns.

    Args:
        path: The file.
        width: Width in pixels, even.
        height: Height in pixels, even.
        epoch: Epoch of the frames, kept in the file.
        offset: Ticks added to their presentation times, kept in the file.
    """

    def __init__(self, path: Path, width: int, height: int, epoch: int, offset: int) -> None:
        self._container = av.open(str(path), "w", format="nut", options={"flush_packets": "1"})
        self._container.metadata["comment"] = json.dumps({"epoch": epoch, "offset": offset})
        codec = _encoder()
        # zerolatency: no look-ahead and no B-frames, so a packet comes out for each frame that goes in.
        options = {"preset": "veryfast", "tune": "zerolatency", "crf": "23"} if codec == "libx264" else {}
        stream = self._container.add_stream(codec, rate=30, options=options)
        if not isinstance(stream, VideoStream):
            raise TypeError(f"{codec} is not a video encoder")
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context: VideoCodecContext = stream.codec_context
        stream.time_base = context.time_base = Fraction(1, TICKS)
        context.gop_size = 60
        context.colorspace, context.color_range = _BT601, _LIMITED
        if codec != "libx264":
            context.bit_rate = width * height * 4
        self._stream = stream

    def write(self, bgr: NDArray[np.uint8], ticks: int) -> None:
        """Encode one frame, uint8 (h, w, 3) BGR of the part's size, shown at ``ticks``."""
        frame = av.VideoFrame.from_ndarray(bgr, "bgr24").reformat(
            format="yuv420p", dst_colorspace="ITU601", dst_color_range="MPEG"
        )
        frame.pts, frame.time_base = ticks, Fraction(1, TICKS)
        self._mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the part."""
        self._mux(self._stream.encode(None))
        self._container.close()

    def _mux(self, packets: list[av.Packet[VideoStream]]) -> None:
        for packet in packets:
            self._container.mux(_with_data(packet, bytes(packet) + _END, self._stream))


def read_part(path: Path) -> PartInfo | None:
    """Describe a part, which may have been cut anywhere; None when not even its header is whole."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            said = json.loads(container.metadata.get("comment", "{}"))
            last = -1
            for packet in _whole_packets(container, stream):
                last = packet.pts if packet.pts is not None else last
            return PartInfo(
                stream.width, stream.height, int(said.get("epoch", 0)), int(said.get("offset", 0)), last
            )
    except (av.FFmpegError, IndexError, ValueError):
        return None


def join_parts(parts: list[Path], target: Path) -> None:
    """Copy the packets of parts of one size and codec into an MP4 with its index in front, without encoding.

    The MP4 appears under its name only when it is whole.
    """
    scratch = target.with_name(f"{target.name}.tmp")
    with av.open(str(scratch), "w", format="mp4", options={"movflags": "faststart"}) as out:
        stream: VideoStream | None = None
        last = -1
        for part in parts:
            with av.open(str(part)) as container:
                source = container.streams.video[0]
                if stream is None:
                    stream = out.add_stream_from_template(source)
                    stream.time_base = Fraction(1, TICKS)
                for packet in _whole_packets(container, source):
                    copy = _with_data(packet, bytes(packet).removesuffix(_END), stream)
                    if packet.pts is not None:
                        # The muxer reads it of the very last frame only, which then stays as long as its
                        # predecessor; all others last until the next one.
                        copy.duration = packet.pts - last if last >= 0 else TICKS // 25
                        last = packet.pts
                    out.mux(copy)
    scratch.replace(target)


def _whole_packets(
    container: av.container.InputContainer, stream: VideoStream
) -> Iterator[av.Packet[VideoStream]]:
    try:
        for packet in container.demux(stream):
            if bytes(packet).endswith(_END):
                yield packet
    except av.error.InvalidDataError:  # cut within a packet's header: what was before it stands
        return


def _with_data(packet: av.Packet[VideoStream], data: bytes, stream: VideoStream) -> av.Packet[VideoStream]:
    copy = cast("av.Packet[VideoStream]", av.Packet(data))
    copy.stream, copy.time_base = stream, packet.time_base
    copy.pts, copy.dts, copy.is_keyframe = packet.pts, packet.dts, packet.is_keyframe
    return copy


@cache
def _encoder() -> str:
    try:
        av.Codec("libx264", "w")
    except av.codec.codec.UnknownCodecError:
        _log.warning(
            "this PyAV has no libx264: annotated video is MPEG-4 part 2, bigger and less often playable"
        )
        return "mpeg4"
    return "libx264"
