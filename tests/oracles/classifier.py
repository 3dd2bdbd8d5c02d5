"""Classifiers trained on ImageNet, as pytorch/vision's reference evaluation reads pictures (BSD-3-Clause,
``references/classification/presets.py``): RGB, shorter side to 256, the middle 224x224, ImageNet's mean and
std; the softmax of the outputs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from tests.oracles.common import Picture, planar, session_of

__all__ = ["ImagenetOracle"]


class ImagenetOracle:
    """A classifier.

    Args:
        model: ONNX file: float NCHW in, logits out.
        labels: Class names.
        shorter: What the shorter side is scaled to before the middle is cut out.
    """

    def __init__(self, model: Path, labels: Sequence[str], *, shorter: int = 256) -> None:
        self._session = session_of(model)
        self._input = self._session.get_inputs()[0].name
        self.side = self._session.get_inputs()[0].shape[2]
        self._labels = labels
        self._shorter = shorter

    def classify(self, bgr: Picture, count: int = 5) -> list[tuple[str, float]]:
        """The best classes of one picture and their probabilities."""
        height, width = bgr.shape[:2]
        ratio = self._shorter / min(height, width)
        size = (round(width * ratio), round(height * ratio))
        scaled = cv2.resize(bgr, size, interpolation=cv2.INTER_LINEAR)
        left, top = (scaled.shape[1] - self.side) // 2, (scaled.shape[0] - self.side) // 2
        middle = scaled[top : top + self.side, left : left + self.side]
        rgb = np.ascontiguousarray(middle[:, :, ::-1], np.uint8)
        tensor = planar(rgb, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))
        logits = [float(value) for value in self._session.run(None, {self._input: tensor})[0][0]]
        weights = [math.exp(value - max(logits)) for value in logits]
        order = sorted(range(len(weights)), key=lambda index: -weights[index])[:count]
        return [(self._labels[index], weights[index] / sum(weights)) for index in order]
