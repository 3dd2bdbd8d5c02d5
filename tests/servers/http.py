"""A camera that speaks HTTP: numbered pictures as MJPEG and as a live HLS playlist, with faults on demand."""

from __future__ import annotations

import base64
import contextlib
import functools
import http.server
import itertools
import socket
import ssl
import threading
import time
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

import av
import cv2

from tests.servers.certs import Certificate
from tests.servers.streams import Clip, clip, make_folder, pictures

__all__ = ["HttpCamera"]

_BOUNDARY = "framewire-test"
_TICKS = Fraction(1, 90_000)
_WINDOW = 3  # segments in the playlist, as most servers keep


@functools.cache
def _jpegs(frames: int, size: tuple[int, int]) -> tuple[bytes, ...]:
    return tuple(cv2.imencode(".jpg", image)[1].tobytes() for image in pictures(frames, size))


@functools.cache
def _segments(source: Clip, seconds: int) -> Path:
    """Folder with ``0.ts``, ``1.ts``, ...: the clip again and again, one segment for each keyframe."""
    folder = make_folder() / f"hls-{source.path.stem}-{seconds}"
    folder.mkdir()
    options = {
        "hls_time": "0.001",  # at every keyframe
        "hls_list_size": "0",
        "hls_segment_filename": str(folder / "%d.ts"),
    }
    with av.open(str(folder / "all.m3u8"), "w", format="hls", options=options) as out:
        stream = None
        for number in itertools.count():
            if number * source.frames >= seconds * source.fps:
                break
            with av.open(str(source.path), options={"framerate": str(source.fps)}) as container:
                video = container.streams.video[0]
                stream = stream or out.add_stream_from_template(video)
                at = number * source.frames
                for packet in container.demux(video):
                    if packet.size:
                        packet.pts = packet.dts = at * 90000 // source.fps
                        packet.time_base = _TICKS
                        packet.stream = stream
                        out.mux(packet)
                        at += 1
    return folder


class HttpCamera:
    """A real HTTP server on loopback in threads of this process; a context manager.

    ``/mjpeg`` is a ``multipart/x-mixed-replace`` stream, ``/live.m3u8`` a playlist whose window of three
    segments moves on with time and which ends after ``seconds``. Both show numbers 0, 1, 2, ... up to
    ``frames`` and again. A connection to ``/mjpeg`` begins with the picture of that moment and misses none.

    Args:
        fps: Pictures per second.
        frames: How many different pictures; a multiple of ``fps``.
        size: Width and height in pixels.
        user: Who may watch, by basic authentication; empty lets everybody in.
        password: With which password.
        tls: Certificate of an HTTPS server; None for plain HTTP.
        seconds: How long the playlist goes on.

    Attributes:
        status: Answer every request with this status instead (401, 404, 503, ...); None to serve.
        limit: Pictures after which an MJPEG stream is closed in good order, as cameras do; None for never.
        requests: Paths asked for, in order.
        sent: MJPEG pictures sent so far: number, and monotonic time in ns.
    """

    def __init__(
        self,
        *,
        fps: int = 20,
        frames: int = 100,
        size: tuple[int, int] = (640, 360),
        user: str = "",
        password: str = "",
        tls: Certificate | None = None,
        seconds: int = 60,
    ) -> None:
        self.fps, self.frames, self.size, self.seconds = fps, frames, size, seconds
        self.user, self.password = user, password
        self.tls = tls
        self.status: int | None = None
        self.limit: int | None = None
        self.requests: list[str] = []
        self.sent: list[tuple[int, int]] = []
        self.over = threading.Event()
        self.talk = threading.Event()
        self.talk.set()
        self.began = time.monotonic()
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), self)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> Self:
        _jpegs(self.frames, self.size)
        self.began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self.talk.set()
        self._server.shutdown()
        self.cut()
        self._server.server_close()
        self._thread.join()

    def url(self, path: str = "mjpeg", user: str | None = None, password: str | None = None) -> str:
        """Address of ``mjpeg`` or ``live.m3u8``, with the right account unless another is given."""
        user, password = self.user if user is None else user, self.password if password is None else password
        account = f"{quote(user, safe='')}:{quote(password, safe='')}@" if user else ""
        return f"{'https' if self.tls else 'http'}://{account}127.0.0.1:{self.port}/{path}"

    def stall(self, on: bool = True) -> None:
        """Send nothing more, to anybody, but keep all connections; then catch up at once."""
        self.talk.clear() if on else self.talk.set()

    def cut(self) -> None:
        """Break all open connections, in the middle of whatever they send."""
        with self._guard:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def opened(self, connection: socket.socket, *, closed: bool = False) -> None:
        """Keep the list of open connections; the handlers call it."""
        with self._guard:
            self._open.discard(connection) if closed else self._open.add(connection)

    @property
    def picture(self) -> int:
        """How many pictures have passed since the camera began."""
        return int((time.monotonic() - self.began) * self.fps)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = False  # so that server_close waits for the handlers
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], camera: HttpCamera) -> None:
        self.camera = camera
        super().__init__(address, _Handler)
        if camera.tls is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(camera.tls.cert, camera.tls.key)
            # The handshake happens in the handler's thread: a client that refuses us must not stop the rest.
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hung up is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    timeout = 10
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.camera = self.server.camera
        self.camera.opened(self.connection)

    def finish(self) -> None:
        self.camera.opened(self.connection, closed=True)
        super().finish()

    def log_message(self, *_: object) -> None:
        """The tests read `HttpCamera.requests` instead."""

    def do_GET(self) -> None:
        camera = self.camera
        camera.requests.append(self.path)
        camera.talk.wait()
        account = base64.b64encode(f"{camera.user}:{camera.password}".encode()).decode()
        if camera.status is not None:
            self.send_error(camera.status)
        elif camera.user and self.headers.get("Authorization") != f"Basic {account}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.end_headers()
        elif self.path == "/mjpeg":
            self._mjpeg()
        elif self.path == "/live.m3u8":
            self._answer("application/vnd.apple.mpegurl", self._playlist().encode())
        elif (segment := self._folder() / self.path[1:]).suffix == ".ts" and segment.is_file():
            self._answer("video/mp2t", segment.read_bytes())
        else:
            self.send_error(404)

    def _answer(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _mjpeg(self) -> None:
        camera = self.camera
        images = _jpegs(camera.frames, camera.size)
        self.send_response(200)
        self.send_header("Content-Type", f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        self.end_headers()
        first = camera.picture
        for number in itertools.count(first):
            if camera.limit is not None and number - first >= camera.limit:
                return
            camera.over.wait(max(0.0, camera.began + number / camera.fps - time.monotonic()))
            camera.talk.wait()
            if camera.over.is_set():
                return
            image = images[number % camera.frames]
            head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
            camera.sent.append((number % camera.frames, time.monotonic_ns()))
            self.wfile.write(head.encode() + image + b"\r\n")

    def _folder(self) -> Path:
        camera = self.camera
        source = clip(frames=camera.frames, fps=camera.fps, size=camera.size, gop=camera.fps)
        return _segments(source, camera.seconds)

    def _playlist(self) -> str:
        """The three segments that are newest now; at the start there are three already."""
        self._folder()
        first = min(int(time.monotonic() - self.camera.began), self.camera.seconds - _WINDOW)
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", f"#EXT-X-MEDIA-SEQUENCE:{first}"]
        for number in range(first, first + _WINDOW):
            lines += ["#EXTINF:1.000,", f"{number}.ts"]
        if first == self.camera.seconds - _WINDOW:
            lines.append("#EXT-X-ENDLIST")
        return "\n".join(lines) + "\n"
