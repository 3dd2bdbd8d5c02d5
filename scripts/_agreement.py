"""Detections of two runs of the same model on the same frames, and how far they agree."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from pipeline.messages import Detections
from pipeline.models.base import Runner
from pipeline.tasks.reading import Reader
from pipeline.vision.boxes import iou_matrix
from pipeline.vision.tensor import Plane, TensorFiller

__all__ = ["agreement", "detections_of", "frames_of"]

#: Two detections are the same object: of the same class, overlapping so much, as sure to within this.
_IOU, _SCORE = 0.85, 0.1
_CONFIDENCE = 0.4
#: What one run finds may lie this much under the threshold in the other.
_SLACK = 0.1


def frames_of(clip: Path, count: int) -> list[Plane]:
    """``count`` frames of a clip, spread over it, BGR."""
    video = cv2.VideoCapture(str(clip))
    frames = []
    while (got := video.read())[0]:
        frames.append(np.asarray(got[1], np.uint8))
    video.release()
    if not frames:
        raise SystemExit(f"{clip} has no frames")
    return [frames[index * len(frames) // count] for index in range(count)]


def detections_of(runner: Runner, frames: Sequence[Plane]) -> tuple[list[Detections], float]:
    """What an open runner finds in each frame, and the median of its milliseconds a frame."""
    spec = runner.spec
    filler, reader = TensorFiller(spec), Reader(spec, confidence=_CONFIDENCE - _SLACK)
    tensor = np.zeros(filler.shape, spec.input_dtype)
    shapes = zip(runner.output_shapes, runner.output_dtypes, strict=True)
    outputs = [np.zeros(shape, dtype) for shape, dtype in shapes]
    found, times = [], []
    for frame in frames:
        letterbox = filler.fill((frame,), "bgr24", tensor)
        start = time.perf_counter()
        runner.forward(tensor, outputs)
        times.append(time.perf_counter() - start)
        found.append(reader.read(outputs, letterbox).detections)
    return found, 1e3 * float(np.median(times))


def agreement(one: Sequence[Detections], other: Sequence[Detections]) -> tuple[float, int]:
    """Share of the sure detections of either run that the other has, too, and how many they are."""
    shared = total = 0
    for left, right in zip(one, other, strict=True):
        for first, second in ((left, right), (right, left)):
            for index in np.flatnonzero(first.scores >= _CONFIDENCE):
                total += 1
                same = second.class_ids == first.class_ids[index]
                same &= np.abs(second.scores - first.scores[index]) < _SCORE
                if len(second.scores):
                    same &= iou_matrix(first.boxes_xyxy[index : index + 1], second.boxes_xyxy)[0] > _IOU
                shared += bool(same.any())
    return (shared / total if total else 1.0), total
