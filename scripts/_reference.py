"""YOLOX the straightforward way, in one process: the yardstick for the pipeline and its fast path.

On purpose nothing here comes from ``pipeline.vision`` or ``pipeline.heads``: full-size BGR, the letterbox of
YOLOX's own ``preproc`` (top left, sizes cut to whole pixels, padded with 114), boxes divided by one ratio,
and loops where loops are easiest to check.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]
from numpy.typing import NDArray

__all__ = ["NMS_IOU", "Agreement", "Found", "YoloxReference", "agree", "bgr_frames", "iou"]

#: IoU over which the weaker of two boxes of a class goes: YOLOX's own evaluation default.
NMS_IOU = 0.65
_STRIDES = (8, 16, 32)


@dataclass(frozen=True)
class Found:
    """Detections of one frame: boxes (n, 4) in pixels of the frame, scores (n,), class ids (n,)."""

    boxes_xyxy: NDArray[np.float64]
    scores: NDArray[np.float64]
    class_ids: NDArray[np.int64]

    @classmethod
    def of_record(cls, record: dict[str, Any], confidence: float = 0.0) -> Found:
        """From a line of ``detections.jsonl``, without what is below ``confidence``."""
        rows = [row for row in record["detections"] if row["confidence"] >= confidence]
        return cls(
            np.array([row["box_xyxy"] for row in rows], np.float64).reshape(-1, 4),
            np.array([row["confidence"] for row in rows], np.float64),
            np.array([row["class_id"] for row in rows], np.int64),
        )


def iou(a_xyxy: NDArray[Any], b_xyxy: NDArray[Any]) -> float:
    """Intersection over union of two boxes (4,)."""
    width = min(a_xyxy[2], b_xyxy[2]) - max(a_xyxy[0], b_xyxy[0])
    height = min(a_xyxy[3], b_xyxy[3]) - max(a_xyxy[1], b_xyxy[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a_xyxy, b_xyxy)]
    return float(both / (sum(areas) - both))


class YoloxReference:
    """A YOLOX session and all around it.

    Args:
        model: ONNX file with one raw output (1, cells, 5 + classes).
        confidence: Lowest score that counts.
        nms_iou: IoU over which the weaker of two boxes of a class goes.
        one_ratio: Divide boxes by the letterbox's ratio, as YOLOX does. Its placed size is cut to whole
            pixels, so that is off by up to a pixel of the input; False divides by placed over source size,
            the exact inverse of the resize.
    """

    def __init__(
        self, model: Path, *, confidence: float, nms_iou: float = NMS_IOU, one_ratio: bool = True
    ) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name
        self.height, self.width = self._session.get_inputs()[0].shape[2:]
        self._confidence = confidence
        self._nms_iou = nms_iou
        self._one_ratio = one_ratio
        cells = []
        for stride in _STRIDES:
            for row in range(self.height // stride):
                cells += [(column, row, stride) for column in range(self.width // stride)]
        self._cells = np.array(cells, np.float64)

    def placed(self, width: int, height: int) -> tuple[int, int, float]:
        """Width and height of a frame inside the input, and the ratio that boxes are divided by."""
        ratio = min(self.height / height, self.width / width)
        return int(width * ratio), int(height * ratio), ratio

    def tensor(self, bgr: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Letterboxed input, float32 (1, 3, height, width), values 0..255."""
        width, height, _ = self.placed(bgr.shape[1], bgr.shape[0])
        canvas = np.full((self.height, self.width, 3), 114, np.uint8)
        canvas[:height, :width] = cv2.resize(bgr, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.ascontiguousarray(canvas.transpose(2, 0, 1)[None], np.float32)

    def detect(self, bgr: NDArray[np.uint8]) -> Found:
        """Detections of one BGR frame, best first."""
        return self.decode(self.tensor(bgr), bgr.shape[1], bgr.shape[0])

    def decode(self, tensor: NDArray[np.float32], width: int, height: int) -> Found:
        """Detections in a frame of that size, given its input tensor."""
        placed_w, placed_h, ratio = self.placed(width, height)
        scale = np.array([ratio] * 4)
        if not self._one_ratio:
            scale = np.array([placed_w / width, placed_h / height] * 2)
        raw = self._session.run(None, {self._input: tensor})[0][0].astype(np.float64)
        candidates = []
        for row, (column, line, stride) in zip(raw, self._cells, strict=True):
            if row[4] < self._confidence:
                continue
            class_id = int(row[5:].argmax())
            score = row[4] * row[5 + class_id]
            if score < self._confidence:
                continue
            x, y = (row[0] + column) * stride, (row[1] + line) * stride
            w, h = np.exp(row[2]) * stride, np.exp(row[3]) * stride
            box = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2]) / scale
            candidates.append((score, class_id, box.clip(0, [width, height, width, height])))
        candidates.sort(key=lambda one: -one[0])
        kept: list[tuple[float, int, NDArray[np.float64]]] = []
        for score, class_id, box in candidates:
            if all(other != class_id or iou(box, taken) <= self._nms_iou for _, other, taken in kept):
                kept.append((score, class_id, box))
        return Found(
            np.array([box for _, _, box in kept], np.float64).reshape(-1, 4),
            np.array([score for score, _, _ in kept], np.float64),
            np.array([class_id for _, class_id, _ in kept], np.int64),
        )


