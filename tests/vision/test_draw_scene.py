from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.analytics.areas import Segment, to_pixels
from pipeline.messages import Ground, Line, Mask, Scene, Zone
from pipeline.vision.draw_scene import draw_scene, grid_margin
from pipeline.vision.palette import PALETTE

SQUARE = ((0.25, 0.25), (0.75, 0.25), (0.75, 0.75), (0.25, 0.75))
EVERYTHING = Scene(
    zones={"yard": Zone(SQUARE), "far": Zone(((2000, 0), (2100, 0), (2000, 100)), coordinates="pixels")},
    lines={"gate": Line((0.1, 0.9), (0.9, 0.9)), "point": Line((0.5, 0.5), (0.5001, 0.5))},
    masks={"tree": Mask(((0, 0), (0.2, 0), (0, 0.2)), hides="both")},
    ground=Ground(((0.4, 0.4), (0.6, 0.4), (0.9, 0.9), (0.1, 0.9)), ((0, 0), (5, 0), (5, 20), (0, 20))),
)


def blank(width: int = 640, height: int = 360, level: int = 90) -> NDArray[np.uint8]:
    return np.full((height, width, 3), level, np.uint8)


def differ(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[Any]:
    """Pixels in which two pictures differ, (n, 2) rows of x and y."""
    return np.argwhere((one != other).any(axis=2))[:, ::-1]


@pytest.mark.parametrize("size", [(640, 360), (64, 48), (360, 640), (3840, 2160)])
def test_any_size(size: tuple[int, int]) -> None:
    frame = blank(*size)
    drawn = draw_scene(frame, EVERYTHING, {"yard": 3})
    assert drawn.shape == frame.shape
    assert not np.shares_memory(drawn, frame)
    assert (frame == 90).all(), "the frame itself is left alone"
    assert len(differ(drawn, frame)) > 0.2 * frame.size / 3


def test_nothing_drawn_is_the_frame() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    assert np.array_equal(draw_scene(frame, Scene()), frame)
    assert np.array_equal(draw_scene(np.asfortranarray(frame)[::-1], Scene(moving=True)), frame[::-1])


@pytest.mark.parametrize("coordinates", ["normalized", "pixels"])
def test_a_zone_is_tinted_with_its_colour(coordinates: Any) -> None:
    corners = SQUARE if coordinates == "normalized" else tuple((x * 640, y * 360) for x, y in SQUARE)
    frame = blank()
    drawn = draw_scene(frame, Scene(zones={"yard": Zone(corners, coordinates=coordinates)}))
    assert np.abs(drawn[200, 320] - (np.array(PALETTE[0]) * 0.22 + 90 * 0.78)).max() <= 1
    changed = differ(drawn, frame)
    low, high = changed.min(axis=0), changed.max(axis=0)
    assert np.abs(low - (160, 90)).max() <= 3, "to its edge, and a line's width"
    assert np.abs(high - (480, 270)).max() <= 3


def test_a_mask_is_dark() -> None:
    drawn = draw_scene(blank(), Scene(masks={"tree": Mask(SQUARE)}))
    inside = drawn[150:260, 170:470]
    assert np.median(inside) < 60
    assert (inside > 150).any(), "and hatched"


def test_counts_change_a_name_and_nothing_else() -> None:
    scene = Scene(zones={"yard": Zone(SQUARE)})
    without, some, more = (
        draw_scene(blank(), scene, counts) for counts in (None, {"yard": 7}, {"yard": 12, "x": 1})
    )
    assert len(differ(without, some)) > 0
    for changed in (differ(some, more), differ(without, some)):
        assert len(changed) < 1500
        assert np.ptp(changed, axis=0).max() < 120


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ((0.2, 0.5), (0.8, 0.5)),
        ((0.8, 0.5), (0.2, 0.5)),
        ((0.5, 0.2), (0.5, 0.8)),
        ((0.7, 0.2), (0.3, 0.8)),
        ((0.2, 0.3), (0.7, 0.9)),
        ((0.45, 0.5), (0.55, 0.55)),
    ],
)
@pytest.mark.parametrize("which", ["left", "right"])
def test_each_name_stands_on_its_own_side(start: Any, end: Any, which: str) -> None:
    line: dict[str, Any] = {"left": "aa", "right": "bb"}
    one = draw_scene(blank(), Scene(lines={"gate": Line(start, end, **line)}))
    other = draw_scene(blank(), Scene(lines={"gate": Line(start, end, **line | {which: "XX"})}))
    segment = Segment(*to_pixels((start, end), "normalized", 640, 360))
    sides = {segment.left_of((float(x), float(y))) > 0 for x, y in differ(one, other)}
    assert sides == {which == "left"}, "as crossings are judged"


@pytest.mark.parametrize(
    ("start", "end", "outside"),
    [
        ((0.1, 0.995), (0.9, 0.995), "right"),
        ((0.9, 0.005), (0.1, 0.005), "right"),
        ((0.999, 0.1), (0.999, 0.9), "left"),
        ((0.001, 0.1), (0.001, 0.9), "right"),
    ],
)
def test_a_side_without_room_is_not_named_on_the_other(start: Any, end: Any, outside: str) -> None:
    names: dict[str, Any] = {"left": "a", "right": "a"}
    one = draw_scene(blank(), Scene(lines={"gate": Line(start, end, **names)}))
    other = draw_scene(blank(), Scene(lines={"gate": Line(start, end, **names | {outside: "XXXX"})}))
    changed = differ(one, other)
    middle = (np.array(start) + end) / 2 * (640, 360)
    assert len(changed) > 0, "it is said with the name of the line"
    assert np.abs(changed.mean(axis=0) - middle).max() < 120


def test_the_ruler_is_around_the_frame() -> None:
    frame = blank()
    ruled = grid_margin(frame)
    margin = (ruled.shape[0] - 360) // 2
    assert ruled.shape == (360 + 2 * margin, 640 + 2 * margin, 3)
    inside = ruled[margin : margin + 360, margin : margin + 640]
    columns = np.flatnonzero((inside[5:15, :, 0] > 100).all(axis=0))
    assert set(columns) == {64 * step for step in range(1, 10)}, "a line at each tenth"
    assert (inside[10, 10] == 90).all(), "and the picture between them"
    for side in (ruled[:margin], ruled[-margin:], ruled[:, :margin], ruled[:, -margin:]):
        assert (side == 255).any(), "figures on all sides"
