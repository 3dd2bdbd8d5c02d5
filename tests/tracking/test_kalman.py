"""The batched filter against the textbook, track by track with whole matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.tracking.kalman import BoxFilter, Noise

Floats = NDArray[np.float64]
NOISE = Noise(measured=0.05, drift=0.1, push=0.5, start_speed=1.0)


class Plain:
    """One track with its 8 x 8 covariance."""

    def __init__(self, first: Floats, unit: Floats) -> None:
        self.x = np.concatenate([first, np.zeros(4)])
        spread = np.concatenate([unit * NOISE.measured, unit * NOISE.start_speed])
        self.p = np.diag(spread**2)

    def predict(self, dt: float, unit: Floats) -> None:
        f = np.eye(8)
        f[:4, 4:] = np.eye(4) * dt
        push, drift = np.diag((unit * NOISE.push) ** 2), np.diag((unit * NOISE.drift) ** 2)
        q = np.block([[push * dt**3 / 3 + drift * dt, push * dt**2 / 2], [push * dt**2 / 2, push * dt]])
        self.x = f @ self.x
        self.p = f @ self.p @ f.T + q

    def update(self, z: Floats, unit: Floats) -> None:
        h = np.eye(4, 8)
        s = h @ self.p @ h.T + np.diag((unit * NOISE.measured) ** 2)
        k = self.p @ h.T @ np.linalg.inv(s)
        self.x = self.x + k @ (z - h @ self.x)
        self.p = (np.eye(8) - k @ h) @ self.p


def agree(batched: BoxFilter, plain: list[Plain]) -> None:
    for i, one in enumerate(plain):
        np.testing.assert_allclose(batched.position[i], one.x[:4], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(batched.velocity[i], one.x[4:], rtol=1e-9, atol=1e-9)
        blocks = [one.p[:4, :4], one.p[:4, 4:], one.p[4:, 4:]]
        for row, block in zip(batched.state[2:], blocks, strict=True):
            np.testing.assert_allclose(row[i], np.diag(block), rtol=1e-8, atol=1e-9)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 10_000))
def test_like_a_filter_of_each_track_alone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 6))
    first, units = rng.uniform(0, 500, (count, 4)), rng.uniform(5, 80, (count, 4))
    batched = BoxFilter(NOISE)
    batched.add(first, units)
    plain = [Plain(z, u) for z, u in zip(first, units, strict=True)]
    agree(batched, plain)
    for _ in range(6):
        dt = float(rng.uniform(0.001, 1.5))
        batched.predict(dt, units)
        for one, unit in zip(plain, units, strict=True):
            one.predict(dt, unit)
        agree(batched, plain)
        seen = np.flatnonzero(rng.random(count) < 0.6)
        measured = rng.uniform(0, 500, (len(seen), 4))
        batched.update(seen, measured, units[seen])
        for row, index in enumerate(seen):
            plain[index].update(measured[row], units[index])
        agree(batched, plain)


@pytest.mark.parametrize("parts", [2, 5])
def test_time_that_passes_in_parts_is_the_same_time(parts: int) -> None:
    units = np.full((1, 4), 20.0)
    whole, split = BoxFilter(NOISE), BoxFilter(NOISE)
    for one in (whole, split):
        one.add(np.full((1, 4), 100.0), units)
        one.predict(0.1, units)
        one.update(np.array([0]), np.full((1, 4), 104.0), units)
    whole.predict(0.8, units)
    for _ in range(parts):
        split.predict(0.8 / parts, units)
    np.testing.assert_allclose(split.state, whole.state, rtol=1e-9)


def test_different_times_for_different_tracks() -> None:
    units = np.full((3, 4), 20.0)
    batched = BoxFilter(NOISE)
    batched.add(np.arange(12.0).reshape(3, 4), units)
    batched.state[1] = 10.0
    batched.predict(np.array([[0.5], [2.0]]), units[:2], np.array([2, 0]))
    np.testing.assert_allclose(
        batched.position, np.arange(12.0).reshape(3, 4) + np.array([[20.0], [0.0], [5.0]])
    )


def test_learns_a_speed_whatever_the_frame_rate() -> None:
    for rate in (5, 30):
        batched = BoxFilter(NOISE)
        units = np.full((1, 4), 40.0)
        batched.add(np.zeros((1, 4)), units)
        for k in range(1, 2 * rate + 1):
            batched.predict(1 / rate, units)
            batched.update(np.array([0]), np.array([[60.0, -30.0, 0.0, 6.0]]) * k / rate, units)
        np.testing.assert_allclose(batched.velocity[0], [60.0, -30.0, 0.0, 6.0], atol=1.5)


def test_a_coordinate_that_does_not_move_has_no_speed() -> None:
    batched = BoxFilter(NOISE, (True, True, True, False))
    units = np.ones((1, 4))
    batched.add(np.ones((1, 4)), units)
    for _ in range(5):
        batched.predict(0.1, units)
        batched.update(np.array([0]), np.full((1, 4), 9.0), units)
    assert batched.velocity[0, 3] == 0.0
    assert batched.velocity[0, 0] > 1.0


def test_a_picture_that_moves_takes_the_tracks_along() -> None:
    batched = BoxFilter(NOISE)
    batched.add(np.array([[100.0, 50.0, 20.0, 40.0]]), np.full((1, 4), 20.0))
    batched.state[1, 0] = [10.0, 0.0, 2.0, 4.0]
    before = batched.state.copy()
    # A quarter turn, twice as large, and moved on.
    batched.transform(np.array([[0.0, -2.0, 7.0], [2.0, 0.0, -3.0]]))
    np.testing.assert_allclose(batched.position[0], [-93.0, 197.0, 40.0, 80.0])
    np.testing.assert_allclose(batched.velocity[0], [0.0, 20.0, 4.0, 8.0], atol=1e-12)
    np.testing.assert_allclose(batched.state[2:], before[2:] * 4.0)


def test_keep() -> None:
    batched = BoxFilter(NOISE)
    batched.add(np.arange(12.0).reshape(3, 4), np.ones((3, 4)))
    batched.keep(np.array([True, False, True]))
    assert len(batched) == 2
    assert batched.position[:, 0].tolist() == [0.0, 8.0]
