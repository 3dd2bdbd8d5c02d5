"""The HTTP camera: MJPEG and HLS in order, whom it lets in, and its faults."""

from __future__ import annotations

import re
import threading
import urllib.request
from collections.abc import Iterator

import av
import pytest

from tests.servers.certs import certificate
from tests.servers.http import HttpCamera
from tests.servers.reader import read_numbers, watch, watching


@pytest.fixture
def camera() -> Iterator[HttpCamera]:
    with HttpCamera() as one:
        yield one


def following(seen: list[int | None], count: int, wrap: int = 100) -> bool:
    """Whether these are so many numbers, each the one after the one before."""
    first = seen[0]
    return first is not None and seen == [(first + step) % wrap for step in range(count)]


def test_mjpeg_numbers_come_in_order(camera: HttpCamera) -> None:
    seen = read_numbers(camera.url(), 12)
    assert following(seen, 12)
    assert [number for number, _ in camera.sent[:12]] == seen


def test_hls_moves_on_and_numbers_come_in_order() -> None:
    with HttpCamera(fps=40, frames=120) as camera:  # 40 pictures a second, one segment a second
        seen = read_numbers(camera.url("live.m3u8"), 150)
        assert following(seen, 150, wrap=120)
        assert camera.requests.count("/live.m3u8") > 1
        with urllib.request.urlopen(camera.url("live.m3u8")) as answer:
            playlist = answer.read().decode()
        assert int(re.findall(r"MEDIA-SEQUENCE:(\d+)", playlist)[0]) >= 1
        assert playlist.count(".ts") == 3


def test_a_short_playlist_ends() -> None:
    with HttpCamera(fps=20, frames=60, seconds=3) as camera:
        seen = read_numbers(camera.url("live.m3u8"), 500)
    assert seen == list(range(60))


@pytest.mark.parametrize(("user", "fine"), [(None, True), ("nobody", False), ("", False)])
def test_who_may_watch(user: str | None, fine: bool) -> None:
    with HttpCamera(user="viewer", password="p:@ /%") as camera:
        if fine:
            assert following(read_numbers(camera.url(user=user), 3), 3)
        else:
            with pytest.raises(av.error.HTTPUnauthorizedError):
                read_numbers(camera.url(user=user), 3)


def test_https_is_verified_against_the_certificate() -> None:
    with HttpCamera(tls=certificate()) as camera:
        authority = str(certificate().cert)
        assert following(read_numbers(camera.url(), 3, tls_verify="1", ca_file=authority), 3)
        with pytest.raises(OSError, match="Input/output error"):
            read_numbers(camera.url(), 3, tls_verify="1")
        assert following(read_numbers(camera.url(), 3), 3), "a client that refused it did no harm"


def test_any_status_can_be_the_answer(camera: HttpCamera) -> None:
    camera.status = 404
    with pytest.raises(av.error.HTTPNotFoundError):
        read_numbers(camera.url(), 1)
    camera.status = 503
    with pytest.raises(av.error.HTTPServerError):
        read_numbers(camera.url("live.m3u8"), 1)
    camera.status = None
    assert following(read_numbers(camera.url(), 2), 2)


def test_stalled_the_reader_waits_and_then_misses_none(camera: HttpCamera) -> None:
    with watching(camera.url()) as container:
        pictures = watch(container)
        seen = [next(pictures).number for _ in range(3)]
        camera.stall()
        sent = len(camera.sent)
        resume = threading.Timer(0.3, camera.stall, [False])
        resume.start()
        seen += [next(pictures).number for _ in range(sent + 3)]
        resume.join()
    assert following(seen, len(seen))
    camera.stall()
    with pytest.raises(av.error.TimeoutError):
        read_numbers(camera.url(), 1, timeout_s=0.2)


def test_cut_in_the_middle(camera: HttpCamera) -> None:
    with watching(camera.url()) as container:
        pictures = watch(container)
        next(pictures)
        camera.cut()
        with pytest.raises(OSError, match="Input/output error"):
            list(pictures)


def test_a_limit_ends_the_stream(camera: HttpCamera) -> None:
    camera.limit = 5
    with watching(camera.url()) as container:
        seen = []
        with pytest.raises(OSError, match="Input/output error"):  # what FFmpeg makes of any end of MJPEG
            seen += [one.number for one in watch(container)]
    assert len(camera.sent) == 5
    assert not seen or following(seen, len(seen))
