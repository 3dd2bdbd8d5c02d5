"""Greedy non-maximum suppression, per class or across classes.

Two ways to one result, that of the plain one-box-at-a-time loop. Few boxes of a class are settled by a loop
over Python floats, which is quicker than the two dozen numpy calls of a matrix. More are taken in blocks of
descending score: a block is settled within itself, then its survivors alone suppress the rest, so that memory
and time grow with the boxes kept and not with ``n * n``. Blocks of float32 boxes are compared in float32; a
pair whose IoU comes so near to the threshold that rounding could decide is looked at again in float64.
`scripts/bench_nms` compares the speed with that of other libraries.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.vision.boxes import Boxes

__all__ = ["nms"]

#: Most boxes of one class, or of all where classes do not count, that the loop over Python floats takes.
_FEW = 64
#: Boxes of a block; a set of up to twice as many is one block.
_BLOCK = 64
#: An IoU in float32 differs from that in float64 by less than a tenth of this.
_DOUBT = 1e-5
#: Sides between which products of float32 neither lose digits nor overflow.
_LEAST, _MOST = 1e-6, 1e15
#: Added to no area but that of a box without one, so that no IoU is 0 / 0.
_TINY = 1e-300


def nms(
    boxes_xyxy: Boxes,
    scores: NDArray[np.floating[Any]],
    class_ids: NDArray[np.integer[Any]] | None,
    iou_threshold: float,
    max_detections: int = 300,
) -> NDArray[np.intp]:
    """Greedy NMS: the best box suppresses those that overlap it by more than the threshold, and so on.

    The IoU is that of `pipeline.vision.boxes.iou_matrix`: a box without area neither suppresses nor goes.

    Args:
        boxes_xyxy: (n, 4), in any one coordinate system.
        scores: (n,).
        class_ids: (n,); boxes of different classes do not suppress each other. None compares all.
        iou_threshold: A box goes when its IoU with a better, kept one is *over* this, 0..1.
        max_detections: Keep at most this many.

    Returns:
        intp (k,) indices of the kept boxes by descending score; equal scores by lower index.

    Raises:
        ValueError: shapes differ, or a score is NaN.
    """
    scores, boxes = np.asarray(scores), np.asarray(boxes_xyxy)
    classes = None if class_ids is None else np.asarray(class_ids)
    fits = scores.ndim == 1 and boxes.shape == (*scores.shape, 4)
    if not fits or (classes is not None and classes.shape != scores.shape):
        shapes = (boxes.shape, scores.shape, None if classes is None else classes.shape)
        raise ValueError(f"shapes of boxes, scores and classes do not match: {shapes}")
    if _are_few(len(scores), classes):
        return _few(boxes, scores, classes, iou_threshold, max_detections)
    order = np.argsort(-scores, kind="stable")
    if math.isnan(scores[order[-1]]):  # sorting puts them last
        raise ValueError("a score is NaN")
    if iou_threshold >= 1:
        return order[:max_detections]  # no overlap is over 1
    sides = np.ascontiguousarray(boxes[order].T)
    ranked = _Ranked.of(sides, None if classes is None else classes[order], iou_threshold)
    return order[_blocks(ranked, max_detections)]


def _are_few(count: int, classes: NDArray[Any] | None) -> bool:
    if count <= _FEW or classes is None:
        return count <= _FEW
    return max(Counter(classes.tolist()).values()) <= _FEW


def _few(
    boxes: NDArray[Any],
    scores: NDArray[Any],
    classes: NDArray[Any] | None,
    threshold: float,
    limit: int,
) -> NDArray[np.intp]:
    """The plain loop: each box against the kept ones of its class, in Python's float64."""
    ranks = scores.tolist()
    if any(map(math.isnan, ranks)):
        raise ValueError("a score is NaN")
    rows = boxes.tolist()
    labels = [0] * len(rows) if classes is None else classes.tolist()
    kept: list[int] = []
    rivals: defaultdict[int, list[tuple[float, float, float, float, float]]] = defaultdict(list)
    # Sorting in reverse leaves equal scores in their order.
    for index in sorted(range(len(ranks)), key=ranks.__getitem__, reverse=True):
        if len(kept) >= limit:
            break
        left, top, right, bottom = rows[index]
        if right > left and bottom > top:
            size = (right - left) * (bottom - top)
            better = rivals[labels[index]]
            for x1, y1, x2, y2, other in better:
                if x1 < right and left < x2 and y1 < bottom and top < y2:
                    # Without min() and max(), which would take half of the time.
                    width = (right if right < x2 else x2) - (left if left > x1 else x1)
                    shared = width * ((bottom if bottom < y2 else y2) - (top if top > y1 else y1))
                    union = other + size - shared
                    if union > 0 and shared / union > threshold and threshold < 1:
                        break
            else:
                kept.append(index)
                better.append((left, top, right, bottom, size))
        else:
            kept.append(index)
    return np.array(kept, np.intp)


