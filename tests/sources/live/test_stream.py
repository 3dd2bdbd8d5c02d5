"""A live stream, read from real servers: every picture once, as it was sent, when it is wanted."""

from __future__ import annotations

import itertools
import threading
import time
import urllib.request
from collections.abc import Iterator

import numpy as np
import pytest

from pipeline.sources.base import Picture
from tests.servers.handles import Mount, RtspServer
from tests.servers.http import HttpCamera
from tests.servers.proxy import TcpProxy
from tests.servers.streams import clip, read_number

from .reading import SECRET, follow_on, lost, numbers, reading, refused, take, wait_until


@pytest.fixture(scope="module")
def camera() -> Iterator[RtspServer]:
    mounts = {
        "cam": Mount(),
        "h265": Mount((clip("h265"),), audio=True),
        "resize": Mount((clip(frames=20), clip(frames=20, size=(320, 240), first=20))),
        "ahead": Mount(clock_offset_s=7200.5),
        "often": Mount((clip(fps=25, frames=100, gop=5),)),
    }
    with RtspServer(mounts) as server:
        yield server


@pytest.mark.parametrize("transport", ["tcp", "udp", "http"])
@pytest.mark.parametrize(("mount", "codec", "audio"), [("cam", "h264", ""), ("h265", "hevc", "pcm_alaw")])
def test_every_picture_once_with_its_time(
    camera: RtspServer, mount: str, codec: str, audio: str, transport: str
) -> None:
    with reading(camera.url(mount), transport=transport) as connection:
        facts = connection.facts
        pictures = take(connection, 12)
    assert facts is not None
    assert (facts.codec, facts.width, facts.height, facts.frame_rate) == (codec, 640, 360, 20.0)
    assert (facts.audio, facts.transport, facts.decoder) == (audio, transport, "cpu")
    assert follow_on(numbers(pictures))
    assert [picture.index for picture in pictures] == list(range(12))
    assert [picture.epoch for picture in pictures] == [0] * 12
    assert pictures[0].pts_ns == 0
    steps = np.diff([picture.pts_ns for picture in pictures])
    assert abs(steps - 50_000_000).max() < 2_000_000
    assert (connection.skipped, connection.decode_errors) == (0, 0)
    assert pictures[5].planes[1].shape == (180, 320)


def lag_s(camera: RtspServer, picture: Picture) -> float:
    """Seconds from sending a picture to having it."""
    number = read_number(picture.planes[0])
    sent = [at_ns for which, at_ns in camera.sent() if which == number and at_ns <= picture.captured_ns]
    return (picture.captured_ns - max(sent)) / 1e9


def test_bgr_when_asked_for(camera: RtspServer) -> None:
    with reading(camera.url(), pixels="exact") as connection:
        picture = take(connection, 1)[0]
    assert (picture.pixel_format, picture.planes[0].shape) == ("bgr24", (360, 640, 3))
    assert read_number(picture.planes[0]) is not None


def test_pictures_come_soon_after_they_are_sent(camera: RtspServer) -> None:
    """FFmpeg's parser holds a picture back until the next begins: one interval, 50 ms here."""
    with reading(camera.url()) as connection:
        pictures = take(connection, 20)
    assert np.median([lag_s(camera, picture) for picture in pictures[5:]]) < 0.09


def test_the_size_changes(camera: RtspServer) -> None:
    with reading(camera.url("resize")) as connection:
        pictures = take(connection, 45)
        assert connection.facts is not None
        assert (connection.facts.width, connection.facts.height) == (pictures[-1].width, pictures[-1].height)
    kinds = [kind for kind, _ in itertools.groupby((p.epoch, p.width, p.height) for p in pictures)]
    assert [epoch for epoch, _, _ in kinds] == list(range(len(kinds)))
    assert {(width, height) for _, width, height in kinds} == {(640, 360), (320, 240)}
    assert follow_on(numbers(pictures), 40)
    assert abs(np.diff([p.pts_ns for p in pictures]) - 50_000_000).max() < 2_000_000


def test_the_camera_clock(camera: RtspServer) -> None:
    with reading(camera.url("ahead")) as connection:
        deadline = time.monotonic() + 10
        picture = take(connection, 1)[0]
        assert (picture.clock, connection.clock_offset_s) == ("arrival", None)
        assert abs(picture.captured_at - time.time()) < 1
        while picture.clock != "rtcp":
            assert time.monotonic() < deadline
            picture = take(connection, 1)[0]
        # The picture is two intervals old at most, the clock two hours ahead.
        assert picture.captured_at - time.time() == pytest.approx(7200.5, abs=0.2)
        assert connection.clock_offset_s == pytest.approx(7200.5, abs=0.2)
        assert connection.drift_ppm is None


