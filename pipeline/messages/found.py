"""What was found in one frame."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = ["Attribute", "Classes", "Detections"]


class Classes(msgspec.Struct, frozen=True, array_like=True):
    """The likeliest classes of a whole frame, or of one crop of it, by descending score.

    Attributes:
        class_ids: Index into the model's labels.
        scores: 0..1, one for each.
    """

    class_ids: tuple[int, ...]
    scores: tuple[float, ...]


class Attribute(msgspec.Struct, frozen=True, array_like=True):
    """What a second model says of one object: a cascade's answer.

    Attributes:
        object: Index of the object in the frame's `Detections`.
        name: Name of the cascade (``colour``).
        label: Its best class (``red``).
        confidence: Score of that class, 0..1.
    """

    object: int
    name: str
    label: str
    confidence: float


class Detections:
    """Objects of one frame: a struct of arrays, validated when made, read-only.

    Attributes:
        boxes_xyxy: float32 (n, 4), pixels of the source frame, ``x2, y2`` exclusive.
        scores: float32 (n,), 0..1.
        class_ids: int32 (n,), index into the model's labels.
        track_ids: int64 (n,), -1 where the object has no confirmed track; None when nothing tracks.

    Raises:
        ValueError: a shape differs from the above, or a number is not finite.
    """

    __slots__ = ("boxes_xyxy", "class_ids", "scores", "track_ids")

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    track_ids: NDArray[np.int64] | None

    def __init__(self, boxes_xyxy: Any, scores: Any, class_ids: Any, track_ids: Any = None) -> None:
        boxes = np.ascontiguousarray(boxes_xyxy, np.float32).reshape(-1, 4)
        columns: dict[str, NDArray[Any]] = {"boxes_xyxy": boxes}
        columns["scores"] = np.ascontiguousarray(scores, np.float32)
        columns["class_ids"] = np.ascontiguousarray(class_ids, np.int32)
        if track_ids is not None:
            columns["track_ids"] = np.ascontiguousarray(track_ids, np.int64)
        for name, column in columns.items():
            if name != "boxes_xyxy" and column.shape != (len(boxes),):
                raise ValueError(f"{name} has shape {column.shape}, expected ({len(boxes)},)")
        if not (np.isfinite(boxes).all() and np.isfinite(columns["scores"]).all()):
            raise ValueError("boxes_xyxy and scores must be finite")
        object.__setattr__(self, "track_ids", None)
        for name, column in columns.items():
            column.flags.writeable = False
            object.__setattr__(self, name, column)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("Detections is read-only")

    def __len__(self) -> int:
        return len(self.scores)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Detections):
            return NotImplemented
        mine, theirs = self.track_ids, other.track_ids
        return (
            np.array_equal(self.boxes_xyxy, other.boxes_xyxy)
            and np.array_equal(self.scores, other.scores)
            and np.array_equal(self.class_ids, other.class_ids)
            and (mine is theirs or (mine is not None and theirs is not None and np.array_equal(mine, theirs)))
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Detections(n={len(self)}, tracked={self.track_ids is not None})"

    @classmethod
    def empty(cls) -> Detections:
        """No objects."""
        return cls(np.zeros((0, 4)), np.zeros(0), np.zeros(0))

    def select(self, index: Any) -> Detections:
        """The objects that a boolean mask, index array or slice names, in that order."""
        ids = None if self.track_ids is None else self.track_ids[index]
        return Detections(self.boxes_xyxy[index], self.scores[index], self.class_ids[index], ids)

    def with_tracks(self, track_ids: Any) -> Detections:
        """The same objects with ``track_ids`` (n,)."""
        return Detections(self.boxes_xyxy, self.scores, self.class_ids, track_ids)
