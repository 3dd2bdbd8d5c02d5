"""What one stream or recording is like, measured for a few seconds, as ``sources probe`` shows it."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import av
from av.stream import Disposition

from pipeline.errors import ConfigError, SourceError
from pipeline.sources.base import Picture
from pipeline.sources.discovery.tally import Tally, count_packets
from pipeline.sources.file import FileSource
from pipeline.sources.live import avlog
from pipeline.sources.live.address import parse_address
from pipeline.sources.live.base import Connect, StreamFacts
from pipeline.sources.live.opening import connect
from pipeline.sources.live.stream import StreamConnection
from pipeline.sources.locate import check_source, detect_kind, local_path

__all__ = ["Count", "Rhythm", "Survey", "rhythm_of", "survey", "survey_live"]

_NAME = "probe"
_SLACK_S = 2.0
#: An interval this far from the usual one is irregular; so many of them make a rate variable.
_IRREGULAR = 0.5
_SHARE = 0.1


@dataclass(slots=True)
class Survey:
    """What was measured; None for what could not be.

    Attributes:
        url: Address without credentials.
        kind: ``stream``, ``device`` or ``file``.
        codec: FFmpeg's name of the codec.
        profile: Its profile (``High``, ``Main 10``); empty when unknown.
        width: Pixels.
        height: Pixels.
        fps_declared: Pictures per second as the stream says.
        fps_measured: As its timestamps say.
        jitter_ms: 95 % of the pictures came at most this much off their time; live only.
        variable_rate: Whether the pictures' intervals vary.
        keyframe_interval_s: Longest time between two keyframes.
        keyframe_at_least_s: Where no two were seen: it is at least this long.
        bit_rate_kbps: Thousand bits of video per second.
        b_frames: Whether pictures are coded out of order, which delays them.
        audio: Codec of the sound; empty for none.
        transport: How it travels.
        decoder: ``cpu`` or the device in force.
        refusals: Why other decoders were not taken.
        clock: Where the pictures' times come from: ``rtcp``, ``container``, ``arrival``.
        clock_offset_s: Camera's clock minus this host's.
        clock_drift_ppm: How much faster it runs; takes a minute to know.
        connect_s: From the start until the stream was open.
        first_picture_s: From the start until the first picture was decoded.
        decode_ms: CPU time to read and decode a picture, milliseconds.
        pictures: Whole pictures decoded.
        decode_errors: Pictures left out because data was missing or damaged.
        seconds: How long pictures were taken.
        lost: Why it broke before the time was up; empty when it did not.
        not_measured: Why figures that need a second connection are missing; empty when they are not.
    """

    url: str
    kind: str
    codec: str = ""
    profile: str = ""
    width: int = 0
    height: int = 0
    fps_declared: float | None = None
    fps_measured: float | None = None
    jitter_ms: float | None = None
    variable_rate: bool | None = None
    keyframe_interval_s: float | None = None
    keyframe_at_least_s: float | None = None
    bit_rate_kbps: float | None = None
    b_frames: bool | None = None
    audio: str = ""
    transport: str = ""
    decoder: str = "cpu"
    refusals: list[str] = field(default_factory=list)
    clock: str = ""
    clock_offset_s: float | None = None
    clock_drift_ppm: float | None = None
    connect_s: float | None = None
    first_picture_s: float | None = None
    decode_ms: float | None = None
    pictures: int = 0
    decode_errors: int = 0
    seconds: float = 0.0
    lost: str = ""
    not_measured: str = ""

    @property
    def fps(self) -> float | None:
        """The rate measured, else declared."""
        return self.fps_measured or self.fps_declared


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How regular pictures are.

    Attributes:
        fps: Pictures per second by their timestamps; None for fewer than three.
        jitter_ms: See `Survey`.
        variable: Whether more than a tenth of the intervals are half off the usual one.
    """

    fps: float | None = None
    jitter_ms: float | None = None
    variable: bool | None = None


