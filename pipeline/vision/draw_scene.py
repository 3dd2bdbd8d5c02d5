"""Zones, lines, masks and calibration on a frame: nobody has to guess which side of a line is which."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.messages import Coordinates, Ground, Line, Mask, Point, Scene
from pipeline.vision.palette import PALETTE

__all__ = ["draw_scene", "grid_margin"]

Colour = tuple[int, int, int]
#: x1, y1, x2, y2 in pixels.
_Rect = tuple[int, int, int, int]

_WHITE: Colour = (255, 255, 255)
_GREY: Colour = (170, 170, 170)
_DARK: Colour = (24, 24, 24)
#: Share of a zone's own colour in its area, and of dark in that of a mask.
_TINT, _SHADE = 0.22, 0.6
_FONT = cv2.FONT_HERSHEY_SIMPLEX
# Luminance above which black text reads better than white: ITU-R BT.601 weights, mid-grey.
_LIGHT = 140


def draw_scene(
    bgr: NDArray[np.uint8], scene: Scene, counts: Mapping[str, int] | None = None
) -> NDArray[np.uint8]:
    """Draw what an operator has drawn on a copy of a frame.

    Zones are tinted and named; a line runs from A to B, with an arrow to each side and that side's name at
    its tip; masks are dark and hatched; the calibration is a dashed outline with metres at its corners.
    All that stays the same is drawn once for each scene and size of frame, and laid over from then on.

    Args:
        bgr: The frame, uint8 (h, w, 3) BGR; not changed.
        scene: What is drawn for its source.
        counts: Objects in each zone, by name, written behind the zone's name.

    Returns:
        uint8 (h, w, 3) BGR, memory of its own.
    """
    picture = np.array(bgr, order="C")
    height, width = picture.shape[:2]
    sheet = _sheet(_Same(scene), width, height)
    for tint in sheet.tints:
        tint.lay_over(picture)
    picture.reshape(-1, 3)[sheet.at] = sheet.pixels
    pen = _Pen(picture, sheet.size)
    for name, (at, colour) in sheet.names.items():
        count = (counts or {}).get(name)
        pen.write(name if count is None else f"{name}: {count}", at, colour)
    return picture


def grid_margin(bgr: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A frame with a margin around it in which coordinates can be read off, and a faint grid over it.

    Normalised coordinates in steps of 0.1: x above and below, y at both sides.

    Args:
        bgr: The frame, uint8 (h, w, 3) BGR; not changed.

    Returns:
        uint8 (h + 2 m, w + 2 m, 3) BGR: the frame begins at (m, m).
    """
    height, width = bgr.shape[:2]
    size = _size_for(width, height)
    (wide, tall), base = cv2.getTextSize("0.5", _FONT, size.scale, size.thin)
    margin = wide + 4 * size.pad
    sheet = np.full((height + 2 * margin, width + 2 * margin, 3), _DARK, np.uint8)
    lines = np.array(bgr, order="C")
    for step in range(1, 10):
        x, y = round(width * step / 10), round(height * step / 10)
        cv2.line(lines, (x, 0), (x, height), _WHITE, size.thin)
        cv2.line(lines, (0, y), (width, y), _WHITE, size.thin)
    sheet[margin : margin + height, margin : margin + width] = cv2.addWeighted(bgr, 0.65, lines, 0.35, 0)
    for step in range(11):
        text = f"{step / 10:.1f}" if 0 < step < 10 else str(step // 10)
        (wide, _), _ = cv2.getTextSize(text, _FONT, size.scale, size.thin)
        x, y = margin + round(width * step / 10), margin + round(height * step / 10)
        for top in (margin - 2 * size.pad, margin + height + 2 * size.pad + tall):
            _text(sheet, text, (x - wide // 2, top), _WHITE, size)
        for left in (margin - 2 * size.pad - wide, margin + width + 2 * size.pad):
            _text(sheet, text, (left, y + tall // 2), _WHITE, size)
        for one, other in (
            ((x, margin - size.pad), (x, margin)),
            ((x, margin + height), (x, margin + height + size.pad)),
            ((margin - size.pad, y), (margin, y)),
            ((margin + width, y), (margin + width + size.pad, y)),
        ):
            cv2.line(sheet, one, other, _WHITE, size.thin)
    _text(sheet, "x", (margin + width // 2 + 3 * size.pad + wide, margin - 2 * size.pad), _WHITE, size)
    _text(sheet, "y", (margin - 2 * size.pad - wide, margin + height // 2 + 2 * tall + base), _WHITE, size)
    return sheet


@dataclass(frozen=True, slots=True)
class _Size:
    """How large things are drawn, pixels."""

    scale: float
    thin: int
    pad: int
    line: int
    arrow: int


def _size_for(width: int, height: int) -> _Size:
    short = min(width, height)
    return _Size(
        scale=min(max(short / 900, 0.4), 2.4),
        thin=max(1, round(short / 500)),
        pad=max(3, round(short / 150)),
        line=max(2, round(short / 240)),
        arrow=max(16, round(short / 14)),
    )


class _Same:
    """A scene as a key: mappings cannot be hashed, and the same scene comes with every frame."""

    __slots__ = ("scene",)

    def __init__(self, scene: Scene) -> None:
        self.scene = scene

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.scene is other.scene

    def __hash__(self) -> int:
        return id(self.scene)


@dataclass(slots=True)
class _Tint:
    """An area whose pixels go towards one colour: a table of values, within the rectangle that holds it."""

    rect: _Rect
    table: NDArray[np.uint8]
    where: NDArray[np.uint8]

    def lay_over(self, picture: NDArray[np.uint8]) -> None:
        x1, y1, x2, y2 = self.rect
        part = picture[y1:y2, x1:x2]
        cv2.copyTo(cv2.LUT(part, self.table), self.where, part)


class _Pen:
    """Writes names so that they do not lie over each other, and stay in the picture."""

    def __init__(self, picture: NDArray[np.uint8], size: _Size) -> None:
        self.picture = picture
        self.size = size
        self.taken: list[_Rect] = []

    def room(self, text: str) -> tuple[int, int]:
        """Width and height of a text with its ground."""
        (width, height), base = cv2.getTextSize(text, _FONT, self.size.scale, self.size.thin)
        return width + 2 * self.size.pad, height + base + self.size.pad

    def place(self, text: str, wanted: Sequence[Point]) -> tuple[int, int]:
        """Top left corner for a text: of the wanted middles that where least lies already, best first."""
        width, height = self.room(text)
        tall, wide = self.picture.shape[:2]
        corners = [
            (
                round(min(max(x - width / 2, 0), max(wide - width, 0))),
                round(min(max(y - height / 2, 0), max(tall - height, 0))),
            )
            for x, y in wanted
        ]
        best = min(corners, key=lambda at: self._covered((*at, at[0] + width, at[1] + height)))
        self.taken.append((*best, best[0] + width, best[1] + height))
        return best

    def write(self, text: str, at: tuple[int, int], colour: Colour) -> None:
        """Write a text on a ground of a colour, its top left corner at a point."""
        width, height = self.room(text)
        base = cv2.getTextSize(text, _FONT, self.size.scale, self.size.thin)[1]
        cv2.rectangle(self.picture, at, (at[0] + width - 1, at[1] + height - 1), colour, -1)
        foot = (at[0] + self.size.pad, at[1] + height - base - self.size.pad // 4)
        _text(self.picture, text, foot, _on(colour), self.size)

    def _covered(self, rect: _Rect) -> int:
        return sum(
            max(0, min(rect[2], one[2]) - max(rect[0], one[0]))
            * max(0, min(rect[3], one[3]) - max(rect[1], one[1]))
            for one in self.taken
        )


class _Sheet:
    """All that stays the same from frame to frame: tints, and the pixels that are drawn upon.

    Args:
        scene: What is drawn.
        width: Width of the frames.
        height: Their height.
    """

    def __init__(self, scene: Scene, width: int, height: int) -> None:
        self.size = _size_for(width, height)
        self._frame = (width, height)
        self._ink = np.zeros((height, width, 3), np.uint8)
        self._inked = np.zeros((height, width), np.uint8)
        self._pen = _Pen(self._ink, self.size)
        self.tints: list[_Tint] = []
        self.names: dict[str, tuple[tuple[int, int], Colour]] = {}
        colours = [PALETTE[index % len(PALETTE)] for index in range(len(scene.zones) + len(scene.lines))]
        zones = {name: self._pixels(zone.polygon, zone.coordinates) for name, zone in scene.zones.items()}
        for polygon, colour in zip(zones.values(), colours, strict=False):
            self._tint(polygon, colour, _TINT)
            self._stroke(polygon, colour, closed=True)
        for name, mask in scene.masks.items():
            self._mask(name, mask)
        if scene.ground is not None:
            self._ground(scene.ground)
        for (name, line), colour in zip(scene.lines.items(), colours[len(zones) :], strict=True):
            self._line(name, line, colour)
        for (name, polygon), colour in zip(zones.items(), colours, strict=False):
            room = f"{name}: 00"  # a count of two digits, so that the name stays where it is
            self.names[name] = (self._pen.place(room, _inside(polygon, self._pen, room)), colour)
        at = np.flatnonzero(self._inked)
        self.at, self.pixels = at, self._ink.reshape(-1, 3)[at]
        del self._ink, self._inked, self._pen  # of a 4K frame that would be 33 MB for each source

    def _pixels(self, points: Sequence[Point], coordinates: Coordinates) -> NDArray[np.int32]:
        """Points in whole pixels, int32 (n, 2)."""
        across, down = self._frame if coordinates == "normalized" else (1, 1)
        return np.array([(round(x * across), round(y * down)) for x, y in points], np.int32)

    def _tint(self, polygon: NDArray[np.int32], colour: Colour, share: float) -> None:
        width, height = self._frame
        x1, y1 = np.clip(polygon.min(axis=0), 0, (width, height)).tolist()
        x2, y2 = np.clip(polygon.max(axis=0) + 1, 0, (width, height)).tolist()
        if x1 >= x2 or y1 >= y2:  # outside of the picture
            return
        where = np.zeros((y2 - y1, x2 - x1), np.uint8)
        cv2.fillPoly(where, [polygon - (x1, y1)], 255)
        values = np.arange(256)[:, None] * (1 - share) + np.array(colour) * share
        self.tints.append(_Tint((x1, y1, x2, y2), values.round().astype(np.uint8).reshape(1, 256, 3), where))

    def _stroke(self, points: NDArray[np.int32], colour: Colour, *, closed: bool = False) -> None:
        """A line with a dark rim, which shows on any ground."""
        thick = self.size.line
        cv2.polylines(self._ink, [points], closed, _DARK, thick + 2)
        cv2.polylines(self._inked, [points], closed, 255, thick + 2)
        cv2.polylines(self._ink, [points], closed, colour, thick, cv2.LINE_AA)

    def _name(self, text: str, wanted: Sequence[Point], colour: Colour) -> None:
        at = self._pen.place(text, wanted)
        self._pen.write(text, at, colour)
        width, height = self._pen.room(text)
        cv2.rectangle(self._inked, at, (at[0] + width - 1, at[1] + height - 1), 255, -1)

    def _mask(self, name: str, mask: Mask) -> None:
        polygon = self._pixels(mask.polygon, mask.coordinates)
        self._tint(polygon, _DARK, _SHADE)
        width, height = self._frame
        inside, hatch = np.zeros((2, height, width), np.uint8)
        cv2.fillPoly(inside, [polygon], 255)
        for start in range(-height, width, 5 * self.size.pad):
            cv2.line(hatch, (start, height), (start + height, 0), 255, self.size.thin)
        hatch &= inside
        self._ink[hatch > 0] = _GREY
        self._inked |= hatch
        self._stroke(polygon, _GREY, closed=True)
        text = f"{name}: hides {mask.hides}"
        self._name(text, _inside(polygon, self._pen, text), _GREY)

    def _ground(self, ground: Ground) -> None:
        points = self._pixels(ground.points, ground.coordinates)
        for one, other in zip(points, np.roll(points, -1, axis=0), strict=True):
            steps = max(1, round(math.dist(one, other) / (4 * self.size.line + 4)))
            for step in range(0, steps, 2):
                ends = [one + (other - one) * part / steps for part in (step, min(step + 1, steps))]
                self._stroke(np.array(ends).round().astype(np.int32), _WHITE)
        middle = points.mean(axis=0)
        for point, (x, y) in zip(points, ground.metres, strict=True):
            text = f"{x:g}, {y:g} m"
            away = np.sign(point - middle) * (np.array(self._pen.room(text)) / 2 + self.size.line)
            self._name(text, [(point + away).tolist(), (point - away).tolist()], _WHITE)

    def _line(self, name: str, line: Line, colour: Colour) -> None:
        a, b = self._pixels((line.start, line.end), line.coordinates).astype(np.float64)
        length = max(math.dist(a, b), 1.0)
        along = (b - a) / length
        left = np.array([along[1], -along[0]])  # y grows downwards
        reach = min(float(self.size.arrow), max(length / 2.5, self.size.arrow / 2))
        self._stroke(np.array([a, b]).round().astype(np.int32), colour)
        outside = ""
        for share, side, text in ((0.35, left, line.left), (0.65, -left, line.right)):
            foot = a + along * length * share
            tip = foot + side * reach
            room = np.array(self._pen.room(text)) / 2
            # So far from the tip that it lies on the edge of the name's ground.
            away = float(np.min(room / np.maximum(np.abs(side), 1e-6))) + self.size.pad
            beyond = tip + side * away
            # At the edge of the picture the name would be pushed over the line, and say the contrary.
            if np.dot(np.clip(beyond, room, np.array(self._frame) - room) - foot, side) < self.size.pad:
                outside = f" (outside: {text})"
                continue
            self._arrow(foot - side * reach / 2, tip, colour)
            self._name(text, [(beyond + along * room * shift).tolist() for shift in (0, -2, 2)], colour)
        for letter, end in (("A", a), ("B", b)):
            self._end(letter, end, colour)
            x, y = end.round().astype(int).tolist()
            self._pen.taken.append((x - 10, y - 10, x + 10, y + 10))
        name += outside
        room = np.array(self._pen.room(name)) / 2 + 2 * self.size.pad
        spots = [(a + b) / 2, a - along * room * 1.5, b + along * room * 1.5]
        self._name(name, [spot.tolist() for spot in spots], colour)

    def _arrow(self, start: NDArray[np.float64], tip: NDArray[np.float64], colour: Colour) -> None:
        one, other = start.round().astype(int).tolist(), tip.round().astype(int).tolist()
        for image, ink, thick in (
            (self._ink, _DARK, self.size.line + 2),
            (self._inked, (255, 255, 255), self.size.line + 2),
            (self._ink, colour, self.size.line),
        ):
            cv2.arrowedLine(image, one, other, ink, thick, tipLength=0.3)

    def _end(self, letter: str, at: NDArray[np.float64], colour: Colour) -> None:
        (width, height), _ = cv2.getTextSize(letter, _FONT, self.size.scale, self.size.thin)
        x, y = at.round().astype(int).tolist()
        radius = height // 2 + self.size.pad
        cv2.circle(self._inked, (x, y), radius + 1, 255, -1)
        cv2.circle(self._ink, (x, y), radius + 1, _DARK, -1)
        cv2.circle(self._ink, (x, y), radius, colour, -1, cv2.LINE_AA)
        _text(self._ink, letter, (x - width // 2, y + height // 2), _on(colour), self.size)


@lru_cache(maxsize=32)
def _sheet(same: _Same, width: int, height: int) -> _Sheet:
    return _Sheet(same.scene, width, height)


def _inside(polygon: NDArray[np.int32], pen: _Pen, text: str) -> list[Point]:
    """Middles of a text in the area: near its corners, the uppermost first, then in its middle."""
    middle = polygon.mean(axis=0)
    room = np.array(pen.room(text)) / 2 + pen.size.pad
    order = np.lexsort((polygon[:, 0], polygon[:, 1]))
    near = [polygon[index] + np.sign(middle - polygon[index]) * room for index in order]
    shape = polygon.reshape(-1, 1, 2)
    spots = [(float(x), float(y)) for x, y in (*near, middle)]
    good = [spot for spot in spots if cv2.pointPolygonTest(shape, spot, False) > 0]
    return good or [spots[-1]]


def _on(colour: Colour) -> Colour:
    """Black or white, whichever reads better on a colour."""
    blue, green, red = colour
    return _DARK if 0.299 * red + 0.587 * green + 0.114 * blue > _LIGHT else _WHITE


def _text(picture: NDArray[np.uint8], text: str, foot: tuple[int, int], colour: Colour, size: _Size) -> None:
    cv2.putText(picture, text, foot, _FONT, size.scale, colour, size.thin, cv2.LINE_AA)
