"""Annotated video: one H.264 MP4 per source, each box on the very frame it belongs to, at its own time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SinkError
from pipeline.messages import FrameHeader, ModelSpec
from pipeline.sinks._parts import TICKS, PartInfo, PartWriter, join_parts, read_part
from pipeline.sinks.base import Publication, Resume
from pipeline.vision.draw import draw, warm_up
from pipeline.vision.draw_scene import draw_scene

__all__ = ["VideoSink", "fit"]


class VideoSink:
    """Draw the objects of each frame and encode it.

    Frames keep the presentation times of their source, so a variable frame rate, dropped frames and gaps play
    as they were. A new epoch whose time starts again goes on after the last frame. A frame of another size is
    scaled into the first one's. Frames without pixels (lost, failed before decoding) are passed over.

    While the run lasts, ``annotated.mp4.part000`` and on grow, one more after each restart of the publisher;
    any player that knows NUT shows them. ``close`` joins them, without encoding again, and removes them.

    Args:
        path: The MP4; with several sources ``annotated.mp4`` becomes ``annotated-<source>.mp4``.
        sources: Names of all sources of the run.
        resume: Continue a run whose publisher was killed; otherwise old files are replaced.
    """

    def __init__(self, path: str | os.PathLike[str], sources: Sequence[str], resume: bool = False) -> None:
        self._path = Path(path)
        self._several = len(sources) > 1
        self._sources = tuple(sources)
        self._resume = resume
        self._labels: tuple[str, ...] = ()
        self._videos: dict[str, _Video] = {}

    def open(self, spec: ModelSpec) -> Resume:
        """Look for parts of this run; nothing is encoded before the first frame.

        Raises:
            SinkError: the folder cannot be made or old files cannot be removed.
        """
        self._labels = spec.labels
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if not os.access(self._path.parent, os.W_OK):
                raise PermissionError(f"no permission to write in {self._path.parent}")
            for source in self._sources:
                self._videos[source] = _Video(self._target(source), self._resume)
        except OSError as error:
            raise self._error(self._path, error) from error
        warm_up()
        return Resume()

    def write(self, item: Publication) -> None:
        """Draw and encode one frame.

        Raises:
            SinkError: the disk is full, or the encoder fails.
        """
        if item.header is None or item.result is None:
            return
        source = item.header.source
        video = self._videos.get(source)
        if video is None:
            video = self._videos[source] = _Video(self._target(source), self._resume)
        if video.has(item.header):
            return
        bgr = item.picture()
        if bgr is None:
            return
        try:
            found = item.result
            scene = item.scene
            if scene.zones or scene.lines or scene.masks or scene.ground:
                bgr = draw_scene(bgr, scene, item.inside)
            drawn = draw(bgr, found.detections, self._labels, found.classes, found.attributes)
            video.write(item.header, drawn)
        except (av.FFmpegError, OSError) as error:
            raise self._error(video.target, error) from error

    def close(self) -> list[str]:
        """Make the MP4s out of their parts, and name them.

        Raises:
            SinkError: there is no room for one; its parts stay.
        """
        files = []
        for video in self._videos.values():
            try:
                if video.close():
                    files.append(str(video.target))
            except (av.FFmpegError, OSError) as error:
                raise self._error(video.target, error) from error
        self._videos = {}
        return files

    def _target(self, source: str) -> Path:
        if not self._several and source in self._sources:  # One that was added later gets a file of its own.
            return self._path
        return self._path.with_name(f"{self._path.stem}-{quote(source, safe=' ')}{self._path.suffix}")

    def _error(self, path: Path, error: Exception) -> SinkError:
        return SinkError(
            f"cannot write {path}: {getattr(error, 'strerror', None) or error}",
            hint="free space there, or name a folder that you may write",
        )


class _Video:
    """The video of one source: its parts, its size, and where its time stands."""

    def __init__(self, target: Path, resume: bool) -> None:
        self.target = target
        self._parts = sorted(target.parent.glob(f"{_glob_literal(target.name)}.part[0-9]*"))
        self._writer: PartWriter | None = None
        self._info: PartInfo | None = None
        self._step = TICKS // 25
        if not resume:
            for old in (*self._parts, target):
                old.unlink(missing_ok=True)
            self._parts = []
        for part in list(self._parts):
            info = read_part(part)
            if info is None or info.last < 0:  # killed before its first frame was whole
                part.unlink()
                self._parts.remove(part)
            else:
                self._info = info
        self._held = self._info

    def has(self, header: FrameHeader) -> bool:
        """Tell whether an earlier incarnation wrote this frame; within an epoch, times rise."""
        held = self._held
        if held is None or header.epoch > held.epoch:
            return False
        return header.epoch < held.epoch or _ticks(header) + held.offset <= held.last

    def write(self, header: FrameHeader, bgr: NDArray[np.uint8]) -> None:
        """Encode one drawn frame, uint8 (h, w, 3) BGR."""
        info = self._info
        if info is None:
            height, width = bgr.shape[:2]
            info = PartInfo(width + width % 2, height + height % 2, header.epoch, 0, -1)
        elif header.epoch != info.epoch:
            # Time that starts again must not run backwards; time that goes on keeps its pauses.
            offset = info.offset
            if _ticks(header) + offset <= info.last:
                offset = info.last + self._step - _ticks(header)
            self._end_part()
            info = info._replace(epoch=header.epoch, offset=offset)
        if self._writer is None:
            part = self.target.with_name(f"{self.target.name}.part{self._next_number():03d}")
            self._writer = PartWriter(part, info.width, info.height, info.epoch, info.offset)
            self._parts.append(part)
        # Two frames of one tick (their source repeats a time) stay two frames.
        ticks = max(_ticks(header) + info.offset, info.last + 1)
        self._writer.write(fit(bgr, info.width, info.height), ticks)
        if info.last >= 0:
            self._step = ticks - info.last
        self._info = info._replace(last=ticks)

    def close(self) -> bool:
        """Join the parts; tells whether there is a video."""
        self._end_part()
        if self._parts:
            join_parts(self._parts, self.target)
            for part in self._parts:
                part.unlink()
            self._parts = []
        return self.target.exists()

    def _end_part(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _next_number(self) -> int:
        return int(self._parts[-1].name.rpartition(".part")[2]) + 1 if self._parts else 0


def fit(bgr: NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint8]:
    """Bring a picture to a size: as it is, with one more row or column, or scaled with black bars.

    Args:
        bgr: uint8 (h, w, 3).
        width: Width in pixels.
        height: Height in pixels.

    Returns:
        uint8 (height, width, 3).
    """
    have_h, have_w = bgr.shape[:2]
    if (have_w, have_h) == (width, height):
        return bgr
    if 0 <= width - have_w <= 1 and 0 <= height - have_h <= 1:  # encoders want even sizes
        edge = cv2.BORDER_REPLICATE
        return np.asarray(
            cv2.copyMakeBorder(bgr, 0, height - have_h, 0, width - have_w, edge), dtype=np.uint8
        )
    scale = min(width / have_w, height / have_h)
    new_w, new_h = max(1, round(have_w * scale)), max(1, round(have_h * scale))
    canvas = np.zeros((height, width, 3), np.uint8)
    x, y = (width - new_w) // 2, (height - new_h) // 2
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    canvas[y : y + new_h, x : x + new_w] = cv2.resize(bgr, (new_w, new_h), interpolation=how)
    return canvas


def _ticks(header: FrameHeader) -> int:
    return round(header.pts_ns * TICKS / 1_000_000_000)


def _glob_literal(name: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in name)