def rhythm_of(pts_ns: list[int], arrived_ns: list[int]) -> Rhythm:
    """How regular pictures are.

    Args:
        pts_ns: Their timestamps, never decreasing.
        arrived_ns: Monotonic times at which they came; as many.
    """
    if len(pts_ns) < 3 or pts_ns[-1] <= pts_ns[0]:
        return Rhythm()
    steps = [late - early for early, late in itertools.pairwise(pts_ns)]
    usual = median(steps)
    odd = sum(abs(step - usual) > _IRREGULAR * usual for step in steps)
    delays = [arrived - pts for arrived, pts in zip(arrived_ns, pts_ns, strict=True)]
    middle = median(delays)
    off = sorted(abs(delay - middle) for delay in delays)
    return Rhythm(
        fps=len(steps) * 1e9 / (pts_ns[-1] - pts_ns[0]),
        jitter_ms=off[round(0.95 * (len(off) - 1))] / 1e6,
        variable=odd > _SHARE * len(steps),
    )


#: Counts packets until a monotonic time; raises SourceError.
Count = Callable[[float], Tally]


def survey(
    url: str,
    *,
    seconds: float = 5.0,
    transport: str = "tcp",
    decode: str = "auto",
    tls_verify: bool = True,
    tls_ca: str | None = None,
    connect_timeout_s: float = 10.0,
    read_timeout_s: float = 5.0,
) -> Survey:
    """Read a stream or recording for some seconds and measure it.

    A live stream is opened twice: once to decode it as a run would, and once more for its packets.

    Args:
        url: URL of a stream, a camera of this computer, or a video file.
        seconds: How long, from the first picture.
        transport: Of RTSP: ``tcp``, ``udp``, ``multicast``, ``http``.
        decode: ``auto``, ``cpu``, or a device.
        tls_verify: Whether a certificate must be valid.
        tls_ca: Certificates to trust instead of the system's, a PEM file.
        connect_timeout_s: Longest time until it is open.
        read_timeout_s: Longest silence.

    Raises:
        ConfigError: it is nothing that can be probed, or an argument is wrong.
        SourceError: it cannot be opened, or gives no picture.
    """
    kind = detect_kind(url)
    if kind == "file":
        return _survey_file(url, seconds)
    if kind not in ("stream", "device"):
        raise ConfigError(
            "only streams, cameras and video files can be probed",
            hint="give an rtsp:// or http:// URL, /dev/video0, or the path of a video",
        )
    address = parse_address(_NAME, url, transport)
    options: dict[str, Any] = {"tls_verify": tls_verify, "tls_ca": tls_ca}
    connection = StreamConnection(
        _NAME,
        url,
        transport=transport,
        decode=decode,
        connect_timeout_s=connect_timeout_s,
        read_timeout_s=read_timeout_s,
        **options,
    )

    def count(until_s: float) -> Tally:
        opened = connect(
            _NAME, address, options={}, timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s, **options
        )
        try:
            return count_packets(opened.container, opened.stream, opened.codec, until_s)
        finally:
            opened.container.close()

    result = Survey(address.shown + address.path if address.scheme != "v4l2" else address.shown, kind)
    # A camera of this computer cannot be opened twice.
    survey_live(lambda: connection, result, seconds, None if kind == "device" else count)
    return result


def survey_live(connect_: Connect, result: Survey, seconds: float, count: Count | None) -> None:
    """Measure one connection, and its packets over another one at the same time.

    Args:
        connect_: Makes the connection.
        result: Is filled in.
        seconds: How long, from the first picture.
        count: Counts the packets; None to leave that out.

    Raises:
        SourceError: there is not one picture.
    """
    connection = connect_()
    start_s = time.monotonic()
    packets: _Packets | None = None
    try:
        facts: StreamFacts = connection.open()
        result.connect_s = time.monotonic() - start_s
        first = connection.read()
        if first is None:
            raise SourceError(f"{result.url} ends before its first picture", reason="codec", source=_NAME)
        result.first_picture_s = time.monotonic() - start_s
        until_s = time.monotonic() + seconds
        packets = None if count is None else _Packets(count, until_s)
        _take(connection.read, first, result, until_s)
        facts = getattr(connection, "facts", None) or facts
        result.clock_offset_s, result.clock_drift_ppm = connection.clock_offset_s, connection.drift_ppm
        result.decode_errors = connection.decode_errors
    finally:
        connection.close()
        if packets is not None:
            packets.finish()
    result.codec, result.fps_declared, result.audio = facts.codec, facts.frame_rate, facts.audio
    result.transport, result.decoder, result.refusals = facts.transport, facts.decoder, list(facts.refusals)
    if packets is not None:
        packets.fill(result)
    if result.keyframe_interval_s is None:  # The first connection saw a little more.
        result.keyframe_interval_s = getattr(connection, "keyframe_interval_s", None)
        if (result.keyframe_at_least_s or 0) <= 1.1 * (result.keyframe_interval_s or 0):
            result.keyframe_at_least_s = None


