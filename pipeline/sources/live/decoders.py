"""Which decoder a stream gets: a graphics card's where it truly works, else the processor's."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from pipeline.errors import ConfigError, SourceError

__all__ = ["DEVICES", "Choice", "check_decode", "choose_decoder", "configure", "probe_device"]

#: Devices in the order in which ``auto`` tries them, and what each needs.
DEVICES = {
    "cuda": "an NVIDIA card with its driver (libnvcuvid); in a container also --gpus all with the "
    "capability video",
    "vaapi": "an Intel or AMD card, its VA-API driver, and leave to use /dev/dri/renderD128 (group render)",
    "qsv": "an Intel card with oneVPL (libmfx-gen), and leave to use /dev/dri/renderD128 (group render)",
    "drm": "a board with a stateless V4L2 decoder",
    "amf": "an AMD card with the AMF runtime",
}
_AUTO = ("cuda", "vaapi", "qsv")
#: Names that users know the same devices by.
_ALIASES = {"nvdec": "cuda", "v4l2": "drm"}
_ENCODERS = {"h264": "libx264", "hevc": "libx265", "mjpeg": "mjpeg"}
#: MJPEG: else what is missing of a picture is painted grey, and nothing says so. HEVC: its decoder sees no
#: damage at all, unless the camera sends a checksum of each picture.
_ERROR_DETECTION = {"mjpeg": "explode", "mjpegb": "explode", "hevc": "crccheck"}
_SIZE = (320, 240)
_TOLERANCE = 4.0


@dataclass(frozen=True, slots=True)
class Choice:
    """A decoder that works.

    Attributes:
        name: ``cpu`` or the device.
        context: Its context, not yet opened.
        refusals: Why each that was tried before was not taken.
    """

    name: str
    context: VideoCodecContext
    refusals: tuple[str, ...] = ()


def check_decode(source: str, decode: str) -> None:
    """See whether there can be such a decoder at all, before anything is connected.

    Args:
        source: Name of the source, for messages.
        decode: ``auto``, ``cpu``, or a device.

    Raises:
        ConfigError: there is no such device, or this FFmpeg was built without it.
    """
    device = _ALIASES.get(decode, decode)
    if device in ("auto", "cpu"):
        return
    built_in = [name for name in hwdevices_available() if name in DEVICES]
    if device not in DEVICES:
        raise ConfigError(
            f"sources.{source}.decode: there is no decoder {decode!r}",
            hint=f"it can be auto, cpu, {', '.join(built_in)}",
            source=source,
        )
    if device not in built_in:
        raise ConfigError(
            f"sources.{source}.decode: this FFmpeg was built without {device}",
            hint=f"it can be auto, cpu, {', '.join(built_in)}; or build PyAV against an FFmpeg that has it",
            source=source,
        )


def choose_decoder(
    source: str,
    decode: str,
    plain: VideoCodecContext,
    *,
    probe: Callable[[str, str], str] | None = None,
) -> Choice:
    """Find the decoder for a stream.

    Args:
        source: Name of the source, for messages.
        decode: As for `check_decode`, which has found nothing wrong with it.
        plain: The processor's decoder of the stream, not yet opened, with its parameters.
        probe: Tries a device with a codec; says why it does not work, or nothing.

    Raises:
        SourceError: the device asked for does not work; the hint says what it needs.
    """
    codec = plain.codec.canonical_name
    device = _ALIASES.get(decode, decode)
    probe = probe or probe_device
    if device == "cpu":
        return Choice("cpu", plain)
    if device != "auto":
        if why := probe(device, codec):
            raise SourceError(
                f"{codec} cannot be decoded by {device}: {why}",
                reason="codec",
                hint=f"it needs {DEVICES[device]}; or give decode: auto",
                source=source,
            )
        return Choice(device, _on_device(device, plain))
    refusals: list[str] = []
    for device in _AUTO:
        why = probe(device, codec) if device in hwdevices_available() else "this FFmpeg was built without it"
        if not why:
            return Choice(device, _on_device(device, plain), tuple(refusals))
        refusals.append(f"{device}: {why}")
    return Choice("cpu", plain, tuple(refusals))


@functools.cache
def probe_device(device: str, codec: str) -> str:
    """Decode a small picture on a device and compare; says why it does not work, or nothing.

    The answer is kept for the life of the process.

    Args:
        device: A key of `DEVICES` that this FFmpeg has.
        codec: FFmpeg's name of the codec.
    """
    try:
        accel = HWAccel(device, allow_software_fallback=False)
        context = cast(VideoCodecContext, av.CodecContext.create(codec, "r", hwaccel=accel))
    except NotImplementedError:
        return f"it does not decode {codec}"
    except (av.FFmpegError, RuntimeError, OSError, ValueError) as error:
        return f"there is none that can be used ({_words(error)})"
    if not context.is_hwaccel:
        return f"it does not decode {codec}"
    if codec not in _ENCODERS:
        return ""  # There is no sample of it; the first picture of the stream will tell.
    return _compare(context, codec)


def configure(context: VideoCodecContext, threads: int) -> None:
    """Set a decoder up for low delay and honest pictures; before its first packet."""
    # Threads by frame would hold a picture back for each thread.
    context.thread_type = "SLICE"
    context.thread_count = threads
    context.flags |= av.codec.context.Flags.low_delay
    if detect := _ERROR_DETECTION.get(context.name):
        context.options = {**context.options, "err_detect": detect}


def _on_device(device: str, plain: VideoCodecContext) -> VideoCodecContext:
    """A decoder on a device with the stream's parameters; an error where it cannot do them."""
    accel = HWAccel(device, allow_software_fallback=False)
    name = plain.codec.canonical_name
    context = cast(VideoCodecContext, av.CodecContext.create(name, "r", hwaccel=accel))
    if plain.extradata:
        context.extradata = plain.extradata
    return context


