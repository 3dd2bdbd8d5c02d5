"""How soon each fault of a real server is noticed, and what it is called."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.errors import ConfigError, SourceError
from tests.servers.certs import certificate
from tests.servers.handles import Mount, RtspServer
from tests.servers.proxy import TcpProxy, black_hole_port
from tests.servers.streams import clip

from .reading import SECRET, lost, reading, refused, take


@pytest.fixture(scope="module")
def camera() -> Iterator[RtspServer]:
    mounts = {"cam": Mount(), "h265": Mount((clip("h265"),), audio=True), "mute": Mount(silent_after=10)}
    with RtspServer(mounts) as server:
        yield server


@pytest.mark.parametrize("auth", ["basic", "digest"])
def test_passwords(auth: str) -> None:
    with RtspServer(auth=auth, user="viewer", password=SECRET) as server:  # type: ignore[arg-type]
        with reading(server.url()) as connection:
            take(connection, 1)
        wrong = refused(server.url(password="wrong" + SECRET))
        assert (wrong.reason, "refuses the user name or password" in wrong.message) == ("auth", True)
        none = refused(server.url(user=""))
        assert (none.reason, "asks for a user name" in none.message) == ("auth", True)


def test_a_wrong_path(camera: RtspServer) -> None:
    error = refused(camera.url("nowhere"))
    assert (error.reason, "has no stream /nowhere" in error.message) == ("not_found", True)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    error = refused(f"rtsp://u:{SECRET.replace('/', '%2F').replace('@', '%40')}@127.0.0.1:{port}/x")
    assert (error.reason, "refuses the connection" in error.message) == ("network", True)


def test_connecting_takes_no_longer_than_it_may(camera: RtspServer) -> None:
    with black_hole_port() as port:
        error = refused(f"rtsp://127.0.0.1:{port}/x", within_s=1.0, connect_timeout_s=0.4)
        assert (error.reason, "does not answer within 0.4 s" in error.message) == ("timeout", True)
    with TcpProxy(camera.port) as proxy:
        proxy.black_hole()
        for scheme in ("rtsp", "rtsps", "http", "rtmp"):
            error = refused(f"{scheme}://127.0.0.1:{proxy.port}/x", within_s=1.2, connect_timeout_s=0.3)
            assert error.reason == "timeout", scheme


@pytest.mark.parametrize(
    ("scheme", "answer", "reason", "message"),
    [
        ("rtsp", b"SSH-2.0-OpenSSH_9.2\r\n", "network", "closes the connection at once"),
        ("rtsp", b"", "network", "closes the connection at once"),
        ("rtsp", b"HTTP/1.1 400 Bad Request\r\n\r\n", "network", "closes the connection at once"),
        ("rtsp", b"RTSP/1.0 403 Forbidden\r\nCSeq: 1\r\n\r\n", "auth", "forbids"),
        ("rtsp", b"RTSP/1.0 503 Service Unavailable\r\nCSeq: 1\r\n\r\n", "network", "no more viewers"),
        ("http", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "network", "not with a video"),
        ("http", b"HTTP/1.1 403 Forbidden\r\n\r\n", "auth", "forbids"),
        ("rtsps", b"", "tls", "does not speak TLS"),
    ],
)
def test_something_else_answers(scheme: str, answer: bytes, reason: str, message: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            for _ in range(3):
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                with client, contextlib.suppress(ConnectionError):
                    client.recv(4096)
                    client.sendall(answer)
                    client.shutdown(socket.SHUT_WR)
                    while client.recv(4096):
                        pass  # Closed with data unread, it would be a reset.

        threading.Thread(target=talk, daemon=True).start()
        error = refused(f"{scheme}://127.0.0.1:{server.getsockname()[1]}/x", within_s=3.0)
        server.shutdown(socket.SHUT_RDWR)
    assert (error.reason, message in error.message) == (reason, True), error.message


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_camera_that_freezes(camera: RtspServer, transport: str) -> None:
    with reading(camera.url(), transport=transport) as connection:
        take(connection, 5)
        camera.freeze()
        try:
            error = lost(connection, 1.0)
        finally:
            camera.thaw()
        assert (error.reason, "sent nothing for 0.5 s" in error.message) == ("timeout", True)


def test_a_camera_that_says_nothing_more(camera: RtspServer) -> None:
    with reading(camera.url("mute")) as connection:
        assert lost(connection, 3.0).reason == "timeout"


def test_pictures_stop_while_sound_goes_on(camera: RtspServer) -> None:
    with reading(camera.url("h265")) as connection:
        take(connection, 3)
        camera.tell("h265", silent_after=0)
        try:
            assert lost(connection, 1.5).reason == "timeout"
        finally:
            camera.tell("h265", silent_after=None)


def test_a_half_open_connection(camera: RtspServer) -> None:
    with TcpProxy(camera.port) as proxy, reading(proxy.url(camera.url())) as connection:
        take(connection, 3)
        proxy.stall()
        assert lost(connection, 1.0).reason == "timeout"


@pytest.mark.parametrize("transport", ["tcp", "udp"])
@pytest.mark.parametrize("end", ["bye", "kill", "stop"])
def test_a_camera_that_goes_away(transport: str, end: str) -> None:
    with RtspServer({"cam": Mount(limit=15 if end == "bye" else None)}) as server:
        with reading(server.url(), transport=transport) as connection:
            take(connection, 5)
            if end != "bye":
                getattr(server, end)()
            error = lost(connection, 1.5)
        assert (error.reason, "the camera closed the connection" in error.message) == ("network", True)


def test_closing_towards_a_frozen_camera(camera: RtspServer) -> None:
    """`reading` sees to it that closing takes no time."""
    with reading(camera.url()) as connection:
        take(connection, 3)
        camera.freeze()
    camera.thaw()


def test_certificates() -> None:
    right, other = certificate(), certificate("camera.example")
    with RtspServer(tls=right) as server:
        error = refused(server.url(), within_s=2.0)
        assert (error.reason, "self-signed" in error.message) == ("tls", True)
        assert "tls_ca: FILE" in error.hint
        with reading(server.url(), tls_ca=str(right.cert)) as connection:
            take(connection, 1)
        with reading(server.url(), tls_verify=False) as connection:
            take(connection, 1)
        missing = refused(server.url(), within_s=2.0, tls_ca="/nowhere/ca.pem")
        assert "/nowhere/ca.pem cannot be used: No such file" in missing.message
        plain = refused(server.url().replace("rtsps", "rtsp"), within_s=2.0)
        assert plain.reason in ("network", "timeout")
    with RtspServer(tls=other) as server:
        error = refused(server.url(), within_s=2.0, tls_ca=str(other.cert))
        assert (error.reason, "mismatch" in error.message) == ("tls", True)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"transport": "tpc"}, ConfigError, "there is no transport 'tpc'"),
        ({"decode": "gpu"}, ConfigError, "there is no decoder 'gpu'"),
        ({"options": {"format": "nosuch"}}, ConfigError, "no such demuxer"),
        ({"transport": "multicast"}, SourceError, "does not send over multicast"),
    ],
)
def test_wrong_options(
    camera: RtspServer, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message), reading(camera.url(), **options):
        pass


def test_protocols_that_are_not_built_in_say_so() -> None:
    with pytest.raises((ConfigError, SourceError)) as caught, reading("srt://127.0.0.1:9"):
        pass
    assert isinstance(caught.value, SourceError) or "built without srt://" in str(caught.value)


def test_ffmpeg_prints_nothing(
    camera: RtspServer, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        refused(camera.url("nowhere"))
        with reading(camera.url()) as connection:
            take(connection, 2)
    assert capfd.readouterr().err == ""
    assert not [record for record in caplog.records if record.name.startswith("libav")]
