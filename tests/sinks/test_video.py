from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import SinkError
from pipeline.messages import Detections, FrameHeader
from pipeline.sinks import _parts
from pipeline.sinks.base import Publication, Resume
from pipeline.sinks.video import VideoSink, fit
from tests.sinks.builders import MS, SPEC, make_header, make_item

NONE = Detections.empty()
TICK_NS = 1e9 / _parts.TICKS


def item(header: FrameHeader, grey: int = 128, found: Detections = NONE) -> Publication:
    picture = np.full((header.height, header.width, 3), grey, np.uint8)
    return make_item(header, picture=picture, detections=found)


def decoded(path: Path) -> list[tuple[float, NDArray[np.uint8]]]:
    """Presentation time in ns and BGR pixels of every frame."""
    with av.open(str(path)) as container:
        return [
            (float(frame.pts * frame.time_base) * 1e9, np.asarray(frame.to_ndarray(format="bgr24"), np.uint8))
            for frame in container.decode(video=0)
            if frame.pts is not None and frame.time_base is not None
        ]


def write_all(sink: VideoSink, items: list[Publication]) -> list[str]:
    assert sink.open(SPEC) == Resume()
    for one in items:
        sink.write(one)
    return sink.close()


def test_every_frame_with_its_own_time_and_picture(tmp_path: Path) -> None:
    path = tmp_path / "out" / "annotated.mp4"
    pts = [0, 40 * MS, 80 * MS, 333_366_667, 1_000 * MS, 1_001 * MS, 61_000 * MS]  # a variable frame rate
    items = [item(make_header(seq, pts_ns=at), 30 * seq) for seq, at in enumerate(pts)]
    assert write_all(VideoSink(path, ["gate"]), items) == [str(path)]
    frames = decoded(path)
    assert len(frames) == len(pts)
    for seq, ((at, bgr), expected) in enumerate(zip(frames, pts, strict=True)):
        assert abs(at - expected) <= TICK_NS
        assert abs(float(bgr.mean()) - 30 * seq) < 4
    assert sorted(p.name for p in path.parent.iterdir()) == ["annotated.mp4"]
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # plays while it is still being fetched
    assert b"moof" not in data
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.duration is not None
        assert stream.time_base is not None
        assert (
            round(float(stream.duration * stream.time_base)) == 61 + 60
        )  # the last as long as the one before
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")


def test_the_box_is_on_its_own_frame_only(tmp_path: Path) -> None:
    path = tmp_path / "annotated.mp4"
    items = [
        item(make_header(seq), found=Detections([[40, 40, 100, 80]], [0.9], [0], [7]) if seq == 2 else NONE)
        for seq in range(5)
    ]
    write_all(VideoSink(path, ["gate"]), items)
    spread = [float(bgr[42:78, 36:46].std()) for _, bgr in decoded(path)]
    assert [value > 10 for value in spread] == [False, False, True, False, False]


@pytest.mark.parametrize(("size", "even"), [((127, 95), (128, 96)), ((1, 1), (2, 2)), ((64, 33), (64, 34))])
def test_odd_sizes_gain_a_line(tmp_path: Path, size: tuple[int, int], even: tuple[int, int]) -> None:
    path = tmp_path / "annotated.mp4"
    write_all(VideoSink(path, ["gate"]), [item(make_header(size=size))])
    assert [bgr.shape[1::-1] for _, bgr in decoded(path)] == [even]


def test_a_new_epoch_of_another_size_goes_on_in_the_first_size(tmp_path: Path) -> None:
    path = tmp_path / "annotated.mp4"
    items = [item(make_header(seq)) for seq in range(3)]
    items += [
        item(make_header(seq, epoch=1, pts_ns=(seq - 3) * 40 * MS, size=(64, 96)), 250) for seq in (3, 4)
    ]
    items += [item(make_header(5, epoch=2, pts_ns=10_000 * MS))]
    write_all(VideoSink(path, ["gate"]), items)
    frames = decoded(path)
    assert [round(at / MS) for at, _ in frames] == [0, 40, 80, 120, 160, 10_120]
    assert {bgr.shape for _, bgr in frames} == {(96, 128, 3)}
    assert frames[3][1][48, 64].mean() > 230  # the picture, in the middle
    assert frames[3][1][48, 4].mean() < 20  # the bar beside it


def test_a_repeated_time_stays_two_frames(tmp_path: Path) -> None:
    path = tmp_path / "annotated.mp4"
    write_all(VideoSink(path, ["gate"]), [item(make_header(seq, pts_ns=0)) for seq in range(3)])
    assert len(decoded(path)) == 3


def test_several_sources_have_a_file_each(tmp_path: Path) -> None:
    sources = ["gate", "a/b"]
    items = [item(make_header(seq, source=source)) for seq in range(2) for source in sources]
    files = write_all(VideoSink(tmp_path / "annotated.mp4", sources), items)
    assert [Path(file).name for file in files] == ["annotated-gate.mp4", "annotated-a%2Fb.mp4"]
    assert [len(decoded(Path(file))) for file in files] == [2, 2]


