"""A model without weights: finds the solid rectangles of the synthetic scene by their colour.

Deterministic, and right about that scene to within a pixel of the input (two where the frame came as I420
and was scaled by an odd factor), so that tests know the truth.
Its name takes options: ``fake?ms=50&fail_every=10``, or ``fake?ms=20&per_frame_ms=2`` for one that gains from
batches as a network on a GPU does.

================  ==================================================================================
``ms``            service time of a frame in milliseconds, spent waiting, not computing
``per_frame_ms``  what each further frame of a batch adds, in milliseconds; as much as ``ms`` by default
``task``          ``detect``, or ``classify``: then it gives the share of the frame that each colour has
``fail_every``    the n-th, 2n-th, … frame raises `ModelError`; a batch with such a frame in it is refused
                  as a whole, and none of it counts as seen
================  ==================================================================================
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.messages import ModelSpec
from pipeline.models.base import batch_sizes
from pipeline.vision.palette import BACKGROUND, LABELS, PALETTE

__all__ = ["MAX_OBJECTS", "FakeRunner"]

#: Rows of the output; a score of 0 marks an unused one.
MAX_OBJECTS = 32

_WIDTH, _HEIGHT = 320, 192
#: Smaller specks are not objects, in pixels of the input.
_MIN_AREA = 12
#: Half-way between the background and a full or missing channel: there the soft edge of a scaled rectangle
#: is cut where the rectangle ends.
_LOW, _HIGH = BACKGROUND // 2, (BACKGROUND + 255) // 2


class FakeRunner:
    """See the module; a `pipeline.models.base.Runner`.

    Args:
        name: Name that the spec carries.
        service_ms: Least time that a frame takes, in milliseconds.
        per_frame_ms: Least time that each further frame of a batch takes; None for as much.
        fail_every: Which frames raise; 0 for none.
        classify: Give classes of the whole frame instead of objects.
        batch: Frames at once at most.
    """

    def __init__(
        self,
        name: str = "fake",
        *,
        service_ms: float = 0.0,
        per_frame_ms: float | None = None,
        fail_every: int = 0,
        classify: bool = False,
        batch: int = 1,
    ) -> None:
        self.spec = ModelSpec(
            name=name,
            sha256="",
            family="fake_classifier" if classify else "fake",
            kind="classifier" if classify else "detector",
            labels=LABELS,
            input_width=_WIDTH,
            input_height=_HEIGHT,
            input_dtype="uint8",
            input_layout="nhwc",
            pad_value=BACKGROUND,
            output_names=("classes" if classify else "objects",),
            provider="fake",
        )
        shape = (1, len(LABELS)) if classify else (1, MAX_OBJECTS, 6)
        self.output_shapes: tuple[tuple[int, ...], ...] = (shape,)
        self.output_dtypes: tuple[str, ...] = ("float32",)
        self._service_s = service_ms / 1e3
        self._further_s = self._service_s if per_frame_ms is None else per_frame_ms / 1e3
        self.service_ns = {size: int(self._takes_s(size) * 1e9) for size in batch_sizes(batch)}
        self._fail_every = fail_every
        self._frames = 0
        self._closed = threading.Event()

    @classmethod
    def from_name(cls, name: str, *, batch: int = 1) -> FakeRunner:
        """The runner that a name with options describes.

        Args:
            name: ``fake``, with options or without.
            batch: Frames at once at most.

        Raises:
            ModelError: an option is unknown or no number in its range.
        """
        options: dict[str, float | None] = {"ms": 0.0, "per_frame_ms": None, "fail_every": 0.0}
        task = "detect"
        for key, text in parse_qsl(name.partition("?")[2], keep_blank_values=True):
            if key == "task" and text in ("detect", "classify"):
                task = text
                continue
            if key not in options:
                raise ModelError(
                    f"the fake model has no option {key!r}" + (f" of {text!r}" if key == "task" else ""),
                    hint=f"its options are task=detect, task=classify, {', '.join(options)}",
                )
            try:
                value = float(text)
            except ValueError:
                value = -1.0
            options[key] = value
            if not (0 <= value < 1e6 and (key != "fail_every" or value.is_integer())):
                raise ModelError(
                    f"option {key} of the fake model is {text!r}, not a number from 0",
                    hint="for example fake?ms=50&fail_every=10",
                )
        return cls(
            name,
            service_ms=options["ms"] or 0.0,
            per_frame_ms=options["per_frame_ms"],
            fail_every=int(options["fail_every"] or 0),
            classify=task == "classify",
            batch=batch,
        )

    def open(self) -> ModelSpec:
        """There is nothing to load."""
        return self.spec

    def forward(self, tensors: NDArray[Any], outputs: Sequence[NDArray[Any]]) -> None:
        """Find the rectangles of n frames; see `Runner.forward`.

        Args:
            tensors: uint8 (n, 192, 320, 3), BGR.
            outputs: One float32 (n, 32, 6): rows x1, y1, x2, y2, score, class, in pixels of the input; or
                (n, classes) scores.

        Raises:
            ModelError: a shape or dtype differs, or ``fail_every`` says so.
        """
        shapes = [array.shape[1:] for array in (tensors, *outputs)]
        if shapes != [(_HEIGHT, _WIDTH, 3), self.output_shapes[0][1:]] or tensors.dtype != np.uint8:
            raise ModelError(
                f"the fake model takes uint8 {(_HEIGHT, _WIDTH, 3)}, got {tensors.dtype} {shapes}"
            )
        ready = time.monotonic() + self._takes_s(len(tensors))
        self._count(len(tensors))
        for picture, rows in zip(tensors, outputs[0], strict=True):
            if self.spec.kind == "classifier":
                rows[...] = [_mask(picture, colour).mean() / 255 for colour in PALETTE]
            else:
                _find(picture, rows)
        rest = ready - time.monotonic()
        if rest > 0:
            self._closed.wait(rest)

    def close(self) -> None:
        """End a wait that is under way."""
        self._closed.set()

    def _takes_s(self, count: int) -> float:
        return self._service_s + (count - 1) * self._further_s

    def _count(self, count: int) -> None:
        before, self._frames = self._frames, self._frames + count
        if self._fail_every and self._frames // self._fail_every > before // self._fail_every:
            if count > 1:
                self._frames = before
                raise ModelError(f"the fake model fails on a frame of these {count}, as it was told to")
            raise ModelError(f"the fake model fails on frame {self._frames}, as it was told to")


def _mask(picture: NDArray[np.uint8], colour: Sequence[int]) -> NDArray[np.uint8]:
    """255 where a picture (h, w, 3) has this colour, else 0."""
    lower = tuple(_HIGH if level else 0 for level in colour)
    upper = tuple(255 if level else _LOW for level in colour)
    return np.asarray(cv2.inRange(picture, lower, upper), np.uint8)


def _find(picture: NDArray[np.uint8], rows: NDArray[np.float32]) -> None:
    """Write the objects of one picture (h, w, 3), largest first; the other rows become 0."""
    found: list[tuple[float, ...]] = []
    for class_id, colour in enumerate(PALETTE):
        _, _, stats, _ = cv2.connectedComponentsWithStats(_mask(picture, colour), connectivity=4)
        # The first component is what is not of this colour.
        for left, top, width, height, area in stats[1:].tolist():
            if area >= _MIN_AREA:
                # A rectangle that another one covers in part fills its box less.
                score = area / (width * height)
                found.append((left, top, left + width, top + height, score, class_id))
    found.sort(key=lambda row: ((row[0] - row[2]) * (row[3] - row[1]), row))
    rows[...] = 0
    for index, row in enumerate(found[:MAX_OBJECTS]):
        rows[index] = row
