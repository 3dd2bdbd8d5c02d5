from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ModelError
from pipeline.messages import ModelSpec
from pipeline.vision.tensor import PixelFormat, Plane, TensorFiller, planes_to_bgr

MEAN, STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)


def spec_of(**fields: Any) -> ModelSpec:
    size = {"input_width": 96, "input_height": 64}
    return ModelSpec("m", "", "yolox", ("thing",), **(size | fields))


def smooth_bgr(width: int, height: int, seed: int = 0) -> Plane:
    """A picture without fine detail: chroma subsampling and order of resizing change it little."""
    rng = np.random.default_rng(seed)
    grey, tint = rng.integers(60, 190, (3, 3, 1)), rng.integers(-30, 31, (3, 3, 3))
    coarse = (grey + tint).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def i420_of(bgr: Plane) -> tuple[Plane, Plane, Plane]:
    """Read-only planes, the luma with padded rows, as a decoder gives them."""
    height, width = bgr.shape[:2]
    even = cv2.copyMakeBorder(bgr, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
    even_h, even_w = even.shape[:2]
    packed = np.asarray(cv2.cvtColor(even, cv2.COLOR_BGR2YUV_I420), np.uint8)
    u, v = packed.reshape(-1)[even_h * even_w :].reshape(2, even_h // 2, even_w // 2)
    rows = np.zeros((height, width + 13), np.uint8)
    rows[:, :width] = packed[:height, :width]
    planes = (rows[:, :width], u, v)
    for plane in planes:
        plane.flags.writeable = False
    return planes


def as_hwc(tensor: Any, spec: ModelSpec) -> Any:
    return tensor[0] if spec.input_layout == "nhwc" else tensor[0].transpose(1, 2, 0)


def reference(bgr: Plane, spec: ModelSpec) -> Any:
    """The naive way: resize the full picture into a padded canvas, then float arithmetic."""
    where = TensorFiller(spec).placement(bgr.shape[1], bgr.shape[0])
    canvas = np.full((spec.input_height, spec.input_width, 3), spec.pad_value, np.uint8)
    resized = cv2.resize(bgr, (where.width, where.height), interpolation=cv2.INTER_LINEAR)
    if spec.channels == "rgb":
        resized = resized[:, :, ::-1]
    canvas[where.y : where.y + where.height, where.x : where.x + where.width] = resized
    if spec.input_dtype == "uint8":
        return canvas
    values = (canvas.astype(np.float32) - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
    return values.astype(spec.input_dtype)


FORMATS = [
    {"input_dtype": dtype, "input_layout": layout, "channels": channels} | extra
    for dtype in ("uint8", "float32", "float16")
    for layout in ("nhwc", "nchw")
    for channels in ("bgr", "rgb")
    for extra in ({}, {"mean": MEAN, "std": STD})
    if not (dtype == "uint8" and extra)
]


@pytest.mark.parametrize("fields", FORMATS, ids=lambda fields: "-".join(map(str, list(fields.values())[:4])))
@pytest.mark.parametrize("letterbox", ["center", "topleft", "stretch"])
def test_bgr_equals_the_naive_way_exactly(fields: dict[str, Any], letterbox: str) -> None:
    spec = spec_of(letterbox=letterbox, **fields)
    filler = TensorFiller(spec)
    out = np.zeros(filler.shape, spec.input_dtype)
    bgr = np.random.default_rng(0).integers(0, 256, (45, 131, 3), dtype=np.uint8)
    bgr.flags.writeable = False
    letterbox_map = filler.fill((bgr,), "bgr24", out)
    assert letterbox_map == filler.placement(131, 45).map
    np.testing.assert_array_equal(as_hwc(out, spec), reference(bgr, spec))


@pytest.mark.parametrize("fields", FORMATS, ids=lambda fields: "-".join(map(str, list(fields.values())[:4])))
@pytest.mark.parametrize("size", [(640, 360), (131, 75), (96, 64), (50, 20)])
def test_i420_is_close_to_the_naive_way(fields: dict[str, Any], size: tuple[int, int]) -> None:
    spec = spec_of(**fields)
    bgr = smooth_bgr(*size)
    planes = i420_of(bgr)
    filler = TensorFiller(spec)
    out = np.zeros(filler.shape, spec.input_dtype)
    filler.fill(planes, "i420", out)
    scale = max(spec.std)
    naive = reference(planes_to_bgr(planes, "i420"), spec)
    difference = np.abs(as_hwc(out, spec).astype(np.float64) - naive.astype(np.float64)) * max(scale, 1)
    # Grey levels; the chroma of small pictures is filtered differently.
    assert difference.mean() < 1.5
    assert np.percentile(difference, 99) < 12


def test_i420_of_the_input_size_is_nearly_the_plain_conversion() -> None:
    spec = spec_of(input_dtype="uint8", input_layout="nhwc")
    planes = i420_of(smooth_bgr(96, 64, 3))
    out = np.zeros((1, 64, 96, 3), np.uint8)
    TensorFiller(spec).fill(planes, "i420", out)
    difference = out[0].astype(int) - planes_to_bgr(planes, "i420")
    assert np.abs(difference).max() <= 3
    assert -1.5 < difference.mean() < 0  # A little darker, as FFmpeg is.


@pytest.mark.parametrize(
    ("y", "u", "v"),
    [(16, 128, 128), (126, 128, 128), (235, 128, 128), (81, 90, 240), (145, 54, 34), (41, 240, 110),
     (250, 140, 110), (255, 100, 150), (5, 128, 128), (0, 90, 160)],
)  # fmt: skip
def test_colours_follow_bt601_beyond_its_limits_too(y: int, u: int, v: int) -> None:
    planes = tuple(
        np.full(size, level, np.uint8) for size, level in (((64, 96), y), ((32, 48), u), ((32, 48), v))
    )
    out = np.zeros((1, 64, 96, 3), np.uint8)
    TensorFiller(spec_of(input_dtype="uint8", input_layout="nhwc")).fill(planes, "i420", out)
    luma, blue, red = 1.164383 * (y - 16), u - 128, v - 128
    exact = (luma + 2.017232 * blue, luma - 0.391762 * blue - 0.812968 * red, luma + 1.596027 * red)
    assert np.abs(out[0, 32, 48] - np.clip(exact, 0, 255)).max() <= 1.5
    assert (out[0] == out[0, 0, 0]).all()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from([0.3, 0.875, 1.0]), st.booleans())
def test_a_crop_is_the_same_in_either_pixel_format(width: int, height: int, crop: float, exact: bool) -> None:
    spec = spec_of(letterbox="crop", crop=crop, input_width=32, input_height=24)
    planes = i420_of(smooth_bgr(width, height, width + height))
    fillers = TensorFiller(spec, exact=exact), TensorFiller(spec)
    made = [np.full(filler.shape, np.nan, np.float32) for filler in fillers]
    maps = (
        fillers[0].fill(planes, "i420", made[0]),
        fillers[1].fill((planes_to_bgr(planes, "i420"),), "bgr24", made[1]),
    )
    assert maps[0] == maps[1]
    # The reference converts first; where few pixels are enlarged, chroma of every second one differs more.
    few = min(width, height) * crop < 16
    assert np.abs(made[0] - made[1]).mean() <= (0 if exact else 20 if few else 3)


def test_a_crop_is_the_plain_cut_scaled() -> None:
    spec = spec_of(letterbox="crop", crop=0.5)
    bgr = smooth_bgr(333, 201, 5)
    filler = TensorFiller(spec)
    out = np.zeros(filler.shape, np.float32)
    filler.fill((bgr,), "bgr24", out)
    region = filler.placement(333, 201).region
    assert region is not None
    left, top, wide, high = region
    assert (wide, high) == (151, 100)
    cut = bgr[top : top + high, left : left + wide]
    np.testing.assert_array_equal(as_hwc(out, spec), cv2.resize(cut, (96, 64)))


def test_exact_converts_before_it_scales() -> None:
    spec = spec_of(channels="rgb")
    planes = i420_of(smooth_bgr(333, 201, 5))
    out = np.zeros((1, 3, 64, 96), np.float32)
    TensorFiller(spec, exact=True).fill(planes, "i420", out)
    np.testing.assert_array_equal(as_hwc(out, spec), reference(planes_to_bgr(planes, "i420"), spec))


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 70), st.integers(1, 70), st.sampled_from(["center", "topleft", "stretch"]), st.booleans()
)
def test_every_size_fills_the_whole_buffer(width: int, height: int, letterbox: str, i420: bool) -> None:
    spec = spec_of(input_width=32, input_height=32, letterbox=letterbox)
    grey = np.full((height, width, 3), 200, np.uint8)
    planes: tuple[Plane, ...] = i420_of(grey) if i420 else (grey,)
    filler = TensorFiller(spec)
    out = np.full(filler.shape, np.nan, np.float32)
    filler.fill(planes, "i420" if i420 else "bgr24", out)
    where = filler.placement(width, height)
    inside = np.zeros((32, 32), np.bool_)
    inside[where.y : where.y + where.height, where.x : where.x + where.width] = True
    hwc = as_hwc(out, spec)
    assert np.abs(hwc[inside] - 200).max() <= 2
    assert (hwc[~inside] == 114).all()