def test_frames_without_pixels_and_ends_are_passed_over(tmp_path: Path) -> None:
    items = [make_item(make_header(0)), Publication(None, None, (), lambda: None, None)]
    assert write_all(VideoSink(tmp_path / "annotated.mp4", ["gate"]), items) == []
    assert list(tmp_path.iterdir()) == []


def two_epochs() -> list[Publication]:
    items = [item(make_header(seq), 10 * seq) for seq in range(12)]
    # An epoch whose time starts again, so that what is written no longer has the times of its headers.
    items += [item(make_header(seq, epoch=1, pts_ns=(seq - 12) * 40 * MS), 10 * seq) for seq in range(12, 22)]
    return items


def write_and_die(path: Path, first: int, end: int, resume: bool) -> None:
    sink = VideoSink(path, ["gate"], resume=resume)
    sink.open(SPEC)
    for one in two_epochs()[first:end]:
        sink.write(one)
    os._exit(9)


def killed_after(path: Path, first: int, end: int, resume: bool) -> None:
    """Write in a process that is gone without closing anything, as after SIGKILL."""
    # Spawned: a fork of a process with encoder threads may find their locks taken for ever.
    process = multiprocessing.get_context("spawn").Process(
        target=write_and_die, args=(path, first, end, resume)
    )
    process.start()
    process.join()
    assert process.exitcode == 9
    process.close()


@pytest.mark.parametrize("torn", [0, 1, 30])
def test_a_killed_publisher_loses_no_frame(tmp_path: Path, torn: int) -> None:
    path = tmp_path / "annotated.mp4"
    items = two_epochs()
    killed_after(path, 0, 8, resume=False)
    killed_after(path, 6, 16, resume=True)
    parts = sorted(tmp_path.iterdir())
    assert [part.name for part in parts] == [f"annotated.mp4.part{n:03d}" for n in range(3)]
    os.truncate(parts[-1], parts[-1].stat().st_size - torn)
    files = write_all(VideoSink(path, ["gate"], resume=True), items[10:])
    assert files == [str(path)]
    frames = decoded(path)
    assert [round(at / (40 * MS)) for at, _ in frames] == list(range(22))
    assert all(abs(float(bgr.mean()) - 10 * seq) < 4 for seq, (_, bgr) in enumerate(frames))
    assert [p.name for p in tmp_path.iterdir()] == ["annotated.mp4"]


def test_an_unreadable_part_is_dropped(tmp_path: Path) -> None:
    (tmp_path / "annotated.mp4.part000").write_bytes(b"nut")
    files = write_all(VideoSink(tmp_path / "annotated.mp4", ["gate"], resume=True), [item(make_header())])
    assert len(decoded(Path(files[0]))) == 1


def test_a_fresh_start_replaces(tmp_path: Path) -> None:
    for name in ("annotated.mp4", "annotated.mp4.part000"):
        (tmp_path / name).write_bytes(b"old")
    assert write_all(VideoSink(tmp_path / "annotated.mp4", ["gate"]), []) == []
    assert list(tmp_path.iterdir()) == []


def test_a_finished_video_is_kept_on_resume(tmp_path: Path) -> None:
    path = tmp_path / "annotated.mp4"
    write_all(VideoSink(path, ["gate"]), [item(make_header())])
    assert write_all(VideoSink(path, ["gate"], resume=True), []) == [str(path)]
    assert len(decoded(path)) == 1


@pytest.fixture
def no_x264(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    real = av.Codec

    def codec(name: str, mode: Any = "r") -> Any:
        if name == "libx264":
            raise av.codec.codec.UnknownCodecError(name)
        return real(name, mode)

    _parts._encoder.cache_clear()
    monkeypatch.setattr(av, "Codec", codec)
    yield
    _parts._encoder.cache_clear()


@pytest.mark.usefixtures("no_x264")
def test_without_x264_it_says_so_and_writes_mpeg4(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "annotated.mp4"
    with caplog.at_level(logging.WARNING):
        write_all(VideoSink(path, ["gate"]), [item(make_header(seq), 20 * seq) for seq in range(5)])
    assert "no libx264" in caplog.text
    frames = decoded(path)
    assert [round(at / (40 * MS)) for at, _ in frames] == list(range(5))
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match=r"annotated\.mp4"):
        VideoSink(tmp_path / "file" / "annotated.mp4", ["gate"]).open(SPEC)


def test_a_part_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    sink = VideoSink(tmp_path / "annotated.mp4", ["gate"])
    sink.open(SPEC)
    (tmp_path / "annotated.mp4.part000").mkdir()
    with pytest.raises(SinkError, match=r"annotated\.mp4"):
        sink.write(item(make_header()))


@pytest.mark.parametrize(
    ("have", "want"),
    [((4, 4), (4, 4)), ((3, 3), (4, 4)), ((8, 2), (4, 4)), ((2, 8), (4, 4)), ((1, 100), (4, 4))],
)
def test_fit(have: tuple[int, int], want: tuple[int, int]) -> None:
    out = fit(np.full((have[1], have[0], 3), 200, np.uint8), *want)
    assert out.shape == (want[1], want[0], 3)
    assert np.max(out) == 200
