"""Faults of a source that are there from the start."""

from __future__ import annotations

import contextlib
import functools
import http.server
import threading
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from scripts._faults import BACK, PASSWORD, RUNNING, TOLD_S, Scene, case, login, lost, serving, told
from tests.servers.certs import certificate
from tests.servers.handles import RtspServer
from tests.servers.http import HttpCamera
from tests.servers.proxy import TcpProxy, black_hole_port
from tests.servers.streams import make_folder


@case(
    "nothing listens",
    "a closed port; then a camera there",
    lost("network", "nothing listens there"), BACK,
    lasts_s=1.5,
)  # fmt: skip
def closed_port() -> Iterator[Scene]:
    with serving() as (camera, sent):
        camera.kill()
        yield Scene(login(camera.url()), cure=camera.start, sent=sent)


@case(
    "the host swallows everything (firewall, switched off)",
    "a listener whose queue is full: SYN is dropped",
    lost("timeout", "does not answer within 3 s", TOLD_S),
)
def black_hole() -> Iterator[Scene]:
    with black_hole_port() as port:
        yield Scene(login(f"rtsp://127.0.0.1:{port}/x"))


@case(
    "it accepts, and never answers",
    "a proxy that swallows what comes; then it passes it on",
    lost("timeout", "does not answer within 3 s", TOLD_S), BACK,
)  # fmt: skip
def no_answer() -> Iterator[Scene]:
    with serving() as (camera, sent), TcpProxy(camera.port) as proxy:
        proxy.black_hole()
        url = proxy.url(camera.url())
        yield Scene(login(url), cure=functools.partial(proxy.black_hole, False), sent=sent)


@case("unknown host", "`camera.invalid`", lost("network", "nobody knows the name", TOLD_S))
def unknown_host() -> Iterator[Scene]:
    yield Scene(login("rtsp://camera.invalid/x"))


@case("another service on that port", "an HTTP server, asked by `rtsp://`", lost("network", "at once"))
def not_rtsp() -> Iterator[Scene]:
    with HttpCamera() as web:
        yield Scene(login(f"rtsp://127.0.0.1:{web.port}/x"))


@case("wrong path", "RTSP server, DESCRIBE of another path", lost("not_found", "has no stream /wrong"))
def wrong_path() -> Iterator[Scene]:
    with RtspServer() as camera:
        yield Scene(login(camera.url("wrong")))


@case("wrong password", "RTSP server, digest", lost("auth", "refuses the user name or password"))
def wrong_password() -> Iterator[Scene]:
    with RtspServer(auth="digest", password="another") as camera:
        yield Scene(login(camera.url(user="")))


@case("no password", "RTSP server, digest", lost("auth", "asks for a user name and password"))
def no_password() -> Iterator[Scene]:
    with RtspServer(auth="digest", password=PASSWORD) as camera:
        yield Scene({"url": camera.url(user="")})


@case("a certificate of its own making", "`rtsps://`", lost("tls", "certificate is refused: self-signed"))
def self_signed() -> Iterator[Scene]:
    with RtspServer(tls=certificate()) as camera:
        yield Scene(login(camera.url()))


@case("the same with `tls_ca`", "`rtsps://`", RUNNING)
def tls_ca() -> Iterator[Scene]:
    with RtspServer(tls=certificate()) as camera:
        yield Scene(login(camera.url(), tls_ca=str(certificate().cert)))


@case("the same with `tls_verify: false`", "`rtsps://`", RUNNING)
def tls_unverified() -> Iterator[Scene]:
    with RtspServer(tls=certificate()) as camera:
        yield Scene(login(camera.url(), tls_verify=False))


@case("a certificate for another host", "`rtsps://`, `tls_ca`", lost("tls", "certificate is not valid for"))
def wrong_host() -> Iterator[Scene]:
    other = certificate("other.example")
    with RtspServer(tls=other) as camera:
        yield Scene(login(camera.url(), tls_ca=str(other.cert)))


@case("TLS asked of a plain port", "`rtsps://` to a plain server", lost("tls", "does not speak TLS there"))
def not_tls() -> Iterator[Scene]:
    with RtspServer() as camera:
        yield Scene(login(camera.url().replace("rtsp:", "rtsps:")))


@case("HTTP 404", "HTTP server; then it has it", lost("not_found", "has no stream /mjpeg"), BACK)
def http_404() -> Iterator[Scene]:
    with HttpCamera() as web:
        web.status = 404
        yield Scene(login(web.url()), cure=lambda: setattr(web, "status", None), sent=lambda: len(web.sent))


@case("HTTP 503", "HTTP server; then it serves", lost("network", "no more viewers now (503)"), BACK)
def http_503() -> Iterator[Scene]:
    with HttpCamera() as web:
        web.status = 503
        yield Scene(login(web.url()), cure=lambda: setattr(web, "status", None), sent=lambda: len(web.sent))


@case("HTTP, wrong password", "HTTP server, basic", lost("auth", "refuses the user name or password"))
def http_401() -> Iterator[Scene]:
    with HttpCamera(user="viewer", password="another") as web:
        yield Scene(login(web.url(user="", password="")))


@case("sound and no picture", "MPEG-TS with AAC only, by HTTP", lost("codec", "sends sound only", TOLD_S))
def sound_only() -> Iterator[Scene]:
    with _served(_sound()) as url:
        yield Scene(login(url))


@case("no such device", "`/dev/video77`", lost("not_found", "there is no camera /dev/video77"))
def no_device() -> Iterator[Scene]:
    yield Scene({"url": "/dev/video77"})


@case(
    "an option that can never work",
    "`options: {format: nonsense}`",
    told("failed", "not_found", "has no such demuxer"),
    exit_code=3,
)
def never() -> Iterator[Scene]:
    with RtspServer() as camera:
        yield Scene(login(camera.url(), options={"format": "nonsense"}))


@functools.cache
def _sound() -> Path:
    """Ten seconds of a tone, as MPEG-TS."""
    path = make_folder() / "sound.ts"
    tone = np.sin(np.arange(48_000 * 10) * 0.06).astype(np.float32)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48_000)
        for at in range(0, len(tone) - 1024, 1024):
            frame = av.AudioFrame.from_ndarray(tone[None, at : at + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, at, Fraction(1, 48_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@contextlib.contextmanager
def _served(path: Path) -> Iterator[str]:
    """URL of a file on an HTTP server."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def copyfile(self, *files: Any) -> None:
            with contextlib.suppress(ConnectionError):  # Who does not like what it gets hangs up.
                super().copyfile(*files)

    handler = functools.partial(Quiet, directory=str(path.parent))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/{path.name}"
        finally:
            server.shutdown()