@dataclass
class Agreement:
    """How many of the reference's detections another way kept.

    Attributes:
        expected: Detections of the reference.
        kept: Those that the other way has, too.
        worst_iou: Lowest IoU among the kept.
        worst_score: Largest difference of score among the kept.
        missed: Where each missed one was: frame, its box, its score, IoU of the best of its class.
    """

    expected: int = 0
    kept: int = 0
    worst_iou: float = 1.0
    worst_score: float = 0.0
    missed: list[dict[str, Any]] = field(default_factory=list)

    @property
    def percent(self) -> float:
        """Share that was kept; 100 where there was nothing to keep."""
        return 100.0 * self.kept / self.expected if self.expected else 100.0

    def add(self, other: Agreement) -> None:
        """Count another one in."""
        self.expected += other.expected
        self.kept += other.kept
        self.worst_iou = min(self.worst_iou, other.worst_iou)
        self.worst_score = max(self.worst_score, other.worst_score)
        self.missed += other.missed


def agree(
    reference: Found,
    other: Found,
    *,
    iou_at_least: float,
    score_within: float = 1.0,
    over: float = 0.3,
    frame: str = "",
) -> Agreement:
    """Look for each reference detection with a score over ``over`` among the others of its class."""
    found = Agreement()
    for box, score, class_id in zip(reference.boxes_xyxy, reference.scores, reference.class_ids, strict=True):
        if score <= over:
            continue
        found.expected += 1
        rivals: Sequence[int] = np.flatnonzero(other.class_ids == class_id).tolist()
        best = max(rivals, key=lambda at: iou(box, other.boxes_xyxy[at]), default=None)
        overlap = 0.0 if best is None else iou(box, other.boxes_xyxy[best])
        apart = 1.0 if best is None else abs(float(other.scores[best]) - float(score))
        if overlap >= iou_at_least and apart <= score_within:
            found.kept += 1
            found.worst_iou = min(found.worst_iou, overlap)
            found.worst_score = max(found.worst_score, apart)
        else:
            found.missed.append(
                {
                    "frame": frame,
                    "class_id": int(class_id),
                    "box_xyxy": [round(float(side), 2) for side in box],
                    "score": round(float(score), 4),
                    "best_iou": round(overlap, 4),
                    "score_difference": round(apart, 4),
                }
            )
    return found


def bgr_frames(path: Path) -> Iterator[NDArray[np.uint8]]:
    """Every frame of a video as PyAV gives it in BGR, which is what ``cv2.VideoCapture`` gives, too."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            yield np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
