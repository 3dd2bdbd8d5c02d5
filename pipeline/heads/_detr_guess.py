"""How graphs of the DETR family are told apart: names, numbers of queries and columns, ranges of values."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from pipeline.heads._metadata import names_in
from pipeline.heads.base import Guess, InputFormat, Signature, TensorInfo

__all__ = ["SCORES", "guess_finished", "guess_joined", "guess_raw"]

#: What the scores of the raw layout are; see `pipeline.heads.detr`.
SCORES = ("sigmoid", "softmax", "probabilities")

_FLOATS = ("float32", "float16")
_INTEGERS = ("int32", "int64")
#: More queries than any of these models has; fewer than the places of a grid.
_MOST_QUERIES = 1000
#: Values of a mask that are worth sending along with the model.
_MOST_MASK = 65536
_SCALED: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (255.0, 255.0, 255.0)}
_IMAGENET: dict[str, Any] = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
_PICTURE: dict[str, Any] = {"channels": "rgb", "letterbox": "stretch", "nms_iou": None}
#: (boxes, scores): names of outputs, whose they are, and whether the input has ImageNet's mean and std.
_NAMED = {
    ("dets", "labels"): ("RF-DETR or LW-DETR", True),
    ("pred_boxes", "logits"): ("Hugging Face", None),
    ("pred_boxes", "pred_logits"): ("DETR or RT-DETR without its post-processing", None),
}
#: Columns of COCO: RT-DETR and D-FINE have 80; 91 ids; DETR and YOLOS the ids and "no object".
_COCO, _COCO_IDS, _COCO_IDS_NONE = 80, 91, 92


def guess_finished(signature: Signature, picture: InputFormat) -> Guess | None:
    """Class ids, boxes in pixels and scores, with ``orig_target_sizes`` among the inputs."""
    others = [info for info in signature.inputs if len(info.shape) == 2]
    if len(signature.inputs) != 2 or len(others) != 1:
        return None
    sizes = others[0]
    if sizes.dtype not in (*_INTEGERS, "float32") or sizes.shape[1] != 2 or sizes.name == "scale_factor":
        return None
    boxes = [o for o in signature.outputs if len(o.shape) == 3 and o.shape[2] == 4 and o.dtype in _FLOATS]
    flat = [o for o in signature.outputs if len(o.shape) == 2]
    if len(boxes) != 1 or len(flat) != 2:
        return None
    ids, scores = sorted(flat, key=lambda o: (o.dtype not in _INTEGERS, "label" not in o.name, flat.index(o)))
    if scores.dtype not in _FLOATS:
        return None
    names = names_in(signature.metadata)
    named = sizes.name == "orig_target_sizes"
    overrides = picture.overrides() | _PICTURE | _SCALED
    overrides |= {
        "output_names": (ids.name, boxes[0].name, scores.name),
        "feeds": {sizes.name: (float(picture.width), float(picture.height))},
    }
    why = f"{sizes.name} in; class ids, boxes and scores out, as of RT-DETR, D-FINE and DEIM"
    if not names:
        why += "; the labels of COCO taken, for the file names none"
    return Guess("detr", overrides, 0.95 if named else 0.6, why, len(names) or _COCO, names)


def guess_raw(signature: Signature, picture: InputFormat) -> Guess | None:
    """Boxes as shares of the frame, and logits, of some hundred queries."""
    feeds, pair = _masks(signature), _boxes_and_scores(signature)
    if feeds is None or pair is None:
        return None
    boxes, scores = pair
    queries, columns = (size if isinstance(size, int) else 0 for size in scores.shape[1:])
    seen = _seen(signature, boxes, scores)
    if queries > _MOST_QUERIES or seen == "other":
        return None
    whose, imagenet = _NAMED.get((boxes.name, scores.name), ("", None))
    kind, sure = _kind(seen, columns, queries, whose)
    if imagenet is None:
        imagenet = columns != _COCO and not (queries == 300 and kind == "sigmoid" and columns != _COCO_IDS)
    overrides = picture.overrides() | _PICTURE | (_IMAGENET if imagenet else _SCALED)
    overrides |= {
        "output_names": (boxes.name, scores.name),
        "feeds": feeds,
        "options": {"scores": kind, "no_object": kind == "softmax"},
    }
    own = _rfdetr(signature, columns)
    if own is not None:
        return Guess("detr", overrides | own[0], 1.0, "its metadata say so: RF-DETR", columns, own[1])
    # Without a known name, other families' boxes look the same: only values speak for it.
    confidence = (
        (0.95 if seen else 0.85) if whose else (0.6 if seen and not _upright(signature, boxes) else 0.4)
    )
    why = f"boxes and {columns or '?'} scores of {queries or '?'} queries, {kind}"
    why += f", named as of {whose}" if whose else ""
    if not sure:
        confidence = min(confidence - (0.4 if whose else 0.1), 0.45)
        why += " perhaps: whether a softmax or a sigmoid belongs to them, nothing tells"
    return Guess("detr", overrides, round(confidence, 2), why, max(columns - (kind == "softmax"), 0))


def guess_joined(signature: Signature, picture: InputFormat) -> Guess | None:
    """Boxes and probabilities of some hundred queries in one output, values and names allowing."""
    if len(signature.outputs) != 1 or len(signature.inputs) != 1:
        return None
    output = signature.outputs[0]
    if len(output.shape) != 3 or output.dtype not in _FLOATS:
        return None
    queries, columns = output.shape[1:]
    if not isinstance(queries, int) or not isinstance(columns, int):
        return None
    # Shapes alone say too little: 300 rows of 6 are as well the finished boxes of YOLOv10.
    values = signature.samples.get(output.name)
    if values is None or not values.size or columns < 5 or queries > _MOST_QUERIES:
        return None
    if float(values.min()) < 0 or float(values.max()) > 1:
        return None
    named = len(names_in(signature.metadata)) == columns - 4
    overrides = picture.overrides() | _PICTURE | _SCALED | {"output_names": (output.name,)}
    why = f"boxes from 0 to 1 and {columns - 4} probabilities of {queries} queries in one output"
    why += ", as many as its metadata has names: RT-DETR of Ultralytics" if named else ""
    return Guess("detr", overrides, 0.9 if named else 0.6, why, columns - 4)


def _masks(signature: Signature) -> dict[str, tuple[float, ...]] | None:
    """Ones for a ``pixel_mask`` of a fixed size beside the picture; None where there are other inputs."""
    feeds = {}
    for info in signature.inputs:
        if info.dtype in _INTEGERS and len(info.shape) == 3 and "mask" in info.name:
            height, width = info.shape[1:]
            if not isinstance(height, int) or not isinstance(width, int) or height * width > _MOST_MASK:
                return None
            feeds[info.name] = (1.0,) * (height * width)
    return feeds if len(signature.inputs) == 1 + len(feeds) else None


def _boxes_and_scores(signature: Signature) -> tuple[TensorInfo, TensorInfo] | None:
    outputs = [o for o in signature.outputs if len(o.shape) == 3 and o.dtype in _FLOATS]
    by_name = {output.name: output for output in outputs}
    for boxes, scores in _NAMED:
        # Exports of Hugging Face may add hidden states, those for segmentation masks.
        if boxes in by_name and scores in by_name and by_name[boxes].shape[2] == 4:
            return by_name[boxes], by_name[scores]
    if len(signature.outputs) != 2 or len(outputs) != 2 or outputs[0].shape[1] != outputs[1].shape[1]:
        return None
    fours = [output for output in outputs if output.shape[2] == 4]
    if len(fours) != 1:
        return None
    return fours[0], outputs[0] if outputs[1] is fours[0] else outputs[1]


def _seen(signature: Signature, boxes: TensorInfo, scores: TensorInfo) -> str:
    """What the values of a test picture are; empty without values.

    Returns:
        ``probabilities``, ``logits``, ``nothing`` (logits whose last column wins nearly everywhere),
        ``unclear`` (it wins, but a sigmoid would make nothing of it either), or ``other``: no outputs of this
        family.
    """
    shares, values = signature.samples.get(boxes.name), signature.samples.get(scores.name)
    if shares is None or values is None or not shares.size or not values.size:
        return ""
    if float(shares.min()) < -1 or float(shares.max()) > 2 or float(shares[..., 2:].min()) < 0:
        return "other"
    if 0 <= float(values.min()) <= float(values.max()) <= 1:
        return "probabilities"
    wide = values.astype(np.float64)
    weights = np.exp(wide - wide.max(axis=-1, keepdims=True))
    last = weights[..., -1] / weights.sum(axis=-1)
    if wide.shape[-1] < 2 or float(np.mean(last > 0.5)) < 0.8:
        return "logits"
    # Of few classes with a sigmoid each, the last one may win everywhere as well, but at low logits.
    return "nothing" if float(np.median(wide[..., -1])) > 0 else "unclear"


def _upright(signature: Signature, boxes: TensorInfo) -> bool:
    """Whether all boxes could as well be corners, which lie right of and below each other."""
    corners = signature.samples.get(boxes.name)
    return corners is not None and bool((corners[..., 2:] >= corners[..., :2]).mean() >= 0.99)


def _kind(seen: str, columns: int, queries: int, whose: str) -> tuple[str, bool]:
    """Which of `SCORES` they are, and whether that is sure."""
    if seen == "probabilities":
        return "probabilities", True
    if whose.startswith("RF-DETR") or columns in (1, _COCO, _COCO_IDS):
        return "sigmoid", True  # with one column no class would be left beside "no object"
    if seen == "nothing" or columns == _COCO_IDS_NONE:
        return "softmax", True
    if seen == "unclear":
        return ("softmax" if queries == 100 else "sigmoid"), False
    if seen == "logits" or queries == 300:
        # A trained DETR sees no object in noise; and its queries are 100.
        return "sigmoid", True
    return ("softmax" if queries == 100 else "sigmoid"), False


def _rfdetr(signature: Signature, columns: int) -> tuple[dict[str, Any], tuple[str, ...]] | None:
    """What RF-DETR writes of itself into its exports, where it is whole."""
    try:
        said = json.loads(signature.metadata.get("rfdetr_inference", ""))
        mean, std = ([float(value) * 255 for value in said[key]] for key in ("means", "stds"))
        names = {int(key): str(name) for key, name in said["class_id_to_name"].items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    fits = len(mean) == len(std) == 3 and 0.0 not in std and set(names) <= set(range(columns))
    if not fits or not names:
        return None
    labels = tuple(names.get(index, f"unused_{index}") for index in range(columns))
    contiguous = set(names) == set(range(columns - 1))
    options = {"scores": "sigmoid", "no_object": contiguous}
    return {"mean": tuple(mean), "std": tuple(std), "options": options}, labels
