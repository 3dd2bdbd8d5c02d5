"""What every reference implementation needs: a session, an overlap, a suppression, a score."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

__all__ = [
    "Found",
    "Oracle",
    "agreed",
    "average_precision",
    "clipped",
    "greedy_nms",
    "overlap",
    "placed",
    "planar",
    "read_picture",
    "session_of",
]

Picture = NDArray[np.uint8]


class Found(NamedTuple):
    """One object: box in pixels of the picture, score 0..1, name of its class."""

    x1: float
    y1: float
    x2: float
    y2: float
    score: float
    label: str


class Oracle(Protocol):
    """Finds objects in a picture."""

    def detect(self, bgr: Picture) -> list[Found]:
        """Objects of one BGR picture (h, w, 3), best first."""


def session_of(model: Path) -> Any:
    """A session on one thread of the CPU."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def read_picture(path: Path) -> Picture:
    """A picture file as BGR."""
    picture = cv2.imread(str(path))
    assert picture is not None, f"{path} cannot be read"
    return np.asarray(picture, np.uint8)


def placed(
    bgr: Picture, width: int, height: int, x: int, y: int, new_width: int, new_height: int, grey: int
) -> Picture:
    """The picture scaled to new_width x new_height, at x, y of a canvas of one grey."""
    canvas = np.full((height, width, 3), grey, np.uint8)
    scaled = cv2.resize(bgr, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
    canvas[y : y + new_height, x : x + new_width] = scaled
    return canvas


def planar(
    picture: Picture, mean: Sequence[float] = (0, 0, 0), std: Sequence[float] = (1, 1, 1)
) -> NDArray[np.float32]:
    """(1, 3, h, w) of (value - mean) / std, in the picture's own channel order."""
    tensor = np.empty((1, 3, *picture.shape[:2]), np.float32)
    for channel in range(3):
        tensor[0, channel] = (picture[:, :, channel].astype(np.float32) - mean[channel]) / std[channel]
    return tensor


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two boxes x1, y1, x2, y2."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def greedy_nms(found: Sequence[Found], threshold: float) -> list[Found]:
    """Best first; one that overlaps a better one of its class by more than the threshold goes."""
    kept: dict[str, list[Found]] = {}
    for one in sorted(found, key=lambda item: -item.score):
        rivals = kept.setdefault(one.label, [])
        if all(overlap(one[:4], rival[:4]) <= threshold for rival in rivals):
            rivals.append(one)
    return sorted((one for rivals in kept.values() for one in rivals), key=lambda item: -item.score)


def clipped(found: Sequence[Found], bgr: Picture) -> list[Found]:
    """The same, cut at the edges of the picture."""
    height, width = bgr.shape[:2]

    def inside(one: Found) -> Found:
        return Found(
            min(max(one.x1, 0.0), width),
            min(max(one.y1, 0.0), height),
            min(max(one.x2, 0.0), width),
            min(max(one.y2, 0.0), height),
            one.score,
            one.label,
        )

    return [inside(one) for one in found]


def agreed(expected: Sequence[Found], found: Sequence[Found], *, over: float = 0.2) -> tuple[int, int]:
    """How many objects both sides have: same class, IoU of 0.99 or more, scores within 0.005.

    Args:
        expected: What the reference found.
        found: What is to be judged.
        over: Objects of lower scores are not looked at; at the limit, either side may lack one.

    Returns:
        The number of those, and of all objects of the side that has more.
    """
    ours = [one for one in found if one.score >= over]
    theirs = [one for one in expected if one.score >= over]
    left, same = list(ours), 0
    for one in theirs:
        for other in left:
            if (
                other.label == one.label
                and abs(other.score - one.score) <= 0.005
                and overlap(other[:4], one[:4]) >= 0.99
            ):
                left.remove(other)
                same += 1
                break
    return same, max(len(ours), len(theirs))


def average_precision(
    annotations: Path, found: Mapping[int, Sequence[Found]], most: int = 300
) -> tuple[float, float]:
    """AP and AP50 by pycocotools over the pictures that ``found`` names.

    Args:
        annotations: COCO JSON.
        found: Objects by image id.
        most: Objects of one picture that count, the best ones.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        ids = {one["name"]: one["id"] for one in truth.loadCats(truth.getCatIds())}
        rows = [
            {
                "image_id": image_id,
                "category_id": ids[one.label],
                "bbox": [one.x1, one.y1, one.x2 - one.x1, one.y2 - one.y1],
                "score": one.score,
            }
            for image_id, objects in found.items()
            for one in list(objects)[:most]
            if one.label in ids
        ]
        if not rows:
            return 0.0, 0.0
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.params.imgIds = sorted(found)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])
