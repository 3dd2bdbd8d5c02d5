"""A contact sheet: the best frames of a run, spread evenly over it, each with its objects and a caption."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, SinkError
from pipeline.messages import Attribute, Classes, Detections, ModelSpec
from pipeline.sinks.base import Publication, Resume
from pipeline.sinks.records import label_of
from pipeline.vision.draw import draw, warm_up

__all__ = ["ContactSheetSink"]

_GAP = 8
_CAPTION = 30
_PAPER = (250, 250, 250)
_INK = (40, 40, 40)


@dataclass(frozen=True, slots=True)
class _Tile:
    source: str
    index: int
    bgr: NDArray[np.uint8]
    detections: Detections
    classes: Classes | None
    attributes: tuple[Attribute, ...]
    time: str
    worth: float


class ContactSheetSink:
    """Keep good frames spread over the run, whose length is unknown, and lay them out at its end.

    Of every k frames of each source the one that shows most is kept (by the sum of its squared confidences,
    the earliest of equals); when more than twice as many are kept as the sheet holds, k doubles and of two
    neighbours the better one stays. Frames are scaled down when kept and drawn at the end, so the sheet
    costs little. The tiles live in memory: after a restart of the publisher it shows what came since.

    Args:
        path: The PNG.
        columns: Tiles across.
        rows: Tiles down, at most.
        width: Width of the sheet in pixels.
        resume: Accepted as by the other file sinks; without it an old sheet is removed at once.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        columns: int = 3,
        rows: int = 4,
        width: int = 1600,
        resume: bool = False,
    ) -> None:
        if columns < 1 or rows < 1 or width < columns * 64:
            raise ConfigError(
                f"a contact sheet of {columns} x {rows} tiles in {width} pixels is not possible",
                hint="write columns: 3, rows: 4, width: 1600",
            )
        self._path = Path(path)
        self._columns = columns
        self._rows = rows
        self._width = width
        self._tile_width = (width - _GAP * (columns + 1)) // columns
        self._resume = resume
        self._labels: tuple[str, ...] = ()
        self._tiles: dict[tuple[str, int], _Tile] = {}  # by source and window of `_every` frames
        self._every = 1
        self._seen: Counter[str] = Counter()

    def open(self, spec: ModelSpec) -> Resume:
        """Get ready.

        Raises:
            SinkError: the folder cannot be made, or an old sheet cannot be removed.
        """
        self._labels = spec.labels
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if not self._resume:
                self._path.unlink(missing_ok=True)
        except OSError as error:
            raise self._error(error.strerror or str(error)) from error
        warm_up()
        return Resume()

    def write(self, item: Publication) -> None:
        """Keep the frame if it is the best of its window so far."""
        if item.header is None or item.result is None:
            return
        index = self._seen[item.header.source]
        self._seen[item.header.source] += 1
        found = item.result.detections
        classes = item.result.classes
        worth = float((found.scores**2).sum()) + sum(
            score**2 for score in (classes.scores if classes else ())
        )
        window = (item.header.source, index // self._every)
        if window in self._tiles and self._tiles[window].worth >= worth:
            return
        bgr = item.picture()
        if bgr is None:
            return
        height, width = bgr.shape[:2]
        # A tall picture is bounded by a square, so that no tile dwarfs the others.
        scale = self._tile_width / max(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        small = np.asarray(cv2.resize(bgr, size, interpolation=how), dtype=np.uint8)
        factor = np.array([size[0] / width, size[1] / height] * 2, np.float32)
        moved = Detections(found.boxes_xyxy * factor, found.scores, found.class_ids, found.track_ids)
        time = _clock(item.header.pts_ns)
        self._tiles[window] = _Tile(
            item.header.source, index, small, moved, classes, item.result.attributes, time, worth
        )
        self._thin()

    def close(self) -> list[str]:
        """Draw the sheet and name it; none when no frame had pixels.

        Raises:
            SinkError: it cannot be written.
        """
        if not self._tiles:
            return [str(self._path)] if self._path.exists() else []
        ok, png = cv2.imencode(".png", self._sheet())
        if not ok:
            raise self._error("the picture cannot be encoded")
        scratch = self._path.with_name(f"{self._path.name}.tmp")
        try:
            scratch.write_bytes(png.tobytes())
            scratch.replace(self._path)
        except OSError as error:
            raise self._error(error.strerror or str(error)) from error
        self._tiles = {}
        return [str(self._path)]

    def _thin(self) -> None:
        limit = 2 * self._columns * self._rows
        # One tile of every source stays, so with very many sources more than the limit may stay.
        while len(self._tiles) > limit and any(window for _, window in self._tiles):
            self._every *= 2
            tiles, self._tiles = self._tiles, {}
            for tile in sorted(tiles.values(), key=lambda tile: tile.index):
                window = (tile.source, tile.index // self._every)
                if window not in self._tiles or tile.worth > self._tiles[window].worth:
                    self._tiles[window] = tile

    def _sheet(self) -> NDArray[np.uint8]:
        tiles = sorted(self._tiles.values(), key=lambda tile: (tile.source, tile.index))
        count = min(len(tiles), self._columns * self._rows)
        edges = np.linspace(0, len(tiles), count + 1).round().astype(int).tolist()
        parts = [tiles[first:end] for first, end in pairwise(edges)]
        chosen = [max(part, key=lambda tile: tile.worth) for part in parts]
        high = max(tile.bgr.shape[0] for tile in chosen)
        rows = -(-count // self._columns)
        step_x, step_y = self._tile_width + _GAP, high + _CAPTION + _GAP
        sheet = np.full((rows * step_y + _GAP, self._width, 3), _PAPER, np.uint8)
        for number, tile in enumerate(chosen):
            x, y = _GAP + number % self._columns * step_x, _GAP + number // self._columns * step_y
            drawn = draw(tile.bgr, tile.detections, self._labels, tile.classes, tile.attributes)
            left = x + (self._tile_width - drawn.shape[1]) // 2
            sheet[y : y + drawn.shape[0], left : left + drawn.shape[1]] = drawn
            self._write_caption(sheet, tile, x + 2, y + high + 20)
        return sheet

    def _write_caption(self, sheet: NDArray[np.uint8], tile: _Tile, x: int, y: int) -> None:
        counts = Counter(label_of(self._labels, class_id) for class_id in tile.detections.class_ids.tolist())
        objects = ", ".join(f"{n} {label}" for label, n in counts.most_common()) or "no objects"
        if tile.classes is not None:
            objects = ", ".join(label_of(self._labels, class_id) for class_id in tile.classes.class_ids[:1])
        # OpenCV 4 draws ASCII only.
        text = f"{tile.source}  {tile.time}  {objects}".encode("ascii", "replace").decode()
        font, scale = cv2.FONT_HERSHEY_SIMPLEX, 0.5
        while text and cv2.getTextSize(text, font, scale, 1)[0][0] > self._tile_width - 4:
            text = f"{text.removesuffix('...')[:-1]}..." if len(text) > 4 else ""
        cv2.putText(sheet, text, (x, y), font, scale, _INK, 1, cv2.LINE_AA)

    def _error(self, why: str) -> SinkError:
        return SinkError(
            f"cannot write {self._path}: {why}", hint="free space there, or name a folder that you may write"
        )


def _clock(pts_ns: int) -> str:
    tenths = round(pts_ns / 1e8)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest / 10:04.1f}" if hours else f"{minutes:02d}:{rest / 10:04.1f}"
