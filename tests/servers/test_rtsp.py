"""The RTSP server: what it sends, whom it lets in, and that its faults are what they say."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Iterator

import av
import pytest

from tests.servers.certs import certificate
from tests.servers.handles import Mount, RtspServer
from tests.servers.reader import read_numbers, watch, watching
from tests.servers.streams import clip
from tests.servers.udp_relay import UdpRelay


@pytest.fixture(scope="module")
def camera() -> Iterator[RtspServer]:
    """One server for all tests that do it no harm."""
    large, small = clip(frames=20, gop=10), clip(frames=20, gop=10, first=20, size=(320, 240))
    mounts = {
        "h264": Mount(fps=40),
        "h265": Mount((clip("h265"),), fps=40),
        "audio": Mount(fps=40, audio=True),
        "bye": Mount(fps=40, limit=8),
        "close": Mount(fps=40, limit=8, end="close"),
        "mute": Mount(silent_after=4),
        "flip": Mount(fps=40, damage_every=4),
        "truncate": Mount(fps=40, damage_every=4, damage="truncate"),
        "resize": Mount((large, small), fps=60),
        "clock": Mount(clock_offset_s=3.5, rtcp_interval_s=0.1),
    }
    with RtspServer(mounts) as server:
        yield server


@pytest.mark.parametrize(
    ("mount", "transport"),
    [("h264", "tcp"), ("h264", "udp"), ("h265", "tcp"), ("h265", "udp"), ("audio", "tcp")],
)
def test_numbers_come_in_order_and_start_with_a_keyframe(
    camera: RtspServer, mount: str, transport: str
) -> None:
    seen = read_numbers(camera.url(mount), 8, transport=transport)
    assert seen[0] is not None
    assert seen[0] % 20 == 0
    assert seen == list(range(seen[0], seen[0] + 8))
    assert seen[-1] in [number for number, _ in camera.sent(mount)][-12:]


def test_sound_comes_beside_the_pictures(camera: RtspServer) -> None:
    with watching(camera.url("audio")) as container:
        assert [stream.codec_context.name for stream in container.streams] == ["h264", "pcm_alaw"]


def test_an_unknown_mount_is_not_found(camera: RtspServer) -> None:
    with pytest.raises(av.error.HTTPNotFoundError):
        read_numbers(camera.url("nowhere"), 1)


@pytest.mark.parametrize("mount", ["bye", "close"])
def test_a_limit_ends_the_stream(camera: RtspServer, mount: str) -> None:
    before = len(camera.events)
    seen = read_numbers(camera.url(mount), 50)
    assert camera.wait_for("ended", after=before)["mount"] == f"/{mount}"
    assert seen
    assert seen == list(range(8))[: len(seen)]
    assert mount == "close" or len(seen) == 8, "only who hangs up may lose what is under way"


def test_a_silent_camera_keeps_the_connection_and_speaks_again(camera: RtspServer) -> None:
    with watching(camera.url("mute")) as container:
        pictures = watch(container)
        seen = [next(pictures).number for _ in range(3)]  # the parser holds the last one back
        camera.wait_for("silent")
        camera.tell("mute", silent_after=None)
        seen += [next(pictures).number for _ in range(3)]
    assert seen == [0, 1, 2, 3, 4, 5]
    camera.tell("mute", silent_after=4)
    with pytest.raises(av.error.FFmpegError):
        read_numbers(camera.url("mute"), 50, timeout_s=0.2)


@pytest.mark.parametrize("mount", ["flip", "truncate"])
def test_every_fourth_picture_is_damaged(camera: RtspServer, mount: str) -> None:
    original = clip().path.read_bytes()
    whole = []
    with watching(camera.url(mount)) as container:
        for packet, _ in zip(container.demux(video=0), range(12), strict=False):
            # The slice itself, which ends where the next picture begins unless its end is missing.
            body = bytes(packet).rsplit(b"\0\0\1", 1)[-1]
            at = original.find(body)
            whole.append(at >= 0 and original[at + len(body) :][:4] in (b"", b"\0\0\0\1"))
    assert whole == [number % 4 != 3 for number in range(12)]


def test_the_size_changes_in_the_middle(camera: RtspServer) -> None:
    with watching(camera.url("resize")) as container:
        seen = [one for one, _ in zip(watch(container), range(50), strict=False)]
    assert [one.number for one in seen] == [number % 40 for number in range(50)]
    sizes = [one.size for one in seen]
    assert sizes == [(640, 360)] * 20 + [(320, 240)] * 20 + [(640, 360)] * 10


def test_sender_reports_tell_the_cameras_own_clock(camera: RtspServer) -> None:
    with watching(camera.url("clock")) as container:
        for packet in container.demux(video=0):
            stamps = [bytes(one) for one in packet.iter_sidedata() if one.data_type == "prft"]
            if stamps:
                ahead_s = struct.unpack("<q", stamps[0][:8])[0] / 1e6 - time.time()
                break
    assert 3.0 < ahead_s <= 3.5  # sent one picture before it comes out of the parser


@pytest.mark.parametrize("scheme", ["basic", "digest"])
@pytest.mark.parametrize(
    ("user", "password", "fine"),
    [(None, None, True), (None, "wrong", False), ("nobody", None, False), ("", None, False)],
    ids=["right", "wrong password", "wrong user", "nobody"],
)
def test_who_may_watch(
    guarded: dict[str, RtspServer], scheme: str, user: str | None, password: str | None, fine: bool
) -> None:
    url = guarded[scheme].url(user=user, password=password)
    if fine:
        assert len(read_numbers(url, 2)) == 2
    else:
        with pytest.raises(av.error.HTTPUnauthorizedError):
            read_numbers(url, 2)


@pytest.fixture(scope="module")
def guarded() -> Iterator[dict[str, RtspServer]]:
    """A server with basic and one with digest authentication, and passwords that need quoting."""
    with (
        RtspServer(auth="basic", password="p:@ /%") as basic,
        RtspServer(auth="digest", password="é&") as digest,
    ):
        yield {"basic": basic, "digest": digest}


def test_tls_is_verified_against_the_certificate() -> None:
    with RtspServer(tls=certificate()) as camera:
        assert camera.url().startswith("rtsps://")
        authority = str(certificate().cert)
        assert len(read_numbers(camera.url(), 2, tls_verify="1", ca_file=authority)) == 2
        with pytest.raises(OSError, match="Input/output error"):
            read_numbers(camera.url(), 2, tls_verify="1")


def test_a_frozen_server_makes_its_reader_wait() -> None:
    with RtspServer() as camera, watching(camera.url()) as container:
        pictures = watch(container)
        seen = [next(pictures).number for _ in range(3)]
        camera.freeze()
        sent = len(camera.sent())
        seen += [next(pictures).number for _ in range(sent - 1 - len(seen))]  # one stays in the parser
        thaw = threading.Timer(0.4, camera.thaw)
        before = time.monotonic()
        thaw.start()
        seen.append(next(pictures).number)
        waited = time.monotonic() - before
        thaw.join()
        seen += [next(pictures).number for _ in range(3)]
    assert waited >= 0.4
    assert seen == list(range(len(seen)))


def test_killed_and_started_again_on_the_same_port() -> None:
    with RtspServer() as camera:
        port = camera.port
        with watching(camera.url()) as container:
            pictures = watch(container)
            assert next(pictures).number == 0
            camera.kill()
            rest = list(pictures)
        assert len(rest) < 10
        with pytest.raises(ConnectionRefusedError):
            read_numbers(camera.url(), 1)
        camera.start()
        assert camera.port == port
        assert read_numbers(camera.url(), 2) == [20, 21]


def test_it_hangs_up_when_told() -> None:
    with RtspServer() as camera, watching(camera.url()) as container:
        pictures = watch(container)
        next(pictures)
        camera.tell(close=True)
        assert len(list(pictures)) < 10
        camera.wait_for("closed")


@pytest.mark.parametrize(("loss", "reorder"), [(0.0, 0.0), (0.05, 0.0), (0.0, 0.2)])
def test_udp_packets_are_lost_or_reordered(camera: RtspServer, loss: float, reorder: float) -> None:
    with UdpRelay(camera.port, loss=loss, reorder=reorder, seed=3) as relay:
        seen = read_numbers(relay.url(camera.url("h264")), 15, transport="udp")
        assert relay.packets > 15
        assert (relay.lost > 0, relay.reordered > 0) == (loss > 0, reorder > 0)
    if not loss:
        assert seen[0] is not None
        assert seen == list(range(seen[0], seen[0] + 15)), "FFmpeg puts them back in order"
