"""Average precision of detections, computed by pycocotools: the reference code of the COCO challenge."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.messages import Detections
from pipeline.tasks.coco import Match, Truth, TruthPicture, read_picture
from pipeline.tasks.reading import Found
from pipeline.vision.boxes import xyxy_to_xywh

__all__ = ["METRICS", "ClassScore", "Scores", "coco_rows", "detect_all", "need_scorer", "score"]

#: The 12 numbers of COCO, in the order of pycocotools.
METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")

_ALL_AREAS, _MOST_OBJECTS = 0, -1


@dataclass(frozen=True)
class ClassScore:
    """One category.

    Attributes:
        ap: AP over IoU 0.50 to 0.95, 0..1; None where the truth has no object of it.
        ap50: AP at IoU 0.5.
        objects: Annotated objects, crowds not counted.
    """

    ap: float | None
    ap50: float | None
    objects: int


@dataclass(frozen=True)
class Scores:
    """What pycocotools says.

    Attributes:
        metrics: By name of `METRICS`, 0..1; None where the truth has no object of such a size.
        per_class: By category, in the order of the annotations.
        recall: float (101,), the recalls of the curves.
        curves: By what they are of (``IoU 0.50``, ``IoU 0.75``, ``IoU 0.50 to 0.95``): precision at each of
            them (101,), mean over the categories.
        detections: How many were scored.
    """

    metrics: Mapping[str, float | None]
    per_class: Mapping[str, ClassScore]
    recall: NDArray[np.float64]
    curves: Mapping[str, NDArray[np.float64]]
    detections: int


def need_scorer() -> tuple[ModuleType, ModuleType]:
    """The modules of pycocotools: to be called before the model runs for an hour.

    Raises:
        ConfigError: pycocotools is not installed.
    """
    try:
        from pycocotools import coco, cocoeval
    except ImportError as error:
        raise ConfigError(
            "measuring accuracy needs pycocotools, which is not installed",
            hint="pip install 'framewire[eval]'",
        ) from error
    return coco, cocoeval


def detect_all(
    pictures: Iterable[TruthPicture], read: Callable[[NDArray[np.uint8]], Found], done: Callable[[], None]
) -> dict[int, Detections]:
    """Run a detector over annotated pictures.

    Args:
        pictures: The pictures.
        read: Finds objects in a BGR picture.
        done: Told after each picture.

    Returns:
        Detections by image id, boxes in pixels of the picture.

    Raises:
        SourceError: a picture cannot be read, or is of another size than annotated.
        ModelError: the network failed.
    """
    found = {}
    for picture in pictures:
        found[picture.image_id] = read(read_picture(picture)).detections
        done()
    return found


def coco_rows(found: Mapping[int, Detections], match: Match) -> list[dict[str, Any]]:
    """Detections in COCO's format of results; those of labels that are no category are left out."""
    rows = []
    for image_id, detections in found.items():
        boxes = xyxy_to_xywh(detections.boxes_xyxy)
        for box, confidence, class_id in zip(boxes, detections.scores, detections.class_ids, strict=True):
            category_id = match.category_ids[class_id] if 0 <= class_id < len(match.category_ids) else None
            if category_id is not None:
                rows.append(
                    {
                        "image_id": image_id,
                        "category_id": category_id,
                        "bbox": [float(side) for side in box],
                        "score": float(confidence),
                    }
                )
    return rows


def score(truth: Truth, rows: list[dict[str, Any]], match: Match) -> Scores:
    """Score results against the truth, over the categories that the model knows.

    Args:
        truth: The annotations.
        rows: Results as of `coco_rows`.
        match: The categories that count.

    Raises:
        ConfigError: pycocotools is not installed.
    """
    coco, cocoeval = need_scorer()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints as it goes
        expected = _indexed(coco, truth, [dict(row) for row in truth.annotations])
        results = [
            row | {"id": index, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}
            for index, row in enumerate(rows, 1)
        ]
        evaluation = cocoeval.COCOeval(expected, _indexed(coco, truth, results), "bbox")
        evaluation.params.imgIds = sorted(picture.image_id for picture in truth.pictures)
        evaluation.params.catIds = [truth.categories[name] for name in match.shared]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # IoU thresholds x recalls x categories x sizes x numbers of objects; -1 where there is no object.
    precision = evaluation.eval["precision"][:, :, :, _ALL_AREAS, _MOST_OBJECTS]
    counts: dict[int, int] = {}
    for row in truth.annotations:
        counts[row["category_id"]] = counts.get(row["category_id"], 0) + (not row["iscrowd"])
    # It has sorted the ids.
    places = {int(number): index for index, number in enumerate(evaluation.params.catIds)}
    per_class = {}
    for name in match.shared:
        number = truth.categories[name]
        of_class = precision[:, :, places[number]]
        per_class[name] = ClassScore(_mean(of_class), _mean(of_class[0]), counts.get(number, 0))
    stats = [float(value) for value in evaluation.stats]
    metrics = {name: None if value < 0 else value for name, value in zip(METRICS, stats, strict=True)}
    there = precision[:, :, (precision > -1).any(axis=(0, 1))]
    curves = {"IoU 0.50": there[0], "IoU 0.75": there[5], "IoU 0.50 to 0.95": there.mean(axis=0)}
    means = {
        name: curve.mean(axis=1) if curve.size else np.zeros(len(curve)) for name, curve in curves.items()
    }
    return Scores(metrics, per_class, np.asarray(evaluation.params.recThrs, np.float64), means, len(rows))


def _indexed(coco: ModuleType, truth: Truth, annotations: list[dict[str, Any]]) -> Any:
    made = coco.COCO()
    made.dataset = {
        "images": [{"id": one.image_id, "width": one.width, "height": one.height} for one in truth.pictures],
        "categories": [{"id": number, "name": name} for name, number in truth.categories.items()],
        "annotations": annotations,
    }
    made.createIndex()
    return made


def _mean(precision: NDArray[np.float64]) -> float | None:
    there = precision[precision > -1]
    return float(there.mean()) if there.size else None
