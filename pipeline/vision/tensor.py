"""Planes of a frame to the model's input tensor, in a buffer that the caller gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.messages import LetterboxMap, ModelSpec
from pipeline.vision.letterbox import Placement, plan

__all__ = ["PixelFormat", "Plane", "TensorFiller", "planes_to_bgr"]

Plane = NDArray[np.uint8]
PixelFormat = Literal["bgr24", "i420"]

#: Source sizes whose placement is remembered; a run rarely sees more than a few.
_MAX_PLANS = 64


def _to_bgr() -> NDArray[np.float32]:
    """Limited-range BT.601 to BGR, float32 (3, 4): factors of Y, U, V and what is added."""
    red, blue = 0.299, 0.114
    green = 1 - red - blue
    luma, chroma = 255 / 219, 2 * 255 / 224
    factors = np.array(
        [
            [luma, chroma * (1 - blue), 0],
            [luma, -chroma * blue * (1 - blue) / green, -chroma * red * (1 - red) / green],
            [luma, 0, chroma * (1 - red)],
        ]
    )
    # FFmpeg, and with it the models' reference code, cuts each product off where we round their sum:
    # half a level darker for grey, up to 1 (green 1.5) for colours. The middle is nearest to both.
    darker = np.array([0.5, 0.75, 0.5])
    offsets = -factors @ (16, 128, 128) - darker
    return np.hstack([factors, offsets[:, None]]).astype(np.float32)


_YUV_TO_BGR = _to_bgr()
_YUV_TO_RGB = np.ascontiguousarray(_YUV_TO_BGR[::-1])


class TensorFiller:
    """Writes letterboxed model inputs. One instance belongs to one thread: it keeps scratch pictures.

    An I420 frame is scaled plane by plane and converted to BGR or RGB at the size needed, which costs about
    half of converting the whole frame and differs from it only by rounding and chroma filtering. Of
    the detections that the whole frame gives (YOLOX-nano at 416, 5,137 objects in frames of five videos),
    so many are found again with an IoU of 0.9; the time is for a 720p frame, without the cast to float:

    - chroma scaled to half the size needed, then OpenCV's I420 conversion: 97.6 %, 0.48 ms;
    - chroma scaled to the full size needed: 98.6 %, 0.49 ms;
    - the same with FFmpeg's rounding, see `_to_bgr`: 98.7 %, 0.49 ms, which is what this does;
    - chroma doubled without filtering before it is scaled, as FFmpeg does: 99.1 %, 0.94 ms.

    Luma is not cut to 16..235: that lost 0.8 % on a sample of 3,199 objects, as whiter than white keeps
    its tint. The rest is the model's own: noise of under a grey level on the reference costs 0.5 %.

    Args:
        spec: The model. The placed size is rounded as `letterbox.rounding_of` its letterbox says.
        exact: Convert I420 at full size and scale the BGR picture, as the models' reference code does;
            slower, for comparisons.

    Raises:
        ModelError: the spec asks for normalisation of a uint8 input, or for a ``std`` of 0,
            or for a padding outside 0..255.
    """

    def __init__(self, spec: ModelSpec, *, exact: bool = False) -> None:
        self._spec = spec
        self._exact = exact
        self._plans: dict[tuple[int, int], Placement] = {}
        self._scratch: dict[str, Plane] = {}
        normalised = spec.mean != (0.0, 0.0, 0.0) or spec.std != (1.0, 1.0, 1.0)
        if normalised and spec.input_dtype == "uint8":
            raise ModelError(
                f"model {spec.name!r} takes uint8 pixels but asks for mean {spec.mean} and std {spec.std}",
                hint="normalise inside the graph, or declare a float32 input",
            )
        if 0.0 in spec.std:
            raise ModelError(f"model {spec.name!r} has a std of 0: {spec.std}", hint="use 1 for no scaling")
        if not 0 <= spec.pad_value <= 255:
            raise ModelError(
                f"model {spec.name!r} pads with {spec.pad_value}", hint="use a grey level from 0 to 255"
            )
        # What each of the 256 values becomes, per channel (256, 3): exact, and fast for float16 as well.
        values = np.arange(256, dtype=np.float32)[:, None]
        table = (values - np.array(spec.mean, np.float32)) / np.array(spec.std, np.float32)
        self._table = np.ascontiguousarray(table.astype(spec.input_dtype))
        # Without normalisation numpy's own cast is faster still, except to float16.
        self._plain = not normalised and spec.input_dtype != "float16"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape that `fill` expects of ``out``."""
        size = (self._spec.input_height, self._spec.input_width)
        return (1, *size, 3) if self._spec.input_layout == "nhwc" else (1, 3, *size)

    def placement(self, width: int, height: int) -> Placement:
        """Where a source frame of this size lies in the input; remembered."""
        found = self._plans.get((width, height))
        if found is None:
            spec = self._spec
            found = plan(width, height, spec.input_width, spec.input_height, spec.letterbox, crop=spec.crop)
            if len(self._plans) >= _MAX_PLANS:
                self._plans.clear()
            self._plans[width, height] = found
        return found

    def fill(self, planes: Sequence[Plane], pixel_format: PixelFormat, out: NDArray[Any]) -> LetterboxMap:
        """Write one frame into ``out``, padding included, whatever was there before.

        Args:
            planes: One uint8 (h, w, 3) for ``bgr24``; Y (h, w), U and V (ceil(h/2), ceil(w/2)) for
                ``i420`` (limited range, BT.601). May be read-only or have padded rows.
            pixel_format: ``bgr24`` or ``i420``.
            out: The input tensor of `shape`, of the spec's dtype; normalised as the spec says, or the
                plain values 0..255 when it has no mean and std.

        Returns:
            How the frame was placed.

        Raises:
            ValueError: planes or ``out`` do not have the shapes or types above.
        """
        spec = self._spec
        height, width = _size_of(planes, pixel_format)
        if out.shape != self.shape or out.dtype != spec.input_dtype:
            expected = f"{spec.input_dtype} {self.shape}"
            raise ValueError(
                f"the input of {spec.name!r} is {expected}; the buffer is {out.dtype} {out.shape}"
            )
        if self._exact and pixel_format == "i420":
            planes, pixel_format = (planes_to_bgr(planes, pixel_format),), "bgr24"
        where = self.placement(width, height)
        if where.region is not None:
            planes = _cut(planes, where.region)
        hwc = out[0] if spec.input_layout == "nhwc" else out[0].transpose(1, 2, 0)
        self._write_padding(hwc, where)
        target = hwc[where.y : where.y + where.height, where.x : where.x + where.width]
        if spec.input_dtype == "uint8" and spec.input_layout == "nhwc":
            self._picture(planes, pixel_format, target)
            return where.map
        picture = self._scratch_of("picture", (where.height, where.width, 3))
        self._picture(planes, pixel_format, picture)
        if spec.input_layout == "nhwc":
            self._convert(picture, self._table.reshape(1, 256, 3), target)
            return where.map
        channel = self._scratch_of("channel", (where.height, where.width))
        for index in range(3):
            # Contiguous bytes convert several times as fast as every third one.
            cv2.extractChannel(picture, index, dst=channel)
            self._convert(channel, np.ascontiguousarray(self._table[:, index]), target[:, :, index])
        return where.map

    def _convert(self, pixels: Plane, table: NDArray[Any], target: NDArray[Any]) -> None:
        """Write normalised ``pixels``, (h, w) or (h, w, 3), to ``target`` of the same shape."""
        if self._plain:
            target[...] = pixels
        elif target.dtype == np.float16:
            # OpenCV looks up 16-bit words, whatever they mean.
            cv2.LUT(pixels, table.view(np.uint16), dst=target.view(np.uint16))
        else:
            cv2.LUT(pixels, table, dst=target)

    def _write_padding(self, hwc: NDArray[Any], where: Placement) -> None:
        right, bottom = where.x + where.width, where.y + where.height
        strips = (
            hwc[: where.y],
            hwc[bottom:],
            hwc[where.y : bottom, : where.x],
            hwc[where.y : bottom, right:],
        )
        for strip in strips:
            if strip.size:
                for index in range(3):
                    strip[:, :, index] = self._table[self._spec.pad_value, index]

    def _picture(self, planes: Sequence[Plane], pixel_format: PixelFormat, target: Plane) -> None:
        """The frame at the size of ``target`` (h, w, 3), in the model's channel order."""
        height, width = target.shape[:2]
        rgb = self._spec.channels == "rgb"
        if pixel_format == "bgr24":
            scaled = self._scratch_of("scaled", target.shape) if rgb else target
            cv2.resize(planes[0], (width, height), dst=scaled, interpolation=cv2.INTER_LINEAR)
            if rgb:
                cv2.cvtColor(scaled, cv2.COLOR_BGR2RGB, dst=target)
            return
        layers = list(self._scratch_of("layers", (3, height, width)))
        for plane, layer in zip(planes, layers, strict=True):
            cv2.resize(plane, (width, height), dst=layer, interpolation=cv2.INTER_LINEAR)
        merged = self._scratch_of("merged", target.shape)
        cv2.merge(layers, dst=merged)
        cv2.transform(merged, _YUV_TO_RGB if rgb else _YUV_TO_BGR, dst=target)

    def _scratch_of(self, name: str, shape: tuple[int, ...]) -> Plane:
        found = self._scratch.get(name)
        if found is None or found.shape != shape:
            found = self._scratch[name] = np.zeros(shape, np.uint8)
        return found


