from __future__ import annotations

import hashlib
import socket
from pathlib import Path

import pytest

from pipeline.errors import ModelError
from pipeline.models.download import copy_file, fetch, sha256_of
from tests.models.http_server import Served, serving

BODY = bytes(range(256)) * 4096  # 1 MiB: several reads
SHA = hashlib.sha256(BODY).hexdigest()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def get(urls: list[str], target: Path) -> list[float]:
    """Fetch BODY; the pauses that were made."""
    pauses: list[float] = []
    fetch(urls, target, sha256=SHA, size=len(BODY), pause=pauses.append)
    return pauses


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_whole_file_with_progress(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model.onnx"
    seen: list[tuple[int, int]] = []
    with serving(Served(BODY)) as served:
        fetch(
            [served.url],
            target,
            sha256=SHA,
            size=len(BODY),
            progress=lambda done, total: seen.append((done, total)),
        )
    assert target.read_bytes() == BODY
    assert left(tmp_path) == ["model.onnx"]
    assert seen[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_broken_transfers_are_continued(tmp_path: Path) -> None:
    with serving(Served(BODY, breaks_after=[300_000, 200_000])) as served:
        pauses = get([served.url], tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx").read_bytes() == BODY
    assert served.asked == ["", "bytes=300000-", "bytes=500000-"]
    assert pauses == [1.0, 1.0]  # progress was made, so the back-off begins anew


def test_a_later_run_continues_what_an_earlier_one_left(tmp_path: Path) -> None:
    (tmp_path / "model.onnx.part").write_bytes(BODY[:777])
    with serving(Served(BODY)) as served:
        get([served.url], tmp_path / "model.onnx")
    assert served.asked == ["bytes=777-"]
    assert (tmp_path / "model.onnx").read_bytes() == BODY


@pytest.mark.parametrize(
    ("part", "asked"),
    [
        (b"x" * 1000, ["bytes=1000-", ""]),  # of another file: noticed by the digest, fetched anew
        (b"x" * (len(BODY) + 5), [""]),  # longer than the file can be
        (b"x" * len(BODY), [""]),  # complete, but wrong
        (BODY, []),  # complete: the last run was killed before the rename
    ],
)
def test_what_was_left_may_be_wrong(tmp_path: Path, part: bytes, asked: list[str]) -> None:
    (tmp_path / "model.onnx.part").write_bytes(part)
    with serving(Served(BODY)) as served:
        get([served.url], tmp_path / "model.onnx")
    assert served.asked == asked
    assert (tmp_path / "model.onnx").read_bytes() == BODY
    assert left(tmp_path) == ["model.onnx"]


def test_server_without_ranges_starts_over(tmp_path: Path) -> None:
    with serving(Served(BODY, breaks_after=[400_000], ranges=False)) as served:
        get([served.url], tmp_path / "model.onnx")
    assert served.asked == ["", "bytes=400000-"]
    assert (tmp_path / "model.onnx").read_bytes() == BODY


def test_range_not_satisfiable_starts_over(tmp_path: Path) -> None:
    (tmp_path / "model.onnx.part").write_bytes(BODY[:10])
    with serving(Served(BODY, statuses=[416])) as served:
        get([served.url], tmp_path / "model.onnx")
    assert served.asked == ["bytes=10-", ""]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>log in first</html>".ljust(len(BODY)), "not the file expected"),
        (BODY + b"more", "more than the 1,048,576 bytes expected"),
    ],
)
def test_wrong_bytes_leave_nothing(tmp_path: Path, body: bytes, message: str) -> None:
    with serving(Served(body)) as served, pytest.raises(ModelError, match=message):
        get([served.url], tmp_path / "model.onnx")
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    ("statuses", "pauses"),
    [([503, 429], [1.0, 2.0]), ([500] * 4, [1.0, 2.0, 4.0, 8.0])],
)
def test_busy_server_is_asked_again(tmp_path: Path, statuses: list[int], pauses: list[float]) -> None:
    with serving(Served(BODY, statuses=statuses)) as served:
        assert get([served.url], tmp_path / "model.onnx") == pauses
    assert (tmp_path / "model.onnx").read_bytes() == BODY


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (403, 1), (503, 5)])
def test_refusal_names_address_and_status(tmp_path: Path, status: int, tries: int) -> None:
    with serving(Served(BODY, statuses=[status] * 9)) as served:
        with pytest.raises(ModelError, match=f"files/model.onnx: HTTP {status}") as caught:
            get([served.url], tmp_path / "model.onnx")
        assert len(served.asked) == tries
    assert "--from FILE" in caught.value.hint
    assert left(tmp_path) == []


def test_next_address_after_a_refusal(tmp_path: Path) -> None:
    with serving(Served(BODY, statuses=[404])) as first, serving(Served(BODY)) as second:
        get([first.url, second.url], tmp_path / "model.onnx")
    assert len(first.asked) == len(second.asked) == 1
    assert (tmp_path / "model.onnx").read_bytes() == BODY


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(ModelError, match="Connection refused"):
        get([f"http://127.0.0.1:{port}/model.onnx"], tmp_path / "model.onnx")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/model.onnx", "model.onnx"])
def test_only_http(tmp_path: Path, url: str) -> None:
    with pytest.raises(ModelError, match="not an http or https address"):
        get([url], tmp_path / "model.onnx")


def test_password_is_sent_once_and_never_shown(tmp_path: Path) -> None:
    with serving(Served(BODY)) as other, serving(Served(BODY, location=other.url)) as served:
        get([served.url.replace("//", "//user:se%40cret@")], tmp_path / "model.onnx")
        served.statuses = [404]
        with pytest.raises(ModelError) as caught:
            get([served.url.replace("//", "//user:se%40cret@") + "?token=cret"], tmp_path / "b.onnx")
    assert served.users[0].startswith("Basic ")
    assert other.users == [""]  # the redirect leads elsewhere: it does not get the password
    assert "cret" not in str(caught.value)
    assert "user" not in str(caught.value)


def test_what_another_process_fetched_is_taken(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(BODY)
    with serving(Served(BODY)) as served:
        get([served.url], tmp_path / "model.onnx")
    assert served.asked == []
    assert left(tmp_path) == ["model.onnx"]


def test_full_disk_says_so(tmp_path: Path) -> None:
    (tmp_path / "model.onnx.part").symlink_to("/dev/full")
    with (
        serving(Served(BODY)) as served,
        pytest.raises(ModelError, match=r"MB free\): No space left") as caught,
    ):
        get([served.url], tmp_path / "model.onnx")
    assert "FRAMEWIRE_CACHE" in caught.value.hint


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"a file")
    with pytest.raises(ModelError, match="cannot be written"):
        get(["http://127.0.0.1:1/model.onnx"], tmp_path / "cache" / "model.onnx")


def test_copy_file(tmp_path: Path) -> None:
    source, target = tmp_path / "usb.onnx", tmp_path / "cache" / "model.onnx"
    source.write_bytes(BODY)
    copy_file(source, target, sha256=sha256_of(source))
    assert target.read_bytes() == BODY
    assert left(target.parent) == ["model.onnx"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("other.onnx", "is not model.onnx"), ("missing.onnx", "No such file"), (".", "read")],
)
def test_copy_file_refuses(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "other.onnx").write_bytes(b"other")
    target = tmp_path / "cache" / "model.onnx"
    with pytest.raises(ModelError, match=message):
        copy_file(tmp_path / name, target, sha256=SHA)
    assert not target.parent.exists()
