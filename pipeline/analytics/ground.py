"""From the picture to the ground: where on flat ground the points of a picture lie, in metres."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.analytics.areas import check_points, to_pixels
from pipeline.errors import ConfigError
from pipeline.messages import Ground, Point

__all__ = ["GroundPlane", "check_ground"]

#: Three points are on one line when the height of their triangle is this share of its longest side, or less.
_THIN = 0.003
#: What is so many times as far from the camera as the farthest of the four points is as good as beyond the
#: horizon: there a pixel is 600 times as long as it is at that point.
_FAR = 25.0


def check_ground(where: str, ground: Ground) -> None:
    """Make sure that four points can be a calibration.

    Args:
        where: Its name, for errors: ``ground.gate``.
        ground: The four points, in the picture and on the ground.

    Raises:
        ConfigError: there are not four, one is not finite, normalised ones lie outside 0..1, three are on one
            line, or the points stand in another order on the ground than in the picture.
    """
    for what, points, coordinates in (
        ("points", ground.points, ground.coordinates),
        ("metres", ground.metres, "pixels"),  # in metres, so anything that is finite
    ):
        if len(points) != 4:
            raise ConfigError(f"{where}.{what} has {len(points)} points", hint="give four, [x, y] each")
        check_points(f"{where}.{what}", points, coordinates, 3)
    turns: list[bool] = []
    for three in combinations(range(4), 3):
        seen, real = (_turn([points[at] for at in three]) for points in (ground.points, ground.metres))
        for what, turn in (("points", seen), ("metres", real)):
            if turn == 0:
                numbers = ", ".join(str(at + 1) for at in three)
                raise ConfigError(
                    f"points {numbers} of {where}.{what} are on one line",
                    hint="give four corners of an area, such as those of a parking space",
                )
        turns.append((seen > 0) == (real > 0))
    # Seen from above the ground, four points turn the same way as on the ground, or, where the axes of the
    # ground are the other way round, all of them the other way. Else the horizon would lie between them.
    if len(set(turns)) > 1:
        raise ConfigError(
            f"{where}: the order of points is not that of metres",
            hint="write both lists in the same order, such as clockwise from the nearest corner on the left",
        )


class GroundPlane:
    """The homography that four points give.

    It is solved by the direct linear transformation with normalised points (Hartley and Zisserman, "Multiple
    View Geometry in Computer Vision", 2nd edition 2004, algorithm 4.2, for the least number of points), in
    double precision. Of each point of the picture it gives the place on the ground, and a number w over 0
    that is in inverse proportion to its distance from the camera along the optical axis; on the horizon it
    is 0, and above it there is no ground.

    Args:
        ground: The calibration.
        width: Width of the frame in pixels.
        height: Its height.

    Raises:
        ConfigError: see `check_ground`.
    """

    def __init__(self, ground: Ground, width: int, height: int) -> None:
        check_ground("ground", ground)
        points = np.array(to_pixels(ground.points, ground.coordinates, width, height), np.float64)
        matrix = _homography(points, np.array(ground.metres, np.float64))
        # Scaled so that w is 1 at the farthest of the four points, and more at the others.
        w = np.column_stack([points, np.ones(4)]) @ matrix[2]
        self._matrix = matrix / w[np.argmin(np.abs(w))]
        self._inverse = np.linalg.inv(self._matrix)

    def to_ground(self, points_px: ArrayLike) -> NDArray[np.float64]:
        """Where points of the picture lie on the ground.

        Args:
            points_px: (n, 2), x and y in pixels of the frame.

        Returns:
            Float64 (n, 2), metres in the frame of reference of the calibration; NaN for points at or beyond
            the horizon, or so near to it that a pixel would be the length of a street, and for points that
            are not finite.
        """
        points = np.asarray(points_px, np.float64).reshape(-1, 2)
        found = np.column_stack([points, np.ones(len(points))]) @ self._matrix.T
        seen = found[:, 2] >= 1 / _FAR
        found[~seen] = np.nan
        result: NDArray[np.float64] = found[:, :2] / found[:, 2:]
        return result

    def to_picture(self, points_m: ArrayLike) -> NDArray[np.float64]:
        """Where points of the ground are in the picture: the inverse of `to_ground`.

        Args:
            points_m: (n, 2), metres.

        Returns:
            Float64 (n, 2), pixels of the frame, outside of it too; NaN for points behind the camera.
        """
        points = np.asarray(points_m, np.float64).reshape(-1, 2)
        found = np.column_stack([points, np.ones(len(points))]) @ self._inverse.T
        found[~(found[:, 2] > 0)] = np.nan
        result: NDArray[np.float64] = found[:, :2] / found[:, 2:]
        return result

    def metres_per_pixel(self, x: float, y: float) -> float:
        """How long a pixel of the picture is on the ground, in the direction in which it is longest.

        Args:
            x: In pixels of the frame.
            y: The same.

        Returns:
            The largest singular value of the derivative of `to_ground`; NaN where that is NaN.
        """
        across, along, w = (self._matrix @ (x, y, 1.0)).tolist()
        if not w >= 1 / _FAR:
            return math.nan
        (a, b, _), (c, d, _), (e, f, _) = self._matrix.tolist()
        p, q = (a - across / w * e) / w, (b - across / w * f) / w
        r, s = (c - along / w * e) / w, (d - along / w * f) / w
        # Singular values of a 2 x 2 matrix in closed form.
        return (math.hypot(p + s, q - r) + math.hypot(p - s, q + r)) / 2


def _turn(three: Sequence[Point]) -> float:
    """Sine of the turn from the longest side of a triangle; 0 where it is too thin to tell."""
    (ax, ay), (bx, by), (cx, cy) = three
    twice = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
    longest = max(math.dist(one, other) for one, other in combinations(three, 2))
    return 0.0 if abs(twice) <= _THIN * longest**2 else twice / longest**2


def _homography(points: NDArray[np.float64], metres: NDArray[np.float64]) -> NDArray[np.float64]:
    """The matrix (3, 3) that takes four points (4, 2) of the picture to four (4, 2) of the ground."""
    from_seen, from_real = _normalising(points), _normalising(metres)
    seen = points @ from_seen[:2, :2].T + from_seen[:2, 2]
    real = metres @ from_real[:2, :2].T + from_real[:2, 2]
    rows, right = [], []
    for (x, y), (u, v) in zip(seen.tolist(), real.tolist(), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        right += [u, v]
    # The last element may be set to 1: it is w at the middle of the points, and w is over 0 at all of them.
    flat = np.append(np.linalg.solve(np.array(rows, np.float64), np.array(right, np.float64)), 1.0)
    result: NDArray[np.float64] = np.linalg.inv(from_real) @ flat.reshape(3, 3) @ from_seen
    return result


def _normalising(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Brings the middle of points to the origin, and them to a mean distance of sqrt(2) from it."""
    middle = points.mean(axis=0)
    scale = math.sqrt(2) / float(np.hypot(*(points - middle).T).mean())
    return np.array([[scale, 0, -scale * middle[0]], [0, scale, -scale * middle[1]], [0, 0, 1]])