def test_mjpeg_over_http() -> None:
    with HttpCamera(user="viewer", password=SECRET) as server:
        with reading(server.url("mjpeg")) as connection:
            assert connection.facts is not None
            # FFmpeg would say 25 pictures a second of any such stream, and stamp them so.
            assert (connection.facts.codec, connection.facts.frame_rate) == ("mjpeg", None)
            pictures = take(connection, 21)
            server.cut()
            assert lost(connection, 1.0).reason == "network"
        assert follow_on(numbers(pictures))
        assert (pictures[-1].pts_ns - pictures[0].pts_ns) / 1e9 == pytest.approx(1.0, abs=0.15)
        assert refused(server.url("mjpeg", password="wrong" + SECRET)).reason == "auth"
        with reading(server.url("mjpeg")) as connection:
            take(connection, 2)
            server.stall()
            assert lost(connection, 1.2).reason == "timeout"
            server.stall(False)
        server.status = 503
        assert "serves no more viewers" in refused(server.url("mjpeg")).message


def test_hls_comes_at_its_own_pace() -> None:
    with HttpCamera() as server:
        with urllib.request.urlopen(server.url("live.m3u8")) as playlist:
            playlist.read()  # The first request makes the segments, which takes its time.
        with reading(server.url("live.m3u8"), connect_timeout_s=6.0, read_timeout_s=4.0) as connection:
            started = time.monotonic()
            pictures = take(connection, 21)
            assert 0.8 < time.monotonic() - started < 3.0
            assert follow_on(numbers(pictures))
            assert connection.facts is not None
            assert (connection.facts.codec, connection.facts.transport) == ("h264", "http")


def test_asleep_nothing_is_decoded(camera: RtspServer) -> None:
    awake = threading.Event()
    awake.set()
    with reading(camera.url(), awake=awake.is_set) as connection:
        take(connection, 3)
        awake.clear()
        thread_result: list[Picture | None] = []
        reader = threading.Thread(target=lambda: thread_result.append(connection.read()))
        reader.start()
        wait_until(lambda: connection.skipped >= 12)
        heard_ns = connection.heard_ns
        wait_until(lambda: connection.heard_ns > heard_ns)  # it listens all the same
        assert reader.is_alive()
        awake.set()
        reader.join(5)
        picture = thread_result[0]
        assert picture is not None
        assert read_number(picture.planes[0]) in (0, 20, 40, 60, 80)  # a keyframe
        assert connection.decode_errors == 0


def test_interrupting_a_sleeping_reader(camera: RtspServer) -> None:
    with reading(camera.url(), awake=lambda: False) as connection:
        result: list[Picture | None] = []
        reader = threading.Thread(target=lambda: result.append(connection.read()))
        reader.start()
        wait_until(lambda: connection.skipped >= 1)
        connection.interrupt()
        reader.join(2)
        assert result == [None]


def test_a_burst_after_a_stall_is_skipped_and_lag_does_not_grow(camera: RtspServer) -> None:
    with (
        TcpProxy(camera.port) as proxy,
        reading(proxy.url(camera.url()), read_timeout_s=3.0, max_age_s=0.5) as connection,
    ):
        take(connection, 5)
        proxy.burst(1.6)
        deadline = time.monotonic() + 5
        while connection.skipped == 0:
            assert time.monotonic() < deadline
            picture = take(connection, 1)[0]
        picture = take(connection, 1)[0]
        number = read_number(picture.planes[0])
        sent = [
            at for sent_number, at in camera.sent() if sent_number == number and at <= picture.captured_ns
        ]
        assert (picture.captured_ns - max(sent)) / 1e9 < 0.8
        assert connection.decode_errors == 0


def test_a_low_rate_is_served_by_keyframes_alone(camera: RtspServer) -> None:
    with reading(camera.url("often"), max_fps=3) as connection:
        pictures = take(connection, 24)  # a keyframe each 0.2 s; after four the others are not decoded
        seen = numbers(pictures[-2:])
        assert connection.keyframe_interval_s == pytest.approx(0.2, abs=0.001)
    assert all(number is not None and number % 5 == 0 for number in seen)
    assert connection.skipped >= 8
    assert connection.decode_errors == 0


def test_auto_falls_back_to_the_processor(camera: RtspServer) -> None:
    with reading(camera.url(), decode="auto") as connection:
        assert connection.facts is not None
        if connection.facts.decoder != "cpu":
            pytest.skip(f"this machine decodes with {connection.facts.decoder}")
        assert len(connection.facts.refusals) == 3
        assert follow_on(numbers(take(connection, 3)))
