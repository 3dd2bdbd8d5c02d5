"""What the packets of a stream say without being decoded: keyframes, bit rate, order, profile."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from typing import Any

import av

from pipeline.sources.live import avlog
from pipeline.sources.live.h264 import units
from pipeline.sources.live.opening import rate_of, time_base_of

__all__ = ["Tally", "count_packets"]

_PROFILES = {
    "h264": {66: "Baseline", 77: "Main", 88: "Extended", 100: "High", 110: "High 10", 122: "High 4:2:2"},
    "hevc": {1: "Main", 2: "Main 10", 3: "Main Still Picture", 4: "Range Extensions"},
}


@dataclass(slots=True)
class Tally:
    """What coded pictures say without being decoded. Times are seconds of the stream.

    Attributes:
        codec: FFmpeg's name of the codec.
        profile: Its profile, such as ``High``; empty when unknown.
        fps: Pictures per second as its headers say: a container may count fields.
        size: Bytes since the first picture, that not counted.
        reordered: Whether a picture came after one that is shown later.
        keyframes: Times of the keyframes.
        first_s: Time of the first picture; None before it.
        last_s: Latest time of any.
    """

    codec: str
    profile: str = ""
    fps: float | None = None
    size: int = 0
    reordered: bool = False
    keyframes: list[float] = field(default_factory=list)
    first_s: float | None = None
    last_s: float = 0.0

    def add(self, time_s: float | None, size: int, keyframe: bool) -> None:
        """Count a picture.

        Args:
            time_s: When it is shown; None when it does not say.
            size: Bytes.
            keyframe: Whether decoding can begin with it.
        """
        if time_s is None:
            self.size += size
            return
        if self.first_s is None:
            self.first_s = self.last_s = time_s
        else:
            self.size += size
        self.reordered |= time_s < self.last_s
        self.last_s = max(self.last_s, time_s)
        if keyframe:
            self.keyframes.append(time_s)

    @property
    def span_s(self) -> float:
        """Seconds from the first picture to the last."""
        return 0.0 if self.first_s is None else self.last_s - self.first_s

    @property
    def bit_rate_kbps(self) -> float | None:
        """Thousand bits per second; None for fewer than two pictures."""
        return self.size * 8 / self.span_s / 1000 if self.span_s > 0 else None

    @property
    def keyframe_interval_s(self) -> float | None:
        """Longest time between two keyframes; None for fewer than two of them."""
        return max((late - early for early, late in itertools.pairwise(self.keyframes)), default=None)

    @property
    def keyframe_at_least_s(self) -> float | None:
        """The longest time without a keyframe, where that is longer than between any two seen."""
        if self.first_s is None or self.span_s <= 0:
            return None
        ends = [self.first_s, *self.keyframes, self.last_s]
        longest_s = max(late - early for early, late in itertools.pairwise(ends))
        return longest_s if longest_s > 1.1 * (self.keyframe_interval_s or 0) else None


def count_packets(container: Any, stream: Any, codec: str, until_s: float) -> Tally:
    """Read packets until the time is up, the end, or a break; what was counted until then stands.

    Args:
        container: FFmpeg's context, open.
        stream: The video in it.
        codec: FFmpeg's name of the codec.
        until_s: Monotonic time.
    """
    tally = Tally(codec, str(stream.codec_context.profile or ""), rate_of(stream.codec_context.framerate))
    time_base = time_base_of(stream)
    headers = bytes(stream.codec_context.extradata or b"")
    packets = container.demux(stream)
    while time.monotonic() < until_s:
        with avlog.listen():
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError):
                break
        if packet is None or not packet.size:
            break
        if not tally.profile and packet.is_keyframe:
            tally.profile = _profile(codec, headers) or _profile(codec, bytes(memoryview(packet)[:4096]))
        time_s = None if packet.pts is None else float(packet.pts * time_base)
        tally.add(time_s, packet.size, packet.is_keyframe)
    return tally


def _profile(codec: str, data: bytes) -> str:
    """The profile that a sequence parameter set names; FFmpeg knows it only once it has decoded."""
    for unit in units(data):
        if codec == "h264" and len(unit) > 1 and unit[0] & 31 == 7:
            return _PROFILES[codec].get(unit[1], "")
        if codec == "hevc" and len(unit) > 3 and unit[0] >> 1 & 63 == 33:
            return _PROFILES[codec].get(unit[3] & 31, "")
    return ""
