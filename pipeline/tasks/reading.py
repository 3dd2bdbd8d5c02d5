"""Raw outputs of a model to what a task asks for, in pixels of the source frame."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.heads import load_classifier, load_head
from pipeline.messages import Classes, Detections, LetterboxMap, ModelSpec, Task
from pipeline.vision.letterbox import to_source
from pipeline.vision.nms import nms

__all__ = ["Found", "Reader"]

#: Classes that are asked for where only some labels are wanted.
_MOST_CLASSES = 100_000
_MOST_MASKED = 100


@dataclass(frozen=True)
class Found:
    """What a model sees in one frame.

    Attributes:
        detections: Objects, best first, in pixels of the source frame; at most one for ``localize``.
        classes: Classes of the whole frame, best first; None where the model finds objects.
        masked: Objects that do not count, the best hundred, before NMS; None where none was asked about.
    """

    detections: Detections
    classes: Classes | None = None
    masked: Detections | None = None


class Reader:
    """Decodes, suppresses and selects. One instance serves any number of sources: it keeps no state.

    Args:
        spec: The model.
        task: ``detect`` gives all objects; ``localize`` the one with the highest evidence, without NMS;
            ``classify`` classes of the whole frame; ``tag`` whichever of the two the model gives.
        confidence: What scores less is left out; for ``classify`` nothing is, the best ``top_k`` are given.
        nms_iou: IoU above which the weaker of two boxes of a class goes; None for the model's own.
        classes: Labels to keep; None for all.
        max_detections: Most objects in one frame.
        top_k: Most classes of one frame.

    Raises:
        ConfigError: the model cannot do the task, or a class to keep is not among its labels.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        task: Task = "detect",
        confidence: float = 0.4,
        nms_iou: float | None = None,
        classes: Sequence[str] | None = None,
        max_detections: int = 300,
        top_k: int = 5,
    ) -> None:
        if task == "classify" and spec.kind != "classifier":
            raise ConfigError(
                f"the model {spec.name} finds objects; classify needs a classifier",
                hint="name one with --model (framewire models list), or use tag or detect",
            )
        if task in ("detect", "localize") and spec.kind != "detector":
            raise ConfigError(
                f"the model {spec.name} classifies whole pictures; {task} needs a detector",
                hint="name one with --model (framewire models list), or use classify or tag",
            )
        self.spec = spec
        self.task = task
        self._confidence = confidence
        self._iou = spec.nms_iou if nms_iou is None else nms_iou
        self._max_detections = max_detections
        self._top_k = top_k
        self._keep = None if classes is None else _mask(spec, classes)
        self._head = load_head(spec.family) if spec.kind == "detector" else None
        self._classifier = load_classifier(spec.family) if spec.kind == "classifier" else None

    def read(
        self,
        outputs: Sequence[NDArray[Any]],
        letterbox: LetterboxMap,
        keep: Callable[[Detections], NDArray[np.bool_]] | None = None,
    ) -> Found:
        """What the outputs of one frame say.

        Args:
            outputs: As for `pipeline.heads.Head.decode`.
            letterbox: How the frame was placed in the input.
            keep: Which objects of the frame count at all, in pixels of the frame; None for all.

        Raises:
            ModelError: the outputs are not of the model's family.
        """
        if self._classifier is not None:
            return Found(Detections.empty(), self._classes(outputs))
        assert self._head is not None
        spec = self.spec
        if self.task == "localize" and self._keep is None and keep is None:
            raw = self._head.decode(outputs, spec, self._confidence, 1)
        else:
            raw = self._head.decode(outputs, spec, self._confidence)
        if self._keep is not None and len(raw):
            raw = raw.select(self._keep[raw.class_ids])
        masked = None
        if keep is not None and len(raw):
            # Before the best is chosen: what is masked must not stand in the light of what is not.
            counts = keep(_in_frame(raw, letterbox))
            masked = _in_frame(raw.select(~counts).select(slice(0, _MOST_MASKED)), letterbox)
            raw = raw.select(counts)
        if self.task == "localize":
            raw = raw.select(slice(0, 1))
        elif self._iou is not None and len(raw):
            raw = raw.select(nms(raw.boxes_xyxy, raw.scores, raw.class_ids, self._iou, self._max_detections))
        else:
            raw = raw.select(slice(0, self._max_detections))
        return Found(_in_frame(raw, letterbox), masked=masked)

    def _classes(self, outputs: Sequence[NDArray[Any]]) -> Classes:
        assert self._classifier is not None
        limit = self._top_k if self._keep is None else _MOST_CLASSES
        found = self._classifier.classify(outputs, self.spec, limit)
        floor = 0.0 if self.task == "classify" else self._confidence
        chosen = [
            (class_id, score)
            for class_id, score in zip(found.class_ids, found.scores, strict=True)
            if score >= floor and (self._keep is None or self._keep[class_id])
        ][: self._top_k]
        return Classes(tuple(one[0] for one in chosen), tuple(one[1] for one in chosen))


def _in_frame(raw: Detections, letterbox: LetterboxMap) -> Detections:
    return Detections(to_source(raw.boxes_xyxy, letterbox), raw.scores, raw.class_ids)


def _mask(spec: ModelSpec, classes: Sequence[str]) -> NDArray[np.bool_]:
    unknown = sorted(set(classes) - set(spec.labels))
    if unknown:
        near = get_close_matches(unknown[0], spec.labels, n=1)
        raise ConfigError(
            f"the model {spec.name} has no class {', '.join(unknown)}",
            hint=f"did you mean {near[0]}?" if near else f"it knows {', '.join(spec.labels)}",
        )
    return np.array([label in classes for label in spec.labels])
