"""A heat map: where objects were, and for how long, over the picture."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from urllib.parse import quote

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, SinkError
from pipeline.messages import FrameHeader, ModelSpec, Result
from pipeline.sinks.base import Publication, Resume
from pipeline.sinks.picture import write_picture
from pipeline.sinks.records import label_of

__all__ = ["HeatmapSink"]

#: Objects were there since the frame before, but not for longer than this: nobody knows what was in a gap.
_MOST_GAP_NS = 5_000_000_000
#: How often the numbers are written, and the picture, in presentation time.
_SAVE_NS = 5_000_000_000
_DRAW_NS = 60_000_000_000
#: Longest side of the picture; of the frame kept for it too.
_MOST_SIDE = 960
#: Presence is spread over so many cells around each, for a foot point is known no better.
_SPREAD = 0.7
#: How strongly the hottest place covers the picture.
_OPAQUE = 0.75
#: Height of the scale, and its least width, in pixels.
_LEGEND = 44
_LEAST_LEGEND = 480
_PAPER = (250, 250, 250)
_INK = (40, 40, 40)


class _Numbers(msgspec.Struct):
    """What ``heatmap.json`` holds; it serves to go on after a kill, too.

    Attributes:
        source: Name of the source.
        columns: Cells across the frame.
        rows: Cells down.
        objects_s: Presence of all objects together, seconds.
        next_seq: First frame that is not in it.
        epoch: Epoch of the last frame in it; -1 for none.
        pts_ns: Presentation time of that frame.
        seconds: By row and column, from the top left: how long objects stood in that cell.
        schema: What this is.
    """

    source: str
    columns: int
    rows: int
    objects_s: float
    next_seq: int
    epoch: int
    pts_ns: int
    seconds: list[list[float]]
    schema: str = "framewire.heatmap/1"


class HeatmapSink:
    """Adds up for how long objects were in each place, and lays it over the last picture in colours.

    An object is where it stands: at the middle of the lower edge of its box. It counts for the time since the
    frame before, so neither the frame rate nor dropped frames matter; of a gap of more than 5 s only so much
    counts. Where objects are tracked, those count whose track is confirmed. Colours go by the square root of
    the time, as the scale below the picture says, so that a way is seen beside a bus stop.

    ``heatmap.json`` has the numbers. It is written every 5 s of presentation time, the picture every minute,
    and both at the end. After a kill the time that was not written counts for who is seen then.

    Args:
        path: The PNG; with several sources ``heatmap.png`` becomes ``heatmap-<source>.png``. The numbers lie
            beside it.
        sources: Names of all sources of the run.
        labels: Labels that count; None for all.
        columns: Cells across the frame; they are square.
        resume: Continue a run whose publisher was killed; otherwise old files are replaced.

    Raises:
        ConfigError: there are too few or too many columns.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sources: Sequence[str],
        labels: Collection[str] | None = None,
        columns: int = 96,
        resume: bool = False,
    ) -> None:
        if not 4 <= columns <= 512:
            raise ConfigError(
                f"a heat map of {columns} columns is not possible", hint="write 4 to 512, such as 96"
            )
        self._path = Path(path)
        self._several = len(sources) > 1
        self._sources = tuple(sources)
        self._only = None if labels is None else frozenset(labels)
        self._columns = columns
        self._resume = resume
        self._labels: tuple[str, ...] = ()
        self._maps: dict[str, _Map] = {}

    def open(self, spec: ModelSpec) -> Resume:
        """Look for the numbers of this run.

        Raises:
            ConfigError: the model does not know a label that counts.
            SinkError: the folder cannot be made, or files in it cannot be read or removed.
        """
        self._labels = spec.labels
        for label in sorted((self._only or frozenset()) - set(spec.labels)):
            raise ConfigError(
                f"heatmap.labels: the model does not know {label!r}",
                hint=f"use its labels, such as {', '.join(spec.labels[:5])}",
            )
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            for source in self._sources:
                self._map(source)
        except OSError as error:
            raise _error(self._path, error) from error
        return Resume()

    def write(self, item: Publication) -> None:
        """Add one frame.

        Raises:
            SinkError: the numbers or the picture cannot be written.
        """
        header, result = item.header, item.result
        if header is None or result is None or result.status != "ok" or result.lost:
            return
        heat = self._map(header.source)
        if header.seq < heat.next_seq:
            return
        heat.add(header, self._feet(result))
        try:
            if heat.due(header, "save", _SAVE_NS):
                bgr = item.picture()
                if bgr is not None:
                    heat.keep(bgr)
                heat.save()
            if heat.due(header, "draw", _DRAW_NS):
                heat.draw()
        except OSError as error:
            raise _error(heat.path, error) from error

    def close(self) -> list[str]:
        """Draw the maps and name them and their numbers; none for a source that had no frames.

        Raises:
            SinkError: one cannot be written.
        """
        files: list[str] = []
        for heat in self._maps.values():
            try:
                files += heat.close()
            except OSError as error:
                raise _error(heat.path, error) from error
        self._maps = {}
        return files

    def _map(self, source: str) -> _Map:
        heat = self._maps.get(source)
        if heat is None:
            path = self._path
            if self._several or source not in self._sources:
                path = path.with_name(f"{path.stem}-{quote(source, safe=' ')}{path.suffix}")
            heat = self._maps[source] = _Map(source, path, self._columns, self._resume)
        return heat

    def _feet(self, result: Result) -> NDArray[np.float64]:
        """Where the objects that count stand: (n, 2), shares of the frame's width and height."""
        found, header = result.detections, result.header
        counts = np.ones(len(found), np.bool_) if found.track_ids is None else found.track_ids >= 0
        if self._only is not None:
            names = [label_of(self._labels, class_id) for class_id in found.class_ids.tolist()]
            counts &= np.array([name in self._only for name in names], np.bool_)
        boxes = found.boxes_xyxy[counts].astype(np.float64)
        feet = np.column_stack([(boxes[:, 0] + boxes[:, 2]) / 2, boxes[:, 3]])
        shares: NDArray[np.float64] = feet / (max(header.width, 1), max(header.height, 1))
        return shares


