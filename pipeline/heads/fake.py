"""The heads of the fake model that tests and dry runs use: rows of finished detections.

One output (1, n, 6): ``x1, y1, x2, y2, score, class``, boxes in pixels of the model input, no NMS; as a
classifier one output (1, classes) of scores.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads.base import (
    TOP_K,
    Guess,
    Signature,
    as_frame,
    as_ids,
    check_probabilities,
    image_input,
    top_detections,
)
from pipeline.messages import Classes, Detections, ModelSpec

__all__ = ["FakeClassifier", "FakeHead"]


class FakeHead:
    """Decoder of finished rows; see the module."""

    def decode(
        self, outputs: Sequence[NDArray[Any]], spec: ModelSpec, confidence: float, limit: int = TOP_K
    ) -> Detections:
        """Decode one frame; see `Head.decode`."""
        if len(outputs) != 1:
            raise ModelError(
                f"model {spec.name!r} gives {len(outputs)} outputs, the fake head expects 1",
                hint="framewire models inspect FILE shows which families fit",
            )
        rows = as_frame(outputs[0], spec.output_names[0] if spec.output_names else "0", (None, 6), spec)
        check_probabilities(rows[:, 4], "scores", spec)
        rows = rows[rows[:, 4] >= confidence]
        class_ids = as_ids(rows[None, :, 5], "classes", (None,), spec)
        return top_detections(rows[:, :4], rows[:, 4], class_ids, spec, limit)

    def recognise(self, signature: Signature) -> Guess | None:
        """Only a file that says so in its metadata: other end-to-end models share the shape (1, n, 6)."""
        if signature.metadata.get("framewire.family") != "fake" or len(signature.outputs) != 1:
            return None
        picture = image_input(signature)
        output = signature.outputs[0]
        if picture is None or len(output.shape) != 3 or output.shape[2] != 6:
            return None
        overrides = picture.overrides() | {"output_names": (output.name,)}
        return Guess("fake", overrides, 1.0, "its metadata says framewire.family = fake")


class FakeClassifier:
    """Reader of finished scores; see the module."""

    def classify(self, outputs: Sequence[NDArray[Any]], spec: ModelSpec, limit: int) -> Classes:
        """The best classes of one frame; see `Classifier.classify`."""
        scores = as_frame(outputs[0], "classes", (len(spec.labels),), spec)
        check_probabilities(scores, "scores", spec)
        best = np.argsort(-scores, kind="stable")[:limit]
        return Classes(tuple(best.tolist()), tuple(scores[best].tolist()))

    def recognise(self, signature: Signature) -> Guess | None:
        """No file is of this family."""
        return None
