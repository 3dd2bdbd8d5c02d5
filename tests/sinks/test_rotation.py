"""Files that are put away: nothing lost, nothing twice, whatever is killed, full or in the way."""

from __future__ import annotations

import gzip
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import SinkError
from pipeline.sinks.appending import AppendFile, FrameRows
from pipeline.sinks.jsonl import JsonlSink
from pipeline.sinks.rotation import OldFiles, Rotation
from tests.sinks.builders import SPEC, make_header, make_item

HOUR = 3600.0


class Clock:
    """Stands still until it is set."""

    def __init__(self, at: float = 1_769_852_400.25) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened() -> Iterator[list[AppendFile]]:
    files: list[AppendFile] = []
    yield files
    for file in files:
        file.close()


def lines(path: Path) -> list[str]:
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return data.decode().splitlines()


def test_at_a_full_hour_a_file_is_put_away_under_the_time(tmp_path: Path, clock: Clock) -> None:
    file = AppendFile(tmp_path / "e.csv", header=b"head\n", rotation=Rotation(every_s=HOUR), clock=clock)
    file.open()
    file.append(b"one\n")
    clock.at += 600  # 09:50
    file.append(b"two\n")
    clock.at += 600  # 10:00
    file.append(b"three\n")
    file.close()
    assert [path.name for path in file.old_files()] == ["e.20260131T100000.250Z.csv"]
    assert lines(file.old_files()[0]) == ["head", "one", "two"]
    assert lines(file.path) == ["head", "three"]


def test_an_empty_file_is_not_put_away(tmp_path: Path, clock: Clock) -> None:
    file = AppendFile(tmp_path / "e", rotation=Rotation(every_s=HOUR), clock=clock)
    file.open()
    clock.at += 5 * HOUR
    file.append(b"one\n")
    file.close()
    assert file.old_files() == []


def test_names_within_a_millisecond_are_told_apart_and_in_order(tmp_path: Path, clock: Clock) -> None:
    file = AppendFile(tmp_path / "e", rotation=Rotation(max_bytes=1), clock=clock)
    file.open()
    for n in range(5):
        file.append(b"%d\n" % n)
    file.close()
    assert [lines(path) for path in (*file.old_files(), file.path)] == [[str(n)] for n in range(5)]


def test_only_so_many_old_files_stay_and_others_are_left_alone(tmp_path: Path, clock: Clock) -> None:
    for name in (
        "e.20260101T000000.000Z.jsonl",
        "e.20260101T000001.000Z.jsonl.gz",
        # One that was killed between the compressed one's name and the end of the plain one.
        "e.20260101T000002.000Z.jsonl",
        "e.20260101T000002.000Z.jsonl.gz",
        "e.holidayZ.jsonl",
        "ee.20260101T000000.000Z.jsonl",
    ):
        (tmp_path / name).write_bytes(b"")
    file = AppendFile(tmp_path / "e.jsonl", rotation=Rotation(max_bytes=1, keep=2), clock=clock)
    file.open()
    file.append(b"0\n")
    file.append(b"1\n")
    file.close()
    assert [path.name for path in file.old_files()] == [
        "e.20260101T000002.000Z.jsonl", "e.20260131T094000.250Z.jsonl",
    ]  # fmt: skip
    assert {"e.holidayZ.jsonl", "ee.20260101T000000.000Z.jsonl"} < {path.name for path in tmp_path.iterdir()}


def test_old_files_are_compressed_by_one_thread_and_those_of_a_killed_process_too(tmp_path: Path) -> None:
    (tmp_path / "e.20260101T000000.000Z").write_bytes(b"old\n")
    (tmp_path / "e.20260101T000000.000Z.gz.tmp").write_bytes(b"torn")
    (tmp_path / "e.20260102T000000.000Z.gz.tmp").write_bytes(b"torn, and removed by hand")
    file = AppendFile(tmp_path / "e", rotation=Rotation(max_bytes=4, compress=True))
    file.open()
    for n in range(100, 130):
        file.append(b"%d\n" % n)
        assert sum(thread.name == "compress" for thread in threading.enumerate()) <= 1
    file.close()
    assert {path.suffix for path in file.old_files()} == {".gz"}
    assert [line for path in (*file.old_files(), file.path) for line in lines(path)] == [
        "old", *map(str, range(100, 130)),
    ]  # fmt: skip
    assert list(tmp_path.glob("*.tmp")) == []


