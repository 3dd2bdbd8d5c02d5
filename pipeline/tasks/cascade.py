"""A second model that looks at the objects of the first: their colour, their make, what they carry.

Each tracked object is looked at again and again, at most once per interval, as long as it is there; every
look votes, so that one blurred crop decides nothing. State belongs to one source; the models are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.messages import Attribute, Detections, LetterboxMap
from pipeline.models.base import Runner
from pipeline.tasks.crops import crop_of
from pipeline.tasks.reading import Reader
from pipeline.vision.tensor import PixelFormat, Plane, TensorFiller

__all__ = ["Cascade", "ObjectAttributes"]

#: Objects whose votes are kept; the ones longest unseen go first. A run of months must not grow.
_MOST_OBJECTS = 512


class Cascade:
    """A classifier for crops of objects.

    Args:
        name: What it says of an object: the name of the attribute.
        runner: Its model, not yet opened.
        labels: Labels of the objects that it looks at; None for all.
        every_s: Shortest time between two looks at one object, seconds of video.
        min_side: Objects with a shorter side than this many pixels are not looked at.
        margin: The crop is larger than the box by this share of its size, on each side.
        confidence: A look that scores less does not vote.
    """

    def __init__(
        self,
        name: str,
        runner: Runner,
        *,
        labels: Sequence[str] | None = None,
        every_s: float = 1.0,
        min_side: int = 16,
        margin: float = 0.05,
        confidence: float = 0.3,
    ) -> None:
        self.name = name
        self.labels = None if labels is None else frozenset(labels)
        self.every_s = every_s
        self.min_side = min_side
        self.confidence = confidence
        self._runner = runner
        self._margin = margin
        self._reader: Reader | None = None
        self._filler: TensorFiller | None = None
        self._tensor: NDArray[Any] = np.empty(0)
        self._outputs: list[NDArray[Any]] = []

    def open(self) -> None:
        """Load and warm up the model.

        Raises:
            ModelError: it cannot be loaded.
            ConfigError: it is no classifier.
        """
        spec = self._runner.open()
        try:
            self._reader = Reader(spec, task="classify", top_k=1)
        except ConfigError as error:
            raise ConfigError(f"cascades.{self.name}: {error.message}", hint=error.hint) from error
        self._filler = TensorFiller(spec)
        self._tensor = np.zeros(self._filler.shape, spec.input_dtype)
        shapes = zip(self._runner.output_shapes, self._runner.output_dtypes, strict=True)
        self._outputs = [np.zeros(shape, dtype) for shape, dtype in shapes]

    def check(self, labels: Sequence[str]) -> None:
        """Make sure that there are such objects.

        Args:
            labels: Class names of the detector.

        Raises:
            ConfigError: it gives no object of a label that this looks at.
        """
        unknown = sorted((self.labels or frozenset()) - set(labels))
        if unknown:
            near = get_close_matches(unknown[0], labels, n=1)
            raise ConfigError(
                f"cascades.{self.name}: the model finds no {', '.join(unknown)}",
                hint=f"did you mean {near[0]}?" if near else f"it knows {', '.join(labels)}",
            )

    def look(
        self, planes: Sequence[Plane], pixel_format: PixelFormat, box_xyxy: NDArray[np.float32]
    ) -> tuple[str, float]:
        """Classify one object.

        Args:
            planes: The frame, as for `TensorFiller.fill`.
            pixel_format: Its format.
            box_xyxy: float32 (4,) in pixels of the frame.

        Returns:
            Best label and its score, 0..1.

        Raises:
            ModelError: the network failed.
        """
        assert self._reader is not None
        assert self._filler is not None
        letterbox: LetterboxMap = self._filler.fill(
            crop_of(planes, box_xyxy, self._margin), pixel_format, self._tensor
        )
        self._runner.forward(self._tensor, self._outputs)
        classes = self._reader.read(self._outputs, letterbox).classes
        assert classes is not None
        class_id, labels = classes.class_ids[0], self._reader.spec.labels
        label = labels[class_id] if class_id < len(labels) else f"class_{class_id}"
        return label, classes.scores[0]

    def close(self) -> None:
        """Free the model."""
        self._runner.close()


@dataclass(slots=True)
class _Votes:
    """What was said of one object by one cascade."""

    looked_s: float = -np.inf
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def best(self) -> tuple[str, float] | None:
        """The label with the most evidence, and its mean score."""
        if not self.sums:
            return None
        label = max(self.sums, key=self.sums.__getitem__)
        return label, self.sums[label] / self.counts[label]


class ObjectAttributes:
    """Attributes of the objects of one source.

    Args:
        cascades: The cascades, opened.
        labels: Class names of the detector by class id.
    """

    def __init__(self, cascades: Sequence[Cascade], labels: Sequence[str]) -> None:
        self._cascades = tuple(cascades)
        self._labels = tuple(labels)
        self._votes: dict[tuple[str, int], _Votes] = {}

    def update(
        self,
        detections: Detections,
        planes: Sequence[Plane],
        pixel_format: PixelFormat,
        timestamp_s: float,
        check: Callable[[], None] = lambda: None,
    ) -> tuple[Attribute, ...]:
        """Look at the objects of one frame that are due.

        Args:
            detections: Tracked objects; those without a confirmed track are not looked at. Where nothing
                tracks, each object of each frame is.
            planes: The frame; empty when its pixels are gone, which leaves what was said before.
            pixel_format: Its format.
            timestamp_s: Presentation time of the frame in seconds.
            check: Raises when the planes were overwritten while a network looked at them.

        Returns:
            What is known of the objects of this frame, by object, then in the order of the cascades.

        Raises:
            ModelError: a network failed. The look that failed does not vote, and is not made again before
                its time; nor is one that ``check`` refused.
        """
        found = []
        ids = [None] * len(detections) if detections.track_ids is None else detections.track_ids.tolist()
        for index, track_id in enumerate(ids):
            if track_id is not None and track_id < 0:
                continue
            class_id = int(detections.class_ids[index])
            label = self._labels[class_id] if 0 <= class_id < len(self._labels) else ""
            box = detections.boxes_xyxy[index]
            for cascade in self._cascades:
                if cascade.labels is not None and label not in cascade.labels:
                    continue
                votes = _Votes() if track_id is None else self._remembered(cascade.name, track_id)
                due = timestamp_s - votes.looked_s >= cascade.every_s
                if planes and due and float((box[2:] - box[:2]).min()) >= cascade.min_side:
                    votes.looked_s = timestamp_s
                    said, score = cascade.look(planes, pixel_format, box)
                    check()
                    if score >= cascade.confidence:
                        votes.sums[said] = votes.sums.get(said, 0.0) + score
                        votes.counts[said] = votes.counts.get(said, 0) + 1
                best = votes.best()
                if best is not None:
                    found.append(Attribute(index, cascade.name, *best))
        return tuple(found)

    def reset(self) -> None:
        """Forget all objects, as at a new epoch."""
        self._votes = {}

    def _remembered(self, cascade: str, track_id: int) -> _Votes:
        key = (cascade, track_id)
        votes = self._votes.pop(key, None) or _Votes()
        self._votes[key] = votes  # last in order: seen last
        while len(self._votes) > _MOST_OBJECTS * len(self._cascades):
            del self._votes[next(iter(self._votes))]
        return votes
