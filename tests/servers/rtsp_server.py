"""An RTSP camera for tests: loops coded pictures as they are, tells its port, and can be made to misbehave.

Run by the system's Python (GStreamer has no wheel): ``/usr/bin/python3 -I rtsp_server.py SETTINGS``, where
SETTINGS is JSON. Reads commands from standard input, one JSON object a line; ends when that closes. Writes
events to standard output, one JSON object a line; the first has the port. `handles.RtspServer` does all that.
"""

from __future__ import annotations

import json
import os
import random
import re
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

import gi  # type: ignore[import-not-found]

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, GObject, Gst, GstRtsp, GstRtspServer  # type: ignore[import-not-found]  # noqa: E402

_DELIMITER = {
    "h264": re.compile(rb"\x00?\x00\x00\x01\x09"),
    "h265": re.compile(rb"\x00?\x00\x00\x01\x46\x01"),
}
_CAPS = {"h264": "video/x-h264", "h265": "video/x-h265"}
_SAID = threading.Lock()
#: NTP counts seconds from 1900, not from 1970.
_NTP_EPOCH_S = 2_208_988_800
_SECOND = 1_000_000_000


def say(**event: Any) -> None:
    """Write one event line; several threads do."""
    with _SAID:
        sys.stdout.write(json.dumps(event) + "\n")
        sys.stdout.flush()


def access_units(path: str, codec: str) -> list[bytes]:
    """Coded pictures of an Annex B file, cut in front of each access unit delimiter."""
    data = Path(path).read_bytes()
    starts = [match.start() for match in _DELIMITER[codec].finditer(data)]
    return [data[at:end] for at, end in zip(starts, [*starts[1:], len(data)])]  # noqa: B905


def picture_at(unit: bytes, codec: str) -> int:
    """Where the coded picture itself begins: behind the header of the first NAL unit that is one."""
    for match in re.finditer(rb"\x00\x00\x01", unit):
        at = match.end()
        kind = unit[at] & 31 if codec == "h264" else unit[at] >> 1 & 63
        if (1 <= kind <= 5) if codec == "h264" else kind < 32:
            return at + (1 if codec == "h264" else 2)
    return len(unit)


def is_keyframe(unit: bytes, codec: str) -> bool:
    """Whether decoding can start here."""
    at = picture_at(unit, codec)
    header = unit[at - 1] if codec == "h264" else unit[at - 2]
    return header & 31 == 5 if codec == "h264" else 16 <= header >> 1 & 63 <= 21


