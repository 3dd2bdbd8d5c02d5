"""Classifiers: scores of classes for the whole frame, (1, classes), (1, classes, 1, 1) or (1, 1, 1, classes).

Option ``scores`` of the spec says what the numbers are:

- ``logits``: unbounded; a softmax is applied here;
- ``softmax``: probabilities that sum to 1;
- ``sigmoid``: probabilities of their own, several of which may be true (tagging);
- ``sigmoid_logits``: unbounded; a sigmoid is applied here (tagging).

Without it, numbers from 0 to 1 that sum to 1 are taken for probabilities, and all others for logits.

Input where the file does not say: as the ImageNet models of torchvision and timm were evaluated, RGB,
shorter side 256, middle 224 (``crop`` 0.875), ImageNet's mean and std. Classifiers of TensorFlow differ
among themselves: those with 1001 classes (TF-Slim, with ``background`` before the others) take -1 to 1;
Keras models take -1 to 1, 0 to 255 or others, which a card has to say: ``{"family": "classifier", "mean":
[127.5, 127.5, 127.5], "std": [127.5, 127.5, 127.5]}``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads._metadata import names_in
from pipeline.heads.base import (
    Guess,
    InputFormat,
    Signature,
    TensorInfo,
    as_frame,
    check_probabilities,
    image_input,
)
from pipeline.messages import Classes, ModelSpec

__all__ = ["ClassifierHead"]

_KINDS = ("logits", "softmax", "sigmoid", "sigmoid_logits")
#: ImageNet, without and with a background class.
_IMAGENET_CLASSES = (1000, 1001)
#: A softmax over 1000 classes in float16 is off by so much at most.
_SUM_TOLERANCE = 0.02
_PICTURE: dict[str, Any] = {
    "kind": "classifier",
    "channels": "rgb",
    "letterbox": "crop",
    "crop": 0.875,
    "nms_iou": None,
}
_IMAGENET = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
_PLUS_MINUS_ONE = {"mean": (127.5, 127.5, 127.5), "std": (127.5, 127.5, 127.5)}
_AS_IS = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
#: Ultralytics' classifiers: / 255, shorter side to the input's size.
_SCALED = {"mean": (0.0, 0.0, 0.0), "std": (255.0, 255.0, 255.0), "crop": 1.0}


class ClassifierHead:
    """Reader of classifiers; see the module."""

    def classify(self, outputs: Sequence[NDArray[Any]], spec: ModelSpec, limit: int) -> Classes:
        """The best classes of one frame; see `Classifier.classify`."""
        if len(outputs) != 1:
            raise ModelError(
                f"model {spec.name!r} gives {len(outputs)} outputs, a classifier gives 1",
                hint="name the one with the scores in a card: output_names",
            )
        name = spec.output_names[0] if spec.output_names else "0"
        flat = outputs[0]
        if flat.ndim == 4 and sorted(flat.shape)[:3] == [1, 1, 1]:
            flat = flat.reshape(1, -1)
        values = as_frame(flat, name, (None,), spec)
        if not values.size or (spec.labels and len(spec.labels) != len(values)):
            raise ModelError(
                f"output {name!r} of model {spec.name!r} scores {len(values)} classes, "
                f"and there are {len(spec.labels)} labels",
                hint="give as many labels in its card",
            )
        scores = _scores(values, spec, name)
        order = np.argsort(-scores, kind="stable")[: max(limit, 0)]
        best = np.minimum(scores[order], np.float32(1.0))
        return Classes(tuple(int(index) for index in order), tuple(float(score) for score in best))

    def recognise(self, signature: Signature) -> Guess | None:
        """One output of one row of scores; how sure depends on what says that these are classes."""
        picture = image_input(signature)
        if picture is None or len(signature.inputs) != 1 or len(signature.outputs) != 1:
            return None
        output = signature.outputs[0]
        classes = _classes_of(output)
        if classes < 2 or "framewire.family" in signature.metadata:
            return None
        overrides = picture.overrides() | _PICTURE | {"output_names": (output.name,)}
        kind = _kind_of(signature, output)
        if kind:
            overrides |= {"options": {"scores": kind}}
        known = classes in _IMAGENET_CLASSES
        named = len(names_in(signature.metadata)) == classes
        why = f"one row of {classes} scores" + (f", {_WORDS[kind]}" if kind else "")
        if signature.metadata.get("task") == "classify":
            return Guess("classifier", overrides | _SCALED, 0.95, f"{why}; task: classify", classes)
        if known or named:
            why += ", as many as its metadata has names" if named else ", those of ImageNet"
            sure = 0.9
        elif kind == "softmax":
            sure = 0.7
        else:
            why += "; nothing says that these are classes: a model for re-identification looks the same"
            sure = 0.3
        normalisation, share, words = _normalisation(picture, classes)
        return Guess("classifier", overrides | normalisation, round(sure * share, 2), why + words, classes)


_WORDS = {"logits": "logits", "softmax": "which sum to 1", "sigmoid": "each from 0 to 1"}


def _normalisation(picture: InputFormat, classes: int) -> tuple[dict[str, Any], float, str]:
    """Mean and std, how sure they are as a share of 1, and words where they are not."""
    if picture.dtype == "uint8":
        return _AS_IS, 1.0, ""
    if picture.layout == "nchw":
        return _IMAGENET, 1.0, ""
    if classes == _IMAGENET_CLASSES[1]:
        return _PLUS_MINUS_ONE, 0.7, "; channels last and 1001 classes: TF-Slim, pixels from -1 to 1"
    return _PLUS_MINUS_ONE, 0.45, "; channels last: whether it takes -1 to 1 or 0 to 255, a card has to say"


def _classes_of(output: TensorInfo) -> int:
    """Number of scores in the one row; 0 where it is none."""
    sizes = output.shape[1:]
    if output.dtype not in ("float32", "float16") or len(output.shape) not in (2, 4):
        return 0
    known = [size for size in sizes if isinstance(size, int)]
    if len(known) != len(sizes) or (len(known) == 3 and sorted(known)[:2] != [1, 1]):
        return 0
    return max(known)


def _kind_of(signature: Signature, output: TensorInfo) -> str:
    values = signature.samples.get(output.name)
    if values is None or not values.size:
        return ""
    flat = values.astype(np.float32).ravel()
    if not 0 <= float(flat.min()) <= float(flat.max()) <= 1:
        return "logits"
    # 8-bit models round the small ones away; nothing tags with the classes of ImageNet.
    rounded = len(flat) in _IMAGENET_CLASSES and 0.5 <= float(flat.sum()) <= 1.5
    return "softmax" if rounded or _sums_to_one(flat) else "sigmoid"


def _sums_to_one(values: NDArray[np.float32]) -> bool:
    inside = float(values.min()) >= 0 and float(values.max()) <= 1.001
    return inside and abs(float(values.sum(dtype=np.float64)) - 1) <= _SUM_TOLERANCE


def _scores(values: NDArray[np.float32], spec: ModelSpec, name: str) -> NDArray[np.float32]:
    """Probabilities of the numbers that the model gives.

    Raises:
        ModelError: the option ``scores`` is unknown, or the numbers contradict it.
    """
    done = _sums_to_one(values)
    kind = spec.options.get("scores", "softmax" if done else "logits")
    if kind not in _KINDS:
        raise ModelError(
            f"the option scores of model {spec.name!r} is {kind!r}", hint=f"use one of {', '.join(_KINDS)}"
        )
    if kind == "sigmoid_logits":
        return np.asarray(1 / (1 + np.exp(-np.clip(values, -80, 80))), np.float32)
    if kind in ("softmax", "sigmoid"):
        # Not their sum: 8-bit models round the small ones away.
        check_probabilities(values, f"scores {name!r}", spec)
        return np.maximum(values, np.float32(0.0))
    if done and len(values) > 1:
        raise ModelError(
            f"scores {name!r} of model {spec.name!r} sum to 1 already, so they are no logits",
            hint='write {"options": {"scores": "softmax"}} in its card',
        )
    weights = np.exp(values - values.max())
    return np.asarray(weights / weights.sum(), np.float32)
