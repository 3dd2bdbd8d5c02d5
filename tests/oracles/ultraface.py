"""UltraFace as Linzaer/Ultra-Light-Fast-Generic-Face-Detector-1MB publishes it (MIT): preprocessing of
``run_video_face_detect_onnx.py``, priors of ``vision/ssd/config/fd_config.py`` and
``vision/utils/box_utils.py``, suppression of ``vision/utils/box_utils_numpy.py``.

RGB, stretched to 320x240, (x - 127) / 128. Two exports: boxes x1, y1, x2, y2 as shares of the frame, or
``raw`` offsets from priors with variances 0.1 and 0.2.
"""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np

from tests.oracles.common import Found, Picture, clipped, greedy_nms, planar, session_of

__all__ = ["UltrafaceOracle"]

_STRIDES = (8, 16, 32, 64)
_SIDES = ((10, 16, 24), (32, 48), (64, 96), (128, 192, 256))
_CENTRE_VARIANCE, _SIZE_VARIANCE = 0.1, 0.2


class UltrafaceOracle:
    """An UltraFace file.

    Args:
        model: ONNX file.
        raw: Whether the boxes are offsets from priors.
        confidence: Lowest score that counts; 0.7 as published.
        nms_iou: That script has 0.5; other places of the repository other values.
    """

    def __init__(
        self, model: Path, *, raw: bool = False, confidence: float = 0.7, nms_iou: float = 0.5
    ) -> None:
        self._session = session_of(model)
        self._input = self._session.get_inputs()[0].name
        self.height, self.width = self._session.get_inputs()[0].shape[2:]
        self._raw = raw
        self._confidence = confidence
        self._nms_iou = nms_iou

    def detect(self, bgr: Picture) -> list[Found]:
        """Faces of one picture, best first."""
        height, width = bgr.shape[:2]
        rgb = cv2.resize(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), (self.width, self.height))
        tensor = planar(np.asarray(rgb, np.uint8), (127, 127, 127), (128, 128, 128))
        scores, boxes = self._session.run(["scores", "boxes"], {self._input: tensor})
        found = []
        for (_, score), box, prior in zip(scores[0], boxes[0], self._priors(), strict=True):
            if score < self._confidence:
                continue
            x1, y1, x2, y2 = (float(side) for side in box)
            if self._raw:
                x = x1 * _CENTRE_VARIANCE * prior[2] + prior[0]
                y = y1 * _CENTRE_VARIANCE * prior[3] + prior[1]
                w = math.exp(x2 * _SIZE_VARIANCE) * prior[2]
                h = math.exp(y2 * _SIZE_VARIANCE) * prior[3]
                x1, y1, x2, y2 = x - w / 2, y - h / 2, x + w / 2, y + h / 2
            found.append(Found(x1 * width, y1 * height, x2 * width, y2 * height, float(score), "face"))
        return clipped(greedy_nms(found, self._nms_iou), bgr)

    def _priors(self) -> list[tuple[float, float, float, float]]:
        """Centre and size as shares of the frame, each at most 1."""
        priors = []
        for stride, sides in zip(_STRIDES, _SIDES, strict=True):
            lines, columns = math.ceil(self.height / stride), math.ceil(self.width / stride)
            for line in range(lines):
                for column in range(columns):
                    # Shares of the number of cells: 240 is no multiple of 32, and its last cells are cut.
                    x, y = (column + 0.5) / columns, (line + 0.5) / lines
                    for side in sides:
                        w, h = side / self.width, side / self.height
                        priors.append((min(x, 1.0), min(y, 1.0), min(w, 1.0), min(h, 1.0)))
        return priors