def test_the_end_does_not_wait_long_for_compression(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not compressed in time stays whole, and the next run does it."""
    monkeypatch.setattr("pipeline.sinks.rotation._CLOSE_S", 0.0)
    monkeypatch.setattr("pipeline.sinks.rotation._CHUNK", 1000)
    (tmp_path / "e.20260101T000000.000Z").write_bytes(os.urandom(1_000_000))
    old = OldFiles(tmp_path / "e", Rotation(max_bytes=1, compress=True))
    old.tend()
    old.close()
    (left,) = old.paths()
    assert left.suffix == ".gz" or left.stat().st_size == 1_000_000
    monkeypatch.undo()
    again = OldFiles(tmp_path / "e", Rotation(max_bytes=1, compress=True))
    again.tend()
    again.close()
    (left,) = again.paths()
    assert len(gzip.decompress(left.read_bytes())) == 1_000_000
    assert [path.name for path in tmp_path.iterdir()] == [left.name]


class Killer:
    """Kills at the n-th renaming or opening."""

    def __init__(self, left: int) -> None:
        self.left = left

    def __call__(self, real: Any) -> Any:
        def fused(*args: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            return real(*args, **options)

        return fused


@pytest.mark.parametrize("steps", range(1, 6))
def test_killed_anywhere_in_a_rotation_each_line_is_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, opened: list[AppendFile], steps: int
) -> None:
    killed = False
    first = AppendFile(tmp_path / "e", rotation=Rotation(max_bytes=5))
    opened.append(first)
    first.open()
    first.append(b"one\n")
    with monkeypatch.context() as patch:
        kill = Killer(steps)
        patch.setattr(os, "open", kill(os.open))
        patch.setattr(os, "write", kill(os.write))
        patch.setattr(Path, "rename", kill(Path.rename))
        try:
            first.append(b"two\n")
        except KeyboardInterrupt:
            killed = True
    assert killed == (steps < 5), "open, write, rename, rename"
    second = AppendFile(tmp_path / "e", resume=True, rotation=Rotation(max_bytes=5))
    opened.append(second)
    found: list[bytes] = []
    second.open(lambda _, line: found.append(line))
    if b"two\n" not in found:  # It is handed over again.
        assert found == [b"one\n"]
        second.append(b"two\n")
    second.append(b"three\n")
    assert [lines(path) for path in (*second.old_files(), second.path)] == [["one"], ["two"], ["three"]]
    assert not (tmp_path / "e.new").exists()


@pytest.mark.parametrize(
    ("owner", "what", "passed"),
    [(os, "open", 0), (os, "write", 0), (Path, "rename", 0), (Path, "rename", 1)],
    ids=["open", "write", "put away", "take its name"],
)
def test_a_rotation_that_fails_loses_nothing_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: Any, what: str, passed: int
) -> None:
    file = AppendFile(tmp_path / "e", rotation=Rotation(max_bytes=5))
    file.open()
    file.append(b"one\n")
    real, calls = getattr(owner, what), []

    def full(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == passed + 1:
            raise OSError(28, "No space left on device")
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(owner, what, full)
        with pytest.raises(SinkError, match=r"cannot write .*/e: No space left on device"):
            file.append(b"two\n")
    assert [path.name for path in tmp_path.iterdir()] == ["e"], "as it was"
    file.append(b"two\n")
    file.close()
    assert [lines(path) for path in (*file.old_files(), file.path)] == [["one"], ["two"]]


def test_what_is_moved_away_by_somebody_else_is_begun_anew(tmp_path: Path) -> None:
    file = AppendFile(tmp_path / "e", rotation=Rotation(max_bytes=5))
    file.open()
    file.append(b"one\n")
    (tmp_path / "e").rename(tmp_path / "theirs")
    file.append(b"two\n")
    file.close()
    assert (lines(tmp_path / "theirs"), lines(tmp_path / "e")) == (["one"], ["two"])


def test_a_new_run_killed_before_its_first_frame_knows_nothing_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    for count in (5, 0):
        sink = JsonlSink(path, "detections", max_mb=1)
        sink.open(SPEC)
        for seq in range(count):
            sink.write(make_item(make_header(seq)))
        sink.close()
    again = JsonlSink(path, "detections", resume=True, max_mb=1)
    assert again.open(SPEC).next_seq == {}
    again.write(make_item(make_header(0)))
    again.close()
    assert [json.loads(line)["seq"] for line in lines(path)] == [0]
    (old,) = again._file.old_files()
    assert len(lines(old)) == 5


@pytest.mark.parametrize(
    ("there", "again", "written"),
    [
        ([], ["a", "b"], ["a", "b"]),
        (["a"], ["a", "b", "c"], ["b", "c"]),
        (["a", "b"], ["a", "b"], []),
        (["a", "b"], [], []),  # It failed this time.
    ],
)
def test_of_a_frame_that_comes_again_only_missing_rows_are_written(
    there: list[str], again: list[str], written: list[str]
) -> None:
    held = FrameRows()
    for source, seq in [("gate", 0), ("gate", 0), ("yard", 7), *[("gate", 1)] * len(there), ("yard", 8)]:
        held.known(source, seq)
    assert held.missing("gate", 1, again) == written
    assert held.missing("gate", 0, ["x"]) == []
    assert held.missing("gate", 2, ["x"]) == ["x"]
    assert held.missing("street", 0, ["x"]) == ["x"]