def test_a_reused_buffer_keeps_nothing_of_the_last_frame() -> None:
    spec = spec_of(mean=MEAN, std=STD)
    filler = TensorFiller(spec)
    reused = np.zeros(filler.shape, np.float32)
    for width, height in ((96, 64), (200, 20), (20, 200), (97, 33), (96, 64)):
        planes = i420_of(smooth_bgr(width, height, width))
        filler.fill(planes, "i420", reused)
        fresh = np.zeros(filler.shape, np.float32)
        TensorFiller(spec).fill(planes, "i420", fresh)
        np.testing.assert_array_equal(reused, fresh)


def test_colours_come_out_in_the_right_channels() -> None:
    red = np.zeros((40, 60, 3), np.uint8)
    red[:, :, 2] = 255
    cases: list[tuple[PixelFormat, tuple[Plane, ...]]] = [("bgr24", (red,)), ("i420", i420_of(red))]
    for pixel_format, planes in cases:
        for channels, index in (("bgr", 2), ("rgb", 0)):
            out = np.zeros((1, 3, 64, 96), np.float32)
            TensorFiller(spec_of(channels=channels)).fill(planes, pixel_format, out)
            assert out[0, index, 32, 48] > 240
            assert out[0, 1, 32, 48] < 15


@pytest.mark.parametrize("size", [(64, 48), (63, 47), (1, 1), (640, 3)])
def test_planes_to_bgr(size: tuple[int, int]) -> None:
    bgr = smooth_bgr(*size, 2)
    back = planes_to_bgr(i420_of(bgr), "i420")
    assert back.shape == bgr.shape
    assert back.flags.c_contiguous
    assert back.flags.writeable
    if min(size) > 10:
        assert np.abs(back.astype(int) - bgr).mean() < 3
    copy = planes_to_bgr((bgr,), "bgr24")
    copy[:] = 0
    assert bgr.any()


