"""Outputs of graphs with their NMS inside: which of them is which, and which rows are objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads._metadata import names_in
from pipeline.heads.base import (
    Signature,
    TensorInfo,
    as_frame,
    as_ids,
    check_probabilities,
    top_detections,
)
from pipeline.messages import Detections, ModelSpec

__all__ = [
    "Labels",
    "Rows",
    "labels_from",
    "pair",
    "rows_of",
    "sample_of",
    "select",
]

#: What training code calls class 0 where classes count from 1.
_BACKGROUND = ("background", "__background__", "bg")

_INTEGERS = ("int32", "int64", "uint8", "int8")


@dataclass(frozen=True)
class Rows:
    """One array each, for one frame.

    Attributes:
        boxes: float32 (n, 4), as the graph gives them.
        scores: float32 (n,), 0..1.
        class_ids: int64 (n,), as the graph counts them.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int64]


@dataclass(frozen=True)
class Labels:
    """Names of the classes of a graph that does not say how many it has.

    Attributes:
        classes: How many.
        names: Those that the file carries; empty where it carries none.
        first_class: The id by which the graph calls the first of them.
    """

    classes: int
    names: tuple[str, ...]
    first_class: int


def labels_from(
    metadata: Mapping[str, str], usual: int, first_class: int, background: bool = False
) -> Labels:
    """The classes of a graph, from its metadata or as usual.

    Args:
        metadata: Of the model file.
        usual: How many classes there are where the metadata name none.
        first_class: Id of the first of them then.
        background: Whether id 0 means the background, so that the first name of a file that does not name
            it has the id 1.
    """
    names = names_in(metadata)
    if not names:
        return Labels(usual, (), first_class)
    if background:
        first_class = 0 if names[0].lower() in _BACKGROUND else 1
    return Labels(len(names), names, first_class)


def pair(one: TensorInfo, other: TensorInfo) -> tuple[TensorInfo, TensorInfo, bool]:
    """Class ids and scores of two outputs of the same shape.

    Returns:
        Class ids, scores, and whether a dtype or a name says so; else class ids are taken to come first.
    """
    for ids, scores in ((one, other), (other, one)):
        if ids.dtype in _INTEGERS and scores.dtype not in _INTEGERS:
            return ids, scores, True
    for ids, scores in ((one, other), (other, one)):
        if _is_ids(ids.name) or _is_scores(scores.name):
            return ids, scores, True
    return one, other, False


def _is_ids(name: str) -> bool:
    return any(word in name.lower() for word in ("class", "label", "categor", "postprocess:1"))


def _is_scores(name: str) -> bool:
    return any(word in name.lower() for word in ("score", "conf", "postprocess:2"))


def rows_of(outputs: Sequence[NDArray[Any]], spec: ModelSpec) -> Rows:
    """Boxes, class ids and scores, in any order, with or without the count of rows that are objects.

    Args:
        outputs: (1, n, 4) boxes, (1, n) class ids, (1, n) scores, and maybe (1,) or (1, 1) the count.
        spec: The model.

    Raises:
        ModelError: they are no such outputs, or the count is over n.
    """
    names = spec.output_names if len(spec.output_names) == len(outputs) else ("",) * len(outputs)
    infos = [
        TensorInfo(name or str(index), output.dtype.name, output.shape)
        for index, (name, output) in enumerate(zip(names, outputs, strict=True))
    ]
    by_name = {info.name: output for info, output in zip(infos, outputs, strict=True)}
    boxes = [info for info in infos if len(info.shape) == 3]
    counts = [info for info in infos if _is_count(info, len(outputs))]
    flat = [info for info in infos if len(info.shape) == 2 and info not in counts]
    if len(boxes) != 1 or len(flat) != 2 or len(counts) != len(outputs) - 3:
        seen = ", ".join(f"{info.name} {info.shape}" for info in infos)
        raise ModelError(
            f"outputs of model {spec.name!r} are {seen}; the {spec.family} head expects boxes (1, n, 4), "
            "class ids (1, n), scores (1, n) and, where there is one, their count (1,)",
            hint="name them in its card: output_names",
        )
    ids, scores, _ = pair(*flat)
    rows = int(by_name[boxes[0].name].shape[1])
    if counts:
        rows = _counted(by_name[counts[0].name], counts[0].name, rows, spec)
    return Rows(
        as_frame(by_name[boxes[0].name][:, :rows], boxes[0].name, (rows, 4), spec),
        as_frame(by_name[scores.name][:, :rows], scores.name, (rows,), spec),
        as_ids(by_name[ids.name][:, :rows], ids.name, (rows,), spec),
    )


def _is_count(info: TensorInfo, outputs: int) -> bool:
    if outputs < 4 or info.shape not in ((1,), (1, 1)):
        return False
    # Where a graph has a capacity of one row, scores are (1, 1) as well.
    return len(info.shape) == 1 or any(word in info.name.lower() for word in ("num", "count"))


def _counted(output: NDArray[Any], name: str, rows: int, spec: ModelSpec) -> int:
    count = int(as_ids(output.reshape(1, -1), name, (1,), spec)[0])
    if not 0 <= count <= rows:
        raise ModelError(
            f"output {name!r} of model {spec.name!r} counts {count} objects, its boxes have {rows} rows",
            hint="name the outputs in its card as they are: output_names",
        )
    return count


def select(found: Rows, spec: ModelSpec, confidence: float, limit: int, first_class: int) -> Detections:
    """The rows that are objects, best first; their boxes as they are.

    A row with a score of 0 is padding, whatever the confidence.

    Raises:
        ModelError: a score is no probability, or a class has no label.
    """
    check_probabilities(found.scores, "scores", spec)
    rows = np.flatnonzero((found.scores >= confidence) & (found.scores > 0))
    ids = found.class_ids[rows] - first_class
    if len(rows) and not 0 <= ids.min() <= ids.max() < max(len(spec.labels), 1):
        first = f"the first with the id {first_class}"
        raise ModelError(
            f"model {spec.name!r} finds classes {ids.min() + first_class} to {ids.max() + first_class}, "
            f"and has {len(spec.labels)} labels, {first}",
            hint='say what its classes are in its card: {"labels": ["person", ...], '
            '"options": {"first_class": 0}}',
        )
    return top_detections(found.boxes[rows], found.scores[rows], ids, spec, limit)


def sample_of(signature: Signature, info: TensorInfo, columns: int) -> NDArray[np.float64] | None:
    """What an output held for the test picture, as rows (n, columns); None where it held none."""
    sample = signature.samples.get(info.name)
    if sample is None or not sample.size or sample.size % columns:
        return None
    return np.asarray(sample, np.float64).reshape(-1, columns)
