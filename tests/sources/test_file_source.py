"""Video files: every frame once, in order, upright, with its time; and what bad files say."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from datetime import UTC, datetime
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from pipeline.errors import ConfigError, SourceError, SourceLostError
from pipeline.sources import build_source
from pipeline.sources.base import Picture
from pipeline.sources.file import FileSource

from .clips import asset, read_all, write_clip

B_FRAMES = {"bf": "2", "g": "8", "x264-params": "scenecut=0"}


def digest(picture: Picture) -> tuple[object, ...]:
    """What must be equal when the same frame is read twice."""
    sums = tuple(hashlib.sha256(plane.tobytes()).hexdigest() for plane in picture.planes)
    return picture.index, picture.pts_ns, picture.epoch, picture.width, picture.height, sums


@pytest.mark.parametrize(
    ("name", "count", "size"),
    [
        ("vtest.avi", 795, (768, 576)),
        ("car-detection.mp4", 377, (768, 432)),
        ("bottle-detection.mp4", 1189, (640, 360)),
        ("person-bicycle-car-detection.gif", 41, (480, 270)),
        ("solidWhiteRight.mp4", 221, (960, 540)),
        ("carnd_vehicle_test_video.mp4", 38, (1280, 720)),
        ("handheld_box.mp4", 455, (640, 480)),  # presentation times out of order
        ("tree_cinepak.avi", 68, (320, 240)),  # its header promises 444
        ("torchcodec_nasa_13013.mp4", 325, (320, 180)),  # two video streams
        ("torchcodec_h264_10bits.mp4", 30, (200, 200)),
        ("torchcodec_h265_video.mp4", 10, (128, 128)),
        ("torchcodec_av1_video.mkv", 125, (640, 360)),
        ("derived/vfr_solidWhiteRight.mp4", 98, (960, 540)),
        ("derived/phone_rotated_solidWhiteRight.mp4", 75, (960, 540)),
        ("derived/rotmeta_car-detection.mp4", 125, (432, 768)),
        ("derived/interlaced_vtest.mpg", 20, (720, 576)),
        ("derived/vtest_6s_vp9.webm", 60, (768, 576)),
        ("derived/vtest_6s_hevc10.mp4", 60, (768, 576)),
        ("derived/vtest_4s_mjpeg.avi", 40, (768, 576)),
        ("derived/vtest_4s_graycontent_yuvj420p.mp4", 40, (768, 576)),
        ("derived/truncated60pct_car-detection.mp4", 220, (768, 432)),
        ("derived/single_frame.mp4", 1, (768, 432)),
    ],
)
def test_every_frame_of_the_shared_videos(name: str, count: int, size: tuple[int, int]) -> None:
    source = build_source("v", asset(name), pixels="fast")
    source.open()
    last = -1
    seen = 0
    while (picture := source.read()) is not None:
        assert (picture.index, picture.width, picture.height, picture.epoch) == (seen, *size, 0)
        assert picture.pts_ns >= last
        y, u, v = picture.planes
        assert y.shape == size[::-1]
        assert u.shape == v.shape == ((size[1] + 1) // 2, (size[0] + 1) // 2)
        last = picture.pts_ns
        seen += 1
    source.close()
    assert (seen, source.decode_errors) == (count, 0)


def test_size_change_raises_the_epoch_and_time_goes_on() -> None:
    pictures = read_all(build_source("v", asset("derived/reschange_768x576_to_384x288.ts"), pixels="fast"))
    assert [(p.epoch, p.width, p.height) for p in pictures] == [(0, 768, 576)] * 30 + [(1, 384, 288)] * 30
    assert np.unique(np.diff([p.pts_ns for p in pictures])).tolist() == [100_000_000]


@pytest.mark.parametrize(
    "name",
    ["carnd_vehicle_test_video.mp4", "derived/rotmeta_car-detection.mp4", "derived/vtest_4s_mjpeg.avi"],
)
def test_exact_pixels_are_those_of_opencv(name: str) -> None:
    path = asset(name)
    source = build_source("v", path, pixels="exact")
    source.open()
    capture = cv2.VideoCapture(path)
    for _ in range(10):
        picture = source.read()
        ok, reference = capture.read()
        assert ok
        assert picture is not None
        assert picture.pixel_format == "bgr24"
        np.testing.assert_array_equal(picture.planes[0], reference)
    capture.release()
    source.close()


@pytest.mark.parametrize(
    "name",
    ["derived/vtest_4s_graycontent_yuvj420p.mp4", "person-bicycle-car-detection.gif", "tree_cinepak.avi"],
)
def test_fast_and_exact_show_the_same_colours(name: str) -> None:
    """Full range and RGB become limited-range BT.601, not planes that look washed out or crushed."""
    fast, exact = (build_source("v", asset(name), pixels=pixels) for pixels in ("fast", "exact"))
    fast.open()
    exact.open()
    one, two = fast.read(), exact.read()
    assert one is not None
    assert two is not None
    i420 = np.concatenate([np.ascontiguousarray(plane).ravel() for plane in one.planes])
    bgr = cv2.cvtColor(i420.reshape(one.height * 3 // 2, one.width), cv2.COLOR_YUV2BGR_I420)
    difference = bgr.astype(int) - two.planes[0]
    assert abs(difference.mean()) < 1
    assert np.abs(difference).mean() < 3
    fast.close()
    exact.close()


@pytest.mark.parametrize(
    ("file", "codec", "options", "pix_fmt"),
    [
        ("a.mp4", "libx264", B_FRAMES, "yuv420p"),
        ("a.mkv", "libx264", B_FRAMES, "yuv420p"),
        ("a.ts", "libx264", B_FRAMES, "yuv420p"),
        ("a.webm", "libvpx", {"g": "8"}, "yuv420p"),
        ("a.avi", "mpeg4", {"g": "8", "bf": "0"}, "yuv420p"),
        ("a.gif", "gif", {}, "rgb8"),
    ],
)
@pytest.mark.parametrize("taken", [1, 7, 8, 13, 29, 30])
def test_resuming_gives_exactly_the_rest(
    tmp_path: Path, file: str, codec: str, options: dict[str, str], pix_fmt: str, taken: int
) -> None:
    path = write_clip(tmp_path / file, codec=codec, options=options, pix_fmt=pix_fmt)
    whole = read_all(FileSource("v", str(path)))
    assert [p.index for p in whole] == list(range(30))
    rest = read_all(FileSource("v", str(path)), skip=taken, after_pts_ns=whole[taken - 1].pts_ns)
    assert [digest(p) for p in rest] == [digest(p) for p in whole[taken:]]


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("handheld_box.mp4", 3),
        ("handheld_box.mp4", 200),
        ("derived/vfr_solidWhiteRight.mp4", 60),
        ("derived/reschange_768x576_to_384x288.ts", 45),
        ("derived/vtest_6s_vp9.webm", 33),
        ("tree_cinepak.avi", 40),
        ("person-bicycle-car-detection.gif", 20),
        ("torchcodec_nasa_13013.mp4", 100),
    ],
)
def test_resuming_shared_videos(name: str, taken: int) -> None:
    path = asset(name)
    digests, times = [], []
    source = FileSource("v", path)
    source.open()
    while (picture := source.read()) is not None:
        digests.append(digest(picture))
        times.append(picture.pts_ns)
    source.close()
    source.open(skip=taken, after_pts_ns=times[taken - 1])
    for expected in digests[taken:]:
        picture = source.read()
        assert picture is not None
        assert digest(picture) == expected
    assert source.read() is None
    source.close()


@pytest.mark.parametrize("file", ["a.mp4", "a.mkv", "a.webm", "a.avi"])
def test_resuming_seeks_where_there_is_an_index(
    tmp_path: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = {"a.webm": "libvpx", "a.avi": "mpeg4"}.get(file, "libx264")
    path = write_clip(tmp_path / file, codec=codec, options=B_FRAMES if codec == "libx264" else {"g": "8"})
    whole = read_all(FileSource("v", str(path)))
    real = FileSource._seek
    outcomes = []

    def spy(self: FileSource, skip: int, after_pts_ns: int) -> bool:
        outcomes.append(real(self, skip, after_pts_ns))
        return outcomes[-1]

    monkeypatch.setattr(FileSource, "_seek", spy)
    for taken in (5, 16, 21):
        read_all(FileSource("v", str(path)), skip=taken, after_pts_ns=whole[taken - 1].pts_ns)
    assert outcomes == [True] * 3


def test_resuming_where_the_index_cannot_be_trusted(tmp_path: Path) -> None:
    """A time that fits no frame, or no time at all: count frames instead."""
    path = write_clip(tmp_path / "a.mp4", options=B_FRAMES)
    for after in (None, 123, 10**12):
        rest = read_all(FileSource("v", str(path)), skip=12, after_pts_ns=after)
        assert [p.index for p in rest] == list(range(12, 30))
    assert read_all(FileSource("v", str(path)), skip=30, after_pts_ns=None) == []


def test_frames_are_views_that_outlive_the_source(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")
    pictures = read_all(FileSource("v", str(path)))
    for number, picture in enumerate(pictures):
        y = picture.planes[0]
        assert not y.flags.writeable
        assert not y.flags.owndata
        level = 16 + (40 + 5 * number) * 219 / 255
        assert abs(float(y[:, 32:].mean()) - level) < 2
        with pytest.raises(dataclasses.FrozenInstanceError):
            picture.index = 0  # type: ignore[misc]


@pytest.mark.parametrize("size", [(63, 47), (65, 48), (64, 49)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    path = write_clip(tmp_path / "a.mkv", 3, codec="ffv1", size=size)
    fast = read_all(FileSource("v", str(path)))
    exact = read_all(FileSource("v", str(path), pixels="exact"))
    half = ((size[1] + 1) // 2, (size[0] + 1) // 2)
    assert [plane.shape for plane in fast[0].planes] == [size[::-1], half, half]
    assert exact[0].planes[0].shape == (size[1], size[0], 3)


def test_creation_time_is_the_container_clock(tmp_path: Path) -> None:
    created = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
    stamp = {"creation_time": created.isoformat()}
    pictures = read_all(FileSource("v", str(write_clip(tmp_path / "a.mp4", 5, metadata=stamp))))
    assert {p.clock for p in pictures} == {"container"}
    assert [p.captured_at - created.timestamp() for p in pictures] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    nonsense = {"creation_time": "1970-01-01T00:00:00Z"}
    plain = read_all(FileSource("v", str(write_clip(tmp_path / "b.mkv", 5, metadata=nonsense))))
    assert {p.clock for p in plain} == {"arrival"}


def test_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    times = [0, 1, 2, 7, 8, 30]
    path = write_clip(tmp_path / "a.mkv", 6, times=times)
    assert [p.pts_ns // 100_000_000 for p in read_all(FileSource("v", str(path)))] == times


def test_threads_give_the_same_frames(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", options=B_FRAMES)
    one = [digest(p) for p in read_all(FileSource("v", str(path)))]
    assert [digest(p) for p in read_all(build_source("v", str(path), pixels="fast", threads=2))] == one


def test_damage_is_skipped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Lost frames are missing, not concealed: every frame that comes is one of the undamaged ones."""
    path = write_clip(tmp_path / "a.avi", codec="mjpeg", pix_fmt="yuvj420p")
    whole = {digest(p)[1]: digest(p)[-1] for p in read_all(FileSource("v", str(path)))}
    data = bytearray(path.read_bytes())
    starts = [at for at in range(len(data) - 3) if data[at : at + 3] == b"\xff\xd8\xff"]
    for number in (10, 20):
        data[starts[number] : starts[number] + 600] = bytes(600)
    path.write_bytes(data)
    source = FileSource("v", str(path))
    with caplog.at_level(logging.WARNING):
        pictures = read_all(source)
    assert source.decode_errors == 2
    assert [p.index for p in pictures] == list(range(28))
    assert all(whole[p.pts_ns] == digest(p)[-1] for p in pictures)
    assert "damaged data near frame 10" in caplog.text


