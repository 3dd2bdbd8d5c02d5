from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError, SinkError
from pipeline.sinks.base import Publication, Resume
from pipeline.sinks.jsonl import JsonlSink
from tests.sinks.builders import SPEC, make_event_row, make_header, make_item


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def end_of_stream(*events: dict[str, Any]) -> Publication:
    return Publication(None, None, events, lambda: None, None)


def test_one_line_a_frame(tmp_path: Path) -> None:
    path = tmp_path / "made" / "detections.jsonl"
    sink = JsonlSink(path, "detections")
    assert sink.open(SPEC) == Resume({}, None)
    for seq in range(3):
        sink.write(make_item(make_header(seq), make_event_row(seq)))
    sink.write(end_of_stream(make_event_row(9)))
    assert sink.close() == [str(path)]
    assert [row["seq"] for row in rows(path)] == [0, 1, 2]


def test_one_line_an_event(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    sink = JsonlSink(path)
    sink.open(SPEC)
    sink.write(make_item(make_header(0)))
    sink.write(make_item(make_header(1), make_event_row(0), make_event_row(1, track_id=4)))
    sink.write(end_of_stream(make_event_row(2, type="end")))
    sink.close()
    assert [row["sequence"] for row in rows(path)] == [0, 1, 2]


def test_files_exist_even_when_empty(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "events.jsonl")
    sink.open(SPEC)
    assert sink.close() == [str(tmp_path / "events.jsonl")]
    assert (tmp_path / "events.jsonl").read_bytes() == b""
    assert sink.close() == []


def test_a_fresh_start_replaces(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text("something of an earlier run\n")
    sink = JsonlSink(path)
    sink.open(SPEC)
    sink.close()
    assert path.read_bytes() == b""


@pytest.mark.parametrize(
    "torn", [b"", b"{", b'{"schema": "framewire.frame/1", "source": "ga', "straß".encode()[:-1]]
)
def test_resume_cuts_a_torn_line_and_goes_on(tmp_path: Path, torn: bytes) -> None:
    path = tmp_path / "detections.jsonl"
    first = JsonlSink(path, "detections")
    first.open(SPEC)
    for seq in range(3):
        first.write(make_item(make_header(seq)))
    first.write(make_item(make_header(0, source="yard")))
    first.close()
    with path.open("ab") as file:
        file.write(torn)
    second = JsonlSink(path, "detections", resume=True)
    assert second.open(SPEC) == Resume({"gate": 3, "yard": 1})
    for seq in (1, 2, 3, 4):  # the first two come again
        second.write(make_item(make_header(seq)))
    second.write(make_item(make_header(1, source="yard")))
    second.close()
    assert [(row["source"], row["seq"]) for row in rows(path)] == [
        ("gate", 0), ("gate", 1), ("gate", 2), ("yard", 0), ("gate", 3), ("gate", 4), ("yard", 1),
    ]  # fmt: skip


def test_resumed_events_are_not_written_twice(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    first = JsonlSink(path)
    first.open(SPEC)
    first.write(make_item(make_header(1), make_event_row(0), make_event_row(1, track_id=4)))
    first.close()
    # Killed while it wrote the second event of the frame: both come again.
    path.write_bytes(path.read_bytes()[:-10])
    second = JsonlSink(path, resume=True)
    assert second.open(SPEC) == Resume({}, 1)
    second.write(make_item(make_header(1), make_event_row(0), make_event_row(1, track_id=4)))
    second.write(end_of_stream(make_event_row(2, type="end", seq=5)))
    second.close()
    assert [(row["type"], row["track_id"]) for row in rows(path)] == [("start", 3), ("start", 4), ("end", 3)]


def test_resume_without_a_file_is_a_fresh_start(tmp_path: Path) -> None:
    sink = JsonlSink(tmp_path / "detections.jsonl", "detections", resume=True)
    assert sink.open(SPEC) == Resume()
    sink.close()


def test_a_foreign_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text('{"source": "gate", "seq": 1}\nmy notes\n')
    sink = JsonlSink(path, resume=True)
    with pytest.raises(SinkError, match=r"notes\.jsonl:2 is not a line of framewire events"):
        sink.open(SPEC)
    sink.close()
    assert path.read_text() == '{"source": "gate", "seq": 1}\nmy notes\n'


def test_wrong_option() -> None:
    with pytest.raises(ConfigError, match="cannot write 'frames'"):
        JsonlSink("x", "frames")  # type: ignore[arg-type]


def test_a_path_that_cannot_be_written_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "events.jsonl"):
        with pytest.raises(SinkError, match=str(path)):
            JsonlSink(path).open(SPEC)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_names_the_file() -> None:
    sink = JsonlSink("/dev/full", "detections")
    sink.open(SPEC)
    with pytest.raises(SinkError, match=r"cannot write /dev/full: No space left on device"):
        sink.write(make_item(make_header()))
    sink.close()


def test_a_disk_that_fills_up_within_a_line_leaves_whole_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "detections.jsonl"
    sink = JsonlSink(path, "detections")
    sink.open(SPEC)
    sink.write(make_item(make_header(0)))
    real, calls = os.write, []

    def fills_up(fd: int, data: bytes) -> int:
        calls.append(data)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return real(fd, data[:20])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fills_up)
        with pytest.raises(SinkError, match="No space left"):
            sink.write(make_item(make_header(1)))
    sink.close()
    assert [row["seq"] for row in rows(path)] == [0]


def test_rotation_keeps_whole_lines_and_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    sink = JsonlSink(path, max_mb=0.002, compress=True)
    sink.open(SPEC)
    for n in range(40):
        sink.write(end_of_stream(make_event_row(n)))
    sink.close()
    old = sorted(tmp_path.glob("events.*.jsonl.gz"))
    assert len(old) > 5
    found = [json.loads(line) for one in old for line in gzip.decompress(one.read_bytes()).splitlines()]
    assert [row["sequence"] for row in (*found, *rows(path))] == list(range(40))
    assert path.stat().st_size <= 0.002 * 2**20
    again = JsonlSink(path, max_mb=0.002)
    again.open(SPEC)
    again.close()
    assert path.read_bytes() == b"", "a new run begins a new file"
    assert len(list(tmp_path.glob("events.*.jsonl*"))) == len(old) + 1, "and the old one is kept"