@dataclass(frozen=True, slots=True)
class _Ranked:
    """Boxes by descending score.

    Attributes:
        low: (2, n) left and top.
        high: (2, n) right and bottom.
        areas: (n,), over 0.
        classes: (n,), or None.
        threshold: IoU over which the worse of two goes.
        doubt: How near to the threshold an IoU is not trusted; 0 in float64.
    """

    low: NDArray[Any]
    high: NDArray[Any]
    areas: NDArray[Any]
    classes: NDArray[Any] | None
    threshold: float
    doubt: float

    @classmethod
    def of(cls, sides: NDArray[Any], classes: NDArray[Any] | None, threshold: float) -> _Ranked:
        """From (4, n) columns; in float32 where they are, and where that can be made exact."""
        if sides.dtype == np.float32 and threshold > _DOUBT:
            low, high = sides[:2], sides[2:]
            with np.errstate(over="ignore"):
                lengths = high - low
            if lengths.min() > _LEAST and lengths.max() < _MOST:
                return cls(low, high, lengths[0] * lengths[1], classes, threshold, _DOUBT)
        sides = sides.astype(np.float64)
        low, high = sides[:2], sides[2:]
        width, height = np.maximum(high - low, 0.0)
        return cls(low, high, np.maximum(width * height, _TINY), classes, threshold, 0.0)

    def take(self, index: NDArray[np.intp] | slice) -> _Ranked:
        """Those that a slice or an index array names."""
        low, high = (
            (self.low[:, index], self.high[:, index])
            if isinstance(index, slice)
            else (self.low.take(index, 1), self.high.take(index, 1))
        )
        classes = None if self.classes is None else self.classes[index]
        return _Ranked(low, high, self.areas[index], classes, self.threshold, self.doubt)

    def suppresses(self, other: _Ranked) -> NDArray[np.bool_]:
        """Which of the others overlap which of these by too much, bool (n, m)."""
        sizes = np.minimum(self.high[:, :, None], other.high[:, None, :])
        sizes -= np.maximum(self.low[:, :, None], other.low[:, None, :])
        np.maximum(sizes, 0, out=sizes)
        iou, union = sizes
        iou *= union
        np.add(self.areas[:, None], other.areas[None, :], out=union)
        union -= iou
        iou /= union
        over: NDArray[np.bool_] = iou > self.threshold + self.doubt
        if self.doubt:
            near = iou > self.threshold - self.doubt
            if np.count_nonzero(near) != np.count_nonzero(over):
                self._settle(other, over, near)
        if self.classes is not None and other.classes is not None:
            over &= self.classes[:, None] == other.classes[None, :]
        return over

    def _settle(self, other: _Ranked, over: NDArray[np.bool_], near: NDArray[np.bool_]) -> None:
        """Decide in float64 what float32 leaves in doubt."""
        rows, columns = np.nonzero(near & ~over)
        low, high, their_low, their_high = (
            side.astype(np.float64)
            for side in (self.low[:, rows], self.high[:, rows], other.low[:, columns], other.high[:, columns])
        )
        width, height = np.maximum(np.minimum(high, their_high) - np.maximum(low, their_low), 0.0)
        shared = width * height
        areas = np.prod(high - low, axis=0) + np.prod(their_high - their_low, axis=0)
        over[rows, columns] = shared / (areas - shared) > self.threshold


def _blocks(boxes: _Ranked, limit: int) -> NDArray[np.intp]:
    """Ranks of the boxes that are kept, the best first."""
    alive = np.arange(len(boxes.areas))
    kept = [alive[:0]]
    count = 0
    while len(alive) and count < limit:
        block = len(alive) if len(alive) <= 2 * _BLOCK else _BLOCK
        head = boxes if block == len(alive) else boxes.take(slice(0, block))
        winners = _survivors(head.suppresses(head))
        kept.append(alive[winners])
        count += len(winners)
        if block == len(alive):
            break
        tail = boxes.take(slice(block, None))
        gone = head.take(winners).suppresses(tail).any(axis=0)
        rest = np.flatnonzero(~gone)
        boxes, alive = tail.take(rest), alive[block + rest]
    return np.concatenate(kept)[:limit]


def _survivors(over: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Who is left of a block when the best suppresses first; ``over`` (n, n), ranked."""
    count = len(over)
    if np.count_nonzero(over) <= 4 * count:
        # Few pairs: one by one. Rows come in order, so each has been decided when its turn comes.
        gone = bytearray(count)
        for row, column in zip(*(index.tolist() for index in np.nonzero(over)), strict=True):
            if row < column and not gone[row]:
                gone[column] = 1
        return np.flatnonzero(np.frombuffer(gone, np.uint8) == 0)
    # Many: whole rows as bits of an integer, and only those of the survivors.
    rows = np.packbits(over, axis=1, bitorder="little")
    width, bits = rows.shape[1], rows.tobytes()
    left, winners = (1 << count) - 1, []
    while left:
        lowest = left & -left
        row = lowest.bit_length() - 1
        winners.append(row)
        left &= ~(int.from_bytes(bits[row * width : (row + 1) * width], "little") | lowest)
    return np.array(winners, np.intp)
