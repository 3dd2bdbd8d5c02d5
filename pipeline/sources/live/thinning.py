"""Which packets need not be decoded because fewer pictures are wanted than come.

What is left out must not leave a gap: whoever then takes the first picture of each 1/``max_fps`` of a second,
wherever those begin, must find one in each of them.
"""

from __future__ import annotations

from pipeline.sources.live.h264 import units

__all__ = ["INTRA_ONLY", "Disposables", "Thinning"]

#: Codecs of which each picture stands alone.
INTRA_ONLY = frozenset({"mjpeg", "mjpegb", "jpegls", "jpeg2000", "png", "rawvideo", "prores", "dnxhd"})
_SLICES_H264 = (1, 2, 5)
_SLICES_HEVC = 32
_REFERENCES_HEVC = 15


class Disposables:
    """Tells the pictures on which no other is built.

    Args:
        codec: FFmpeg's name; only of ``h264`` and ``hevc`` anything is known.
        length_size: As for `units`.
    """

    def __init__(self, codec: str, length_size: int = 0) -> None:
        self._codec = codec
        self._length_size = length_size
        self._highest = 0
        self._keyframes = 0

    def is_disposable(self, data: bytes, keyframe: bool) -> bool:
        """Whether it can be left out.

        Args:
            data: The packet's beginning.
            keyframe: Whether decoding can begin with it.
        """
        if self._codec not in ("h264", "hevc"):
            return False
        for unit in units(data, self._length_size):
            if self._codec == "h264" and unit and unit[0] & 31 in _SLICES_H264:
                return not unit[0] >> 5 & 3
            if self._codec == "hevc" and len(unit) > 1 and (kind := unit[0] >> 1 & 63) < _SLICES_HEVC:
                return self._hevc(kind, unit[1] & 7, keyframe)
        return False

    def _hevc(self, kind: int, layer: int, keyframe: bool) -> bool:
        """Even kinds are not used by pictures of their own temporal layer, but higher layers may use them."""
        self._highest = max(self._highest, layer)
        self._keyframes += keyframe
        known = self._keyframes > 1  # A whole group of pictures was seen: there are no higher layers.
        return known and kind < _REFERENCES_HEVC and not kind & 1 and layer == self._highest


class Thinning:
    """Decides packet by packet for a highest rate.

    Args:
        max_fps: Highest rate that is wanted.
        intra_only: Whether each picture stands alone.
    """

    _STEADY = 3

    def __init__(self, max_fps: float, intra_only: bool) -> None:
        self._slot_ns = 1e9 / max_fps
        self._intra_only = intra_only
        self._kept_ns: int | None = None
        self._last_ns: int | None = None
        self._interval_ns = 0.0
        self._key_ns: int | None = None
        self._key_intervals: list[int] = []

    @property
    def keyframes_only(self) -> bool:
        """Whether keyframes alone have come often enough lately."""
        seen = self._key_intervals
        return not self._intra_only and len(seen) == self._STEADY and max(seen) <= self._slot_ns

    def skip(self, time_ns: int, *, keyframe: bool, disposable: bool) -> bool:
        """Whether to leave a packet, that could be decoded, undecoded.

        Args:
            time_ns: Its timestamp in nanoseconds.
            keyframe: Whether decoding can begin with it.
            disposable: Whether no other picture is built on it.
        """
        only_keys = self.keyframes_only
        if only_keys and not keyframe:
            return True
        step_ns = float(max(self._key_intervals)) if only_keys else self._interval_ns
        kept_ns = self._kept_ns
        # The next one must still come before a whole slot has passed since the last that was kept.
        early = kept_ns is not None and step_ns and 0 <= time_ns - kept_ns <= self._slot_ns - step_ns
        if early and (only_keys or self._intra_only or disposable):
            return True
        self._kept_ns = time_ns
        return False

    def measure(self, time_ns: int, keyframe: bool) -> None:
        """See each packet that comes, wanted or not, to know how often they come."""
        # The longest recent interval, slowly forgotten, so that a wobble does not open a gap.
        if self._last_ns is not None:
            step_ns = time_ns - self._last_ns
            if not 0 <= step_ns < 10_000_000_000:
                self._kept_ns, self._key_ns, self._key_intervals = None, None, []
            else:
                self._interval_ns = max(float(step_ns), self._interval_ns * 0.95)
        self._last_ns = time_ns
        if keyframe and not self._intra_only:
            if self._key_ns is not None:
                self._key_intervals = [*self._key_intervals, time_ns - self._key_ns][-self._STEADY :]
            self._key_ns = time_ns
