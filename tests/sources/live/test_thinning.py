"""What need not be decoded at a lower rate: enough is left for every slot, wherever the slots begin."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.sources.live.thinning import Disposables, Thinning

from .encoded import bare, decode, encode

MS = 1_000_000


def kept(thinning: Thinning, times_ms: list[float], gop: int = 0, disposable: bool = False) -> list[float]:
    """Times of the packets that are decoded; every ``gop``-th is a keyframe."""
    out = []
    for number, time_ms in enumerate(times_ms):
        time_ns = round(time_ms * MS)
        keyframe = gop == 0 or number % gop == 0
        thinning.measure(time_ns, keyframe)
        if not thinning.skip(time_ns, keyframe=keyframe, disposable=disposable and not keyframe):
            out.append(time_ms)
    return out


@given(
    rate=st.integers(1, 60),
    max_fps=st.floats(0.2, 60),
    start_ms=st.floats(0, 10_000),
    intra_only=st.booleans(),
)
def test_every_slot_that_had_a_picture_has_one_left(
    rate: int, max_fps: float, start_ms: float, intra_only: bool
) -> None:
    times = [number * 1000 / rate for number in range(300)]
    left = kept(Thinning(max_fps, intra_only), times, gop=0 if intra_only else 30, disposable=True)
    slot_ms = 1000 / max_fps

    def slots(which: list[float]) -> set[int]:
        # A hair beyond the edge, so that rounding to nanoseconds does not move a picture over it.
        return {int((time + start_ms + 0.001) // slot_ms) for time in which}

    assert slots(left) >= slots(times[:-1]) - {int((times[-1] + start_ms) // slot_ms)}
    assert left[0] == times[0]


@pytest.mark.parametrize(
    ("rate", "max_fps", "most"), [(30, 5, 60), (25, 10, 126), (25, 12.5, 250), (10, 10, 100), (60, 1, 12)]
)
def test_much_is_spared(rate: int, max_fps: float, most: int) -> None:
    times = [number * 1000 / rate for number in range(10 * rate)]
    assert len(kept(Thinning(max_fps, True), times)) <= most


def test_keyframes_alone_when_they_come_often_enough() -> None:
    thinning = Thinning(1.0, False)
    times = [number * 40.0 for number in range(500)]  # 25 fps, a keyframe each 0.4 s
    left = kept(thinning, times, gop=10)
    assert thinning.keyframes_only
    settled = [time for time in left if time > 2000]
    assert {round(time / 400 % 1, 6) for time in settled} == {0.0}
    assert max(b - a for a, b in itertools.pairwise(settled)) <= 1000


def test_never_keyframes_alone_when_they_are_rarer_than_wanted() -> None:
    thinning = Thinning(1.0, False)
    times = [number * 40.0 for number in range(500)]
    assert kept(thinning, times, gop=50) == times  # every one is built upon


def test_a_leap_in_time_starts_anew() -> None:
    thinning = Thinning(1.0, True)
    assert kept(thinning, [0, 40, 80, 3_600_000, 3_600_040]) == [0, 3_600_000]


@pytest.mark.parametrize(("encoder", "codec"), [("libx264", "h264"), ("libx265", "hevc")])
def test_without_disposable_pictures_the_others_stay_the_same(encoder: str, codec: str) -> None:
    packets = encode(encoder, b_frames=2)
    sent = decode(codec, packets)
    disposables = Disposables(codec)
    rest = tuple(p for p in packets if not disposables.is_disposable(bytes(p), p.is_keyframe))
    assert len(packets) - len(rest) > 10
    for pts, image in decode(codec, tuple(bare(p) for p in rest)).items():
        assert (image == sent[pts]).all()


def test_of_other_codecs_nothing_is_disposable() -> None:
    assert not Disposables("vp8").is_disposable(bytes(encode("libx264")[1]), False)
