"""Just enough of H.264's syntax to see that a reference picture is missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["FrameNumbers", "units"]

_SLICES = (1, 2, 5)
_IDR = 5
_SPS = 7
_PPS = 8
#: An encoder whose every picture has a gap before it cannot count; losses are not so regular.
_MISCOUNTS = 50
_HIGH_PROFILES = (44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244)


def units(data: bytes, length_size: int = 0) -> Iterator[bytes]:
    """The NAL units of a packet.

    Args:
        data: A packet or parameter sets, with start codes (Annex B), or with lengths before each unit.
        length_size: Bytes of such a length; 0 for start codes.
    """
    if length_size:
        at = 0
        while at + length_size < len(data):
            size = int.from_bytes(data[at : at + length_size], "big")
            yield data[at + length_size : at + length_size + size]
            at += length_size + size
        return
    at = data.find(b"\0\0\1")
    while at >= 0:
        end = data.find(b"\0\0\1", at + 3)
        yield data[at + 3 : end if end >= 0 else len(data)]
        at = end


class _Bits:
    """Reads the bits of a NAL unit's payload."""

    def __init__(self, unit: bytes) -> None:
        payload = unit.replace(b"\0\0\3", b"\0\0")
        self._value = int.from_bytes(payload, "big")
        self._left = len(payload) * 8

    def take(self, count: int) -> int:
        self._left -= count
        if self._left < 0:
            raise EOFError
        return self._value >> self._left & ((1 << count) - 1)

    def exp_golomb(self) -> int:
        zeros = 0
        while not self.take(1):
            zeros += 1
        return (1 << zeros) - 1 + self.take(zeros)

    def signed(self) -> int:
        value = self.exp_golomb()
        return (value + 1) // 2 if value & 1 else -(value // 2)


@dataclass(frozen=True, slots=True)
class _Sps:
    number_bits: int
    gaps_allowed: bool
    planes_apart: bool


class FrameNumbers:
    """Follows the numbers of reference pictures, which count without a gap.

    An encoder that counts wrong at every picture is believed no longer after a while.

    Args:
        extradata: Parameter sets that came beside the stream, in either form; empty for none.
    """

    def __init__(self, extradata: bytes = b"") -> None:
        self.length_size = 0
        self._sets: dict[int, _Sps] = {}
        self._sps_of: dict[int, int] = {}
        self._last: int | None = None
        self._streak = 0
        self._believed = True
        if extradata[:1] == b"\1" and len(extradata) > 6:
            self.length_size = (extradata[4] & 3) + 1
            for unit in _sets_of(extradata):
                self._learn(unit)
        else:
            for unit in units(extradata):
                self._learn(unit)

    def gap(self, data: bytes, keyframe: bool) -> bool:
        """Whether a reference picture is missing before this one; also takes in its parameter sets.

        Args:
            data: The packet, as far as its first slice header.
            keyframe: Whether decoding can begin with it; then a gap before it does no harm.
        """
        for unit in units(data, self.length_size):
            if not unit:
                continue
            kind = unit[0] & 31
            if kind in (_SPS, _PPS):
                self._learn(unit)
            elif kind in _SLICES:
                return self._slice(unit, kind, keyframe)
        return False

    def _slice(self, unit: bytes, kind: int, keyframe: bool) -> bool:
        bits = _Bits(unit[1:24])
        try:
            bits.exp_golomb()
            bits.exp_golomb()
            sps = self._sets.get(self._sps_of.get(bits.exp_golomb(), -1))
            if sps is None:
                return False
            if sps.planes_apart:
                bits.take(2)
            number = bits.take(sps.number_bits)
        except EOFError:
            return False
        last = self._last
        if unit[0] >> 5 & 3 or kind == _IDR:
            self._last = number
        if kind == _IDR or keyframe or last is None or sps.gaps_allowed:
            return False
        gap = number not in (last, (last + 1) % (1 << sps.number_bits))
        self._streak = self._streak + 1 if gap else 0
        if self._streak >= _MISCOUNTS:
            self._last = None
            self._believed = False
        return gap and self._believed

    def _learn(self, unit: bytes) -> None:
        try:
            bits = _Bits(unit[1:])
            if unit[0] & 31 == _SPS:
                number, sps = _parse_sps(bits)
                self._sets[number] = sps
            elif unit[0] & 31 == _PPS:
                number = bits.exp_golomb()
                self._sps_of[number] = bits.exp_golomb()
        except (EOFError, IndexError):
            return


def _parse_sps(bits: _Bits) -> tuple[int, _Sps]:
    profile = bits.take(8)
    bits.take(16)
    number = bits.exp_golomb()
    planes_apart = False
    if profile in _HIGH_PROFILES:
        chroma = bits.exp_golomb()
        if chroma == 3:
            planes_apart = bool(bits.take(1))
        bits.exp_golomb()
        bits.exp_golomb()
        bits.take(1)
        if bits.take(1):
            for index in range(12 if chroma == 3 else 8):
                if bits.take(1):
                    _skip_scaling_list(bits, 16 if index < 6 else 64)
    number_bits = bits.exp_golomb() + 4
    order = bits.exp_golomb()
    if order == 0:
        bits.exp_golomb()
    elif order == 1:
        bits.take(1)
        bits.signed()
        bits.signed()
        for _ in range(bits.exp_golomb()):
            bits.signed()
    bits.exp_golomb()
    return number, _Sps(number_bits, bool(bits.take(1)), planes_apart)


def _skip_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.signed()) % 256
        last = following or last


def _sets_of(extradata: bytes) -> Iterator[bytes]:
    """The parameter sets in an ``avcC`` box."""
    at = 5
    for mask in (31, 255):
        if at >= len(extradata):
            return
        count = extradata[at] & mask
        at += 1
        for _ in range(count):
            size = int.from_bytes(extradata[at : at + 2], "big")
            yield extradata[at + 2 : at + 2 + size]
            at += 2 + size