class Mount:
    """One camera: its pictures, its faults, and how far it has come; many connections see the same."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.path: str = settings["path"]
        self.codec: str = settings["codec"]
        self.fps: float = settings["fps"]
        self.faults: dict[str, Any] = settings["faults"]
        self.audio: bool = settings["audio"]
        self.rtcp_interval_s: float = settings["rtcp_interval_s"]
        self.clock_offset_s: float = settings["clock_offset_s"]
        self.rate = 1 + settings["clock_drift_ppm"] * 1e-6
        self.units = [unit for name in settings["files"] for unit in access_units(name, self.codec)]
        self.keyframes = [is_keyframe(unit, self.codec) for unit in self.units]
        self.at: int = settings["at"]
        self.sent = 0
        self.silent = False
        self.random = random.Random(7)
        self.log = os.open(settings["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def next(self) -> tuple[int, bytes]:
        """Position and bytes of the next picture, damaged when its turn has come."""
        at, self.at = self.at, (self.at + 1) % len(self.units)
        self.sent += 1
        unit, every = self.units[at], self.faults["damage_every"]
        return at, self.damaged(unit) if every and self.sent % every == 0 else unit

    def damaged(self, unit: bytes) -> bytes:
        """The picture with half of it missing, or with bytes changed in its middle."""
        start = picture_at(unit, self.codec) + 4
        if len(unit) - start < 8:
            return unit
        if self.faults["damage"] == "truncate":
            return unit[: start + (len(unit) - start) // 2]
        data = bytearray(unit)
        for at in self.random.sample(range(start, len(unit)), k=min(64, (len(unit) - start) // 2)):
            # Never a byte that could make a start code of its neighbours.
            data[at] = data[at] ^ 0x55 | 0x80
        return bytes(data)

    def fall_silent(self) -> None:
        """Say so once."""
        if not self.silent:
            self.silent = True
            say(event="silent", mount=self.path)

    def clock(self) -> Any:
        """The camera's clock: NTP time, ahead of this host's and faster than it as it was told."""
        clock = GObject.new(Gst.SystemClock.__gtype__, name=f"camera{self.path}")
        internal = clock.get_internal_time()
        now = time.time() + _NTP_EPOCH_S + self.clock_offset_s
        clock.set_calibration(internal, int(now * _SECOND), round(self.rate * 1_000_000_000), 1_000_000_000)
        return clock

    def rewind_to_keyframe(self) -> None:
        """A camera begins each new connection with a keyframe."""
        while not self.keyframes[self.at]:
            self.at = (self.at + 1) % len(self.units)


class Feeder(threading.Thread):
    """Gives one prepared medium its pictures at the camera's pace, until that is torn down."""

    def __init__(self, server: Server, mount: Mount, media: Any) -> None:
        super().__init__(daemon=True)
        self.server, self.mount, self.media = server, mount, media
        self.source = media.get_element().get_by_name("camera")
        self.microphone = media.get_element().get_by_name("microphone")
        self.over = threading.Event()
        media.connect("unprepared", lambda _: self.over.set())

    def run(self) -> None:
        """Push picture after picture; a pause (silence, a stopped process) moves the rest, it skips none."""
        element = self.media.get_element()
        while element.get_state(50 * Gst.MSECOND)[1] != Gst.State.PLAYING:
            if self.over.is_set():
                return
        mount, count, pushed = self.mount, 0, 0
        mount.rewind_to_keyframe()
        origin = time.monotonic()
        base = element.get_clock().get_time() - element.get_base_time()
        step = 1 / mount.fps
        while not self.over.is_set():
            late = time.monotonic() - (origin + count * step)
            if late > 0.5:
                origin += late
                base += int(late * mount.rate * _SECOND)
            elif late < 0 and self.over.wait(-late):
                return
            pts = base + int(count * step * mount.rate * _SECOND)
            count += 1
            silent_after, limit = mount.faults["silent_after"], mount.faults["limit"]
            if silent_after is not None and pushed >= silent_after:
                mount.fall_silent()
                continue
            mount.silent = False
            at, unit = mount.next()
            os.write(mount.log, struct.pack("<QQ", at, time.monotonic_ns()))
            self._push(self.source, unit, pts, step)
            if self.microphone is not None:
                self._push(self.microphone, b"\xd5" * int(8000 * step), pts, step)
            pushed += 1
            if limit is not None and pushed >= limit:
                self._finish()
                return

    def _push(self, source: Any, data: bytes, pts: int, duration_s: float) -> None:
        buffer = Gst.Buffer.new_wrapped(data)
        buffer.pts = buffer.dts = pts
        buffer.duration = int(duration_s * _SECOND)
        source.emit("push-buffer", buffer)

    def _finish(self) -> None:
        say(event="ended", mount=self.mount.path)
        for source in filter(None, (self.source, self.microphone)):
            source.emit("end-of-stream")
        if self.mount.faults["end"] == "close":
            GLib.idle_add(self.server.close, self.mount.path)


