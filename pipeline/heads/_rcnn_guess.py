"""How graphs that give finished boxes in pixels are told apart; see `pipeline.heads.rcnn`."""

from __future__ import annotations

from typing import Any

from pipeline.heads._rows import Labels, labels_from, pair, sample_of
from pipeline.heads.base import Guess, InputFormat, Signature

__all__ = ["guess_detections", "guess_lists", "guess_rows"]

_FLOATS = ("float32", "float16")
_INTEGERS = ("int32", "int64")
#: Three times what R-CNNs keep (100), and as much as torchvision's RetinaNet and SSD do.
_MAX_ROWS = 300
_COCO, _COCO_AND_BACKGROUND, _COCO_IDS_AND_BACKGROUND = 80, 81, 91
_PLACED: dict[str, Any] = {"letterbox": "topleft", "pad_value": 114, "nms_iou": None}
_SCALED: dict[str, Any] = {"channels": "rgb", "mean": (0.0, 0.0, 0.0), "std": (255.0, 255.0, 255.0)}
_IMAGENET: dict[str, Any] = {
    "channels": "rgb",
    "mean": (123.675, 116.28, 103.53),
    "std": (58.395, 57.12, 57.375),
}
_CAFFE: dict[str, Any] = {"channels": "bgr", "mean": (102.9801, 115.9465, 122.7717), "std": (1.0, 1.0, 1.0)}
_PIXELS: dict[str, Any] = {"channels": "bgr", "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
#: Boxes, class ids and scores of FasterRCNN-10, -12 and MaskRCNN-10, -12 in the ONNX model zoo.
_ZOO = (("6379", "6381", "6383"), ("6568", "6570", "6572"))
_TORCHVISION = ("boxes", "labels", "scores")
#: Boxes up to this are shares of the input, not pixels.
_SHARES = 2.0


def guess_lists(signature: Signature, picture: InputFormat) -> Guess | None:
    """Boxes (n, 4) or (1, n, 4), class ids and scores."""
    boxes = [o for o in signature.outputs if o.dtype in _FLOATS and len(o.shape) in (2, 3)]
    boxes = [o for o in boxes if o.shape[-1] == 4]
    if len(boxes) != 1:
        return None
    rank = len(boxes[0].shape)
    flat = [o for o in signature.outputs if len(o.shape) == rank - 1]
    # Detectron2 tells the size of the picture as well.
    sizes = [o for o in flat if rank == 2 and o.dtype in _INTEGERS and o.shape == (2,)]
    flat = [o for o in flat if o not in sizes]
    masks = [o for o in signature.outputs if len(o.shape) > rank]
    if len(flat) != 2 or len(signature.outputs) != 3 + len(sizes) + len(masks) or len(masks) > 1:
        return None
    ids, scores, sure = pair(*flat)
    if not sure or scores.dtype not in _FLOATS or ids.dtype not in _INTEGERS:
        return None
    sample = sample_of(signature, boxes[0], 4)
    if sample is not None and sample.max() <= _SHARES:
        return None  # shares of the input: the family ssd
    names = (boxes[0].name, ids.name, scores.name)
    labels, given, confidence, whose = _whose(signature, names, rank, bool(sizes), sample is not None)
    return _guess(
        picture, names, given, labels, confidence, f"boxes in pixels, class ids and scores, {whose}"
    )


def _whose(
    signature: Signature, names: tuple[str, str, str], rank: int, sized: bool, measured: bool
) -> tuple[Labels, dict[str, Any], float, str]:
    metadata = signature.metadata
    if names in _ZOO:
        labels = labels_from(metadata, _COCO_AND_BACKGROUND, 0, background=True)
        return labels, _CAFFE, 0.95, "named as in the ONNX model zoo"
    if sized:
        return labels_from(metadata, _COCO, 0), _PIXELS, 0.6, "and the picture's size, as of Detectron2"
    labels = labels_from(metadata, _COCO_IDS_AND_BACKGROUND, 0, background=True)
    if rank == 3:
        # Shares of the input look the same until something is found.
        return labels, _SCALED, 0.6 if measured else 0.35, "with a batch axis; taken for torchvision's"
    if names == _TORCHVISION:
        return labels, _SCALED, 0.9, "named as torchvision names them"
    return labels, _SCALED, 0.6, "taken for torchvision's"


def guess_detections(signature: Signature, picture: InputFormat) -> Guess | None:
    """(1, n, 5) or (n, 5) and class ids, with or without masks."""
    boxes = [o for o in signature.outputs if o.dtype in _FLOATS and o.shape[-1:] == (5,)]
    if len(boxes) != 1 or len(boxes[0].shape) not in (2, 3):
        return None
    rank = len(boxes[0].shape)
    ids = [o for o in signature.outputs if len(o.shape) == rank - 1 and o.dtype in _INTEGERS]
    masks = [o for o in signature.outputs if len(o.shape) > rank]
    if len(ids) != 1 or len(signature.outputs) != 2 + len(masks) or len(masks) > 1:
        return None
    official = (boxes[0].name, ids[0].name) == ("dets", "labels")
    why = "boxes in pixels with their scores, and class ids: MMDetection, whose models differ in their input"
    labels = labels_from(signature.metadata, _COCO, 0)
    names = (boxes[0].name, ids[0].name)
    return _guess(picture, names, _IMAGENET, labels, 0.75 if official else 0.6, why)


def guess_rows(signature: Signature, picture: InputFormat) -> Guess | None:
    """(n, 6) and a count, with ``scale_factor`` among the inputs."""
    sizes = {info.name for info in signature.inputs if len(info.shape) == 2}
    if len(signature.inputs) != 1 + len(sizes) or "scale_factor" not in sizes:
        return None
    if not sizes <= {"im_shape", "scale_factor"}:
        return None
    rows = [o for o in signature.outputs if len(o.shape) == 2 and o.shape[1] == 6 and o.dtype in _FLOATS]
    counts = [o for o in signature.outputs if len(o.shape) == 1 and o.dtype in _INTEGERS]
    masks = [o for o in signature.outputs if len(o.shape) == 3]
    if len(rows) != 1 or len(counts) != 1 or len(signature.outputs) != 2 + len(masks) or len(masks) > 1:
        return None
    feeds = {"im_shape": (float(picture.height), float(picture.width)), "scale_factor": (1.0, 1.0)}
    labels = labels_from(signature.metadata, _COCO, 0)
    # PicoDet and PP-YOLOE give the same rows, and do without im_shape; R-CNNs take no picture as small.
    sized, small = "im_shape" in sizes, max(picture.width, picture.height) <= 416
    confidence = 0.3 if not sized else 0.45 if small else 0.7
    what = "im_shape and scale_factor" if sized else "scale_factor"
    why = f"rows of class, score and box with their count, {what} in: PaddleDetection"
    given = _IMAGENET | {"feeds": {name: feeds[name] for name in sorted(sizes)}}
    return _guess(picture, (rows[0].name,), given, labels, confidence, why)


def _guess(
    picture: InputFormat,
    names: tuple[str, ...],
    given: dict[str, Any],
    labels: Labels,
    confidence: float,
    why: str,
) -> Guess:
    overrides = picture.overrides() | _PLACED | given
    overrides |= {
        "output_names": names,
        "options": {"first_class": labels.first_class},
        "max_rows": _MAX_ROWS,
    }
    why += "" if labels.names else "; the labels of COCO taken, for the file names none"
    return Guess("rcnn", overrides, confidence, why, labels.classes, labels.names)
