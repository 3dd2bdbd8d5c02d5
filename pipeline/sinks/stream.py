"""Annotated video as a live stream: to a server over RTSP, RTMP or SRT, or as HLS in a folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from functools import partial

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, SinkError
from pipeline.messages import ModelSpec, Result, Scene
from pipeline.sinks._push_child import ENCODERS
from pipeline.sinks.base import LogView, Publication, Resume
from pipeline.sinks.links import Encoding
from pipeline.sinks.pushing import Pusher, Shot
from pipeline.sinks.targets import Target, parse_target
from pipeline.sinks.video import fit
from pipeline.vision.draw import draw, warm_up
from pipeline.vision.draw_scene import draw_scene

__all__ = ["StreamSink"]

#: How long the end of a run waits for all streams to end.
_CLOSE_S = 3.0


class StreamSink:
    """Draw the objects of each frame, and send the pictures as H.264.

    It is never in the way of the frames: ``write`` copies the pixels of a frame that will be sent, and no
    more. Drawing is done in a thread, encoding and sending in a process for each stream. A picture that
    cannot be sent in time gives way to a newer one; while the server is away nothing is kept. Pictures have
    the times at which they were taken, so that what is left out does not change the pace; a recording that is
    read as fast as it can be is shown at that speed.

    Args:
        url: ``rtsp://``, ``rtsps://``, ``rtmp://``, ``rtmps://`` or ``srt://``, or a path that ends in
            ``.m3u8`` for HLS. ``{source}`` in it stands for the name of the source.
        sources: Names of all sources of the run.
        source: The one source that is sent; None for the only one, or for all if there is ``{source}``.
        name: What the sink is called in metrics; None for ``stream``, or ``stream-<source>``.
        key: Stream key, put behind the URL.
        max_fps: Most pictures a second.
        width: Width in pixels that wider pictures are scaled to; None to leave them as they are.
        bitrate_kbps: Bits a second, in thousands; None for constant quality.
        preset: ``ultrafast`` … ``medium``, of libx264.
        gop_s: Seconds from keyframe to keyframe, and length of a segment of HLS.
        list_size: Segments in the playlist of HLS.
        transport: ``tcp`` or ``udp``, for RTSP.
        tls_verify: Whether the certificate of a server must be valid.
        ca_file: Certificates to trust instead of the system's, PEM.
        stall_s: A server that takes nothing for so long is given up, and connected to again.

    Raises:
        ConfigError: it is not clear where to send what, or this FFmpeg cannot.
    """

    def __init__(
        self,
        url: str,
        sources: Sequence[str] = (),
        source: str | None = None,
        name: str | None = None,
        key: str | None = None,
        max_fps: float = 15.0,
        width: int | None = None,
        bitrate_kbps: int | None = None,
        preset: str = "ultrafast",
        gop_s: float = 2.0,
        list_size: int = 6,
        transport: str = "tcp",
        tls_verify: bool = True,
        ca_file: str | None = None,
        stall_s: float = 10.0,
    ) -> None:
        self.name = name or (f"stream-{source}" if source else "stream")
        if source is not None and sources and source not in sources:
            near = get_close_matches(source, sources, 1)
            raise ConfigError(
                f"stream: there is no source {source!r}",
                hint=f"write {near[0]}" if near else f"there are {', '.join(sources)}",
            )
        if source is None and len(sources) > 1 and "{source}" not in url:
            raise ConfigError(
                f"stream: it is not said which of {', '.join(sources)} goes there",
                hint=f"add source: {sources[0]}, or write {{source}} in the URL",
            )
        self._only = source if source is not None or "{source}" in url else next(iter(sources), None)
        self._url, self._width = url, width
        self._target = partial(
            parse_target, url, key=key, transport=transport, tls_verify=tls_verify, ca_file=ca_file,
            gop_s=gop_s, list_size=list_size,
        )  # fmt: skip
        self._target(self._only or "source")  # What is wrong with it is said now.
        self._encoding = partial(
            Encoding, max_fps=max_fps, bitrate_kbps=bitrate_kbps, preset=preset, gop_s=gop_s, stall_s=stall_s
        )
        self._encoder = ""
        self._labels: tuple[str, ...] = ()
        self._pushers: dict[str, Pusher] = {}
        self._targets: dict[str, Target] = {}

    def attach(self, log: LogView) -> None:
        """It holds no events."""

    def tick(self) -> None:
        """Its streams go on by themselves.

        Raises:
            SinkError: one does not, for a picture could not be drawn.
        """
        for source, pusher in self._pushers.items():
            if pusher.broken:
                raise SinkError(
                    f"the stream of {source} has ended by a fault of framewire",
                    hint="report the lines above this one; without the stream, the run goes on",
                )

    def open(self, spec: ModelSpec) -> Resume:
        """Load what drawing needs; a stream begins with the first frame of its source.

        Raises:
            ConfigError: this FFmpeg has no encoder for H.264.
            SinkError: the folder of a playlist cannot be written.
        """
        self._labels = spec.labels
        self._encoder = _encoder()
        if self._only is not None:
            self._begin(self._only)
        warm_up()
        return Resume()

    def write(self, item: Publication) -> None:
        """Hand over one frame, if it is its turn; a source that has ended ends its stream.

        Raises:
            SinkError: the folder of a playlist cannot be written.
        """
        for event in item.events:
            if event.get("type") == "source" and event.get("state") in ("ended", "failed"):
                ended = self._pushers.get(str(event.get("source")))
                if ended is not None:
                    ended.finish()
        header, result = item.header, item.result
        if header is None or result is None or self._only not in (None, header.source):
            return
        pusher = self._pushers.get(header.source) or self._begin(header.source)
        if not pusher.wants(header.captured_ns):
            return
        view = item.picture()
        if view is None:
            return
        # Its memory is used again as soon as this returns.
        bgr = np.array(view, order="C")
        pusher.offer(
            Shot(header.captured_ns, partial(self._paint, bgr, result, item.scene, dict(item.inside)))
        )

    def stats(self) -> dict[str, int]:
        """Sums over its streams.

        Returns:
            ``sent``: pictures that left. ``repeated``: last pictures sent again for want of a new one.
            ``replaced``: pictures that gave way to a newer one, or were lost with the connection.
            ``reconnects``: connections after the first. ``connected``: streams that a server takes now.
        """
        all_of = self._pushers.values()
        return {
            "sent": sum(one.sent for one in all_of),
            "repeated": sum(one.repeated for one in all_of),
            "replaced": sum(one.replaced for one in all_of),
            "reconnects": sum(one.reconnects for one in all_of),
            "connected": sum(one.connected for one in all_of),
        }

    def close(self) -> list[str]:
        """End all streams within 4 s, whatever their servers do, and name the playlists written."""
        deadline = time.monotonic() + _CLOSE_S
        for pusher in self._pushers.values():
            pusher.stop()
        for pusher in self._pushers.values():
            pusher.join(deadline)
        playlists = [target.playlist for target in self._targets.values() if target.playlist is not None]
        return [str(path) for path in playlists if path.exists()]

    def _begin(self, source: str) -> Pusher:
        target = self._targets[source] = self._target(source)
        if target.playlist is not None:
            folder = target.playlist.parent
            try:
                folder.mkdir(parents=True, exist_ok=True)
                target.clear()
            except OSError as error:
                raise SinkError(
                    f"cannot write {target.playlist}: {error.strerror}",
                    hint="name a folder that you may write",
                ) from error
        pusher = self._pushers[source] = Pusher(source, target, self._encoding(self._encoder))
        pusher.start()
        return pusher

    def _paint(
        self, bgr: NDArray[np.uint8], found: Result, scene: Scene, inside: Mapping[str, int]
    ) -> NDArray[np.uint8]:
        """The picture as it is sent: drawn on, then scaled, with even sides."""
        if scene.zones or scene.lines or scene.masks or scene.ground:
            bgr = draw_scene(bgr, scene, inside)
        bgr = draw(bgr, found.detections, self._labels, found.classes, found.attributes)
        height, width = bgr.shape[:2]
        if self._width is not None and self._width < width:
            size = (self._width, max(2, round(height * self._width / width)))
            bgr = np.asarray(cv2.resize(bgr, size, interpolation=cv2.INTER_AREA), np.uint8)
            height, width = bgr.shape[:2]
        return fit(bgr, width + width % 2, height + height % 2)


def _encoder() -> str:
    for name in ENCODERS:
        try:
            av.Codec(name, "w")
        except av.codec.codec.UnknownCodecError:
            continue
        return name
    raise ConfigError(
        "stream: this PyAV has no encoder for H.264",
        hint="type: pip install --force-reinstall --only-binary av av",
    )