def _survey_file(url: str, seconds: float) -> Survey:
    check_source(url)
    result = Survey(str(local_path(url)), "file", transport="file")
    source = FileSource(_NAME, url)
    start_s = time.monotonic()
    try:
        source.open()
        result.connect_s = time.monotonic() - start_s
        first = source.read()
        if first is None:
            raise SourceError(f"{result.url} holds no picture", source=_NAME)
        result.first_picture_s = time.monotonic() - start_s
        _take(source.read, first, result, time.monotonic() + seconds)
        result.fps_declared, result.decode_errors = source.frame_rate, source.decode_errors
    finally:
        source.close()
    result.jitter_ms = None  # It comes as fast as it is read.
    try:
        with avlog.listen(), av.open(result.url) as container:
            videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
            sounds: list[Any] = [s.codec_context for s in container.streams.audio]
            result.codec = videos[0].codec_context.codec.canonical_name
            result.audio = next((sound.name for sound in sounds if sound is not None), "")
            _fill(result, count_packets(container, videos[0], result.codec, time.monotonic() + seconds))
    except (av.FFmpegError, OSError) as error:
        result.not_measured = f"its packets cannot be read ({getattr(error, 'strerror', None) or 'damaged'})"
    return result


def _fill(result: Survey, tally: Tally) -> None:
    result.profile, result.bit_rate_kbps = tally.profile, tally.bit_rate_kbps
    result.b_frames = tally.reordered if tally.span_s else None
    result.fps_declared = tally.fps or result.fps_declared
    result.keyframe_interval_s = tally.keyframe_interval_s
    result.keyframe_at_least_s = tally.keyframe_at_least_s


def _take(read: Callable[[], Picture | None], first: Picture, result: Survey, until_s: float) -> None:
    """Take pictures until the time is up or the source ends, and judge them."""
    start_s, cpu_s = time.monotonic(), time.thread_time()
    pts_ns, arrived_ns = [first.pts_ns], [first.captured_ns]
    picture = first
    while time.monotonic() < until_s:
        try:
            later = read()
        except SourceError as error:
            result.lost = error.message
            break
        if later is None:
            result.lost = "" if result.kind == "file" else "it ended"
            break
        picture = later
        pts_ns.append(picture.pts_ns)
        arrived_ns.append(picture.captured_ns)
    rhythm = rhythm_of(pts_ns, arrived_ns)
    result.fps_measured, result.jitter_ms, result.variable_rate = (
        rhythm.fps,
        rhythm.jitter_ms,
        rhythm.variable,
    )
    result.width, result.height, result.clock = picture.width, picture.height, picture.clock
    result.pictures, result.seconds = len(pts_ns), time.monotonic() - start_s
    if len(pts_ns) > 1:
        result.decode_ms = (time.thread_time() - cpu_s) * 1000 / (len(pts_ns) - 1)


class _Packets:
    """Counts packets in a thread of its own."""

    def __init__(self, count: Count, until_s: float) -> None:
        self._count = count
        self._until_s = until_s
        self._tally: Tally | None = None
        self._refused = "it took too long"
        self._thread = threading.Thread(target=self._run, name="packets", daemon=True)
        self._thread.start()

    def finish(self) -> None:
        self._thread.join(max(self._until_s - time.monotonic(), 0) + 10 + _SLACK_S)

    def fill(self, result: Survey) -> None:
        if self._tally is not None:
            _fill(result, self._tally)
        else:
            result.not_measured = f"the second connection, which counts packets, failed: {self._refused}"

    def _run(self) -> None:
        try:
            self._tally = self._count(self._until_s)
        except (SourceError, ConfigError) as error:
            self._refused = error.message
