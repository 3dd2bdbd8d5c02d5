from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import ConfigError, SourceError, SourceLostError
from pipeline.sources.base import Picture
from pipeline.sources.discovery.advice import advise
from pipeline.sources.discovery.tally import Tally
from pipeline.sources.live.base import StreamFacts
from pipeline.sources.survey import Count, Survey, rhythm_of, survey, survey_live
from tests.servers.certs import certificate
from tests.servers.handles import Mount, RtspServer
from tests.servers.streams import clip
from tests.sources.clips import write_clip

MS = 1_000_000


class Scripted:
    """A connection whose pictures come at once; ``fault`` comes after them."""

    def __init__(
        self, pictures: int, fault: SourceError | None = None, facts: StreamFacts | None = None
    ) -> None:
        self.heard_ns = 0
        self.skipped = 0
        self.decode_errors = 2
        self.clock_offset_s: float | None = 0.5
        self.drift_ppm: float | None = None
        self.bound_s = 1.0
        self.closed = False
        self._left = pictures
        self._fault = fault
        self._index = 0
        self._facts = facts or StreamFacts("h264", 64, 48, 20.0, refusals=("cuda: none",), transport="tcp")

    def open(self) -> StreamFacts:
        return self._facts

    def read(self) -> Picture | None:
        if self._index == self._left:
            if self._fault is not None:
                raise self._fault
            return None
        index, self._index = self._index, self._index + 1
        planes = (np.zeros((48, 64, 3), np.uint8),)
        return Picture(planes, "bgr24", 64, 48, index, index * 50 * MS, index * 50 * MS, 0.0, "rtcp", 0)

    def interrupt(self) -> None:
        return

    def close(self) -> None:
        self.closed = True


def measured(connection: Scripted, count: Count | None = None) -> Survey:
    result = Survey("rtsp://h", "stream")
    survey_live(lambda: connection, result, 60, count)
    return result


def test_a_stream_that_breaks_is_measured_until_then() -> None:
    lost = SourceLostError("rtsp://h sent nothing for 5.0 s", reason="timeout")
    connection = Scripted(21, lost)
    found = measured(connection)
    assert found.lost == lost.message
    assert (found.pictures, found.decode_errors, found.clock, found.clock_offset_s) == (21, 2, "rtcp", 0.5)
    assert found.fps_measured == pytest.approx(20)
    assert (found.jitter_ms, found.variable_rate) == (0, False)
    assert found.refusals == ["cuda: none"]
    assert connection.closed
    assert "it broke after" in advise(found)[0].text


@pytest.mark.parametrize("fault", [None, SourceLostError("gone", reason="network")])
def test_not_one_picture_is_an_error(fault: SourceError | None) -> None:
    connection = Scripted(0, fault)
    with pytest.raises(SourceError, match="gone" if fault else "ends before its first picture"):
        measured(connection)
    assert connection.closed


def test_a_camera_that_serves_one_viewer_only() -> None:
    def refuse(until_s: float) -> Tally:
        raise SourceError("it serves no more viewers", reason="network")

    found = measured(Scripted(3), refuse)
    assert found.pictures == 3
    assert "it serves no more viewers" in found.not_measured
    assert found.bit_rate_kbps is None
    assert any("B-frames are not known" in one.text for one in advise(found))


def test_packets_are_counted_beside() -> None:
    caller = threading.get_ident()
    threads: list[int] = []

    def count(until_s: float) -> Tally:
        threads.append(threading.get_ident())
        tally = Tally("h264", "High", 10.0)
        for number in range(21):
            tally.add(number / 10, 1000, number % 10 == 0)
        return tally

    found = measured(Scripted(3), count)
    assert found.fps_declared == 10  # The coded headers know better than the container.
    assert (found.profile, found.keyframe_interval_s, found.b_frames) == ("High", 1.0, False)
    assert found.bit_rate_kbps == pytest.approx(80)
    assert threads != [caller]


