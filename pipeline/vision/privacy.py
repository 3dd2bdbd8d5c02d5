"""Hides people, or what else is to be hidden, in pictures, so that nobody can get them back."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.messages import Result, Scene
from pipeline.vision.boxes import iou_matrix

__all__ = ["HIDING_MODES", "HidingMode", "Privacy"]

HidingMode = Literal["blur", "pixelate", "fill"]
HIDING_MODES: tuple[HidingMode, ...] = ("blur", "pixelate", "fill")

#: So many colours are left along the longer side of what is hidden, none for fewer pixels than these.
_CELLS = 6
_LEAST_CELL = 4
_FILL = 96
#: How far an object may have gone since it was seen last: so many times its longer side a second, the first
#: beyond where its speed takes it, the second where it was seen once only and has no speed yet.
_PACE = 0.5
_UNKNOWN_PACE = 1.0
#: Boxes that seem to move faster have been taken for one another.
_MOST_PACE = 3.0
#: A box of this frame continues one of an earlier frame from this IoU on, or where both have one track id.
_SAME = 0.2

_Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class _Seen:
    """A box that was to be hidden.

    Attributes:
        box: In pixels of its frame.
        at_ns: Presentation time of that frame.
        track_id: Of its object; -1 for none.
        pace: How fast its sides move, pixels a second; None where it was seen once only.
    """

    box: _Box
    at_ns: int
    track_id: int
    pace: _Box | None = None


@dataclass(slots=True)
class _Source:
    """What is remembered of one source.

    Attributes:
        frame: Epoch and number of the last frame told.
        seen: Boxes of that frame and, where they have not come again, of frames shortly before.
        scene: The scene for which ``areas`` was made.
        size: Width and height, the same.
        areas: The masks that hide the picture: left, top, and uint8 (h, w), not 0 where it is hidden.
    """

    frame: tuple[int, int] | None = None
    seen: list[_Seen] = field(default_factory=list)
    scene: Scene | None = None
    size: tuple[int, int] = (0, 0)
    areas: list[tuple[int, int, NDArray[np.uint8]]] = field(default_factory=list)


class Privacy:
    """Hides the boxes of named labels, and the masks of a scene, in the pictures of any number of sources.

    A detector misses an object in a frame here and there. So a box that has no successor is hidden for a
    while after, where the object may be by then: between where it was and where its speed takes it, and
    around that. A frame that failed is hidden as a whole, for nobody knows who is in it; so is one that was
    only classified. What the detector never found is not hidden: choose a low confidence.

    ``blur`` and ``pixelate`` leave the mean colours of six cells along the longer side of a box, or fewer
    along the shorter; blur fades them into each other. All else is gone from the picture. Yet who has many
    pictures of somebody and knows whom to look for may still tell him by such colours (McPherson et al.,
    "Defeating Image Obfuscation with Deep Learning", arXiv 1609.00408, 2016). ``fill`` leaves nothing.

    Args:
        labels: Whom to hide; none for masks only.
        mode: How.
        margin: By how much boxes are larger on each side, as a share of their width and height.
        hold_s: How long a box is hidden after the object was seen last, seconds.

    Raises:
        ConfigError: there is no such mode, or a number is negative or not finite.
    """

    def __init__(
        self,
        labels: Collection[str] = ("person",),
        mode: HidingMode = "blur",
        *,
        margin: float = 0.1,
        hold_s: float = 1.0,
    ) -> None:
        if mode not in HIDING_MODES:
            raise ConfigError(f"privacy.mode is {mode!r}", hint=f"write one of {', '.join(HIDING_MODES)}")
        for name, value in (("margin", margin), ("hold_s", hold_s)):
            if not 0 <= value < float("inf"):
                raise ConfigError(f"privacy.{name} is {value}", hint="write a number, 0 or more")
        self._labels = frozenset(labels)
        self._mode = mode
        self._margin = margin
        self._hold_ns = round(hold_s * 1e9)
        self._sources: dict[str, _Source] = {}

    def check(self, labels: Sequence[str]) -> None:
        """Make sure that a model knows all that is to be hidden: a wrong word would hide nobody.

        Args:
            labels: Its labels.

        Raises:
            ConfigError: it does not know one.
        """
        for label in sorted(self._labels - set(labels)):
            near = get_close_matches(label, labels, 1)
            hint = (
                f"write {near[0]!r}" if near else f"use labels of the model, such as {', '.join(labels[:5])}"
            )
            raise ConfigError(f"privacy.labels: the model does not know {label!r}", hint=hint)

    def see(self, result: Result, labels: Sequence[str]) -> None:
        """Take in a frame, whether its picture will be shown or not; a second time does nothing.

        Args:
            result: The frame, with all that was found in it. It must come before later frames of its source.
            labels: Class names by class id.
        """
        header = result.header
        source = self._sources.setdefault(header.source, _Source())
        frame = (header.epoch, header.seq)
        if source.frame == frame:
            return
        if source.frame is not None and source.frame[0] != header.epoch:
            source.seen = []
        source.frame = frame
        now = header.pts_ns
        old = [one for one in source.seen if 0 <= now - one.at_ns <= self._hold_ns]
        if not _trusted(result):
            source.seen = old
            return
        new: list[_Seen] = []
        for found in (result.detections, result.masked):
            if found is None:
                continue
            tracks = [-1] * len(found) if found.track_ids is None else found.track_ids.tolist()
            for box, class_id, track_id in zip(
                found.boxes_xyxy.tolist(), found.class_ids.tolist(), tracks, strict=True
            ):
                if 0 <= class_id < len(labels) and labels[class_id] in self._labels:
                    x1, y1, x2, y2 = box
                    new.append(_Seen((x1, y1, x2, y2), now, track_id))
        source.seen = _continued(old, new)

    def apply(
        self, bgr: NDArray[np.uint8], result: Result, labels: Sequence[str], scene: Scene | None = None
    ) -> NDArray[np.uint8]:
        """Hide what is to be hidden in the picture of a frame.

        Args:
            bgr: The picture, uint8 (h, w, 3) BGR, of the frame's size or scaled; not changed.
            result: The frame; `see` need not have been called for it.
            labels: Class names by class id.
            scene: Its masks hide the picture where they say so.

        Returns:
            uint8 (h, w, 3) BGR, memory of its own.
        """
        self.see(result, labels)
        header = result.header
        source = self._sources[header.source]
        picture = np.array(bgr, order="C")
        height, width = picture.shape[:2]
        if self._labels and not _trusted(result):
            self._hide(picture, None)
            return picture
        across, down = width / max(header.width, 1), height / max(header.height, 1)
        for one in source.seen:
            x1, y1, x2, y2 = self._place(one, header.pts_ns)
            left, top = max(math.floor(x1 * across), 0), max(math.floor(y1 * down), 0)
            right, bottom = min(math.ceil(x2 * across), width), min(math.ceil(y2 * down), height)
            if left < right and top < bottom:
                self._hide(picture[top:bottom, left:right], None)
        if scene is not source.scene or source.size != (width, height):
            source.scene, source.size = scene, (width, height)
            source.areas = _areas(scene, width, height, across, down)
        for left, top, area in source.areas:
            self._hide(picture[top : top + area.shape[0], left : left + area.shape[1]], area)
        return picture

    def forget(self, source: str) -> None:
        """Forget a source that has ended."""
        self._sources.pop(source, None)

    def _place(self, one: _Seen, now_ns: int) -> _Box:
        """Where an object may be."""
        x1, y1, x2, y2 = one.box
        wide, high = x2 - x1, y2 - y1
        since = (now_ns - one.at_ns) / 1e9
        spread = (_UNKNOWN_PACE if one.pace is None else _PACE) * max(wide, high) * since
        a, b, c, d = (speed * since for speed in one.pace or (0.0, 0.0, 0.0, 0.0))
        aside, above = self._margin * wide + spread, self._margin * high + spread
        return (
            min(x1, x1 + a) - aside,
            min(y1, y1 + b) - above,
            max(x2, x2 + c) + aside,
            max(y2, y2 + d) + above,
        )

    def _hide(self, part: NDArray[np.uint8], area: NDArray[np.uint8] | None) -> None:
        """Hide a part of a picture in place, or of that only where ``area`` is not 0."""
        high, wide = part.shape[:2]
        if self._mode == "fill":
            part[...] = _FILL if area is None else np.where(area[..., None] > 0, _FILL, part)
            return
        cell = max(high / _CELLS, wide / _CELLS, _LEAST_CELL)
        few = (max(1, round(wide / cell)), max(1, round(high / cell)))
        colours = cv2.resize(part, few, interpolation=cv2.INTER_AREA)
        how = cv2.INTER_NEAREST if self._mode == "pixelate" else cv2.INTER_LINEAR
        hidden = cv2.resize(colours, (wide, high), interpolation=how)
        if area is None:
            part[...] = hidden
        else:
            cv2.copyTo(hidden, area, part)


def _trusted(result: Result) -> bool:
    """Whether all that was found in a frame is told."""
    return result.status == "ok" and not result.lost and result.classes is None


def _continued(old: Sequence[_Seen], new: Sequence[_Seen]) -> list[_Seen]:
    """Boxes of a frame with their paces, and those of earlier frames that none of them continues.

    Each box continues one other at most: who has gone behind somebody else stays hidden too.
    """
    boxes = list(new)
    left = set(range(len(old)))
    if old and new:
        likeness = iou_matrix(np.array([o.box for o in old]), np.array([n.box for n in new]))
        for i, before in enumerate(old):
            for j, after in enumerate(new):
                if before.track_id >= 0 and after.track_id >= 0:
                    likeness[i, j] = 2.0 if before.track_id == after.track_id else likeness[i, j] / 2
        while likeness.max() >= _SAME:
            i, j = (int(at) for at in np.unravel_index(int(likeness.argmax()), likeness.shape))
            likeness[i], likeness[:, j] = -1.0, -1.0
            left.discard(i)
            boxes[j] = replace(new[j], pace=_pace(old[i], new[j]))
    return boxes + [old[i] for i in sorted(left)]


def _pace(before: _Seen, after: _Seen) -> _Box | None:
    """How fast the sides of a box move: the mean of its last step and of what was known."""
    step = (after.at_ns - before.at_ns) / 1e9
    if step <= 0:
        return before.pace
    a, b, c, d = ((y - x) / step for x, y in zip(before.box, after.box, strict=True))
    if before.pace is not None:
        p, q, r, s = before.pace
        a, b, c, d = (a + p) / 2, (b + q) / 2, (c + r) / 2, (d + s) / 2
    x1, y1, x2, y2 = after.box
    most = _MOST_PACE * max(x2 - x1, y2 - y1)
    a, b, c, d = (min(max(speed, -most), most) for speed in (a, b, c, d))
    return (a, b, c, d)


def _areas(
    scene: Scene | None, width: int, height: int, across: float, down: float
) -> list[tuple[int, int, NDArray[np.uint8]]]:
    """The masks that hide the picture, each in the smallest rectangle that holds it."""
    areas = []
    for mask in scene.masks.values() if scene is not None else ():
        if mask.hides == "detections":
            continue
        scale = (width, height) if mask.coordinates == "normalized" else (across, down)
        corners = np.round(np.array(mask.polygon, np.float64) * scale).astype(np.int32)
        area: NDArray[np.uint8] = np.zeros((height, width), np.uint8)
        cv2.fillPoly(area, [corners], 255)
        cv2.polylines(area, [corners], True, 255, 2)  # corners were rounded
        rows, columns = np.flatnonzero(area.any(axis=1)), np.flatnonzero(area.any(axis=0))
        if len(rows):
            (top, bottom), (left, right) = rows[[0, -1]].tolist(), columns[[0, -1]].tolist()
            areas.append((left, top, np.ascontiguousarray(area[top : bottom + 1, left : right + 1])))
    return areas
