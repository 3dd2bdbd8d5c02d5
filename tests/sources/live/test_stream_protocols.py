"""Streams that other programs send: MPEG-TS over UDP, RTMP, and recordings behind HTTP."""

from __future__ import annotations

import functools
import http.server
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.errors import SourceError
from pipeline.sources.live.stream import StreamConnection

from .encoded import bare, decode, encode
from .reading import lost, refused, take


@contextmanager
def sending(url: str, form: str, *, first: int = 0, count: int = 100, b_frames: int = 0) -> Iterator[None]:
    """Send coded pictures from the ``first`` on at 20 fps until the block ends; numbers are timestamps."""
    packets = encode("libx264", frames=100, gop=10, b_frames=b_frames)[first:count]
    over = threading.Event()

    def send() -> None:
        with av.open(url, "w", format=form) as out:
            stream = out.add_stream("libx264", rate=20)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
            context = stream.codec_context
            context.options = {"x264-params": "repeat-headers=1"}
            context.open()
            for packet in packets:
                if over.wait(0.05):
                    return
                copy = bare(packet)
                copy.time_base = packet.time_base / 2
                copy.stream = stream
                out.mux(copy)

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)


def free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def follows(connection: StreamConnection, count: int, b_frames: int = 0) -> int:
    """Check that pictures come as they were sent, in order; the number of the first."""
    sent = decode("h264", encode("libx264", frames=100, gop=10, b_frames=b_frames))
    first = -1
    for at, picture in enumerate(take(connection, count)):
        image = picture.planes[0].astype(np.int16)
        number = min(sent, key=lambda key: float(np.abs(image - sent[key]).mean()))
        assert np.abs(image - sent[number]).mean() < 0.1
        first = number if first < 0 else first
        assert number == first + at
        assert picture.pts_ns == pytest.approx(at * 50_000_000, abs=2_000_000)
    return first


@pytest.mark.parametrize("b_frames", [0, 2])
def test_mpeg_ts_over_udp_joined_between_keyframes(b_frames: int) -> None:
    port = free_udp_port()
    with sending(f"udp://127.0.0.1:{port}?pkt_size=1316", "mpegts", first=7, b_frames=b_frames):
        connection = StreamConnection(
            "gate", f"udp://127.0.0.1:{port}", decode="cpu", connect_timeout_s=4.0, read_timeout_s=0.5
        )
        connection.open()
        try:
            assert follows(connection, 12, b_frames) % 10 == 0
        finally:
            connection.close()
    assert connection.decode_errors == 0


def test_silence_where_mpeg_ts_should_be() -> None:
    assert refused(f"udp://127.0.0.1:{free_udp_port()}", connect_timeout_s=0.4).reason == "timeout"


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """An ordinary web server for the files of a folder."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("form", ["mp4", "hls"])
def test_a_recording_behind_http_comes_to_its_end(tmp_path: Path, form: str) -> None:
    name = "a.mp4" if form == "mp4" else "a.m3u8"
    options = {"hls_list_size": "0", "hls_time": "0.5"} if form == "hls" else {"movflags": "faststart"}
    with av.open(str(tmp_path / name), "w", format=form, options=options) as out:
        stream = out.add_stream("libx264", rate=20)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        stream.codec_context.gop_size = 10
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((120, 160, 3), number * 10, np.uint8), format="bgr24")
            frame.pts = number
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    with serving(tmp_path) as base:
        connection = StreamConnection("gate", f"{base}/{name}", decode="cpu", connect_timeout_s=4.0)
        started = time.monotonic()
        connection.open()
        pictures = list(iter(connection.read, None))
        assert connection.read() is None
        connection.close()
        # It was given at its own pace, and every picture of it.
        assert time.monotonic() - started > 0.8
        levels = [int(np.median(picture.planes[0])) for picture in pictures]
        assert levels == sorted(set(levels))
        assert len(levels) == 20
        assert "has no stream /b.mp4" in refused(f"{base}/b.mp4").message


def test_rtmp() -> None:
    """FFmpeg's own program is the server; it serves one viewer."""
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("no ffmpeg program to serve RTMP: apt-get install ffmpeg")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"rtmp://127.0.0.1:{port}/live/streamkey"
    picture = ["-f", "lavfi", "-i", "testsrc=size=160x120:rate=20:duration=2"]
    codec = ["-c:v", "libx264", "-g", "10", "-tune", "zerolatency", "-f", "flv", "-listen", "1", url]
    server = subprocess.Popen(
        [program, "-loglevel", "quiet", "-re", *picture, *codec], stdin=subprocess.DEVNULL
    )
    try:
        connection = _opened(url, time.monotonic() + 5)
        pictures = take(connection, 15)
        assert {(p.width, p.height, p.epoch) for p in pictures} == {(160, 120, 0)}
        assert abs(np.diff([p.pts_ns for p in pictures]) - 50_000_000).max() < 2_000_000
        assert connection.decode_errors == 0
        error = lost(connection, 5.0)
        connection.close()
    finally:
        server.kill()
        server.wait()
    assert "streamkey" not in str(error)


def _opened(url: str, deadline: float) -> StreamConnection:
    """A connection to a server that is just starting."""
    while True:
        connection = StreamConnection("gate", url, decode="cpu", connect_timeout_s=4.0, read_timeout_s=1.0)
        try:
            connection.open()
        except SourceError:
            if time.monotonic() > deadline:
                raise
        else:
            return connection
