"""Clips: packets as they were, from the keyframe before, with the true time of their first picture."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipeline.messages import FrameHeader
from pipeline.sinks.clips import Clip, Clips
from pipeline.sinks.cutting import Span, cut_file, cut_ring
from pipeline.sinks.retention import Retention
from pipeline.sources.live.stream import StreamConnection
from pipeline.sources.packets import PacketRing
from pipeline.transport.rings import came_ns, ring_file, ring_files
from tests.servers.handles import RtspServer
from tests.servers.streams import burn, read_number

S = 1_000_000_000
FPS, GOP = 20, 10
UTC = 1_769_852_400.0


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six seconds of numbered pictures, a keyframe each half second."""
    path = tmp_path_factory.mktemp("clips") / "video.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(
            "libx264", rate=FPS, options={"bf": "0", "g": str(GOP), "sc_threshold": "0"}
        )
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for number in range(6 * FPS):
            picture = np.full((96, 160, 3), 90, np.uint8)
            burn(picture, number)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "bgr24")))
        container.mux(stream.encode(None))
    return path


def numbers(path: Path) -> list[int | None]:
    with av.open(str(path)) as container:
        return [
            read_number(np.asarray(frame.to_ndarray(format="bgr24"), np.uint8))
            for frame in container.decode(video=0)
        ]


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def span(start_s: float, end_s: float) -> Span:
    return Span(int(start_s * S), int(end_s * S), 2 * S, UTC + 2)


@pytest.mark.parametrize(
    ("start_s", "end_s", "first", "last"),
    [(1.2, 3.0, 20, 59), (1.0, 2.0, 20, 39), (-3.0, 0.5, 0, 9), (5.6, 99.0, 110, 119), (0.0, 0.01, 0, 0)],
)
def test_a_clip_of_a_file_is_its_packets_from_the_keyframe_before(
    video: Path, tmp_path: Path, start_s: float, end_s: float, first: int, last: int
) -> None:
    target = tmp_path / "clip.mp4"
    made = cut_file(video, span(start_s, end_s), target)
    assert made is not None
    assert numbers(target) == list(range(first, last + 1))
    assert packets(target) == packets(video)[first : last + 1], "not encoded anew"
    assert made.start == pytest.approx(UTC + first / FPS, abs=1e-3)
    with av.open(str(target)) as container:
        times = [float(p.pts * p.time_base) for p in container.demux(video=0) if p.size]  # type: ignore[operator]
        assert times == pytest.approx([n / FPS for n in range(last - first + 1)], abs=1e-3)
        assert container.metadata["creation_time"].startswith("2026-01-31T09:40")
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mp4"]


def test_what_is_behind_the_end_of_a_file_is_none(video: Path, tmp_path: Path) -> None:
    assert cut_file(video, span(-9, -8), tmp_path / "clip.mp4") is None
    assert list(tmp_path.iterdir()) == []


def fill(ring: PacketRing, video: Path, came_s: float = 100.0, *, until: int = 6 * FPS) -> None:
    """Have the packets of a file come in real time."""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        for number, packet in enumerate(p for p in container.demux(stream) if p.size):
            if number < until:
                ring.add(packet, stream, int((came_s + number / FPS) * S))