def _cut(planes: Sequence[Plane], region: tuple[int, int, int, int]) -> tuple[Plane, ...]:
    """Views of a part of a frame; its left and top are even."""
    x, y, width, height = region
    cut = planes[0][y : y + height, x : x + width]
    if len(planes) == 1:
        return (cut,)
    x, y, width, height = x // 2, y // 2, (width + 1) // 2, (height + 1) // 2
    return (cut, *(plane[y : y + height, x : x + width] for plane in planes[1:]))


def planes_to_bgr(planes: Sequence[Plane], pixel_format: PixelFormat) -> Plane:
    """A frame as a BGR picture of its own, for drawing or for an encoder.

    Args:
        planes: As in `TensorFiller.fill`.
        pixel_format: ``bgr24`` or ``i420``.

    Returns:
        uint8 (h, w, 3), a new array that may be written to.

    Raises:
        ValueError: planes do not have the shapes or types of the format.
    """
    height, width = _size_of(planes, pixel_format)
    if pixel_format == "bgr24":
        return np.array(planes[0], order="C")
    even_h, even_w = height + height % 2, width + width % 2
    packed = np.empty((even_h * 3 // 2, even_w), np.uint8)
    views = _views_of(packed)
    views[0][:height, :width] = planes[0]
    views[0][height:] = 0
    views[0][:, width:] = 0
    views[1][...] = planes[1]
    views[2][...] = planes[2]
    bgr = cv2.cvtColor(packed, cv2.COLOR_YUV2BGR_I420)
    return np.ascontiguousarray(bgr[:height, :width], np.uint8)


def _views_of(packed: Plane) -> tuple[Plane, Plane, Plane]:
    """Y, U and V inside a packed I420 picture (h * 3 / 2, w) of even size, as OpenCV takes it."""
    width = packed.shape[1]
    height = packed.shape[0] * 2 // 3
    flat = packed.reshape(-1)
    luma, chroma = height * width, (height // 2) * (width // 2)
    half = (height // 2, width // 2)
    u = flat[luma : luma + chroma].reshape(half)
    v = flat[luma + chroma :].reshape(half)
    return packed[:height], u, v


def _size_of(planes: Sequence[Plane], pixel_format: PixelFormat) -> tuple[int, int]:
    """Height and width of a frame, after its planes have been checked."""
    shapes = [plane.shape for plane in planes]
    if pixel_format == "bgr24":
        fits = len(shapes) == 1 and len(shapes[0]) == 3 and shapes[0][2] == 3
    elif pixel_format == "i420":
        fits = len(shapes) == 3 and len(shapes[0]) == 2
        if fits:
            half = ((shapes[0][0] + 1) // 2, (shapes[0][1] + 1) // 2)
            fits = shapes[1] == half and shapes[2] == half
    else:
        raise ValueError(f"pixel format {pixel_format!r} is neither bgr24 nor i420")
    if not fits or min(shapes[0]) < 1 or any(plane.dtype != np.uint8 for plane in planes):
        kinds = [str(plane.dtype) for plane in planes]
        raise ValueError(f"planes of shapes {shapes} and types {kinds} are not a {pixel_format} frame")
    return shapes[0][0], shapes[0][1]
