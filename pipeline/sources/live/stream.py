"""One connection to a live stream through FFmpeg (PyAV): RTSP, HTTP, RTMP, UDP, and local cameras."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import av
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from pipeline.errors import ConfigError, SourceError
from pipeline.sources.base import Picture, PixelFormat, Pixels
from pipeline.sources.live import avlog, faults
from pipeline.sources.live.address import parse_address
from pipeline.sources.live.avlog import Line
from pipeline.sources.live.base import StreamFacts
from pipeline.sources.live.decoders import check_decode, choose_decoder, configure
from pipeline.sources.live.device import check_device
from pipeline.sources.live.faults import Fault
from pipeline.sources.live.intake import HEAD_BYTES, Coded, Intake
from pipeline.sources.live.opening import Opened, connect, rate_of, time_base_of
from pipeline.sources.live.pictures import PictureMaker
from pipeline.sources.live.thinning import INTRA_ONLY
from pipeline.sources.packets import PacketRing

__all__ = ["StreamConnection"]

_SECOND_NS = 1_000_000_000
#: Once all pictures come so much too late, only a new connection brings new ones.
_BEHIND_S = 5.0
_PARSED = ("h264", "hevc")
#: A packet that came sooner had been waiting for us.
_WAITED_NS = 2_000_000
#: Formats that come in bursts, or as fast as we read: their pictures are given at their own pace.
_BURSTS = ("hls", "dash")
#: Formats without timestamps, for which FFmpeg invents 25 pictures a second.
_UNTIMED = ("mpjpeg", "mjpeg", "h264", "hevc", "m4v", "image2pipe", "jpeg_pipe")
#: A paced stream that is later or earlier than this begins a new pace.
_LATE_NS = _SECOND_NS // 2
_EARLY_NS = 5 * _SECOND_NS
_MAX_BAD_READS = 20
#: Packets that may have been read while the stream was opened.
_READ_AHEAD = 3
_READ_SLACK_S = 2.0
#: What comes beside connecting: a second look at a certificate, trying a graphics card.
_OPEN_SLACK_S = 6.0


class StreamConnection:
    """A live stream; a `pipeline.sources.live.base.Connection`.

    A picture that did not come whole, or is built on one that did not, is never given: after a loss the
    next is that of a clean keyframe. Those left out for it are counted in ``decode_errors``.

    Args:
        name: Name of the source.
        url: URL of the stream with its credentials, or ``0`` or ``/dev/video0``.
        pixels: ``fast`` for I420, ``exact`` for BGR.
        transport: Of RTSP: ``tcp``, ``udp``, ``multicast``, ``http``.
        tls_verify: Whether the server's certificate must be valid.
        tls_ca: Certificates to trust instead of the system's, a PEM file.
        decode: ``auto``, ``cpu``, or the device that must decode.
        threads: Decoder threads.
        connect_timeout_s: Longest time until the stream is open.
        read_timeout_s: Longest silence.
        max_fps: Highest rate that is wanted; what decoding can be spared for it is skipped.
        max_age_s: A stream that lags by more is skipped undecoded up to its next keyframe.
        awake: False while pictures are not wanted at all: packets are read and dropped.
        options: Options of FFmpeg, over those set here.
        recorder: Keeps packets for clips; None for nobody.

    Attributes:
        facts: What the stream is; None before it is open, its size 0 until the first picture tells.
        heard_ns: See `Connection`; sound and silence beside the pictures do not count.
        bound_s: See `Connection`; a call in which packets keep coming may last longer, as long as none of
            them is wanted.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        pixels: Pixels = "fast",
        transport: str = "tcp",
        tls_verify: bool = True,
        tls_ca: str | None = None,
        decode: str = "auto",
        threads: int = 1,
        connect_timeout_s: float = 10.0,
        read_timeout_s: float = 5.0,
        max_fps: float | None = None,
        max_age_s: float = 1.0,
        awake: Callable[[], bool] = lambda: True,
        options: Mapping[str, str] | None = None,
        recorder: PacketRing | None = None,
    ) -> None:
        self.name = name
        self.heard_ns = 0
        self.facts: StreamFacts | None = None
        self.bound_s = connect_timeout_s + _OPEN_SLACK_S
        self._address = parse_address(name, url, transport)
        self._pixel_format: PixelFormat = "i420" if pixels == "fast" else "bgr24"
        self._decode = decode
        self._threads = threads
        self._max_behind_s = max(_BEHIND_S, 3 * max_age_s)
        self._read_timeout_s = read_timeout_s
        self._connect = partial(
            connect, name, options={key: str(value) for key, value in (options or {}).items()},
            timeout_s=connect_timeout_s, read_timeout_s=read_timeout_s, tls_verify=tls_verify, tls_ca=tls_ca,
            recorder=recorder,
        )  # fmt: skip
        self._new_intake = partial(Intake, max_fps=max_fps, max_age_s=max_age_s, awake=awake)
        self._intake = self._new_intake("")
        self._maker = PictureMaker(self._pixel_format)
        self._opened: Opened | None = None
        self._context: VideoCodecContext | None = None
        self._packets: Iterator[Packet[Any]] = iter(())
        self._interrupted = threading.Event()
        self._listening = False
        self._ready: deque[Picture] = deque()
        self._ending: Fault | None = None
        self._ended = False
        self._paced = False
        self._due_ns: int | None = None
        self._picture_ns = 0
        self._bad_reads = 0
        self._early = _READ_AHEAD

    @property
    def skipped(self) -> int:
        """See `Connection`."""
        return self._intake.skipped

    @property
    def decode_errors(self) -> int:
        """See `Connection`."""
        return self._intake.damaged

    @property
    def clock_offset_s(self) -> float | None:
        """See `Connection`."""
        return self._maker.camera_clock.offset_s

    @property
    def drift_ppm(self) -> float | None:
        """See `Connection`."""
        return self._maker.camera_clock.drift_ppm

    @property
    def keyframe_interval_s(self) -> float | None:
        """Time between the last two keyframes; None before them."""
        return self._intake.keyframe_interval_s

    @property
    def pts_restarts(self) -> int:
        """How often the stream's timestamps started anew."""
        return self._maker.pts_clock.restarts

    def open(self) -> StreamFacts:
        """See `Connection.open`.

        Raises:
            ConfigError: it can never be read as it is configured.
            SourceError: it cannot be read now.
        """
        avlog.listening(True)
        self._listening = True
        try:
            return self._open()
        except (SourceError, ConfigError):
            self.close()
            raise

    def read(self) -> Picture | None:
        """See `Connection.read`; also None after `interrupt`."""
        while not self._interrupted.is_set():
            if self._ready:
                picture = self._ready.popleft()
                self._picture_ns = time.monotonic_ns()
                return picture
            if self._ending is not None:
                raise faults.raised(self._ending, self.name, lost=True)
            if self._ended or self._opened is None:
                return None
            self._step(self._opened)
        return None

    def interrupt(self) -> None:
        """Have `read` return None after its next packet; any thread may call it."""
        self._interrupted.set()

    def close(self) -> None:
        """See `Connection.close`."""
        opened, self._opened = self._opened, None
        if opened is not None:
            # The generator lives on meanwhile: with it PyAV's limit for the last read also bounds goodbyes.
            opened.container.close()
        self._packets = iter(())
        self._context = None
        if self._listening:
            self._listening = False
            avlog.listening(False)

    def _open(self) -> StreamFacts:
        address = self._address
        check_decode(self.name, self._decode)
        if address.scheme == "v4l2":
            check_device(self.name, address.url)
        opened = self._connect(address)
        self._opened = opened
        choice = choose_decoder(self.name, self._decode, opened.context)
        self._use(choice.context)
        stream = opened.stream
        # FFmpeg's guess counts fields where it has read little ahead; the parameter sets come first.
        rates = (opened.context.framerate, stream.average_rate, stream.guessed_rate)
        rate = next((rate for rate in map(rate_of, rates) if rate), None)
        untimed = opened.container.format.name in _UNTIMED
        rate = None if untimed else rate
        # FFmpeg's parser hands a picture over when the next one begins.
        held_s = 1 / rate if rate and opened.codec in _PARSED and address.scheme.startswith("rtsp") else 0.0
        time_base = None if untimed else time_base_of(stream)
        self._maker = PictureMaker(self._pixel_format, time_base, rate, held_s=held_s)
        self._intake = self._new_intake(opened.codec, opened.context.extradata or b"")
        self._paced = bool(opened.duration_ns) or opened.container.format.name.split(",")[0] in _BURSTS
        self._packets = opened.packets()
        self._picture_ns = time.monotonic_ns()
        self.bound_s = self._read_timeout_s + _READ_SLACK_S
        self.facts = StreamFacts(
            codec=opened.codec,
            width=opened.context.width,
            height=opened.context.height,
            frame_rate=rate,
            decoder=choice.name,
            refusals=choice.refusals,
            audio=opened.audio,
            transport=address.transport,
        )
        return self.facts

    def _use(self, context: VideoCodecContext) -> None:
        configure(context, self._threads)
        self._context = context

    def _step(self, opened: Opened) -> None:
        """Read one packet and do with it what there is to do."""
        asked_ns = time.monotonic_ns()
        error: Exception | None = None
        packet: Packet[Any] | None = None
        with avlog.listen() as lines:
            try:
                packet = next(self._packets, None)
            except (av.FFmpegError, OSError) as problem:
                error = problem
        now_ns = time.monotonic_ns()
        silent_s = (now_ns - asked_ns) / 1e9
        if error is not None:
            self._broke(opened, error, silent_s)
        elif silent_s >= self._read_timeout_s and packet is not None and packet.size:
            # FFmpeg was interrupted and gives what it had begun to put together: not a whole picture.
            self._broke(opened, av.error.ExitError(0, ""), silent_s)
        elif packet is None or not packet.size:
            self._end(opened)
        elif packet.stream_index == opened.stream.index:
            self._bad_reads = 0
            self.heard_ns = now_ns
            if self._early > 0:  # A loss while it was opened is in what was read ahead then.
                self._early -= 1
                lines = [*opened.lines, *lines]
            self._take(packet, lines, now_ns, now_ns - asked_ns > _WAITED_NS)
        self._check_silence(now_ns)

    def _take(self, packet: Packet[Any], lines: Sequence[Line], now_ns: int, waited: bool) -> None:
        maker = self._maker
        maker.hear(packet)
        behind_s = maker.camera_clock.behind_s(waited)
        if behind_s > self._max_behind_s:
            self._ending = faults.behind_fault(self._address, behind_s)
        time_ns = maker.nanoseconds(packet.pts if packet.pts is not None else packet.dts)
        if self._paced and time_ns is not None:
            now_ns = self._wait_until_due(time_ns, now_ns)
        coded = Coded(
            head=bytes(memoryview(packet)[:HEAD_BYTES]),
            time_ns=time_ns,
            arrival_ns=now_ns,
            waited=waited,
            keyframe=packet.is_keyframe,
            corrupt=packet.is_corrupt,
        )
        if self._intake.wants(coded, lines):
            self._decode_packet(packet)

    def _decode_packet(self, packet: Packet[Any]) -> None:
        context = self._context
        assert context is not None
        if self._intake.fresh and context.is_open:
            context.flush_buffers()  # What it had before a loss must not show up in what comes after.
        frames: list[VideoFrame] = []
        failed = False
        with avlog.listen() as lines:
            try:
                frames = context.decode(packet)
            except (av.FFmpegError, OSError) as error:
                failed = not isinstance(error, EOFError)
        if failed and self._fall_back():
            self._decode_packet(packet)
        elif self._intake.decoded(len(frames), lines, failed):
            self._give(frames)

    def _give(self, frames: Sequence[VideoFrame]) -> None:
        rate = rate_of(self._context.framerate) if self._context is not None else None
        if self.facts is not None and self.facts.codec in INTRA_ONLY:
            rate = None  # FFmpeg's guess.
        for frame in frames:
            if frame.is_corrupt or not self._intake.trusted:
                self._intake.leave_out_damaged()
                continue
            restarts = self.pts_restarts
            picture = self._maker.make(frame, rate)
            if self.pts_restarts != restarts:
                self._intake.restart()
            self._ready.append(picture)
        facts, maker = self.facts, self._maker
        if facts is not None and maker.made and (facts.width, facts.height) != (maker.width, maker.height):
            self.facts = replace(facts, width=maker.width, height=maker.height)

    def _fall_back(self) -> bool:
        """The device could not do this stream's first picture after all: let the processor."""
        facts, opened = self.facts, self._opened
        if facts is None or opened is None or self._decode != "auto":
            return False
        if facts.decoder == "cpu" or self._maker.made:
            return False
        why = f"{facts.decoder}: it cannot decode this stream"
        self.facts = replace(facts, decoder="cpu", refusals=(*facts.refusals, why))
        self._use(opened.context)
        return True

    def _wait_until_due(self, raw_ns: int, now_ns: int) -> int:
        """Wait for a packet's turn where a stream comes in bursts; the time then."""
        if self._due_ns is None or not -_LATE_NS < raw_ns + self._due_ns - now_ns < _EARLY_NS:
            self._due_ns = now_ns - raw_ns
        wait_ns = raw_ns + self._due_ns - now_ns
        if wait_ns > 0:
            self._interrupted.wait(wait_ns / 1e9)
        return time.monotonic_ns()

    def _check_silence(self, now_ns: int) -> None:
        """Sound may go on without pictures, and pictures may come that nobody can decode."""
        if self._ending is not None or self._ended or self._ready or self._paced:
            return
        shown = self._address.shown
        silent_ns = now_ns - max(self.heard_ns, self._picture_ns)
        if silent_ns > self._read_timeout_s * 1e9:
            message = f"{shown} sent no picture for {silent_ns / 1e9:.1f} s, though the connection is open"
            self._ending = Fault("timeout", message, "check the camera")
        elif self._intake.idle:
            self._picture_ns = now_ns
        elif now_ns - self._picture_ns > self._intake.patience_ns:
            silent_s = (now_ns - self._picture_ns) / 1e9
            message = f"{shown} sent no picture that could be decoded for {silent_s:.0f} s"
            self._ending = Fault("codec", message, "set the camera to H.264 and a keyframe every 1 or 2 s")

    def _broke(self, opened: Opened, error: Exception, silent_s: float) -> None:
        if isinstance(error, av.error.InvalidDataError) and self._bad_reads < _MAX_BAD_READS:
            self._bad_reads += 1
            self._intake.leave_out_damaged()
            self._packets = opened.packets()
            return
        if self.heard_ns:
            silent_s = max(silent_s, (time.monotonic_ns() - self.heard_ns) / 1e9)
        self._ending = faults.lost_fault(
            error, self._address, silent_s=silent_s, timeout_s=self._read_timeout_s
        )

    def _end(self, opened: Opened) -> None:
        """The stream ended; a recording's end is its own, a camera does not end."""
        context = self._context
        if context is not None and context.is_open and self._intake.trusted:
            try:
                self._give(context.decode(None))
            except (av.FFmpegError, OSError):
                self._intake.leave_out_damaged()
        last_ns = self._maker.pts_clock.last_ns or 0
        if opened.duration_ns and last_ns > 0.9 * opened.duration_ns - _SECOND_NS:
            self._ended = True
        else:
            self._ending = faults.lost_fault(None, self._address, silent_s=0, timeout_s=self._read_timeout_s)
