"""Clips of events, with what was before and after, as the camera or the file coded it."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import av

from pipeline.messages import FrameHeader
from pipeline.sinks.cutting import Span, cut_file, cut_ring
from pipeline.sinks.retention import Retention
from pipeline.transport.rings import ring_files

__all__ = ["Clip", "Clips"]

log = logging.getLogger(__name__)

#: A live clip is cut so long after its end: its last packets are in the ring then.
_SETTLED_NS = 500_000_000
_CLOSE_S = 10.0


@dataclass(frozen=True, slots=True)
class Clip:
    """A clip that is finished.

    Attributes:
        source: Its source.
        path: Its file, relative to the run's folder.
        start: UTC seconds of its first picture.
        duration_s: Its length.
        label: Label of the object of its first event; None where that had none.
        track_id: Track of that object.
        epoch: Epoch of the frame of that event.
        seq: Its number.
    """

    source: str
    path: str
    start: float
    duration_s: float
    label: str | None
    track_id: int | None
    epoch: int
    seq: int


@dataclass
class _Window:
    """A clip to be."""

    span: Span
    header: FrameHeader
    label: str | None
    track_id: int | None
    tracks: set[int] = field(default_factory=set)

    def until(self, end_ns: int) -> None:
        span = self.span
        self.span = Span(span.start_ns, max(span.end_ns, end_ns), span.at_ns, span.at)


class Clips:
    """Decides what is cut, and has a thread cut it.

    A clip begins ``pre_s`` before an event that is wanted and ends ``post_s`` after the last one of the
    objects in it; what overlaps is one clip, and one that would be longer than ``max_s`` is followed by
    another. It begins with the keyframe before.

    Args:
        folder: The run's folder; clips lie in ``clips/<source>/``.
        rings: Prefix of the packet ring of each live source.
        files: Path of each source that is a file; a source in neither has no clips.
        types: Types of events that begin a clip.
        labels: Only of objects with these labels; empty for all.
        zones: Only in or at these zones; empty for all.
        sources: Only of these sources; empty for all.
        pre_s: What is wanted from before the event.
        post_s: And from after it.
        max_s: Longest clip.
        retention: Forgets old clips.
    """

    def __init__(
        self,
        folder: Path,
        *,
        rings: Mapping[str, Path],
        files: Mapping[str, Path],
        types: Sequence[str] = ("start",),
        labels: Sequence[str] = (),
        zones: Sequence[str] = (),
        sources: Sequence[str] = (),
        pre_s: float = 5.0,
        post_s: float = 10.0,
        max_s: float = 120.0,
        retention: Retention | None = None,
    ) -> None:
        self._folder, self._rings, self._files = folder, dict(rings), dict(files)
        self._types, self._labels = frozenset(types), frozenset(labels)
        self._zones, self._sources = frozenset(zones), frozenset(sources)
        self._pre_ns, self._post_ns, self._max_ns = (int(s * 1e9) for s in (pre_s, post_s, max_s))
        self._retention = retention
        self._windows: dict[str, _Window] = {}
        self._without: set[str] = set()
        self._jobs: queue.SimpleQueue[tuple[str, _Window] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Clip] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="clips", daemon=True)
        self._thread.start()

    def see(self, header: FrameHeader, events: Sequence[Mapping[str, Any]]) -> None:
        """Take in a frame and what it brought; never waits."""
        source = header.source
        now_ns = self._now(header)
        window = self._windows.get(source)
        if window is not None and now_ns > window.span.end_ns + _SETTLED_NS:
            self._cut(source)
            window = None
        for event in events:
            track_id = event.get("track_id")
            mine = window is not None and track_id is not None and track_id in window.tracks
            if not mine and not self._wanted(event):
                continue
            if window is None:
                window = self._open(header, event, now_ns)
                if window is None:
                    return
            if track_id is not None:
                window.tracks.add(int(track_id))
                if event["type"] == "end":
                    window.tracks.discard(int(track_id))
            window.until(now_ns + self._post_ns)
        if window is not None and now_ns - window.span.start_ns >= self._max_ns:
            self._follow_on(source, window, header, now_ns)

    def tick(self) -> list[Clip]:
        """The clips that were finished since."""
        now_ns = time.monotonic_ns()
        for source in [*self._windows]:
            # No frame may come for long, while a live clip is to end.
            if source in self._rings and now_ns > self._windows[source].span.end_ns + _SETTLED_NS:
                self._cut(source)
        found = []
        with contextlib.suppress(queue.Empty):
            while True:
                found.append(self._done.get_nowait())
        return found

    def end(self, source: str) -> None:
        """A source has ended: nothing more comes for its clip."""
        if source in self._windows:
            self._cut(source)

    def close(self) -> list[Clip]:
        """Cut what is open; the last clips."""
        for source in [*self._windows]:
            self._cut(source)
        self._jobs.put(None)
        self._thread.join(_CLOSE_S)
        if self._thread.is_alive():
            log.warning("clips that are still being cut at the end of the run are left behind")
        return self.tick()

    def _now(self, header: FrameHeader) -> int:
        return header.captured_ns if header.source in self._rings else header.pts_ns

    def _wanted(self, event: Mapping[str, Any]) -> bool:
        zones = {*event.get("zones", ()), event.get("zone", "")}
        return (
            event["type"] in self._types
            and (not self._labels or event.get("label") in self._labels)
            and (not self._zones or not self._zones.isdisjoint(zones))
            and (not self._sources or event["source"] in self._sources)
        )

    def _open(self, header: FrameHeader, event: Mapping[str, Any], now_ns: int) -> _Window | None:
        source = header.source
        if source not in self._rings and source not in self._files:
            if source not in self._without:
                log.warning("[%s] gives no coded video, so there are no clips of it", source)
            self._without.add(source)
            return None
        span = Span(now_ns - self._pre_ns, now_ns + self._post_ns, now_ns, header.captured_at)
        window = _Window(span, header, event.get("label"), event.get("track_id"))
        self._windows[source] = window
        return window

    def _follow_on(self, source: str, window: _Window, header: FrameHeader, now_ns: int) -> None:
        """It is long enough: the rest is another clip."""
        end_ns, tracks = window.span.end_ns, window.tracks
        window.span = Span(window.span.start_ns, now_ns, window.span.at_ns, window.span.at)
        self._cut(source)
        if end_ns > now_ns:
            span = Span(now_ns, end_ns, now_ns, header.captured_at)
            self._windows[source] = _Window(span, header, window.label, window.track_id, tracks)

    def _cut(self, source: str) -> None:
        self._jobs.put((source, self._windows.pop(source)))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            self._make(*job)
            if self._retention is not None:
                self._retention.tick()

    def _make(self, source: str, window: _Window) -> None:
        span = window.span
        folder = self._folder / "clips" / source
        # It gets its name when it is known with which picture it begins.
        scratch = folder / f".{time.monotonic_ns()}.mp4"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if source in self._rings:
                made = cut_ring(ring_files(self._rings[source]), span, scratch)
            else:
                made = cut_file(self._files[source], span, scratch)
            if made is None:
                moment = datetime.fromtimestamp(max(0.0, span.at), UTC).isoformat(timespec="seconds")
                log.warning("[%s] no clip of %s: its packets are not kept any more", source, moment)
                return
            target = _free_name(folder, made.start)
            scratch.rename(target)
        except (av.FFmpegError, OSError, ValueError) as error:
            log.error("[%s] a clip cannot be made: %s", source, error)
            for left in (scratch, scratch.with_name(f"{scratch.name}.tmp")):
                with contextlib.suppress(OSError):
                    left.unlink(missing_ok=True)
            return
        header, path = window.header, target.relative_to(self._folder).as_posix()
        self._done.put(
            Clip(
                source,
                path,
                made.start,
                made.duration_s,
                window.label,
                window.track_id,
                header.epoch,
                header.seq,
            )
        )


def _free_name(folder: Path, start: float) -> Path:
    """``20260131T093000.250Z.mp4``, with a number if there is one like it."""
    begin = datetime.fromtimestamp(round(start, 3), UTC)
    stem = f"{begin.strftime('%Y%m%dT%H%M%S')}.{begin.microsecond // 1000:03d}Z"
    for number in range(1000):
        path = folder / f"{stem}{f'-{number + 1}' if number else ''}.mp4"
        if not path.exists():
            return path
    raise FileExistsError(f"{folder} is full of clips that begin at {stem}")