class _Map:
    """The heat map of one source."""

    def __init__(self, source: str, path: Path, columns: int, resume: bool) -> None:
        self.path = path
        self.next_seq = 0
        self._source = source
        self._columns = columns
        self._seconds: NDArray[np.float64] | None = None
        self._objects_s = 0.0
        self._last = (-1, 0)  # epoch and time of the last frame
        self._done_ns: dict[str, int] = {}
        self._picture: NDArray[np.uint8] | None = None
        self._numbers = path.with_suffix(".json")
        if resume:
            self._load()
        else:
            for old in (path, self._numbers):
                old.unlink(missing_ok=True)

    def add(self, header: FrameHeader, feet: NDArray[np.float64]) -> None:
        """Objects were at these places since the frame before."""
        (epoch, last_ns), self._last = self._last, (header.epoch, header.pts_ns)
        self.next_seq = header.seq + 1
        if self._seconds is None:
            rows = max(1, round(self._columns * header.height / max(header.width, 1)))
            self._seconds = np.zeros((min(rows, 4 * self._columns), self._columns))
        if epoch != header.epoch or not len(feet):
            return
        since = min(max(header.pts_ns - last_ns, 0), _MOST_GAP_NS) / 1e9
        rows, columns = self._seconds.shape
        # A box may end beyond the frame's edge.
        cells = np.clip((feet * (columns, rows)).astype(np.int64), 0, (columns - 1, rows - 1))
        np.add.at(self._seconds, (cells[:, 1], cells[:, 0]), since)
        self._objects_s += since * len(feet)

    def due(self, header: FrameHeader, what: str, every_ns: int) -> bool:
        """Whether it is time for something again; at the first frame to save, so that there is a picture."""
        done = self._done_ns.get(what)
        if done is not None and 0 <= header.pts_ns - done < every_ns:
            return False
        self._done_ns[what] = header.pts_ns
        return done is not None or what == "save"

    def keep(self, bgr: NDArray[np.uint8]) -> None:
        """Remember a picture to draw on."""
        height, width = bgr.shape[:2]
        scale = _MOST_SIDE / max(height, width)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        self._picture = np.asarray(cv2.resize(bgr, size, interpolation=how), np.uint8)

    def save(self) -> None:
        """Write the numbers, whole or not at all."""
        if self._seconds is None:
            return
        rows, columns = self._seconds.shape
        numbers = _Numbers(
            self._source, columns, rows, round(self._objects_s, 3), self.next_seq, *self._last,
            seconds=self._seconds.round(3).tolist(),
        )  # fmt: skip
        scratch = self._numbers.with_name(f"{self._numbers.name}.tmp")
        scratch.write_bytes(msgspec.json.encode(numbers))
        scratch.replace(self._numbers)

    def draw(self) -> None:
        """Write the picture; one with a frame in it is not replaced by one without."""
        if self._seconds is not None and (self._picture is not None or not self.path.exists()):
            write_picture(self.path, _drawn(self._seconds, self._picture, self._source, self._objects_s))

    def close(self) -> list[str]:
        """Write both, and name them."""
        self.save()
        self.draw()
        return [str(path) for path in (self.path, self._numbers) if path.exists()]

    def _load(self) -> None:
        try:
            numbers = msgspec.json.decode(self._numbers.read_bytes(), type=_Numbers)
            seconds = np.array(numbers.seconds, np.float64)
        except FileNotFoundError:
            return
        except (msgspec.DecodeError, ValueError) as error:
            raise SinkError(
                f"{self._numbers} is not a heat map of framewire: {error}",
                hint="name another file, or move this one away",
            ) from error
        if numbers.source == self._source and seconds.shape == (numbers.rows, self._columns):
            self._seconds, self._objects_s = seconds, numbers.objects_s
            self.next_seq, self._last = numbers.next_seq, (numbers.epoch, numbers.pts_ns)


