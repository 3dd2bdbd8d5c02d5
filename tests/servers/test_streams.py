"""The numbered pictures themselves."""

from __future__ import annotations

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.servers import streams
from tests.servers.streams import NUMBERS, burn, clip, pictures, read_number


@given(st.integers(0, NUMBERS - 1), st.integers(0, 255), st.booleans())
def test_a_number_is_read_as_it_was_burnt(number: int, grey: int, colour: bool) -> None:
    picture = np.full((90, 160, 3) if colour else (90, 160), grey, np.uint8)
    burn(picture, number)
    assert read_number(picture) == number


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((90, 160), np.uint8),
        np.full((90, 160), 255, np.uint8),
        np.full((90, 160), 128, np.uint8),
        np.zeros((20, 20), np.uint8),
        np.random.default_rng(1).integers(0, 255, (90, 160), np.uint8),
    ],
    ids=["black", "white", "grey", "too small", "noise"],
)
def test_what_has_no_number_reads_as_none(picture: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    assert read_number(picture) is None


def test_one_wrong_block_is_noticed() -> None:
    for at in range(32):
        picture = np.zeros((64, 128), np.uint8)
        burn(picture, 1234)
        block = picture[at // 8 * 16 : at // 8 * 16 + 16, at % 8 * 16 : at % 8 * 16 + 16]
        block[...] = 255 - block
        assert read_number(picture) is None


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_a_clip_holds_its_numbers_and_no_b_frames(codec: str) -> None:
    made = clip(codec, frames=20, first=4090, size=(320, 240), gop=10)
    with av.open(str(made.path)) as container:
        frames = list(container.decode(video=0))
    assert [read_number(np.asarray(frame.to_ndarray(format="gray"), np.uint8)) for frame in frames] == [
        number % NUMBERS for number in range(4090, 4110)
    ]
    assert [frame.key_frame for frame in frames] == [number % 10 == 0 for number in range(20)]
    assert clip(codec, frames=20, first=4090, size=(320, 240), gop=10) is made


def test_pictures_are_drawn_where_the_real_ones_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "REAL", ("no such video.avi",))
    drawn = list(pictures(3, (320, 240), first=7))
    assert [read_number(image) for image in drawn] == [7, 8, 9]
    assert not np.array_equal(drawn[0][80:], drawn[1][80:]), "nothing moves"