@pytest.mark.parametrize(
    ("pts_ms", "arrived_ms", "fps", "jitter_ms", "variable"),
    [
        ([0, 50, 100, 150], [7, 57, 107, 157], 20, 0, False),
        ([0, 50, 100, 150], [7, 57, 137, 157], 20, 30, False),
        ([0, 50, 100, 150, 400], [0, 50, 100, 150, 400], 10, 0, True),
        ([0, 50], [0, 50], None, None, None),
        ([5, 5, 5], [1, 2, 3], None, None, None),
    ],
)
def test_rhythm(
    pts_ms: list[int],
    arrived_ms: list[int],
    fps: float | None,
    jitter_ms: float | None,
    variable: bool | None,
) -> None:
    found = rhythm_of([time * MS for time in pts_ms], [time * MS for time in arrived_ms])
    assert found.fps == (None if fps is None else pytest.approx(fps))
    assert (found.jitter_ms, found.variable) == (jitter_ms, variable)


@given(st.lists(st.integers(1, 10**9), min_size=3, max_size=50), st.integers(0, 10**12))
def test_a_constant_delay_is_no_jitter(steps: list[int], delay: int) -> None:
    pts = [sum(steps[:number]) for number in range(len(steps))]
    found = rhythm_of(pts, [time + delay for time in pts])
    assert found.jitter_ms == 0
    assert found.fps is not None
    assert min(steps[:-1]) * (1 - 1e-9) <= 1e9 / found.fps <= max(steps[:-1]) * (1 + 1e-9)


@pytest.mark.parametrize(
    ("times", "keys", "interval", "at_least"),
    [
        (range(10), {0, 4, 8}, 4, None),
        (range(10), {1}, None, 8),
        (range(10), set(), None, 9),
        (range(20), {0, 2}, 2, 17),  # It changed its mind, or was cut off.
        ([3], {3}, None, None),
    ],
)
def test_keyframes(
    times: range | list[int], keys: set[int], interval: float | None, at_least: float | None
) -> None:
    tally = Tally("h264")
    for time in times:
        tally.add(float(time), 100, time in keys)
    assert (tally.keyframe_interval_s, tally.keyframe_at_least_s) == (interval, at_least)


def test_pictures_out_of_order_are_b_frames() -> None:
    tally = Tally("h264")
    for time in (0.0, 0.3, 0.1, 0.2, 0.4, None):
        tally.add(time, 500, time == 0)
    assert tally.reordered
    assert tally.bit_rate_kbps == pytest.approx(5 * 500 * 8 / 0.4 / 1000)


GOOD = Survey(
    "rtsp://h", "stream", codec="h264", width=640, height=360, fps_declared=15, fps_measured=15, jitter_ms=5,
    keyframe_interval_s=1, bit_rate_kbps=700, b_frames=False, transport="tcp", clock="rtcp",
    clock_offset_s=-0.05, decode_ms=1, pictures=75, seconds=5,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "level", "about", "words"),
    [
        ({"keyframe_interval_s": 10.0}, "warning", "keyframes", "set the I-frame interval to 1-2 s"),
        ({"keyframe_at_least_s": 4.7}, "warning", "keyframes", "at least 4.7 s"),
        ({"fps_measured": 60.0}, "note", "rate", "set max_fps"),
        ({"width": 3840, "height": 2160}, "note", "size", "sub-stream"),
        ({"codec": "hevc", "decode_ms": 30.0}, "note", "decoder", "H.265 without a hardware decoder"),
        ({"decode_ms": 50.0}, "note", "decoder", "75% of a core"),
        ({"clock_offset_s": None, "clock": "arrival"}, "note", "clock", "times are those of arrival"),
        ({"clock_offset_s": 42.0}, "warning", "clock", "42.0 s ahead of"),
        ({"clock_offset_s": -42.0}, "warning", "clock", "behind"),
        ({"clock_drift_ppm": -900.0}, "note", "clock", "-900 millionths"),
        ({"variable_rate": True}, "note", "rate", "intervals vary"),
        ({"decode_errors": 25, "transport": "udp"}, "warning", "loss", "25 of 100 pictures"),
        ({"decode_errors": 25, "transport": "udp"}, "warning", "loss", "set transport: tcp"),
        ({"decode_errors": 25}, "warning", "loss", "Wi-Fi"),
        ({"b_frames": True}, "note", "delay", "switch them off"),
        ({"audio": "aac"}, "note", "audio", "is not read"),
        ({"bit_rate_kbps": 8000.0}, "note", "bit rate", "8.0 Mbit/s"),
        ({"codec": "mjpeg"}, "note", "bit rate", "H.264 stream"),
        ({"jitter_ms": 400.0}, "warning", "jitter", "400 ms"),
        ({"fps_measured": 6.0}, "note", "rate", "poor light"),
        ({"pictures": 2, "fps_measured": None}, "note", "rate", "--seconds 30"),
        ({"lost": "gone"}, "warning", "connection", "it broke after 5.0 s: gone"),
    ],
)
def test_advice(changes: dict[str, object], level: str, about: str, words: str) -> None:
    given_ = advise(replace(GOOD, **changes))  # type: ignore[arg-type]
    assert [(one.level, one.about) for one in given_] == [(level, about)]
    assert words in given_[0].text


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"codec": "hevc"},  # cheap enough here
        {"codec": "hevc", "decoder": "cuda", "decode_ms": 20.0},
        {"kind": "file", "keyframe_interval_s": 30.0, "b_frames": True, "clock_offset_s": None},
        {"url": "http://h", "transport": "http", "clock_offset_s": None},
    ],
)
def test_no_advice_where_nothing_is_wrong(changes: dict[str, object]) -> None:
    assert advise(replace(GOOD, **changes)) == []  # type: ignore[arg-type]


