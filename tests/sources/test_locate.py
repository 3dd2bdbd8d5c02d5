"""What a source is, and what is said when it cannot be one."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, SourceError, SourceNotFoundError
from pipeline.sources import CONNECTIONS, SOURCES, build_source, check_source, detect_kind
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
        ("rtsp://admin:secret@10.0.0.7/stream1", "stream"),
        ("RTSPS://10.0.0.7:322/stream1", "stream"),
        ("rtspt://10.0.0.7/stream1", "stream"),
        ("HTTP://host/live.m3u8", "stream"),
        ("https://host/clip.mp4", "stream"),
        ("rtmp://host/app/key", "stream"),
        ("srt://host:7001", "stream"),
        ("udp://@239.0.0.1:5000", "stream"),
        ("udp://:5000", "stream"),
        ("0", "device"),
        ("/dev/video2", "device"),
        ("/dev/v4l/by-id/usb-cam-index0", "device"),
        ("push+tcp://127.0.0.1:5570", "push"),
        ("push+ipc:///run/frames", "push"),
        ("push://tcp/127.0.0.1:5570", "push"),
    ],
)
def test_kinds(url: str, kind: str) -> None:
    assert detect_kind(url) == kind
    assert kind in SOURCES or kind in CONNECTIONS


@pytest.mark.parametrize(
    "url", ["rtsp://nosuchhost.invalid/a", "0", "/dev/video97", "push+tcp://127.0.0.1:5570", "udp://:5000"]
)
def test_live_sources_are_not_tried(url: str) -> None:
    assert check_source(url) == detect_kind(url)


@pytest.mark.parametrize(
    ("url", "message", "hint"),
    [
        ("s3://key:secret@bucket/a.mp4", "nothing reads s3://", "path of a video"),
        ("rstp://admin:secret@10.0.0.7/a", "nothing reads rstp://", "did you mean rtsp://?"),
        ("onvif://admin:secret@10.0.0.7", "nothing reads onvif://", "give the rtsp:// URL"),
        ("rtsp://", "names no host", "rtsp://HOST/PATH"),
        ("rtsp:///stream1", "names no host", "rtsp://HOST/PATH"),
        ("rtsp://admin:se/cret@10.0.0.7/a", "no valid port", "percent-quote"),
        ("http://10.0.0.7:secret/a", "no valid port", "percent-quote"),
        ("", "empty", "path of a video"),
    ],
)
def test_what_is_not_read(url: str, message: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_source(url)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert "secret" not in str(caught.value)
    assert "cret" not in str(caught.value).replace("secret", "")


def test_a_file_named_like_a_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "0").write_bytes(b"x")
    assert detect_kind("0") == "file"


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
