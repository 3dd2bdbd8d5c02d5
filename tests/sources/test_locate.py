"""What a source is, and what is said when it cannot be one."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, SourceError, SourceNotFoundError
from pipeline.sources import SOURCES, build_source, check_source, detect_kind
from pipeline.sources.images import ImageSource
from pipeline.sources.locate import image_files
from pipeline.sources.paced import Paced


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("clip.mp4", "file"),
        ("dir/with space/clip", "file"),
        ("file:///tmp/a%20b.mkv", "file"),
        ("preview.GIF", "file"),
        ("photo.JPG", "images"),
        ("file:///tmp/photo.webp", "images"),
        (".", "images"),
        ("synthetic:", "synthetic"),
        ("synthetic://?frames=3", "synthetic"),
    ],
)
def test_kinds(url: str, kind: str) -> None:
    assert detect_kind(url) == kind
    assert kind in SOURCES


@pytest.mark.parametrize(
    ("url", "message", "hint"),
    [
        ("rtsp://admin:secret@10.0.0.7/stream1", "rtsp:// streams are not read yet", "later version"),
        ("HTTP://host/live.m3u8", "http:// streams are not read yet", "--realtime"),
        ("0", "camera 0", "later version"),
        ("/dev/video2", "camera /dev/video2", "later version"),
        ("s3://key:secret@bucket/a.mp4", "nothing reads s3://", "path of a video"),
        ("", "empty", "path of a video"),
    ],
)
def test_what_is_not_read(url: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        detect_kind(url)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert "secret" not in str(caught.value)


def test_missing_path_suggests_names(tmp_path: Path) -> None:
    (tmp_path / "car-detection.mp4").write_bytes(b"x")
    with pytest.raises(SourceNotFoundError) as caught:
        check_source(str(tmp_path / "car_detection.mp4"))
    assert f"did you mean {tmp_path / 'car-detection.mp4'}?" in caught.value.hint
    assert isinstance(caught.value, FileNotFoundError)
    with pytest.raises(SourceNotFoundError) as caught:
        check_source(str(tmp_path / "no" / "a.mp4"))
    assert "does not exist either" in caught.value.hint
    with pytest.raises(SourceNotFoundError, match="a part of it is a file"):
        check_source(str(tmp_path / "car-detection.mp4" / "a.mp4"))


def test_empty_and_special_files(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    with pytest.raises(SourceError, match="empty"):
        check_source(str(tmp_path / "a.mp4"))
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(SourceError, match="no regular file"):
        check_source(str(tmp_path / "pipe.mp4"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(SourceError, match="cannot be read: Permission denied"):
        check_source(str(path))


def test_unreadable_file_as_any_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"x")

    def refuse(self: Path, *args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(SourceError, match="cannot be read: Permission denied"):
        check_source(str(path))


def test_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(SourceError, match="holds no image, it is empty"):
        check_source(str(tmp_path))
    for name in ("a.mp4", "b.avi"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SourceError, match=r"but a\.mp4, b\.avi") as caught:
        check_source(str(tmp_path))
    assert f"framewire run {tmp_path / 'a.mp4'} {tmp_path / 'b.avi'}" in caught.value.hint
    for name in ("img10.png", "img2.PNG", "img1.jpg", ".hidden.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    with caplog.at_level(logging.WARNING):
        assert check_source(str(tmp_path)) == "images"
        assert [path.name for path in image_files(tmp_path)] == ["img1.jpg", "img2.PNG", "img10.png"]
    assert "3 images taken, 3 others skipped: a.mp4, b.avi, notes.txt" in caplog.text


def test_build_source(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    assert isinstance(build_source("one", str(tmp_path), pixels="exact"), ImageSource)
    paced = build_source("one", "synthetic:", pixels="fast", realtime=True)
    assert isinstance(paced, Paced)
    assert (paced.name, paced.live, paced.frame_rate, paced.expected_frames) == ("one", True, 25.0, 100)
    with pytest.raises(ConfigError, match="no option 'thread'") as caught:
        build_source("gate", "a.mp4", pixels="fast", thread=2)
    assert "threads" in caught.value.hint
    with pytest.raises(ConfigError, match="no option 'threads'"):
        build_source("gate", "synthetic:", pixels="fast", threads=2)
