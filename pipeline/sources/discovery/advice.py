"""What to change about a stream, in plain words, from what was measured of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pipeline.sources.survey import Survey

__all__ = ["Advice", "advise"]

_KEYFRAMES_S = 4.0
_CLOCK_S = 1.0
_DRIFT_PPM = 200.0
_JITTER_INTERVALS = 2.0
_MEGAPIXELS = 3.0
_FAST = 30.5
#: Megabits per second and million pixels above which H.264 and H.265 spend bits that detectors do not see.
_RICH_MBPS = 4.0
#: Shares of a core above which a dear codec, and any, are worth a word.
_DEAR_SHARE = 0.2
_HEAVY_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing to know or do.

    Attributes:
        level: ``warning``: detection suffers. ``note``: it costs, or is good to know.
        about: What it concerns: ``keyframes``, ``rate``, ``size``, ``decoder``, ``clock``, …
        text: What is so, what comes of it, and what to do.
    """

    level: Literal["warning", "note"]
    about: str
    text: str


def advise(found: Survey, model_px: int = 416) -> list[Advice]:
    """Advice on a stream, warnings first.

    Args:
        found: What was measured.
        model_px: Width of the picture that the model looks at.
    """
    everything = [*_always(found, model_px), *(_live(found) if found.kind != "file" else ())]
    return sorted(everything, key=lambda one: one.level != "warning")


def _always(found: Survey, model_px: int) -> Iterator[Advice]:
    fps = found.fps
    load = (found.decode_ms or 0) * (fps or 0) / 1000
    cost = f"decoding takes {load:.0%} of a core" if load else "decoding is dear"
    if found.lost:
        yield Advice("warning", "connection", f"it broke after {found.seconds:.1f} s: {found.lost}")
    if found.width * found.height > _MEGAPIXELS * 1e6:
        smaller = (
            "give the camera's sub-stream instead" if found.kind != "file" else "a smaller copy is as good"
        )
        yield Advice(
            "note",
            "size",
            f"{found.width}x{found.height} is shrunk to {model_px} pixels for the model, and {cost}:"
            f" {smaller}, unless objects far away matter",
        )
    if fps and fps > _FAST:
        yield Advice(
            "note",
            "rate",
            f"{fps:.0f} pictures/s are more than the model of one core takes along: set max_fps: 15,"
            " or a lower rate in the camera",
        )
    if found.codec == "hevc" and found.decoder == "cpu" and (load > _DEAR_SHARE or not load):
        text = f"H.265 without a hardware decoder: {cost}; set the camera to H.264, or see: framewire doctor"
        yield Advice("note", "decoder", text)
    elif load > _HEAVY_SHARE:
        yield Advice("note", "decoder", f"{cost}: set max_fps, or take a smaller stream")
    if found.decode_errors:
        yield _damage(found)
    if found.variable_rate and not found.decode_errors:
        text = "the pictures' intervals vary: speeds and dwell times stay right, as timestamps are used"
        if found.kind != "file":
            text += "; for an even rate switch off variable or smart frame rate in the camera"
        yield Advice("note", "rate", text)
    if found.pictures < 3:
        text = f"only {found.pictures} pictures in {found.seconds:.0f} s: ask longer, with --seconds 30"
        yield Advice("note", "rate", text)
    if found.not_measured:
        text = f"{found.not_measured}; keyframes, bit rate and B-frames are not known"
        yield Advice("note", "connection", text)


def _damage(found: Survey) -> Advice:
    damaged, total = found.decode_errors, found.decode_errors + found.pictures
    what = f"{damaged} of {total} pictures were damaged, or built on damaged ones"
    if found.transport in ("udp", "multicast"):
        return Advice("warning", "loss", f"{what}: packets are lost; set transport: tcp")
    if found.kind == "file":
        return Advice("note", "loss", f"{what}: they are left out")
    return Advice("warning", "loss", f"{what}: check cable and Wi-Fi of the camera, and lower its bit rate")


def _live(found: Survey) -> Iterator[Advice]:
    longest = max(found.keyframe_interval_s or 0, found.keyframe_at_least_s or 0)
    if longest > _KEYFRAMES_S:
        least = "at least " if (found.keyframe_at_least_s or 0) == longest else ""
        yield Advice(
            "warning",
            "keyframes",
            f"a keyframe only every {least}{longest:.1f} s: a viewer waits that long, and so does recovery"
            " after a loss: set the I-frame interval to 1-2 s in the camera",
        )
    if found.b_frames:
        text = "B-frames delay each picture by two or three intervals: switch them off in the camera"
        yield Advice("note", "delay", f"{text} (profile Baseline, or B-frames 0)")
    yield from _clock(found)
    fps = found.fps
    if fps and found.jitter_ms and found.jitter_ms > _JITTER_INTERVALS * 1000 / fps:
        text = (
            f"pictures come up to {found.jitter_ms:.0f} ms off their time: the network or the camera is busy"
        )
        yield Advice("warning", "jitter", text)
    declared = found.fps_declared
    if declared and found.fps_measured and found.fps_measured < 0.8 * declared and not found.decode_errors:
        text = f"it declares {declared:g} pictures/s and sends {found.fps_measured:.1f}"
        yield Advice("note", "rate", f"{text}: in poor light many cameras do")
    megapixels = found.width * found.height / 1e6
    mbps = (found.bit_rate_kbps or 0) / 1000
    if found.codec in ("h264", "hevc") and megapixels and mbps / megapixels > max(_RICH_MBPS, 2 / megapixels):
        text = f"{mbps:.1f} Mbit/s is much for {found.width}x{found.height}; half of it detects as well"
        yield Advice("note", "bit rate", f"{text}: lower it in the camera if the network is busy")
    if found.codec == "mjpeg":
        text = "MJPEG takes some ten times the network that H.264 does: give the camera's H.264 stream"
        yield Advice("note", "bit rate", text)
    if found.audio:
        yield Advice("note", "audio", f"its sound ({found.audio}) is not read; no need to switch it off")


def _clock(found: Survey) -> Iterator[Advice]:
    offset_s = found.clock_offset_s
    if found.transport in ("tcp", "udp", "multicast", "http") and found.kind == "stream" and offset_s is None:
        if found.url.startswith("rtsp"):
            text = f"no clock of the camera (RTCP) within {found.seconds:.0f} s: times are those of arrival"
            yield Advice("note", "clock", f"{text}; some cameras take longer, try --seconds 15")
    elif offset_s is not None and abs(offset_s) > _CLOCK_S:
        side = "ahead of" if offset_s > 0 else "behind"
        text = f"the camera's clock is {abs(offset_s):.1f} s {side} this computer's, and events carry it"
        yield Advice("warning", "clock", f"{text}: set NTP in the camera (and here)")
    if found.clock_drift_ppm is not None and abs(found.clock_drift_ppm) > _DRIFT_PPM:
        text = f"the camera's clock runs {found.clock_drift_ppm:+.0f} millionths off: set NTP in the camera"
        yield Advice("note", "clock", text)
