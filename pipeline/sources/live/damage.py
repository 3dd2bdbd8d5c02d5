"""Which pictures can be trusted: none from a loss on, until a keyframe that came whole.

FFmpeg marks a picture whose data is damaged, but not the pictures built on one that never came: it quietly
copies the picture before in its place. So losses are looked for where they show: in the RTP layer (its log),
in the numbering of H.264's reference pictures, and in what the decoder says.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.sources.live.avlog import Line
from pipeline.sources.live.h264 import FrameNumbers

__all__ = ["Trust"]

#: What FFmpeg says when part of the stream did not come.
_LOSSES = ("RTP: missed", "bad cseq", "Packet corrupt", "Circular buffer overrun", "Missing packets")
#: What its decoders say, at once, about a picture that may come out only later (B-frames).
_DAMAGE = (
    "error while decoding", "unavailable for requested", "Could not find ref", "Missing reference picture",
    "reference picture missing", "cabac decode", "Reference ", "out of range intra", "mb_type",
    "Incorrect MD5", "mismatching", "cu_qp_delta", "invalid undecodable",
)  # fmt: skip


class Trust:
    """Whether the pictures that a packet makes can be trusted.

    Args:
        codec: FFmpeg's name of the codec.
        extradata: Parameter sets that came beside the stream.

    Attributes:
        waiting: Whether nothing can be trusted until the next clean keyframe.
    """

    def __init__(self, codec: str, extradata: bytes = b"") -> None:
        self._numbers = FrameNumbers(extradata) if codec == "h264" else None
        self._doubtful = 0
        self.waiting = True

    @property
    def length_size(self) -> int:
        """Bytes of the length before each NAL unit; 0 where start codes divide them."""
        return self._numbers.length_size if self._numbers is not None else 0

    def packet(self, data: bytes, keyframe: bool, corrupt: bool, lines: Sequence[Line]) -> bool:
        """Look at a packet before it is decoded.

        Args:
            data: The packet, or as much of its beginning as holds its first slice header.
            keyframe: Whether decoding can begin with it.
            corrupt: Whether the demuxer says that it is damaged.
            lines: What FFmpeg logged while it was read.

        Returns:
            Whether to decode it; False until the next clean keyframe.
        """
        lost = any(sign in line.text for line in lines for sign in _LOSSES)
        if lost:
            # FFmpeg reads a packet ahead to see where this one ends: the hole is in this or in the next.
            self._doubtful = 2
        gap = self._numbers is not None and self._numbers.gap(data, keyframe)
        if lost or corrupt or (gap and not keyframe):
            self.waiting = True
        if keyframe and not self._doubtful and not corrupt:
            self.waiting = False
        self._doubtful = max(self._doubtful - 1, 0)
        return not self.waiting

    def decoded(self, lines: Sequence[Line]) -> bool:
        """Look at what the decoder said about a packet; returns whether its pictures can be trusted."""
        if any(sign in line.text for line in lines for sign in _DAMAGE):
            self.waiting = True
        return not self.waiting

    def broken(self) -> None:
        """A picture came out damaged, or was left out: trust none until the next keyframe."""
        self.waiting = True
