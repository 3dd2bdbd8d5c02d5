"""Whether anything moves in a picture: each against a background that is learned on the way."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["MotionGate"]

_WIDTH = 160
_BLUR = (5, 5)
_SETTLE_S = 4.0
#: What has changed is learned more slowly, so that somebody who stands still is seen for half a minute.
_RELUCTANCE = 0.15
#: Unless so much has: that is the light, and nobody to wait for.
_LARGE = 0.1
#: Where so much has changed at once, it is the light or the camera: a switch to infrared, a cut, a jolt.
_OTHER_SCENE = 0.35
_CONTRAST = (0.5, 2.0)
#: A background is worth nothing after such a gap.
_STALE_S = 60.0


class MotionGate:
    """Open while something moves, and for a while after.

    The whole picture becoming lighter, darker or flatter is no motion: background and picture are brought to
    one level and contrast before they are compared. Another scene, which is what a camera's switch to
    infrared looks like, is motion once and becomes the background at once. So is the first picture.

    Has no clock of its own: time is the presentation time of the pictures.

    Args:
        threshold: Change of brightness, 1..255, from which a spot counts as changed.
        min_area: Share of the picture that must have changed, 0..1.
        hold_s: How long it stays open after the last motion, seconds.

    Attributes:
        area: Share of the last picture that had changed, 0..1.
    """

    def __init__(self, *, threshold: float = 16.0, min_area: float = 0.001, hold_s: float = 3.0) -> None:
        self.area = 0.0
        self._threshold = threshold
        self._min_area = min_area
        self._hold_ns = int(hold_s * 1e9)
        self._background: NDArray[np.float32] | None = None
        self._shape: tuple[int, ...] = ()
        self._learned = 0
        self._learned_ns = 0
        self._reluctance = _RELUCTANCE
        self._moved_ns = 0

    def reset(self) -> None:
        """Forget the background; the next picture counts as motion."""
        self._background = None

    def open(self, plane: NDArray[np.uint8], pts_ns: int) -> bool:
        """Learn from a picture and say whether it is to pass.

        Args:
            plane: Brightness (h, w) uint8, or BGR (h, w, 3) uint8; may be strided and read-only.
            pts_ns: Presentation time, nanoseconds; a step back or a gap of a minute is a new beginning.
        """
        if self._moves(plane, pts_ns):
            self._moved_ns = pts_ns
            return True
        return pts_ns - self._moved_ns < self._hold_ns

    def _moves(self, plane: NDArray[np.uint8], pts_ns: int) -> bool:
        small = _small(plane)
        background = self._background
        elapsed_s = (pts_ns - self._learned_ns) / 1e9
        self._learned_ns = pts_ns
        if background is None or self._shape != plane.shape or not 0 <= elapsed_s < _STALE_S:
            return self._begin(plane, small)
        changed = np.abs(_difference(small, background)) > self._threshold
        self.area = float(np.count_nonzero(changed)) / changed.size
        if self.area > _OTHER_SCENE:
            return self._begin(plane, small)
        if self.area >= _LARGE:
            self._reluctance = 1.0
        elif self.area < self._min_area:
            self._reluctance = _RELUCTANCE
        self._learned += 1  # the plain average of the first pictures, then a sliding one
        pace = np.float32(max(1.0 - math.exp(-elapsed_s / _SETTLE_S), 1.0 / self._learned))
        reluctance = np.float32(self._reluctance)
        background += np.where(changed, reluctance * pace, pace) * (small - background)
        return self.area >= self._min_area

    def _begin(self, plane: NDArray[np.uint8], small: NDArray[np.float32]) -> bool:
        self._background, self._shape, self.area = small, plane.shape, 1.0
        self._learned, self._reluctance = 1, _RELUCTANCE
        return True


def _small(plane: NDArray[np.uint8]) -> NDArray[np.float32]:
    """A small, smooth, grey copy, (h, w) float32, about 160 wide."""
    height, width = plane.shape[:2]
    # Whole steps, of which two rows are read: five times as fast as any other ratio, and none of it is seen.
    step = 2 * max(1, round(width / (2 * _WIDTH))) if min(width, 2 * height) > 1.5 * _WIDTH else 1
    across, down = width // step, height // step
    rows = plane[: down * step : max(1, step // 2), : across * step]
    if rows.strides[-1] != 1 or (rows.ndim == 3 and rows.strides[1] != 3):
        rows = np.ascontiguousarray(rows)  # turned by 90 degrees
    small = cv2.resize(rows, (across, down), interpolation=cv2.INTER_AREA) if step > 1 else rows
    if small.ndim == 3:
        small = cv2.cvtColor(small, cv2.COLOR_BGR2GRAY)
    return cv2.GaussianBlur(small, _BLUR, 0).astype(np.float32)


def _difference(small: NDArray[np.float32], background: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much brighter each spot has become, beyond what has happened to the picture as a whole."""
    spread = float(background[::2, ::2].std())  # one spot in four is enough to know the whole
    gain = float(small[::2, ::2].std()) / spread if spread > 1.0 else 1.0
    difference = small - np.float32(min(max(gain, _CONTRAST[0]), _CONTRAST[1])) * background
    # The median: what covers less than half of the picture does not move it.
    difference -= np.median(difference[::2, ::2])
    return difference
