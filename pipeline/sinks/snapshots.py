"""The best picture of each object, as a file that its events name."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from pathlib import Path
from urllib.parse import quote

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SinkError
from pipeline.messages import Result
from pipeline.sinks.picture import write_picture

__all__ = ["Snapshots"]

#: Folder of the snapshots in the run's folder.
_FOLDER = "snapshots"
#: What there is of a source, beside its pictures: for a publisher that goes on after a kill.
_STATE = ".best.json"
#: A picture replaces another when it is so much better, and not sooner than this after it.
_BETTER = 1.15
_PAUSE_NS = 500_000_000
#: What is around an object, as a share of its box; least and largest side of a picture, in pixels.
_AROUND = 0.2
_LEAST_SIDE = 160
_MOST_SIDE = 1280
#: A box that ends so near to the frame's edge, as a share of the frame, is cut by it.
_EDGE = 0.004
#: What is cut is worth so much; so is what somebody else hides.
_CUT = 0.4
_HIDDEN = 0.4
#: Share of the frame's area, and variance of the Laplacian at a size of 128, that are worth half of all.
_HALF_AREA = 0.02
_HALF_SHARP = 150.0
_SHARP_SIDE = 128
#: Sharpness makes up to this share of the worth.
_SHARP_SHARE = 0.5
#: Objects of a source that are remembered, if nobody ever says that they have gone.
_MOST_OBJECTS = 4096

Picture = Callable[[], NDArray[np.uint8] | None]


class _Best(msgspec.Struct):
    """The best picture of an object so far: its worth, and the time of its frame."""

    worth: float
    at_ns: int


class Snapshots:
    """Writes ``snapshots/<source>/<track_id>.jpg`` for each object with a confirmed track.

    The first comes with the first frame of the track. A later one takes its place when it is 15 % better, and
    half a second of presentation time or more after it; so the file is always there and, however the process
    ends, of the best moment but for the last half second. Better is larger, sharper (variance of the
    Laplacian: Pertuz, Puig, Garcia, "Analysis of focus measure operators for shape-from-focus", Pattern
    Recognition 46(5), 2013), of a higher score, not cut by the frame's edge and not behind other objects.

    It shows the box and a fifth of its size around it, 160 pixels a side at least where the frame is so
    large, and 1,280 at most. Ids are unique in a run, so names are. The pixels of a frame are asked for only
    when its picture could be better.

    Args:
        folder: The run's folder.
        resume: Go on with the pictures of this run; otherwise the old ones of a source are removed when its
            first one is written.
    """

    def __init__(self, folder: str | os.PathLike[str], resume: bool = False) -> None:
        self._folder = Path(folder)
        self._resume = resume
        self._best: dict[str, dict[int, _Best]] = {}

    @property
    def path(self) -> Path:
        """The folder with a folder for each source; there once a picture is."""
        return self._folder / "snapshots"

    def take(self, result: Result, picture: Picture) -> dict[int, str]:
        """Take in a frame, before its events become records.

        Args:
            result: The frame.
            picture: Makes its pixels, uint8 (h, w, 3) BGR, of the frame's size or scaled, or None when they
                are gone: as in `pipeline.sinks.Publication`, and with what is to be hidden hidden.

        Returns:
            Where the pictures of the source's objects are, relative to the run's folder, by track id: of all
            that have one and are not forgotten, in this frame or not.

        Raises:
            SinkError: a file cannot be written.
        """
        source = result.header.source
        best = self._best.get(source)
        if best is None:
            best = self._best[source] = self._start(source)
        if result.status == "ok" and not result.lost and result.detections.track_ids is not None:
            self._improve(result, picture, best)
        return {track_id: self._name(source, track_id) for track_id in best}

    def forget(self, source: str, track_ids: Collection[int] | None = None) -> None:
        """Forget objects that have ended; their files stay.

        Args:
            source: Name of the source.
            track_ids: The objects; None for all of it, and the source too.
        """
        if track_ids is None:
            self._best.pop(source, None)
            return
        for track_id in track_ids:
            self._best.get(source, {}).pop(track_id, None)

    def _improve(self, result: Result, picture: Picture, best: dict[int, _Best]) -> None:
        header, found = result.header, result.detections
        assert found.track_ids is not None
        boxes = found.boxes_xyxy.astype(np.float64)
        bgr: NDArray[np.uint8] | None = None
        written = False
        for row, track_id in enumerate(found.track_ids.tolist()):
            if track_id < 0:
                continue
            old = best.get(track_id)
            if old is not None and 0 <= header.pts_ns - old.at_ns < _PAUSE_NS:
                continue
            worth = _worth(row, boxes, float(found.scores[row]), header.width, header.height)
            least = 0.0 if old is None else old.worth * _BETTER
            if worth < least:
                continue
            if bgr is None:
                bgr = picture()
                if bgr is None:
                    break
            scale = np.array([bgr.shape[1] / max(header.width, 1), bgr.shape[0] / max(header.height, 1)] * 2)
            box = boxes[row] * scale
            worth *= _SHARP_SHARE * _sharpness(bgr, box) + 1 - _SHARP_SHARE
            if old is not None and worth < least:
                continue
            write_picture(self._folder / self._name(header.source, track_id), _around(bgr, box))
            best[track_id] = _Best(worth, header.pts_ns)
            written = True
        while len(best) > _MOST_OBJECTS:
            del best[next(iter(best))]
        if written:
            self._save(header.source, best)

    def _start(self, source: str) -> dict[int, _Best]:
        """What there is of a source; nothing, and no files either, unless the run goes on."""
        folder = (self._folder / self._name(source, 0)).parent
        try:
            if self._resume:
                state = (folder / _STATE).read_bytes()
                return msgspec.json.decode(state, type=dict[int, _Best])
            for old in (*folder.glob("*.jpg"), folder / _STATE):
                if old.stem.isdigit() or old.name == _STATE:
                    old.unlink(missing_ok=True)
        except FileNotFoundError:
            pass
        except msgspec.DecodeError as error:
            raise SinkError(
                f"{folder / _STATE} is not what framewire wrote: {error}",
                hint="name another folder, or remove this file",
            ) from error
        except OSError as error:
            raise _error(folder, error) from error
        return {}

    def _save(self, source: str, best: dict[int, _Best]) -> None:
        path = (self._folder / self._name(source, 0)).parent / _STATE
        scratch = path.with_name(f"{path.name}.tmp")
        try:
            scratch.write_bytes(msgspec.json.encode(best))
            scratch.replace(path)
        except OSError as error:
            raise _error(path, error) from error

    @staticmethod
    def _name(source: str, track_id: int) -> str:
        folder = quote(source, safe=" ")
        if folder.startswith("."):  # a source may be called anything, `..` too
            folder = f"%2E{folder[1:]}"
        return f"{_FOLDER}/{folder}/{track_id}.jpg"


def _error(path: Path, error: OSError) -> SinkError:
    return SinkError(
        f"cannot write {path}: {error.strerror or error}",
        hint="free space there, or name a folder that you may write",
    )


def _worth(row: int, boxes: NDArray[np.float64], score: float, width: int, height: int) -> float:
    """What a picture of one of the boxes is worth if it is perfectly sharp, 0..1."""
    x1, y1, x2, y2 = boxes[row].tolist()
    area = max(x2 - x1, 0.0) * max(y2 - y1, 0.0)
    if area <= 0:
        return 0.0
    share = area / max(width * height, 1)
    edge_x, edge_y = max(_EDGE * width, 1.0), max(_EDGE * height, 1.0)
    cut = x1 < edge_x or y1 < edge_y or x2 > width - edge_x or y2 > height - edge_y
    # Who stands lower in the picture is nearer, and may be in front.
    nearer = boxes[boxes[:, 3] > y2]
    over = np.minimum(nearer[:, 2:], (x2, y2)) - np.maximum(nearer[:, :2], (x1, y1))
    hidden = float(np.prod(np.maximum(over, 0.0), axis=1).max(initial=0.0)) / area
    whole = (_CUT if cut else 1.0) * (1 - (1 - _HIDDEN) * min(hidden, 1.0))
    return float(score * whole * share / (share + _HALF_AREA))


def _sharpness(bgr: NDArray[np.uint8], box: NDArray[np.float64]) -> float:
    """How sharp a part of a picture is, 0..1, at a size that does not depend on that of the part."""
    part = _cut_out(bgr, *box.tolist())
    if part.shape[0] < 3 or part.shape[1] < 3:
        return 0.0
    grey = cv2.cvtColor(part, cv2.COLOR_BGR2GRAY)
    scale = _SHARP_SIDE / max(grey.shape)
    # Never made larger: that would add no detail, but smooth what is there.
    if scale < 1:
        size = (max(3, round(grey.shape[1] * scale)), max(3, round(grey.shape[0] * scale)))
        grey = np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), np.uint8)
    variance = float(cv2.Laplacian(grey, cv2.CV_32F).var())
    return variance / (variance + _HALF_SHARP)


def _around(bgr: NDArray[np.uint8], box: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The picture of an object: its box and what is around it."""
    height, width = bgr.shape[:2]
    x1, y1, x2, y2 = box.tolist()
    sides = []
    for low, high, most in ((x1, x2, width), (y1, y2, height)):
        length = min(max((high - low) * (1 + 2 * _AROUND), _LEAST_SIDE), most)
        # Moved into the frame, not cut: the least size holds at the edge too.
        start = min(max((low + high - length) / 2, 0.0), most - length)
        sides.append((start, start + length))
    (left, right), (top, bottom) = sides
    part = _cut_out(bgr, left, top, right, bottom)
    scale = _MOST_SIDE / max(part.shape[:2])
    if scale >= 1:
        return part
    size = (max(1, round(part.shape[1] * scale)), max(1, round(part.shape[0] * scale)))
    return np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)


def _cut_out(bgr: NDArray[np.uint8], x1: float, y1: float, x2: float, y2: float) -> NDArray[np.uint8]:
    """The pixels of a box, as far as it is in the picture; none where it is not."""
    height, width = bgr.shape[:2]
    left, right = (min(max(round(x), 0), width) for x in (x1, x2))
    top, bottom = (min(max(round(y), 0), height) for y in (y1, y2))
    return bgr[top:bottom, left:right]