def _compare(context: VideoCodecContext, codec: str) -> str:
    """Decode the sample; says what is wrong with the picture, or nothing."""
    try:
        found = _decoded(context, codec)
    except (av.FFmpegError, RuntimeError, OSError) as error:
        return f"it does not decode {codec} ({_words(error)})"
    wanted = _decoded(cast(VideoCodecContext, av.CodecContext.create(codec, "r")), codec)
    if found is None or wanted is None:
        return "it gives no picture"
    right = found.shape == wanted.shape and np.abs(found.astype(np.int16) - wanted).mean() < _TOLERANCE
    return "" if right else "its picture is wrong"


def _words(error: Exception) -> str:
    """A reason in a few words; the devices' own errors rarely say more than a number."""
    text = (getattr(error, "strerror", None) or str(error)).split(";")[0].strip().rstrip(".")
    return text[:1].lower() + text[1:] if text else type(error).__name__


def _decoded(context: VideoCodecContext, codec: str) -> NDArray[np.uint8] | None:
    """The sample as a decoder shows it, (240, 320, 3) uint8 BGR; None when no picture comes out."""
    frames: list[VideoFrame] = []
    for packet in _sample(_ENCODERS[codec]):
        frames += context.decode(packet)
    with contextlib.suppress(av.EOFError):
        frames += context.decode(None)
    if not frames:
        return None
    return cast("NDArray[np.uint8]", frames[0].reformat(format="bgr24").to_ndarray())


@functools.cache
def _sample(encoder: str) -> tuple[Packet[Any], ...]:
    """A picture of colour bars, encoded."""
    width, height = _SIZE
    context = cast(VideoCodecContext, av.CodecContext.create(encoder, "w"))
    context.width, context.height = width, height
    context.pix_fmt = "yuvj420p" if encoder == "mjpeg" else "yuv420p"
    context.time_base = Fraction(1, 10)
    context.options = {"x264-params": "bframes=0", "x265-params": "bframes=0:log-level=none"}
    bars = np.zeros((height, width, 3), np.uint8)
    for number in range(8):
        bars[:, number * width // 8 :] = [255 * (number >> bit & 1) for bit in range(3)]
    frame = VideoFrame.from_ndarray(bars, format="bgr24")
    frame.pts = 0
    return (*context.encode(frame), *context.encode(None))