class Server:
    """The server process: mounts, accounts, commands."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.server = GstRtspServer.RTSPServer()
        self.server.set_address("127.0.0.1")
        self.server.set_service(str(settings["port"]))
        self.server.set_backlog(64)
        self.mounts = {mount["path"]: Mount(mount) for mount in settings["mounts"]}
        self.clients: list[Any] = []
        self.server.connect("client-connected", self._connected)
        self._guard(settings["auth"], settings["tls"])
        table = self.server.get_mount_points()
        for mount in self.mounts.values():
            table.add_factory(mount.path, self._factory(mount, bool(settings["auth"] or settings["tls"])))
        if self.server.attach(None) == 0:
            sys.exit(f"cannot listen on 127.0.0.1:{settings['port']}")

    def _guard(self, auth: dict[str, str] | None, tls: dict[str, str] | None) -> None:
        if auth is None and tls is None:
            return
        guard = GstRtspServer.RTSPAuth()
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "viewer")
        if auth is None:
            guard.set_default_token(token)
        elif auth["scheme"] == "digest":
            guard.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
            guard.add_digest(auth["user"], auth["password"], token)
        else:
            guard.add_basic(GstRtspServer.RTSPAuth.make_basic(auth["user"], auth["password"]), token)
        if tls is not None:
            guard.set_tls_certificate(Gio.TlsCertificate.new_from_files(tls["cert"], tls["key"]))
        self.server.set_auth(guard)

    def _factory(self, mount: Mount, guarded: bool) -> Any:
        factory = GstRtspServer.RTSPMediaFactory()
        kind = mount.codec
        launch = (
            f"( appsrc name=camera is-live=true format=time max-bytes=0 block=false "
            f'caps="{_CAPS[kind]},stream-format=byte-stream,alignment=au" '
            f"! rtp{kind}pay name=pay0 pt=96 config-interval=-1 "
        )
        if mount.audio:
            # Not audiotestsrc: that can seek, so the server would seek at PLAY, which the pictures cannot.
            launch += (
                "appsrc name=microphone is-live=true format=time max-bytes=0 block=false "
                'caps="audio/x-alaw,rate=8000,channels=1" ! rtppcmapay name=pay1 pt=8 '
            )
        factory.set_launch(launch + ")")
        factory.set_shared(True)
        factory.set_latency(0)
        factory.connect("media-configure", self._configure, mount)
        if guarded:
            factory.add_role_from_structure(_permissions())
        return factory

    def _configure(self, _factory: Any, media: Any, mount: Mount) -> None:
        media.get_element().get_parent().connect("deep-element-added", self._tune, mount)
        media.set_clock(mount.clock())
        Feeder(self, mount, media).start()

    def _tune(self, _pipeline: Any, _bin: Any, element: Any, mount: Mount) -> None:
        # Sender reports come early enough for a test, and by the camera's own clock.
        kind = element.get_factory().get_name()
        if kind == "rtpbin":
            element.set_property("ntp-time-source", 3)  # the clock of the medium
        elif kind == "rtpsession":
            session = element.get_property("internal-session")
            session.set_property("rtcp-min-interval", int(mount.rtcp_interval_s * _SECOND))

    def _connected(self, _server: Any, client: Any) -> None:
        self.clients.append(client)
        say(event="connected", clients=len(self.clients))
        client.connect("closed", self._closed)
        client.connect("play-request", lambda *_: say(event="playing"))

    def _closed(self, client: Any) -> None:
        self.clients.remove(client)
        say(event="closed", clients=len(self.clients))

    def close(self, path: str) -> bool:
        """Hang up on everybody who watches a mount."""
        for client in list(self.clients):
            watched = [medium for s in client.session_filter(None) for medium in s.filter(None)]
            if any(medium.matches(path)[0] for medium in watched):
                client.close()
        return False

    def command(self, line: str) -> None:
        """Obey one line from standard input."""
        order = json.loads(line)
        mount = self.mounts[order.pop("mount")]
        if order.pop("close", False):
            self.close(mount.path)
        mount.faults.update(order)
        say(event="obeyed", mount=mount.path)


def _permissions() -> Any:
    structure = Gst.Structure.new_empty("viewer")
    structure.set_value("media.factory.access", True)
    structure.set_value("media.factory.construct", True)
    return structure


def _listen(server: Server, loop: Any) -> None:
    for line in sys.stdin:
        GLib.idle_add(lambda line=line: server.command(line))
    loop.quit()


def main() -> None:
    """Serve until standard input closes."""
    Gst.init(None)
    server = Server(json.loads(sys.argv[1]))
    loop = GLib.MainLoop()
    threading.Thread(target=_listen, args=(server, loop), daemon=True).start()
    say(event="ready", port=server.server.get_bound_port(), gstreamer=Gst.version_string())
    loop.run()


if __name__ == "__main__":
    main()
