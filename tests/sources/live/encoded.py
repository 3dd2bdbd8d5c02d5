"""Coded pictures made on the spot, to be dropped, cut and shuffled."""

from __future__ import annotations

import contextlib
import functools
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

__all__ = ["bare", "decode", "encode", "luma"]

_OPTIONS = {
    "libx264": {"x264-params": "sliced-threads=0:slices=1:scenecut=0:repeat-headers=1"},
    "libx265": {"x265-params": "log-level=none:scenecut=0:repeat-headers=1:open-gop=0:pools=none"},
}


def _content(number: int) -> NDArray[np.uint8]:
    """BGR picture (120, 160, 3), no two alike, with detail that moves."""
    noise = np.random.default_rng(7).integers(0, 256, (120, 160, 3), np.uint8)
    return np.roll(noise // 2, number * 3, axis=1) + np.uint8(number)


@functools.cache
def encode(encoder: str, frames: int = 60, gop: int = 20, b_frames: int = 0) -> tuple[Packet[Any], ...]:
    """Packets of ``frames`` pictures at 10 fps, in decoding order, timestamps in tenths of a second."""
    context = cast(VideoCodecContext, av.CodecContext.create(encoder, "w"))
    context.width, context.height, context.pix_fmt = 160, 120, "yuv420p"
    context.time_base, context.framerate = Fraction(1, 10), Fraction(10)
    context.gop_size = gop
    options = {key: value + f":bframes={b_frames}" for key, value in _OPTIONS[encoder].items()}
    if encoder == "libx265":
        options["x265-params"] += f":keyint={gop}:min-keyint={gop}"
    context.options = {"preset": "ultrafast", "bf": str(b_frames), **options}
    packets: list[Packet[Any]] = []
    for number in range(frames):
        frame = av.VideoFrame.from_ndarray(_content(number), format="bgr24")
        frame.pts = number
        packets += context.encode(frame)
    return (*packets, *context.encode(None))


def bare(packet: Packet[Any], data: bytes | None = None) -> Packet[Any]:
    """The same packet with other data."""
    copy: Packet[Any] = Packet(data or bytes(packet))
    copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
    copy.is_keyframe = packet.is_keyframe
    return copy


def decode(codec: str, packets: tuple[Packet[Any], ...]) -> dict[int, NDArray[np.uint8]]:
    """What whole packets show: luma (120, 160) by timestamp."""
    context = cast(VideoCodecContext, av.CodecContext.create(codec, "r"))
    frames = [frame for packet in packets for frame in context.decode(bare(packet))]
    with contextlib.suppress(av.EOFError):
        frames += context.decode(None)
    return {cast(int, frame.pts): luma(frame) for frame in frames}


def luma(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """A copy of the frame's luma, (120, 160)."""
    return cast("NDArray[np.uint8]", frame.to_ndarray()[:120].copy())
