"""Video files through FFmpeg (PyAV): every frame, once, upright, with its own time."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from pipeline.errors import ConfigError, SourceError, SourceLostError
from pipeline.messages import Clock
from pipeline.sources.base import Picture, PixelFormat, Pixels
from pipeline.sources.locate import check_source, local_path
from pipeline.sources.planes import planes_of
from pipeline.sources.timeline import Timeline

__all__ = ["FileSource"]

_log = logging.getLogger(__name__)

#: Containers with an index and one set of codec parameters: only there is seeking worth trying.
_INDEXED = ("mov", "matroska", "avi")


class FileSource:
    """A video file.

    Frames that the decoder could not make whole are skipped and counted in ``decode_errors``: a frame is
    never repeated, concealed or invented. ``captured_at`` is the container's creation time plus the
    presentation time (clock ``container``) where there is one, else the wall clock at decoding (``arrival``).

    Args:
        name: Name of the source.
        url: Path of the file.
        pixels: ``fast`` gives I420, without a copy where the decoder gives 8-bit 4:2:0 of limited range;
            ``exact`` gives BGR, the very bytes that ``cv2.VideoCapture`` would give.
        threads: Decoder threads. One costs the least CPU per frame and leaves cores to inference; more decode
            a single file faster (two: 1.7 x on H.264 720p for 6 % more CPU).
        stream: Which of several video streams, from 0.
    """

    live = False

    def __init__(
        self, name: str, url: str, *, pixels: Pixels = "fast", threads: int = 1, stream: int = 0
    ) -> None:
        if threads < 1 or stream < 0:
            raise ConfigError(f"sources.{name}: threads starts at 1 and stream at 0", source=name)
        self.name = name
        self.frame_rate: float | None = None
        self.expected_frames: int | None = None
        self.decode_errors = 0
        self._url = url
        self._path = local_path(url)
        self._pixel_format: PixelFormat = "i420" if pixels == "fast" else "bgr24"
        self._threads = threads
        self._wanted = stream
        self._container: InputContainer | None = None
        self._frames: Iterator[VideoFrame] = iter(())
        self._timeline = Timeline(Fraction(1), 0, 0)
        self._created: float | None = None
        self._duration_ns = 0
        self._index = 0
        self._epoch = 0
        self._size: tuple[int, int] | None = None

    def open(self, *, skip: int = 0, after_pts_ns: int | None = None) -> None:
        """See `Source.open`.

        A seek is used only when the container's index proves that it leads to exactly the frame that an
        uninterrupted read would give next; otherwise the first ``skip`` frames are decoded and dropped.
        """
        self._start()
        if not skip:
            return
        if after_pts_ns is not None and self._seek(skip, after_pts_ns):
            self._index = skip
            return
        self._start()
        for frame in self._frames:
            self._stamp(frame)
            self._index += 1
            if self._index == skip:
                break

    def read(self) -> Picture | None:
        """See `Source.read`.

        Raises:
            SourceError: not one frame could be decoded.
        """
        frame = next(self._frames, None)
        if frame is None:
            self._check_end()
            return None
        captured_ns = time.monotonic_ns()
        pts_ns = self._stamp(frame)
        planes, owner = planes_of(frame, self._pixel_format)
        captured_at, clock = self._wall_clock(pts_ns)
        index, self._index = self._index, self._index + 1
        height, width = planes[0].shape[:2]
        return Picture(
            planes=planes,
            pixel_format=self._pixel_format,
            width=width,
            height=height,
            index=index,
            pts_ns=pts_ns,
            captured_ns=captured_ns,
            captured_at=captured_at,
            clock=clock,
            epoch=self._epoch,
            owner=owner,
        )

    def close(self) -> None:
        """See `Source.close`."""
        self._frames = iter(())
        if self._container is not None:
            self._container.close()
            self._container = None

    def _start(self) -> None:
        """Open the file from its beginning."""
        self.close()
        check_source(self._url)
        try:
            container = av.open(str(self._path), "r")
        except (av.FFmpegError, OSError, UnicodeError) as error:
            raise _open_error(self._path, error, self.name) from error
        self._container = container
        stream = self._pick(container)
        stream.thread_type = "SLICE" if self._threads == 1 else "AUTO"
        stream.codec_context.thread_count = self._threads
        rate = _fraction(stream.average_rate) or _fraction(stream.guessed_rate)
        self.frame_rate = float(rate) if rate else None
        time_base = _fraction(stream.time_base) or Fraction(1, av.time_base)
        self._timeline = Timeline(time_base, stream.start_time or 0, round(1_000_000_000 / (rate or 25)))
        if stream.duration:
            self._duration_ns = round(stream.duration * time_base * 1_000_000_000)
        else:
            self._duration_ns = (container.duration or 0) * 1000
        estimate = round(self._duration_ns * rate / 1_000_000_000) if rate else 0
        self.expected_frames = stream.frames or estimate or None
        self._created = _creation_time(container.metadata.get("creation_time"))
        self._index = self._epoch = self.decode_errors = 0
        self._size = None
        self._frames = self._decode(container, stream)

    def _pick(self, container: InputContainer) -> VideoStream:
        """The video stream asked for; cover pictures of music files are none."""
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            sound = "it holds sound only, no video" if container.streams.audio else "it holds no video stream"
            raise SourceError(f"{self._path}: {sound}", hint="give a file with a picture", source=self.name)
        if self._wanted >= len(streams):
            raise SourceError(
                f"{self._path} has {len(streams)} video streams, stream {self._wanted} is not among them",
                hint=f"stream can be 0 to {len(streams) - 1}",
                source=self.name,
            )
        if len(streams) > 1:
            _log.info("[%s] %d video streams, reading number %d", self.name, len(streams), self._wanted)
        stream = streams[self._wanted]
        if stream.codec_context is None:
            raise SourceError(
                f"{self._path}: no decoder for its codec",
                hint="convert it to H.264",
                source=self.name,
            )
        return stream

    def _decode(self, container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
        """All whole frames from the container's position to its end.

        Raises:
            SourceLostError: the container reports an error; frames still in the decoder come first.
        """
        packets = container.demux(stream)
        while True:
            lost: Exception | None = None
            try:
                packet = next(packets, None)
            except (av.FFmpegError, OSError) as error:
                packet, lost = None, error
            if packet is None and lost is None:
                return
            try:
                frames = stream.codec_context.decode(packet)
            except av.EOFError:
                frames = []
            except av.FFmpegError:
                self._count_error()
                frames = []
            for frame in frames:
                if frame.is_corrupt:
                    self._count_error()
                else:
                    yield frame
            if lost is not None:
                why = getattr(lost, "strerror", None) or lost
                raise SourceLostError(
                    f"{self._path} broke after {self._index} frames: {why}",
                    hint="frames before that stay valid; check the disk, or copy the file again",
                    source=self.name,
                ) from lost

    def _count_error(self) -> None:
        self.decode_errors += 1
        if self.decode_errors == 1:
            _log.warning("[%s] damaged data near frame %d: skipped and counted", self.name, self._index)

    def _seek(self, skip: int, after_pts_ns: int) -> bool:
        """Go to just after the ``skip``-th frame, or return False with the position undefined."""
        container = self._container
        if container is None or not container.format.name.startswith(_INDEXED):
            return False
        stream = self._pick(container)
        ticks: dict[int, int] = {}
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if packet.pts is None or packet.is_discard:
                return False
            if packet.dts is not None and self._timeline.nanoseconds(packet.dts) > after_pts_ns:
                break
            time_ns = self._timeline.nanoseconds(packet.pts)
            if time_ns in ticks:
                return False
            ticks[time_ns] = packet.pts
        before = sorted(time_ns for time_ns in ticks if time_ns <= after_pts_ns)
        if len(before) != skip or before[-1] != after_pts_ns:
            return False
        try:
            container.seek(ticks[after_pts_ns], stream=stream, backward=True)
        except av.FFmpegError:
            return False
        self._frames = self._decode(container, stream)
        seen: list[int] = []
        for frame in self._frames:
            seen.append(-1 if frame.pts is None else self._timeline.nanoseconds(frame.pts))
            if seen[-1] >= after_pts_ns or len(seen) > skip:
                self._stamp(frame)
                break
        return self.decode_errors == 0 and bool(seen) and seen == before[-len(seen) :]

    def _stamp(self, frame: VideoFrame) -> int:
        """Presentation time of the next frame; also notices a change of size."""
        size = (frame.width, frame.height)
        if self._size not in {None, size}:
            self._epoch += 1
            _log.info("[%s] the size changes to %dx%d at frame %d", self.name, *size, self._index)
        self._size = size
        adjusted = self._timeline.adjusted
        pts_ns = self._timeline.next(frame.pts, frame.dts)
        if self._timeline.adjusted == 1 and not adjusted:
            _log.warning("[%s] timestamps go back at frame %d: corrected", self.name, self._index)
        return pts_ns

    def _wall_clock(self, pts_ns: int) -> tuple[float, Clock]:
        if self._created is None:
            return time.time(), "arrival"
        return self._created + pts_ns / 1e9, "container"

    def _check_end(self) -> None:
        """At the end of the stream: was there anything, and is it as long as it says?"""
        if self._container is None:
            return
        last_ns = self._timeline.last_ns
        if last_ns is None or not self._index:
            raise SourceError(
                f"{self._path}: not one frame could be decoded",
                hint="check that it plays in a video player; copy or record it again",
                source=self.name,
            )
        if self._duration_ns and last_ns < 0.9 * self._duration_ns - 1_000_000_000:
            _log.warning(
                "[%s] %s ends after %d frames, at %.1f s of the %.1f s that it promises: it was cut short",
                self.name, self._path, self._index, last_ns / 1e9, self._duration_ns / 1e9,
            )  # fmt: skip


def _fraction(value: Any) -> Fraction | None:
    """A rational of PyAV (Fraction up to 18, a type of its own from 19) as a Fraction; None for none or 0."""
    return Fraction(value.numerator, value.denominator) if value and value.denominator else None


def _creation_time(text: str | None) -> float | None:
    """UTC seconds of a container's creation time; cameras without a clock write 1904 or 1970."""
    if not text:
        return None
    try:
        created = datetime.fromisoformat(text)
    except ValueError:
        return None
    return created.timestamp() if created.year >= 1990 else None


def _open_error(path: Path, error: Exception, name: str) -> SourceError:
    """Say what is wrong with a file that FFmpeg refuses, from its first bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError as problem:
        return SourceError(
            f"{path} cannot be read: {problem.strerror}", hint="check its permissions", source=name
        )
    if head[4:8] in {b"ftyp", b"mdat", b"wide", b"free"}:
        message = "is an MP4 or MOV without its index (moov): it was cut short, or is still being recorded"
        hint = "wait for the recording to end, copy the file again, or repair it with an MP4 repair tool"
    elif not any(byte < 9 for byte in head):
        message, hint = "is text, not a video", "give a video file"
    else:
        message = f"is no video that FFmpeg can read ({getattr(error, 'strerror', None) or error})"
        hint = "check that it plays in a video player"
    return SourceError(f"{path} {message}", hint=hint, source=name)
