"""What the objects of a frame look like, as vectors, so that a tracker knows again whom it has lost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, ModelError
from pipeline.messages import Detections
from pipeline.models.base import Runner
from pipeline.tasks.crops import crop_of
from pipeline.vision.tensor import PixelFormat, Plane, TensorFiller

__all__ = ["Embedder"]


class Embedder:
    """An embedding network that looks at crops of objects. Its model is shared; it keeps nothing of a frame.

    Args:
        runner: The network, not yet opened (`pipeline.models.embedding.EmbeddingRunner`): one output, a
            vector for each picture.
        confidence: Objects with a lower score are not looked at.
        min_side: Those with a shorter side than this many pixels are not either.
        margin: The crop is larger than the box by this share of its size, on each side.

    Raises:
        ConfigError: a number is out of its range.
    """

    def __init__(
        self, runner: Runner, *, confidence: float = 0.3, min_side: int = 8, margin: float = 0.0
    ) -> None:
        if not 0 <= confidence <= 1:
            raise ConfigError(f"track.reid.confidence is {confidence}", hint="write a number from 0 to 1")
        for name, value in (("min_side", min_side), ("margin", margin)):
            if not 0 <= value < float("inf"):
                raise ConfigError(f"track.reid.{name} is {value}", hint="write a number, 0 or more")
        self._runner = runner
        self._confidence = confidence
        self._min_side = min_side
        self._margin = margin
        self._filler: TensorFiller | None = None
        self._tensors: NDArray[Any] = np.empty(0)
        self._output: NDArray[Any] = np.empty((0, 0))
        self._counts: tuple[int, ...] = (1,)

    @property
    def size(self) -> int:
        """Length of the vectors; 0 before `open`."""
        return int(np.prod(self._output.shape[1:])) if len(self._output) else 0

    def open(self) -> None:
        """Load and warm up the network.

        Raises:
            ModelError: it cannot be loaded, or does not turn a picture into a vector.
            ProviderError: the accelerator asked for is not there.
        """
        spec = self._runner.open()
        try:
            shapes = self._runner.output_shapes
            if len(shapes) != 1:
                raise ModelError(
                    f"model {spec.name!r} gives {len(shapes)} outputs, an embedding network one",
                    hint="track.reid takes a network that turns a picture into a vector",
                )
            self._filler = TensorFiller(spec)
        except ModelError:
            self._runner.close()
            raise
        # A network that has not been warmed up for batches is asked crop by crop.
        self._counts = tuple(sorted({1, *self._runner.service_ns}))
        most = self._counts[-1]
        self._tensors = np.zeros((most, *self._filler.shape[1:]), spec.input_dtype)
        self._output = np.zeros((most, *shapes[0][1:]), self._runner.output_dtypes[0])

    def look(
        self, planes: Sequence[Plane], pixel_format: PixelFormat, detections: Detections
    ) -> NDArray[np.float32] | None:
        """Look at the objects of one frame.

        Args:
            planes: The frame, as for `TensorFiller.fill`; empty when its pixels are gone.
            pixel_format: Its format.
            detections: Its objects.

        Returns:
            float32 (n, d) for `pipeline.tracking.base.Hints`: rows of length 1, of zeros for objects that
            were not looked at; None when the pixels are gone.

        Raises:
            ModelError: the network failed, or gave NaN or infinity.
        """
        assert self._filler is not None
        if not planes:
            return None
        found = np.zeros((len(detections), self.size), np.float32)
        boxes = detections.boxes_xyxy
        seen = (detections.scores >= self._confidence) & (
            (boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= self._min_side
        )
        rows = np.flatnonzero(seen)
        for start in range(0, len(rows), self._counts[-1]):
            part = rows[start : start + self._counts[-1]]
            for tensor, row in zip(self._tensors[:, None], part, strict=False):
                self._filler.fill(crop_of(planes, boxes[row], self._margin), pixel_format, tensor)
            found[part] = self._vectors(len(part))
        return found

    def close(self) -> None:
        """Free the network."""
        self._runner.close()

    def _vectors(self, count: int) -> NDArray[np.float32]:
        """What the network says of the first crops, at length 1; the batch is padded to one that is warm."""
        size = next(one for one in self._counts if one >= count)
        self._runner.forward(self._tensors[:size], [self._output[:size]])
        vectors = self._output[:count].reshape(count, -1).astype(np.float64)
        if not np.isfinite(vectors).all():
            raise ModelError(
                f"model {self._runner.spec.name!r} gave NaN or infinity",
                hint="the file is damaged, or float16 overflows: try the float32 file",
            )
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(
            np.divide(vectors, length, where=length > 0, out=np.zeros_like(vectors)), np.float32
        )
