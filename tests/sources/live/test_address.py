"""A stream's URL taken apart: what FFmpeg gets, what people see, and that no secret is among it."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from pipeline.errors import ConfigError, SourceError
from pipeline.sources.live.address import ffmpeg_options, parse_address, resolve

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "shown", "path", "host", "port", "transport"),
    [
        ("rtsp://u:hunter2@cam/live", "rtsp://cam", "/live", "cam", 554, "tcp"),
        ("rtsp://u:hunter2@h:8554/a/b?x=hunter2", "rtsp://h:8554", "/a/b", "h", 8554, "tcp"),
        ("rtsp://h/user=admin_password=hunter2_channel=1", "rtsp://h", "", "h", 554, "tcp"),
        ("rtsp://u:hunter2@[fe80::1]:554/x", "rtsp://[fe80::1]:554", "/x", "fe80::1", 554, "tcp"),
        ("https://h/hunter2-hunter2-hunter2-hunter2/x", "https://h", "", "h", 443, "https"),
        ("rtmp://host/app/hunter2", "rtmp://host", "", "host", 1935, "rtmp"),
        ("https://u:hunter2@host/x.m3u8?token=hunter2", "https://host", "/x.m3u8", "host", 443, "https"),
        ("udp://@239.0.0.1:5000", "udp://239.0.0.1:5000", "", "239.0.0.1", 5000, "udp"),
        ("udp://:5000", "udp://:5000", "", "", 5000, "udp"),
        ("0", "/dev/video0", "/dev/video0", "", 0, "v4l2"),
        ("/dev/v4l/by-id/cam", "/dev/v4l/by-id/cam", "/dev/v4l/by-id/cam", "", 0, "v4l2"),
    ],
)  # fmt: skip
def test_parts(url: str, shown: str, path: str, host: str, port: int, transport: str) -> None:
    address = parse_address("gate", url)
    assert (address.shown, address.path) == (shown, path)
    assert (address.host, address.port, address.transport) == (host, port, transport)
    assert SECRET not in address.shown + address.path
    assert address.login == ("u:" in url)


def test_rtspt_is_rtsp_over_tcp() -> None:
    address = parse_address("gate", "rtspt://u:p@cam/live", "udp")
    assert (address.url, address.transport) == ("rtsp://u:p@cam/live", "tcp")


@pytest.mark.parametrize("url", ["rtsp:/cam", "cam", "rtsp://u:hunter2@host:port/x", "rtsp://[hunter2", ""])
def test_no_urls(url: str) -> None:
    with pytest.raises(ConfigError, match=r"sources\.gate\.url is no URL of a stream") as caught:
        parse_address("gate", url)
    assert SECRET not in str(caught.value)
    assert "percent-quoted" in caught.value.hint


def test_no_such_transport() -> None:
    with pytest.raises(ConfigError, match="no transport 'tpc'") as caught:
        parse_address("gate", "rtsp://cam", "tpc")
    assert "tcp, udp, multicast, http" in caught.value.hint


@pytest.mark.parametrize(
    ("url", "transport", "wanted", "unwanted"),
    [
        ("rtsp://h/x", "tcp", {"rtsp_transport": "tcp", "timeout": "3000000"}, "tls_verify"),
        ("rtsp://h/x", "tcp", {"reorder_queue_size": "2"}, "buffer_size"),
        ("rtsp://h/x", "udp", {"rtsp_transport": "udp", "buffer_size": "4194304"}, "reorder_queue_size"),
        ("rtsp://h/x", "multicast", {"rtsp_transport": "udp_multicast"}, "reorder_queue_size"),
        ("rtsp://h/x", "http", {"rtsp_transport": "http"}, "buffer_size"),
        ("rtsps://h/x", "tcp", {"rtsp_transport": "tcp", "tls_verify": "1"}, "buffer_size"),
        ("http://h/x.m3u8", "tcp", {"timeout": "3000000", "live_start_index": "-1"}, "rtsp_transport"),
        ("rtmp://h/x/y", "tcp", {"rtmp_live": "live"}, "timeout"),  # it would make FFmpeg listen
        ("/dev/video0", "tcp", {}, "timeout"),
    ],
)  # fmt: skip
def test_options(url: str, transport: str, wanted: dict[str, str], unwanted: str) -> None:
    address = parse_address("gate", url, transport)
    demuxer, options = ffmpeg_options(address, timeout_s=3.0, tls_verify=True, tls_ca=None)
    assert wanted.items() <= options.items()
    assert unwanted not in options
    assert "nobuffer" not in options.get("fflags", "")
    assert demuxer == ("v4l2" if url == "/dev/video0" else None)


def test_certificates_are_checked_against_those_given() -> None:
    address = parse_address("gate", "https://h/x")
    assert ffmpeg_options(address, timeout_s=1, tls_verify=True, tls_ca="my.pem")[1]["ca_file"] == "my.pem"
    unchecked = ffmpeg_options(address, timeout_s=1, tls_verify=False, tls_ca="my.pem")[1]
    assert (unchecked["tls_verify"], "ca_file" in unchecked) == ("0", False)


def test_a_name_that_nobody_knows() -> None:
    with pytest.raises(SourceError, match=r"nobody knows the name no-such-camera\.invalid") as caught:
        resolve("gate", parse_address("gate", f"rtsp://u:{SECRET}@no-such-camera.invalid/x"), 5.0)
    assert caught.value.reason == "network"
    assert SECRET not in str(caught.value)


def test_a_name_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    let_go = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: let_go.wait(10))
    started = time.monotonic()
    with pytest.raises(SourceError, match="the name server gives no answer for cam"):
        resolve("gate", parse_address("gate", "rtsp://cam/x"), 0.05)
    assert time.monotonic() - started < 5
    let_go.set()
