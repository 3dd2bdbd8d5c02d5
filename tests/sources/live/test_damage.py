"""Which pictures may be trusted: checked with real coded pictures, some of which never come."""

from __future__ import annotations

import random
from typing import cast

import av
import numpy as np
import pytest
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

from pipeline.sources.live import avlog
from pipeline.sources.live.avlog import Line
from pipeline.sources.live.damage import Trust
from pipeline.sources.live.h264 import FrameNumbers, units

from .encoded import bare, decode, encode, luma

MISSED = [Line(24, "rtsp", "RTP: missed 1 packets")]


def feed(trust: Trust, keyframes: str, lines_at: dict[int, list[Line]] | None = None) -> str:
    """What is decoded (d) or left out (.) of a string of keyframes (K) and others (p)."""
    taken = [
        trust.packet(b"", kind == "K", kind == "C", (lines_at or {}).get(number, []))
        for number, kind in enumerate(keyframes)
    ]
    return "".join("d" if take else "." for take in taken)


@pytest.mark.parametrize(
    ("packets", "lost_at", "decoded"),
    [
        ("ppKppKpp", None, "..dddddd"),  # joined between keyframes
        ("KpppKpp", 2, "dd..ddd"),
        ("KpppKpp", 3, "ddd..  ".replace(" ", ".")),  # the hole may be in the keyframe that follows
        ("KpppKppKp", 4, "dddd...dd"),
        ("KpppKpp", 0, "....ddd"),
        ("KpCpKpp", None, "dd..ddd"),  # marked by the demuxer
        ("KppCKpp", None, "ddd.ddd"),
    ],
)
def test_after_a_loss_nothing_until_a_clean_keyframe(packets: str, lost_at: int | None, decoded: str) -> None:
    assert feed(Trust("vp9"), packets, {} if lost_at is None else {lost_at: MISSED}) == decoded


@pytest.mark.parametrize(
    "text",
    ["error while decoding MB 3 4, bytestream -5", "Could not find ref with POC 7", "Incorrect MD5 (POC: 3)"],
)
def test_what_the_decoder_says_is_heard(text: str) -> None:
    trust = Trust("vp9")
    assert trust.packet(b"", True, False, [])
    assert trust.decoded([Line(24, "swscaler", "deprecated pixel format used")])
    assert not trust.decoded([Line(16, "h264", text)])
    assert feed(trust, "ppKp") == "..dd"


@pytest.mark.parametrize("b_frames", [0, 2])
def test_whole_streams_have_no_gap(b_frames: int) -> None:
    numbers = FrameNumbers()
    assert not any(numbers.gap(bytes(p), p.is_keyframe) for p in encode("libx264", b_frames=b_frames))


def test_every_missing_reference_is_seen_and_no_other() -> None:
    packets = encode("libx264", b_frames=2)
    for missing in range(1, len(packets) - 1):
        numbers = FrameNumbers()
        reference = any(unit[0] >> 5 & 3 for unit in units(bytes(packets[missing])) if unit[0] & 31 in (1, 5))
        seen = False
        for number, packet in enumerate(packets):
            if number != missing and numbers.gap(bytes(packet), packet.is_keyframe):
                seen = True
        # Before the next keyframe a gap does no harm.
        harmless = packets[missing + 1].is_keyframe or packets[missing].is_keyframe
        assert seen == (reference and not packets[missing + 1].is_keyframe) or harmless


def test_gaps_are_seen_in_streams_with_lengths() -> None:
    """As RTMP and MP4 have them: parameter sets apart, a length before each unit."""
    packets = encode("libx264")
    sets = [unit.rstrip(b"\0") for unit in units(bytes(packets[0])) if unit[0] & 31 in (7, 8)]
    sps, pps = sets[0], sets[1]
    extradata = (
        b"\x01" + sps[1:4] + b"\xff\xe1" + len(sps).to_bytes(2, "big") + sps
        + b"\x01" + len(pps).to_bytes(2, "big") + pps
    )  # fmt: skip
    numbers = FrameNumbers(extradata)
    assert numbers.length_size == 4
    found = []
    for number, packet in enumerate(packets):
        slices = [unit for unit in units(bytes(packet)) if unit[0] & 31 in (1, 5)]
        data = b"".join(len(unit).to_bytes(4, "big") + unit for unit in slices)
        if number != 7 and numbers.gap(data, packet.is_keyframe):
            found.append(number)
    assert found == [8]


def test_an_encoder_that_cannot_count_is_believed_no_longer() -> None:
    numbers = FrameNumbers()
    every_second = [p for p in encode("libx264", frames=150, gop=150) if p.is_keyframe or (p.pts or 0) % 2]
    gaps = [numbers.gap(bytes(packet), packet.is_keyframe) for packet in every_second]
    assert sum(gaps) == 49
    assert not any(gaps[51:])


def test_nonsense_is_no_gap() -> None:
    numbers = FrameNumbers(bytes(encode("libx264")[0]))
    dice = random.Random(1)
    for _ in range(300):
        numbers.gap(b"\0\0\1" + dice.randbytes(dice.randrange(0, 40)), False)
    assert not FrameNumbers().gap(b"", False)
    assert not FrameNumbers().gap(b"\0\0\1\x41\x9a", False)  # no parameter sets were seen


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize(("encoder", "codec"), [("libx264", "h264"), ("libx265", "hevc")])
def test_what_is_believed_is_what_was_sent(encoder: str, codec: str, b_frames: int, seed: int) -> None:
    """Whole pictures that do not come leave no trace in RTP over TCP; where a part is missing, RTP tells."""
    packets = encode(encoder, b_frames=b_frames)
    sent = decode(codec, packets)
    dice = random.Random(seed)
    victims = {dice.randrange(1, len(packets)): mode for mode in ("drop", "tail", "middle", "head")}
    trust = Trust(codec)
    context = cast(VideoCodecContext, av.CodecContext.create(codec, "r"))
    believed = 0
    avlog.listening(True)
    try:
        for number, packet in enumerate(packets):
            data = bytes(packet)
            lines = MISSED if victims.get(number) in ("tail", "middle") else []
            match victims.get(number):
                case "drop":
                    continue
                case "tail":
                    data = data[: max(60, len(data) * 2 // 3)]
                case "middle":
                    data = data[: len(data) // 2] + data[len(data) // 2 + len(data) // 6 :]
                case "head":
                    data = data[len(data) // 2 :]
            before = trust.waiting
            if not trust.packet(data, packet.is_keyframe, False, lines):
                continue
            if before and context.is_open:
                context.flush_buffers()
            for frame in _decoded(context, trust, bare(packet, data)):
                assert np.abs(luma(frame).astype(int) - sent[cast(int, frame.pts)]).mean() < 0.1
                believed += 1
    finally:
        avlog.listening(False)
    assert believed > 5


def _decoded(context: VideoCodecContext, trust: Trust, packet: Packet) -> list[av.VideoFrame]:  # type: ignore[type-arg]
    with avlog.listen() as lines:
        try:
            frames = context.decode(packet)
        except av.FFmpegError:
            trust.broken()
            return []
    if not trust.decoded(lines):
        return []
    good = []
    for frame in frames:
        if frame.is_corrupt:
            trust.broken()
        if not trust.waiting:
            good.append(frame)
    return good
