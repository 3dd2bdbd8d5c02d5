"""A constant-velocity Kalman filter over all tracks at once.

The trackers that use it have noise that is diagonal: nothing couples one coordinate of the box with another.
So each coordinate of each track is a filter of its own with a position and a velocity, and its covariance is
three numbers. That gives the same figures as an 8 x 8 filter per track, from a few operations on arrays.

Source of the filter: Kalman, "A New Approach to Linear Filtering and Prediction Problems", 1960; of its use
on boxes: Bewley et al., "Simple Online and Realtime Tracking", ICIP 2016, and Wojke et al., "Simple Online
and Realtime Tracking with a Deep Association Metric", ICIP 2017 (noise in proportion to the box). These count
in frames; here the noise is a rate, so that frames may come at any distance in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["BoxFilter", "Noise"]

Floats = NDArray[np.float64]

#: Rows of the state.
_POSITION: Final = 0
_VELOCITY: Final = 1
#: Rows of the covariance: of the position, of position with velocity, of the velocity.
_PP: Final = 2
_PV: Final = 3
_VV: Final = 4


@dataclass(frozen=True, slots=True)
class Noise:
    """How much a coordinate is believed, and how fast it may change. Unit: the caller's ``units`` of a track.

    The values were tuned on six sequences of MOT15 (people, 7 to 30 frames a second), for all trackers at
    once.

    Attributes:
        measured: Standard deviation of a measurement.
        drift: How far the position wanders by itself: standard deviation after a second.
        push: How far the velocity wanders: standard deviation, per second, after a second.
        start_speed: Standard deviation of the velocity of a new track, per second.
    """

    measured: float = 0.08
    drift: float = 0.1
    push: float = 0.3
    start_speed: float = 3.0


class BoxFilter:
    """Positions, velocities and covariances of four coordinates of n tracks.

    Attributes:
        state: float64 (5, n, 4): position, velocity, and the covariance's three numbers (position, position
            with velocity, velocity) of each coordinate of each track. Velocities are per second.

    Args:
        noise: See `Noise`.
        moving: Which of the four coordinates have a velocity.
    """

    def __init__(
        self, noise: Noise, moving: tuple[bool, bool, bool, bool] = (True, True, True, True)
    ) -> None:
        self._measured = noise.measured**2
        self._drift = noise.drift**2
        self._push = np.where(moving, noise.push**2, 0.0)
        self._start_speed = np.where(moving, noise.start_speed**2, 0.0)
        self.state: Floats = np.zeros((5, 0, 4))

    def __len__(self) -> int:
        return len(self.state[0])

    @property
    def position(self) -> Floats:
        """float64 (n, 4), a view."""
        position: Floats = self.state[_POSITION]
        return position

    @property
    def velocity(self) -> Floats:
        """float64 (n, 4), per second, a view."""
        velocity: Floats = self.state[_VELOCITY]
        return velocity

    def add(self, measured: Floats, units: Floats) -> None:
        """Start tracks at rest.

        Args:
            measured: float64 (m, 4), first measurements.
            units: float64 (m, 4), or (m, 1): what one unit of `Noise` is for each coordinate.
        """
        born = np.zeros((5, len(measured), 4))
        square = units * units
        born[_POSITION] = measured
        born[_PP] = square * self._measured
        born[_VV] = square * self._start_speed
        self.state = np.concatenate([self.state, born], axis=1)

    def keep(self, index: NDArray[Any]) -> None:
        """Keep the tracks that a mask or index array names, in that order."""
        self.state = self.state[:, index]

    def predict(self, passed_s: float | Floats, units: Floats, index: NDArray[Any] | None = None) -> None:
        """Let time pass.

        White noise moves both the position and the velocity, so that two steps of half the time leave the
        same state and covariance as one whole step.

        Args:
            passed_s: Seconds, 0 or more; one for all, or float64 (n, 1).
            units: As in `add`, of each track.
            index: Tracks to predict; None for all.
        """
        state = self.state if index is None else self.state[:, index]
        position, velocity, pp, pv, vv = state
        square = units * units
        push = square * self._push
        push *= passed_s  # the velocity's growth
        position += velocity * passed_s
        pp += (2.0 * passed_s) * pv
        pp += (passed_s * passed_s) * (vv + push / 3.0)
        pp += square * (self._drift * passed_s)
        pv += passed_s * (vv + push / 2.0)
        vv += push
        if index is not None:
            self.state[:, index] = state

    def update(self, index: NDArray[Any], measured: Floats, units: Floats) -> None:
        """Take in measurements.

        Args:
            index: int (m,), tracks that were seen, each once.
            measured: float64 (m, 4).
            units: As in `add`, of those tracks.
        """
        state = self.state[:, index]
        position, velocity, pp, pv, vv = state
        total = units * units
        total *= self._measured
        total += pp
        # A coordinate without any doubt (units of 0) stays as it is: 0 / 1.
        total[total <= 0.0] = 1.0
        gain = pp / total
        speed_gain = pv / total
        surprise = measured - position
        position += gain * surprise
        velocity += speed_gain * surprise
        vv -= speed_gain * pv
        pv -= speed_gain * pp
        pp -= gain * pp
        self.state[:, index] = state

    def transform(self, motion: Floats, centre: tuple[int, int] = (0, 1)) -> None:
        """Carry all tracks over to a picture that has moved.

        Source: Aharon et al., "BoT-SORT", 2022, section 3.2. There the 2 x 2 part of the motion turns the
        pair (width, height) like a vector; here the size only grows by the motion's scale, since a camera
        that is tilted by a few degrees sees no thinner people. The covariance between x and y that a turn
        brings is dropped: for the few degrees between two frames it is a few hundredths of the variance.

        Args:
            motion: float64 (2, 3), pixels of the last frame to pixels of this one.
            centre: Columns of x and y; the other two are lengths in pixels.
        """
        turn = motion[:, :2]
        scale = float(np.sqrt(abs(np.linalg.det(turn))))
        x_y = list(centre)
        others = [column for column in range(4) if column not in x_y]
        self.state[:2, :, x_y] = self.state[:2, :, x_y] @ turn.T
        self.state[_POSITION][:, x_y] += motion[:, 2]
        self.state[2:, :, x_y] = self.state[2:, :, x_y] @ (turn * turn).T
        self.state[:2, :, others] *= scale
        self.state[2:, :, others] *= scale * scale