@pytest.mark.parametrize(
    ("shapes", "pixel_format", "message"),
    [
        ([(4, 4)], "bgr24", "not a bgr24 frame"),
        ([(4, 4, 3)], "i420", "not a i420 frame"),
        ([(4, 4), (2, 2), (1, 2)], "i420", "not a i420 frame"),
        ([(5, 5), (2, 2), (2, 2)], "i420", "not a i420 frame"),
        ([(0, 4, 3)], "bgr24", "not a bgr24 frame"),
        ([(4, 4, 3)], "nv12", "neither bgr24 nor i420"),
    ],
)
def test_wrong_planes_are_refused(shapes: list[tuple[int, ...]], pixel_format: Any, message: str) -> None:
    planes = [np.zeros(shape, np.uint8) for shape in shapes]
    filler = TensorFiller(spec_of())
    with pytest.raises(ValueError, match=message):
        filler.fill(planes, pixel_format, np.zeros(filler.shape, np.float32))
    with pytest.raises(ValueError, match=message):
        planes_to_bgr(planes, pixel_format)


def test_a_wrong_buffer_is_refused() -> None:
    filler = TensorFiller(spec_of())
    picture = np.zeros((4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="float64"):
        filler.fill((picture,), "bgr24", np.zeros(filler.shape))
    with pytest.raises(ValueError, match=r"\(1, 64, 96, 3\)"):
        filler.fill((picture,), "bgr24", np.zeros((1, 64, 96, 3), np.float32))
    with pytest.raises(ValueError, match="float32"):
        filler.fill((picture.astype(np.float32),), "bgr24", np.zeros(filler.shape, np.float32))


@pytest.mark.parametrize(
    "fields",
    [{"input_dtype": "uint8", "mean": MEAN}, {"std": (1.0, 0.0, 1.0)}, {"pad_value": 300}],
    ids=["uint8 with mean", "std 0", "pad 300"],
)
def test_an_impossible_spec_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ModelError) as caught:
        TensorFiller(spec_of(**fields))
    assert caught.value.hint


def test_plans_are_bounded() -> None:
    filler = TensorFiller(spec_of())
    for width in range(1, 400):
        assert filler.placement(width, 10).map.width == width
    assert len(filler._plans) <= 64
