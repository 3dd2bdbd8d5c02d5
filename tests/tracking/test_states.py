"""Boxes to a filter's coordinates and back."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.tracking.states import XYAH, XYSR, XYWH, BoxState

BOXES = np.array([[10.0, 20.0, 40.0, 80.0], [-5.0, -5.0, 5.0, 0.0]])
every_state = pytest.mark.parametrize("state", [XYWH, XYAH, XYSR])


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (XYWH, [[25, 50, 30, 60], [0, -2.5, 10, 5]]),
        (XYAH, [[25, 50, 0.5, 60], [0, -2.5, 2, 5]]),
        (XYSR, [[25, 50, 1800, 0.5], [0, -2.5, 50, 2]]),
    ],
)
def test_there_and_back(state: BoxState, expected: list[list[float]]) -> None:
    coordinates = state.of_boxes(BOXES)
    np.testing.assert_allclose(coordinates, expected)
    np.testing.assert_allclose(state.to_boxes(coordinates), BOXES)


@every_state
def test_boxes_without_area_stay_finite(state: BoxState) -> None:
    flat = state.of_boxes(np.array([[3.0, 3.0, 3.0, 3.0], [9.0, 9.0, 1.0, 1.0]]))
    shrunk = flat - 10.0  # a filter may foresee a size below nothing
    for coordinates in (flat, shrunk):
        boxes = state.to_boxes(coordinates)
        assert np.isfinite(boxes).all()
        assert (boxes[:, 2:] > boxes[:, :2]).all()
        assert (state.units(coordinates) > 0).all()


@every_state
def test_noise_grows_with_the_box(state: BoxState) -> None:
    small, large = state.units(state.of_boxes(np.array([[0.0, 0.0, 20.0, 40.0], [0.0, 0.0, 40.0, 80.0]])))
    np.testing.assert_allclose(large[:2], 2 * small[:2])