def test_a_video_file(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", 30, rate=10, options={"g": "10", "bf": "2"})
    found = survey(str(path))
    assert (found.kind, found.url, found.codec) == ("file", str(path), "h264")
    assert (found.width, found.height, found.pictures, found.lost) == (64, 48, 30, "")
    assert found.fps_measured == found.fps_declared == pytest.approx(10)
    assert found.keyframe_interval_s == pytest.approx(1)
    assert found.b_frames
    assert found.profile == "High"
    assert found.jitter_ms is None


@pytest.mark.parametrize("url", ["synthetic:", "push+tcp://127.0.0.1:5570"])
def test_what_cannot_be_probed(url: str) -> None:
    with pytest.raises(ConfigError, match="only streams, cameras and video files"):
        survey(url)


def test_a_real_camera() -> None:
    mounts = {
        "cam": Mount((clip("h265"),), audio=True, clock_offset_s=42),
        "rare": Mount((clip(fps=10, frames=100, gop=100),)),
    }
    with RtspServer(mounts, auth="digest") as camera:
        found = survey(camera.url("cam"), seconds=2.2)
        assert found.url == f"rtsp://127.0.0.1:{camera.port}/cam"
        assert (found.codec, found.profile, found.width, found.height) == ("hevc", "Main", 640, 360)
        assert found.fps_measured == pytest.approx(20, abs=2)
        assert found.fps_declared == pytest.approx(20)
        assert found.keyframe_interval_s == pytest.approx(1, abs=0.1)
        assert found.audio == "pcm_alaw"
        assert found.clock_offset_s == pytest.approx(42, abs=1)
        assert found.bit_rate_kbps is not None
        assert 50 < found.bit_rate_kbps < 5000
        assert (found.b_frames, found.lost, found.not_measured) == (False, "", "")
        assert {one.about for one in advise(found)} >= {"clock", "audio"}
        rare = survey(camera.url("rare"), seconds=1, transport="udp")
        assert rare.transport == "udp"
        assert rare.keyframe_interval_s is None
        assert rare.keyframe_at_least_s is not None
        with pytest.raises(SourceError) as refused:
            survey(camera.url("cam", password="wrong"), seconds=1)
        assert refused.value.reason == "auth"
        assert "wrong" not in str(refused.value)


def test_a_real_camera_over_tls() -> None:
    with RtspServer(tls=certificate()) as camera:
        found = survey(camera.url(), seconds=0.5, tls_ca=str(certificate().cert))
        assert found.pictures > 2
        with pytest.raises(SourceError) as refused:
            survey(camera.url(), seconds=0.5)
        assert refused.value.reason == "tls"
