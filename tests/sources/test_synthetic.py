"""The synthetic scene shows exactly what its truth says."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from pipeline.errors import ConfigError
from pipeline.sources.synthetic import SyntheticSource
from pipeline.vision.palette import BACKGROUND, PALETTE

from .clips import read_all

URL = "synthetic://?frames=12&width=321&height=241&objects=5&seed=3&fps=20"


def test_pixels_are_the_truth() -> None:
    source = SyntheticSource("s", URL, pixels="exact")
    pictures = read_all(source)
    assert len(pictures) == source.expected_frames == 12
    for picture in pictures:
        boxes, class_ids, object_ids = source.truth(picture.index)
        assert boxes.dtype == np.float32
        assert boxes.shape == (5, 4)
        assert object_ids.tolist() == [0, 1, 2, 3, 4]
        assert (boxes >= 0).all()
        assert (boxes[:, 2:] <= [321, 241]).all()
        expected = np.full((241, 321, 3), BACKGROUND, np.uint8)
        for (x1, y1, x2, y2), class_id in zip(boxes.astype(int), class_ids, strict=True):
            assert (expected[y1:y2, x1:x2] == BACKGROUND).all(), "objects overlap"
            expected[y1:y2, x1:x2] = PALETTE[class_id]
        np.testing.assert_array_equal(picture.planes[0], expected)
        assert picture.pts_ns == picture.index * 50_000_000


def test_i420_shows_the_same() -> None:
    url = "synthetic://?frames=3&width=320&height=240&seed=5"
    fast = read_all(SyntheticSource("s", url))
    exact = read_all(SyntheticSource("s", url, pixels="exact"))
    for one, two in zip(fast, exact, strict=True):
        assert [plane.shape for plane in one.planes] == [(240, 320), (120, 160), (120, 160)]
        planes = np.concatenate([plane.ravel() for plane in one.planes]).reshape(360, 320)
        bgr = cv2.cvtColor(planes, cv2.COLOR_YUV2BGR_I420)
        assert np.abs(bgr.astype(int) - two.planes[0]).max() <= 4


def test_motion_is_smooth_and_stays_apart() -> None:
    source = SyntheticSource("s", "synthetic://?frames=0&objects=6&seed=9")
    previous = source.truth(0)[0]
    for index in range(1, 400):
        boxes, _, _ = source.truth(index)
        assert np.abs(boxes - previous).max() <= 2 + 0.3 * source.width / 25
        assert (boxes[1:, 1] - boxes[:-1, 3] >= 4).all()
        previous = boxes
    assert not np.array_equal(previous, source.truth(0)[0])


def test_seed_decides_and_skip_resumes() -> None:
    one, two, other = (SyntheticSource("s", f"synthetic://?seed={seed}") for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.truth(77)[0], two.truth(77)[0])
    assert not np.array_equal(one.truth(77)[0], other.truth(77)[0])
    rest = read_all(SyntheticSource("s", URL), skip=9, after_pts_ns=400_000_000)
    assert [p.index for p in rest] == [9, 10, 11]


def test_endless() -> None:
    source = SyntheticSource("s", "synthetic://?frames=0")
    source.open()
    assert source.expected_frames is None
    pictures = itertools.islice(iter(source.read, None), 150)
    assert [picture.index for picture in pictures] == list(range(150))


def test_no_objects() -> None:
    source = SyntheticSource("s", "synthetic://?objects=0&frames=1", pixels="exact")
    (picture,) = read_all(source)
    assert (picture.planes[0] == BACKGROUND).all()
    assert source.truth(0)[0].shape == (0, 4)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("synthetic://?frame=3", "no option 'frame'"),
        ("synthetic://?width=5", "width=5"),
        ("synthetic://?fps=-1", "fps=-1"),
        ("synthetic://?seed=x", "seed=x"),
        ("synthetic:frames", "no synthetic scene"),
        ("synthetic://?objects=60&height=64", "do not fit"),
    ],
)
def test_bad_options(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        SyntheticSource("s", url)
    assert caught.value.hint
