"""A model for single pictures, in this process: load, ask, close. No stages, no sockets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, ModelError
from pipeline.messages import ModelSpec, Task
from pipeline.models.base import build_runner
from pipeline.models.threads import usable_cores
from pipeline.tasks.reading import Found, Reader
from pipeline.vision.tensor import TensorFiller

__all__ = ["Analyzer"]

#: One picture at a time gains little from more threads.
_MOST_THREADS = 4


class Analyzer:
    """A model and what is asked of it. To be used by one thread at a time: its buffers are its own.

    Several threads take one Analyzer each, or a lock. Pictures come as BGR, as OpenCV decodes them, so there
    is no choice of preprocessing as for video: what ``fast`` saves there is the conversion from YUV.

    Args:
        model: As for `pipeline.models.base.build_runner`.
        device: ``auto``, ``cpu``, ``cuda``, ``tensorrt`` or ``openvino``.
        threads: Threads of one inference on the CPU; None for as many as this process may use, 4 at most.
        input_size: Width and height in pixels, for a model whose input size is free.
        task: See `Reader`, as for all that follow.
        confidence: Scores under this are left out.
        nms_iou: IoU over which the weaker of two boxes of a class goes; None for the model's own.
        classes: Labels to keep; None for all.
        max_detections: Most objects in one picture.
        top_k: Most classes of one picture.

    Raises:
        ModelError: the options of the fake model are wrong.
        ProviderError: there is no such device.
    """

    def __init__(
        self,
        model: str = "default",
        *,
        device: str = "auto",
        threads: int | None = None,
        input_size: tuple[int, int] | None = None,
        task: Task = "detect",
        confidence: float = 0.4,
        nms_iou: float | None = None,
        classes: Sequence[str] | None = None,
        max_detections: int = 300,
        top_k: int = 5,
    ) -> None:
        self._runner = build_runner(
            model, device=device, threads=threads or _usable_threads(), input_size=input_size
        )
        self._options: dict[str, Any] = {
            "task": task,
            "confidence": confidence,
            "nms_iou": nms_iou,
            "classes": classes,
            "max_detections": max_detections,
            "top_k": top_k,
        }
        self._reader: Reader | None = None
        self._filler: TensorFiller | None = None
        self._tensor: NDArray[Any] = np.empty(0)
        self._outputs: list[NDArray[Any]] = []

    def open(self) -> ModelSpec:
        """Load and warm up the model.

        Returns:
            What it is, with the execution provider in force.

        Raises:
            ModelError: it cannot be found, fetched, loaded or recognised.
            ConfigError: it cannot do the task, or does not know a class to keep.
        """
        spec = self._runner.open()
        try:
            self._reader = Reader(spec, **self._options)
            self._filler = TensorFiller(spec)
            self._tensor = np.zeros(self._filler.shape, spec.input_dtype)
        except (ConfigError, ModelError):
            self.close()
            raise
        shapes = zip(self._runner.output_shapes, self._runner.output_dtypes, strict=True)
        self._outputs = [np.zeros(shape, dtype) for shape, dtype in shapes]
        return spec

    @property
    def spec(self) -> ModelSpec:
        """What the model is; set by `open`."""
        return self._runner.spec

    def read(self, bgr: NDArray[np.uint8], reader: Reader | None = None) -> Found:
        """What the model sees in one picture.

        Args:
            bgr: uint8 (h, w, 3); may be read-only.
            reader: Asks something else of the same model than the arguments of this object do.

        Returns:
            Boxes in pixels of the picture, xyxy; or classes.

        Raises:
            ModelError: it is not open, the network failed, or its outputs are not of its family.
            ValueError: ``bgr`` is no such array.
        """
        reader = reader or self._reader
        if self._filler is None or reader is None:
            raise ModelError("the model is not open", hint="call open() first, or use `with`")
        placed = self._filler.fill((bgr,), "bgr24", self._tensor)
        self._runner.forward(self._tensor, self._outputs)
        return reader.read(self._outputs, placed)

    def close(self) -> None:
        """Free the model; may be called twice, or without `open`."""
        self._runner.close()
        self._reader = self._filler = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _usable_threads() -> int:
    return max(1, min(math.floor(usable_cores().count), _MOST_THREADS))
