"""Decoders, one file per model family, and the tables that name them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, cast

from pipeline.errors import ModelError
from pipeline.heads.base import Classifier, Guess, Head, Signature, TensorInfo

__all__ = [
    "CLASSIFIERS",
    "HEADS",
    "Classifier",
    "Guess",
    "Head",
    "Signature",
    "TensorInfo",
    "families",
    "load_classifier",
    "load_head",
    "recognise",
]

#: Detectors: family -> ``module:Class``.
HEADS: dict[str, str] = {
    "yolox": "pipeline.heads.yolox:YoloxHead",
    "yolov5": "pipeline.heads.yolov5:Yolov5Head",
    "yolov8": "pipeline.heads.yolov8:Yolov8Head",
    "yolov10": "pipeline.heads.yolov10:Yolov10Head",
    "yolov3": "pipeline.heads.yolov3:Yolov3Head",
    "yolonas": "pipeline.heads.yolonas:YolonasHead",
    "nanodet": "pipeline.heads.nanodet:NanodetHead",
    "picodet": "pipeline.heads.picodet:PicodetHead",
    "detr": "pipeline.heads.detr:DetrHead",
    "ssd": "pipeline.heads.ssd:SsdHead",
    "ssd_raw": "pipeline.heads.ssd_raw:SsdRawHead",
    "rcnn": "pipeline.heads.rcnn:RcnnHead",
    "centernet": "pipeline.heads.centernet:CenternetHead",
    "fake": "pipeline.heads.fake:FakeHead",
}
#: Classifiers: family -> ``module:Class``.
CLASSIFIERS: dict[str, str] = {
    "classifier": "pipeline.heads.classifier:ClassifierHead",
    "fake_classifier": "pipeline.heads.fake:FakeClassifier",
}


def families() -> tuple[str, ...]:
    """Every family that a card may name."""
    return tuple(sorted({*HEADS, *CLASSIFIERS} - {"fake", "fake_classifier"}))


def load_head(family: str) -> Head:
    """The decoder of a family of detectors; its module is imported now.

    Raises:
        ModelError: there is no such family.
    """
    return cast(Head, _load(HEADS, family, "head decodes the model family"))


def load_classifier(family: str) -> Classifier:
    """The reader of a family of classifiers; its module is imported now.

    Raises:
        ModelError: there is no such family.
    """
    return cast(Classifier, _load(CLASSIFIERS, family, "classifier reads the model family"))


def recognise(signature: Signature) -> list[Guess]:
    """The families that fit a graph, likeliest first; empty when nothing decodes it."""
    known = [load_head(family) for family in HEADS] + [load_classifier(family) for family in CLASSIFIERS]
    guesses = [one.recognise(signature) for one in known]
    return sorted((guess for guess in guesses if guess is not None), key=lambda guess: -guess.confidence)


def _load(table: Mapping[str, str], family: str, what: str) -> Any:
    if family not in table:
        raise ModelError(f"no {what} {family!r}", hint=f"the families are {', '.join(sorted(table))}")
    module, _, name = table[family].partition(":")
    return getattr(import_module(module), name)()
