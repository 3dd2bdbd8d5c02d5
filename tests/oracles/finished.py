"""Detectors whose graph ends in boxes: no decoding, no NMS.

SSD MobileNet v1 follows tensorflow/models' ``object_detection`` and TensorFlow Lite's
``detection_postprocess.cc`` (Apache-2.0): RGB, stretched; ten rows of ``ymin, xmin, ymax, xmax`` as shares
of the frame, class numbers from 0 without the background, scores, and how many rows count.

DEIMv2 follows Peterande/D-FINE ``tools/inference/onnx_inf.py`` (Apache-2.0), whose interface
Intellindust-AI-Lab/DEIMv2 shares: RGB / 255, stretched; the size of the picture goes in, and boxes come out
in its pixels. That script scales with Pillow, which averages over all pixels where it makes a picture
smaller: ``antialias`` does the same; OpenCV's bilinear filter looks at four.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from tests.oracles.common import Found, Picture, clipped, session_of

__all__ = ["DeimOracle", "SsdOracle"]


def _stretched(bgr: Picture, width: int, height: int) -> Picture:
    rgb = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=cv2.INTER_LINEAR), np.uint8)


class SsdOracle:
    """An SSD of TensorFlow with its post-processing.

    Args:
        model: ONNX file: uint8 NHWC in.
        labels: Class names from 0; empty or ``N/A`` for numbers without an object.
        confidence: Lowest score that counts.
    """

    def __init__(self, model: Path, labels: Sequence[str], *, confidence: float = 0.01) -> None:
        self._session = session_of(model)
        self._input = self._session.get_inputs()[0].name
        self.height, self.width = self._session.get_inputs()[0].shape[1:3]
        self._labels = labels
        self._confidence = confidence

    def detect(self, bgr: Picture) -> list[Found]:
        """Objects of one picture, best first."""
        tensor = _stretched(bgr, self.width, self.height)[None]
        boxes, classes, scores, count = self._session.run(None, {self._input: tensor})
        height, width = bgr.shape[:2]
        found = []
        for row in range(int(count[0])):
            if scores[0, row] < self._confidence:
                continue
            top, left, bottom, right = (float(side) for side in boxes[0, row])
            box = (left * width, top * height, right * width, bottom * height)
            found.append(Found(*box, float(scores[0, row]), self._labels[round(float(classes[0, row]))]))
        return clipped(sorted(found, key=lambda one: -one.score), bgr)


class DeimOracle:
    """A DEIM, D-FINE or RT-DETR export.

    Args:
        model: ONNX file: ``images`` and ``orig_target_sizes`` in; ``labels``, ``boxes``, ``scores`` out.
        labels: Class names.
        confidence: Lowest score that counts.
        antialias: Scale as Pillow does; see the module.
    """

    def __init__(
        self, model: Path, labels: Sequence[str], *, confidence: float = 0.01, antialias: bool = False
    ) -> None:
        self._session = session_of(model)
        self.height, self.width = self._session.get_inputs()[0].shape[2:]
        self._labels = labels
        self._confidence = confidence
        self._antialias = antialias

    def detect(self, bgr: Picture) -> list[Found]:
        """Objects of one picture, best first."""
        height, width = bgr.shape[:2]
        if self._antialias:
            from PIL import Image

            whole = Image.fromarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))
            picture = np.asarray(whole.resize((self.width, self.height), Image.Resampling.BILINEAR), np.uint8)
        else:
            picture = _stretched(bgr, self.width, self.height)
        tensor = np.ascontiguousarray(picture.transpose(2, 0, 1)[None], np.float32) / np.float32(255)
        feeds = {"images": tensor, "orig_target_sizes": np.array([[width, height]], np.int64)}
        ids, boxes, scores = self._session.run(["labels", "boxes", "scores"], feeds)
        found = []
        for class_id, box, score in zip(ids[0], boxes[0], scores[0], strict=True):
            if score >= self._confidence:
                x1, y1, x2, y2 = (float(side) for side in box)
                found.append(Found(x1, y1, x2, y2, float(score), self._labels[int(class_id)]))
        return clipped(sorted(found, key=lambda one: -one.score), bgr)