def _drawn(
    seconds: NDArray[np.float64], picture: NDArray[np.uint8] | None, source: str, objects_s: float
) -> NDArray[np.uint8]:
    """The map over a picture, with its scale below."""
    rows, columns = seconds.shape
    if picture is None:
        scale = _MOST_SIDE / max(rows, columns)
        picture = np.full((round(rows * scale), round(columns * scale), 3), 127, np.uint8)
    height, width = picture.shape[:2]
    spread = cv2.GaussianBlur(seconds.astype(np.float32), (0, 0), _SPREAD, borderType=cv2.BORDER_REFLECT)
    most = float(spread.max())
    shares = np.sqrt(spread / most) if most > 0 else np.zeros_like(spread)
    wide = np.clip(cv2.resize(shares, (width, height), interpolation=cv2.INTER_CUBIC), 0.0, 1.0)
    colours = cv2.applyColorMap((wide * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
    # Where nobody was the picture stays as it is; a little presence is seen already.
    opaque = (np.minimum(wide * 2.5, 1.0) * _OPAQUE)[..., None]
    over = (picture * (1 - opaque) + colours * opaque).astype(np.uint8)
    legend = _legend(max(width, _LEAST_LEGEND), most, source, objects_s, width / columns)
    whole = np.full((height + _LEGEND, legend.shape[1], 3), _PAPER, np.uint8)
    whole[:height, :width], whole[height:] = over, legend
    return whole


def _legend(width: int, most: float, source: str, objects_s: float, cell: float) -> NDArray[np.uint8]:
    """A strip with the colours, the seconds that they stand for, and what was counted."""
    strip = np.full((_LEGEND, width, 3), _PAPER, np.uint8)
    font, size = cv2.FONT_HERSHEY_SIMPLEX, 0.42
    bar = width * 2 // 5
    ramp = np.linspace(0, 255, bar).astype(np.uint8)[None].repeat(12, axis=0)
    strip[6:18, 8 : 8 + bar] = cv2.applyColorMap(ramp, cv2.COLORMAP_TURBO)
    if most > 0:
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            text = f"{most * share**2:.3g}" + (" s" if share == 1.0 else "")
            wide = cv2.getTextSize(text, font, size, 1)[0][0]
            x = 8 + round((bar - 1) * share)
            cv2.line(strip, (x, 16), (x, 21), _INK, 1)
            left = min(max(x - wide // 2, 4), width - wide)
            cv2.putText(strip, text, (left, 35), font, size, _INK, 1, cv2.LINE_AA)
    cells = f"in a spot of {cell:.0f} x {cell:.0f} px"
    for y, text in ((17, cells), (35, f"{source}: {objects_s:.0f} s of objects in all")):
        ascii_text = text.encode("ascii", "replace").decode()  # OpenCV 4 draws ASCII only
        cv2.putText(strip, ascii_text, (bar + 40, y), font, size, _INK, 1, cv2.LINE_AA)
    return strip


def _error(path: Path, error: OSError) -> SinkError:
    return SinkError(
        f"cannot write {path}: {error.strerror or error}",
        hint="free space there, or name a folder that you may write",
    )
