"""NanoDet and PicoDet: scores per cell, and the four sides as distributions over bins.

NanoDet follows RangiLyu/nanodet (Apache-2.0): ``nanodet/model/head/gfl_head.py`` (centres
``(cell + 0.5) * stride``, expectation of the softmax over the bins, at most 1000 cells of a level, scores
over 0.05, NMS 0.6 per class), ``config/nanodet-m-416.yml`` and ``config/nanodet-g.yml`` (BGR, mean and std,
``keep_ratio: True``), ``nanodet/data/transform/warp.py`` (the picture in the middle, black around it).
PicoDet follows PaddlePaddle/PaddleDetection (Apache-2.0): ``configs/picodet/_base_/picodet_416_reader.yml``
(RGB, ImageNet's mean and std, stretched) and ``ppdet/modeling/heads/gfl_head.py`` (the same decoding).

The placement is an argument, because the published ones differ among themselves:

- ``warp``: ``warp.py`` to the letter: `cv2.warpPerspective`, which maps pixel numbers and not pixel centres;
- ``center``: scaled, cut to whole pixels and put in the middle, as the ports of NanoDet to ONNX Runtime do;
- ``topleft``: the same at the top left;
- ``stretch``: both sides to the input's size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.oracles.common import Found, Picture, clipped, greedy_nms, placed, planar, session_of

__all__ = ["DistanceOracle", "FinishedNanodetOracle", "Placement"]

_BGR = {"mean": (103.53, 116.28, 123.675), "std": (57.375, 57.12, 58.395)}
_RGB = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
_NMS_PRE = 1000


class Placement:
    """A picture in the input, and the way back.

    Args:
        bgr: The picture.
        width: Of the input.
        height: Of the input.
        how: See the module.
        grey: Level of the padding.
    """

    def __init__(self, bgr: Picture, width: int, height: int, how: str, grey: int = 0) -> None:
        source_h, source_w = bgr.shape[:2]
        ratio = min(width / source_w, height / source_h)
        new_w, new_h = (
            (width, height) if how == "stretch" else (round(source_w * ratio), round(source_h * ratio))
        )
        if how == "topleft":
            new_w, new_h = int(source_w * ratio), int(source_h * ratio)
        if how == "warp":
            self.scale_x = self.scale_y = ratio
            self.x, self.y = (width - source_w * ratio) / 2, (height - source_h * ratio) / 2
            matrix = np.array([[ratio, 0, self.x], [0, ratio, self.y], [0, 0, 1]])
            self.canvas = np.asarray(cv2.warpPerspective(bgr, matrix, (width, height)), np.uint8)
            return
        self.scale_x, self.scale_y = new_w / source_w, new_h / source_h
        if how == "topleft":
            self.scale_x = self.scale_y = ratio
        left, top = ((width - new_w) // 2, (height - new_h) // 2) if how == "center" else (0, 0)
        self.x, self.y = float(left), float(top)
        self.canvas = placed(bgr, width, height, left, top, new_w, new_h, grey)

    def back(self, x1: float, y1: float, x2: float, y2: float) -> tuple[float, float, float, float]:
        """A box of the input in pixels of the picture."""
        return (
            (x1 - self.x) / self.scale_x,
            (y1 - self.y) / self.scale_y,
            (x2 - self.x) / self.scale_x,
            (y2 - self.y) / self.scale_y,
        )


class DistanceOracle:
    """A raw export: class scores of each level, then distances of each level.

    Args:
        model: ONNX file.
        labels: Class names.
        placement: See the module.
        rgb: RGB in, as PicoDet; else BGR.
        confidence: Lowest score that counts.
        nms_iou: IoU over which the weaker goes.
    """

    def __init__(
        self,
        model: Path,
        labels: Sequence[str],
        *,
        placement: str,
        rgb: bool = False,
        confidence: float = 0.05,
        nms_iou: float = 0.6,
    ) -> None:
        self._session = session_of(model)
        self._input = self._session.get_inputs()[0].name
        self.height, self.width = self._session.get_inputs()[0].shape[2:]
        self._labels = labels
        self._placement = placement
        self._rgb = rgb
        self._confidence = confidence
        self._nms_iou = nms_iou

    def detect(self, bgr: Picture) -> list[Found]:
        """Objects of one picture, best first."""
        where = Placement(bgr, self.width, self.height, self._placement)
        canvas = np.ascontiguousarray(where.canvas[:, :, ::-1]) if self._rgb else where.canvas
        outputs = self._session.run(None, {self._input: planar(canvas, **(_RGB if self._rgb else _BGR))})
        levels = len(outputs) // 2
        found = []
        for level, stride in enumerate((8, 16, 32, 64)[:levels]):
            found += self._level(outputs[level][0], outputs[levels + level][0], stride, where)
        return clipped(greedy_nms(found, self._nms_iou), bgr)

    def _level(
        self, scores: NDArray[Any], logits: NDArray[Any], stride: int, where: Placement
    ) -> list[Found]:
        columns = math.ceil(self.width / stride)
        bins = logits.shape[1] // 4
        found = []
        # The best 1000 cells of a level, as get_bboxes_single has it.
        cells = sorted(range(len(scores)), key=lambda cell: -scores[cell].max())[:_NMS_PRE]
        for cell in cells:
            if scores[cell].max() < self._confidence:
                break
            x, y = (cell % columns + 0.5) * stride, (cell // columns + 0.5) * stride
            left, top, right, bottom = (
                _expected(logits[cell, side * bins : (side + 1) * bins]) * stride for side in range(4)
            )
            # distance2bbox cuts at the edges of the input.
            box = (
                max(x - left, 0.0),
                max(y - top, 0.0),
                min(x + right, self.width),
                min(y + bottom, self.height),
            )
            for class_id, score in enumerate(scores[cell]):
                if score >= self._confidence:
                    found.append(Found(*where.back(*box), float(score), self._labels[class_id]))
        return found


def _expected(logits: NDArray[Any]) -> float:
    """Mean number of the bins under their softmax."""
    weights = [math.exp(float(value) - float(logits.max())) for value in logits]
    return sum(number * weight for number, weight in enumerate(weights)) / sum(weights)


class FinishedNanodetOracle:
    """A NanoDet whose graph ends in boxes and scores: uint8 NHWC BGR in, normalised in the graph.

    The picture lies in the middle and is padded with 114, at which level the graph's first layer was folded.

    Args:
        model: ONNX file.
        labels: Class names.
        confidence: Lowest score that counts.
        nms_iou: IoU over which the weaker goes.
    """

    def __init__(
        self, model: Path, labels: Sequence[str], *, confidence: float = 0.05, nms_iou: float = 0.6
    ) -> None:
        self._session = session_of(model)
        self._input = self._session.get_inputs()[0]
        self.height, self.width = self._input.shape[1:3]
        self._labels = labels
        self._confidence = confidence
        self._nms_iou = nms_iou

    def detect(self, bgr: Picture) -> list[Found]:
        """Objects of one picture, best first."""
        where = Placement(bgr, self.width, self.height, "center", grey=114)
        tensor: NDArray[Any] = where.canvas[None]
        if "uint8" not in self._input.type:
            tensor = tensor.astype(np.float32)
        outputs = self._session.run(None, {self._input.name: tensor})
        boxes, scores = outputs if outputs[0].shape[2] == 4 else outputs[::-1]
        found = []
        for box, classes in zip(boxes[0], scores[0], strict=True):
            if classes.max() < self._confidence:
                continue
            for class_id, score in enumerate(classes):
                if score >= self._confidence:
                    found.append(Found(*where.back(*map(float, box)), float(score), self._labels[class_id]))
        return clipped(greedy_nms(found, self._nms_iou), bgr)
