"""YOLOX as Megvii-BaseDetection/YOLOX publishes it (Apache-2.0): ``preproc`` in
``yolox/data/data_augment.py``, ``demo_postprocess`` in ``yolox/utils/demo_utils.py``, ``postprocess`` in
``yolox/utils/boxes.py``.

BGR 0..255, scaled by the smaller ratio and cut to whole pixels, at the top left, padded with 114; boxes are
divided by the one ratio. A cell gives its best class. Two variants read the same network with its head
rearranged as other exporters write it:

- ``v5``: rows ``cx, cy, w, h`` in input pixels, objectness and classes (YOLOv5's and v7's layout);
- ``v8``: the transpose of rows ``cx, cy, w, h`` and classes, no objectness (YOLOv8's).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.oracles.common import Found, Picture, clipped, greedy_nms, placed, planar, session_of

__all__ = ["YoloxOracle"]


class YoloxOracle:
    """A YOLOX file.

    Args:
        model: ONNX file.
        labels: Class names.
        layout: ``raw``, ``v5`` or ``v8``.
        confidence: Lowest score that counts.
        nms_iou: 0.65 is ``nmsthre`` of YOLOX's own evaluation.
    """

    def __init__(
        self,
        model: Path,
        labels: Sequence[str],
        *,
        layout: str = "raw",
        confidence: float = 0.01,
        nms_iou: float = 0.65,
    ) -> None:
        self._session = session_of(model)
        self._input = self._session.get_inputs()[0]
        self.height, self.width = self._input.shape[2:]
        self._labels = labels
        self._layout = layout
        self._confidence = confidence
        self._nms_iou = nms_iou

    def detect(self, bgr: Picture) -> list[Found]:
        """Objects of one picture, best first."""
        height, width = bgr.shape[:2]
        ratio = min(self.height / height, self.width / width)
        canvas = placed(bgr, self.width, self.height, 0, 0, int(width * ratio), int(height * ratio), grey=114)
        tensor = planar(canvas)
        if "float16" in self._input.type:
            tensor = tensor.astype(np.float16)
        output = self._session.run(None, {self._input.name: tensor})[0][0].astype(np.float64)
        if self._layout == "v8":
            output = output.T
        found = []
        for row, (column, line, stride) in zip(output, self._cells(), strict=True):
            classes = row[4:] if self._layout == "v8" else row[5:] * row[4]
            best = int(classes.argmax())
            if classes[best] < self._confidence:
                continue
            x, y, w, h = row[:4]
            if self._layout == "raw":
                x, y = (x + column) * stride, (y + line) * stride
                w, h = math.exp(w) * stride, math.exp(h) * stride
            box = (
                (x - w / 2) / ratio,
                (y - h / 2) / ratio,
                (x + w / 2) / ratio,
                (y + h / 2) / ratio,
            )
            found.append(Found(*box, float(classes[best]), self._labels[best]))
        return clipped(greedy_nms(found, self._nms_iou), bgr)

    def _cells(self) -> list[tuple[int, int, int]]:
        cells = []
        for stride in (8, 16, 32):
            for line in range(self.height // stride):
                cells += [(column, line, stride) for column in range(self.width // stride)]
        return cells