def test_a_clip_of_a_ring(video: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "ring-gate-"
    ring = PacketRing(prefix, 60.0, 2**24)
    fill(ring, video)
    other = PacketRing(tmp_path / "ring-gate-2-", 60.0, 2**24)
    fill(other, video, until=3)
    files = ring_files(prefix)
    assert [came_ns(path) / S for path in files] == [100 + n / 2 for n in range(12)]
    target = tmp_path / "clip.mp4"
    made = cut_ring(files, Span(int(101.2 * S), int(103 * S), 102 * S, UTC), target)
    assert made is not None
    assert numbers(target) == list(range(20, 60))
    assert packets(target) == packets(video)[20:60]
    assert made.start == pytest.approx(UTC - 1.0, abs=1e-6)
    assert made.duration_s == pytest.approx(39 / FPS, abs=1e-3)
    assert cut_ring(files, Span(0, S, 0, UTC), target.with_name("none.mp4")) is None
    ring.close()
    other.close()


def test_over_a_lost_connection_the_clip_goes_on_in_real_time(video: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "ring-"
    first = PacketRing(prefix, 60.0, 2**24)
    fill(first, video, 100.0, until=30)
    second = PacketRing(prefix, 60.0, 2**24)  # a new process, after four seconds; times begin anew
    fill(second, video, 105.5, until=20)
    second.close()
    target = tmp_path / "clip.mp4"
    assert cut_ring(ring_files(prefix), Span(100 * S, 110 * S, 100 * S, UTC), target) is not None
    assert numbers(target) == [*range(30), *range(20)]
    with av.open(str(target)) as container:
        times = [float(p.pts * p.time_base) for p in container.demux(video=0) if p.size]  # type: ignore[operator]
    assert times[30] == pytest.approx(5.5, abs=0.01)
    assert times == sorted(times)
    first.close()


@pytest.mark.parametrize(("keep_s", "max_bytes", "most"), [(1.0, 2**24, 5), (60.0, 4000, 5)])
def test_a_ring_is_bounded(video: Path, tmp_path: Path, keep_s: float, max_bytes: int, most: int) -> None:
    ring = PacketRing(tmp_path / "ring-", keep_s, max_bytes)
    fill(ring, video)
    files = ring_files(tmp_path / "ring-")
    assert 2 <= len(files) <= most
    assert came_ns(files[0]) / S <= 105.9 - min(keep_s, 1.0)
    ring.close()


def test_a_ring_on_a_full_disk_says_so_once_and_costs_nothing_else(
    video: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ring = PacketRing(tmp_path / "no such folder" / "ring-", 1.0, 2**20)
    fill(ring, video)
    ring.close()
    assert caplog.text.count("cannot be kept") == 1


def test_a_first_packet_without_a_time_is_there(video: Path, tmp_path: Path) -> None:
    """As many RTSP cameras send it: its time is known from the next."""
    ring = PacketRing(tmp_path / "ring-", 60.0, 2**24)
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        for number, packet in enumerate(p for p in container.demux(stream) if p.size):
            if number == 0:
                packet.pts = packet.dts = None
            ring.add(packet, stream, int((100 + number / FPS) * S))
    ring.close()
    target = tmp_path / "clip.mp4"
    made = cut_ring(ring_files(tmp_path / "ring-"), Span(100 * S, 101 * S, 100 * S, UTC), target)
    assert made is not None
    assert numbers(target) == list(range(20))
    assert made.start == pytest.approx(UTC, abs=0.01)


def test_a_torn_ring_is_read_up_to_where_it_was_torn(video: Path, tmp_path: Path) -> None:
    prefix = tmp_path / "ring-"
    ring = PacketRing(prefix, 60.0, 2**24)
    fill(ring, video, until=25)
    ring.close()
    last = ring_files(prefix)[-1]
    os.truncate(last, last.stat().st_size * 2 // 3)
    ring_file(prefix, 102 * S).write_bytes(b"nut/multimedia container\0")
    target = tmp_path / "clip.mp4"
    assert cut_ring(ring_files(prefix), Span(100 * S, 110 * S, 100 * S, UTC), target) is not None
    assert numbers(target)[:20] == list(range(20))


def header(source: str, at_s: float, seq: int) -> FrameHeader:
    return FrameHeader(source, 0, seq, int(at_s * S), int((100 + at_s) * S), UTC + at_s, "container", 160, 96)


def event(kind: str, track_id: int, source: str = "file", **fields: Any) -> dict[str, Any]:
    return {"type": kind, "source": source, "label": "car", "track_id": track_id} | fields


def played(clips: Clips, story: dict[int, list[dict[str, Any]]], source: str = "file") -> list[Clip]:
    """Frame by frame through the story, events by number of the frame."""
    for seq in range(6 * FPS):
        clips.see(header(source, seq / FPS, seq), story.get(seq, []))
    clips.end(source)
    return clips.close()


#: An object that stays to the end.
LONG = {n: [event("start" if n == 20 else "update", 1)] for n in range(20, 120)}


@pytest.mark.parametrize(
    ("story", "options", "found"),
    [
        ({40: [event("start", 1)]}, {}, [(30, 59)]),
        ({40: [event("start", 1)], 50: [event("update", 1)], 60: [event("end", 1)]}, {}, [(30, 79)]),
        ({40: [event("start", 1)], 45: [event("start", 2)], 55: [event("end", 2)]}, {}, [(30, 74)]),
        ({20: [event("start", 1)], 90: [event("start", 2)]}, {}, [(10, 39), (80, 109)]),
        ({20: [event("start", 1)], 50: [event("update", 9)]}, {}, [(10, 39)]),
        ({119: [event("start", 1)]}, {}, [(100, 119)]),
        ({40: [event("start", 1, label="dog")]}, {"labels": ["car"]}, []),
        ({40: [event("zone", 1, zone="yard")]}, {"types": ["zone"], "zones": ["yard"]}, [(30, 59)]),
        ({40: [event("start", 1)]}, {"sources": ["gate"]}, []),
        (LONG, {"max_s": 3.0}, [(10, 69), (70, 119)]),
    ],
)  # fmt: skip
def test_windows(
    video: Path, tmp_path: Path, story: dict[int, list[dict[str, Any]]], options: dict[str, Any],
    found: list[tuple[int, int]],
) -> None:  # fmt: skip
    clips = Clips(tmp_path, rings={}, files={"file": video}, **({"pre_s": 0.5, "post_s": 1.0} | options))
    made = played(clips, story)
    shown = [numbers(tmp_path / clip.path) for clip in made]
    assert [(one[0], one[-1]) for one in shown] == found
    for clip, (first, _) in zip(made, found, strict=True):
        assert clip.start == pytest.approx(UTC + first / FPS, abs=2e-3)
        assert clip.path.startswith("clips/file/20260131T0940")
        assert clip.label == "car"


def test_a_source_without_coded_video_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clips = Clips(tmp_path, rings={}, files={})
    assert played(clips, {20: [event("start", 1)], 60: [event("start", 2)]}) == []
    assert caplog.text.count("gives no coded video") == 1


def test_a_clip_that_cannot_be_written_is_told(
    video: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "clips").write_text("a file")
    assert played(Clips(tmp_path, rings={}, files={"file": video}), {20: [event("start", 1)]}) == []
    assert "a clip cannot be made" in caplog.text


def test_of_a_camera_from_before_the_event_with_its_true_time(tmp_path: Path) -> None:
    prefix = tmp_path / "ring-cam-"
    with RtspServer() as server:
        ring = PacketRing(prefix, 30.0, 2**24)
        connection = StreamConnection("cam", server.url(), recorder=ring)
        connection.open()
        clips = Clips(tmp_path, rings={"cam": prefix}, files={}, pre_s=1.0, post_s=0.5)
        with contextlib.closing(connection):
            seen: dict[int, float] = {}
            for seq in range(70):
                picture = connection.read()
                assert picture is not None
                number = read_number(np.asarray(picture.planes[0]))
                assert number is not None
                seen[number] = picture.captured_at
                at = FrameHeader(
                    "cam",
                    0,
                    seq,
                    picture.pts_ns,
                    picture.captured_ns,
                    picture.captured_at,
                    "arrival",
                    640,
                    360,
                )
                clips.see(at, [event("start", 1, "cam")] if seq == 40 else [])
                if seq == 40:
                    triggered = number
        ring.close()
        (made,) = clips.close()
    shown = numbers(tmp_path / made.path)
    assert shown == list(range(shown[0] or 0, (shown[0] or 0) + len(shown)))
    assert triggered in shown
    before = seen[triggered] - seen[shown[0] or 0]
    assert 1.0 - 0.15 <= before <= 2.2, "a second, and up to the keyframe before"
    assert made.start == pytest.approx(seen[shown[0] or 0], abs=0.15)


@pytest.fixture
def old_files(tmp_path: Path) -> list[Path]:
    made = []
    for number in range(10):
        path = tmp_path / "clips" / "gate" / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
        os.utime(path, (1000.0 + number * 100, 1000.0 + number * 100))
        made.append(path)
    return made


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({}, 10), ({"keep_s": 500}, 5), ({"max_bytes": 3500}, 3), ({"keep_s": 500, "max_bytes": 9000}, 5),
        ({"max_bytes": 0}, 1), ({"min_free_bytes": 2**60}, 1),
    ],
)  # fmt: skip
def test_the_oldest_go_first_and_the_newest_never(
    tmp_path: Path, old_files: list[Path], options: dict[str, Any], left: int
) -> None:
    given: dict[str, Any] = {"min_free_bytes": 0, "clock": lambda: 1910.0} | options
    kept = Retention([tmp_path / "clips", tmp_path / "not there"], **given)
    assert kept.sweep() == 10 - left
    assert [path.exists() for path in old_files] == [False] * (10 - left) + [True] * left
    assert kept.sweep() == 0