def test_truncated_file_gives_what_it_has_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        pictures = read_all(FileSource("v", asset("derived/truncated60pct_car-detection.mp4")))
    assert len(pictures) == 220
    assert "17.5 s of the 30.2 s that it promises" in caplog.text


def test_container_error_comes_after_the_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_clip(tmp_path / "a.mp4", options=B_FRAMES)
    real = av.container.InputContainer.demux

    class Breaking:
        """A container whose reads fail after 12 packets."""

        def __init__(self, inner: av.container.InputContainer) -> None:
            self._inner = inner

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

        def demux(self, stream: av.VideoStream) -> object:
            for number, packet in enumerate(real(self._inner, stream)):
                if number == 12:
                    raise av.error.InvalidDataError(1094995529, "Invalid data found")
                yield packet

    opened = av.open
    monkeypatch.setattr("pipeline.sources.file.av.open", lambda *a: Breaking(opened(*a)))
    source = FileSource("v", str(path))
    source.open()
    for number in range(12):
        picture = source.read()
        assert picture is not None
        assert picture.index == number
    with pytest.raises(SourceLostError, match="broke after 12 frames"):
        source.read()
    source.close()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("audio_only.m4a", "sound only"),
        ("zero_bytes.mp4", "empty"),
        ("not_a_video.mp4", "is text, not a video"),
        ("truncated_no_moov_car-detection.mp4", "without its index"),
    ],
)
def test_what_bad_files_say(name: str, message: str) -> None:
    source = build_source("gate", asset(f"derived/{name}"), pixels="fast")
    with pytest.raises(SourceError, match=message) as caught:
        source.open()
    assert name in str(caught.value)
    assert caught.value.hint
    source.close()


def test_bad_files_made_here(tmp_path: Path) -> None:
    noise = tmp_path / "noise.mp4"
    noise.write_bytes(bytes(range(256)) * 20)
    with pytest.raises(SourceError, match=r"noise\.mp4 is no video"):
        FileSource("v", str(noise)).open()
    clip = write_clip(tmp_path / "a.mkv")
    with pytest.raises(SourceError, match="1 video streams, stream 2") as caught:
        FileSource("v", str(clip), stream=2).open()
    assert "0 to 0" in caught.value.hint
    with pytest.raises(ConfigError):
        FileSource("v", str(clip), threads=0)


def test_other_video_stream() -> None:
    source = build_source("v", asset("torchcodec_nasa_13013.mp4"), pixels="fast", stream=1)
    source.open()
    picture = source.read()
    assert picture is not None
    assert (picture.width, picture.height) == (480, 270)
    source.close()
    assert source.read() is None
