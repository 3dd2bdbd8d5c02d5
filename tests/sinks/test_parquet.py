"""Parquet: whole frames, runs that are told apart, files that are finished in time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import SinkError
from pipeline.sinks.parquet import ParquetSink
from tests.sinks.builders import SPEC, make_header, make_item

dataset = pytest.importorskip("pyarrow.dataset", reason="pyarrow is not installed")
parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")


def opened(folder: Path, **options: Any) -> ParquetSink:
    sink = ParquetSink(folder, **options)
    sink.open(SPEC)
    return sink


def write(sink: ParquetSink, *seqs: int) -> None:
    for seq in seqs:
        sink.write(make_item(make_header(seq)))


def killed(sink: ParquetSink) -> None:
    """Close its file as the kernel does."""
    sink._pending.close()


def seqs(folder: Path) -> list[int]:
    found = dataset.dataset(folder, format="parquet").to_table()["seq"].to_pylist()
    return [int(seq) for seq in found]


def test_a_folder_is_read_as_one_table_while_it_is_written(tmp_path: Path) -> None:
    sink = opened(tmp_path, rows=4)
    write(sink, 0, 1, 2)
    (tmp_path / "_part-000009.tmp").write_bytes(b"what a kill may leave")
    assert seqs(tmp_path) == [0, 0, 1, 1]
    sink.close()
    assert seqs(tmp_path) == [0, 0, 1, 1, 2, 2]
    said = parquet.read_schema(tmp_path / "part-000001.parquet").metadata
    assert said[b"schema"] == b"framewire.detections/1"


def test_a_frame_killed_within_its_line_is_taken_whole(tmp_path: Path) -> None:
    sink = opened(tmp_path)
    write(sink, 0, 1)
    killed(sink)
    pending = tmp_path / "_pending.jsonl"
    pending.write_bytes(pending.read_bytes()[:-5])
    again = opened(tmp_path, resume=True)
    write(again, 1, 2)
    again.close()
    assert seqs(tmp_path) == [0, 0, 1, 1, 2, 2]


def test_a_new_run_killed_before_its_first_file_knows_nothing_of_the_old_one(tmp_path: Path) -> None:
    old = opened(tmp_path)
    write(old, *range(5))
    old.close()
    new = opened(tmp_path)
    write(new, 0)
    killed(new)
    sink = ParquetSink(tmp_path, resume=True)
    assert sink.open(SPEC).next_seq == {"gate": 1}
    write(sink, 0, 1)
    sink.close()
    assert [path.name for path in sorted(tmp_path.iterdir())] == [
        "part-000001.parquet",
        "part-000002.parquet",
    ]
    assert seqs(tmp_path) == [n for n in (*range(5), 0, 1) for _ in range(2)]


def test_killed_between_a_file_and_what_was_pending_no_row_is_there_twice(tmp_path: Path) -> None:
    sink = opened(tmp_path, rows=4)
    write(sink, 0)
    pending = tmp_path / "_pending.jsonl"
    before = pending.read_bytes()
    write(sink, 1, 2)
    killed(sink)
    pending.write_bytes(before)  # As it was; and the file is there.
    again = opened(tmp_path, rows=4, resume=True)
    write(again, 2, 3)
    again.close()
    assert seqs(tmp_path) == [n for n in range(4) for _ in range(2)]


def test_what_a_run_that_never_went_on_left_is_not_lost(tmp_path: Path) -> None:
    lost = opened(tmp_path)
    write(lost, 0, 1)
    killed(lost)
    new = opened(tmp_path)  # Another run.
    write(new, 0)
    new.close()
    assert seqs(tmp_path) == [0, 0, 1, 1, 0, 0]


def test_a_file_is_finished_when_its_first_row_is_old_enough(tmp_path: Path) -> None:
    now = [100.0]
    sink = ParquetSink(tmp_path, every_s=60)
    sink._clock = lambda: now[0]
    sink.open(SPEC)
    now[0] += 1000  # Nothing for long; then this is the first row, and not old.
    write(sink, 0)
    assert list(tmp_path.glob("part-*")) == []
    now[0] += 59
    write(sink, 1)
    assert list(tmp_path.glob("part-*")) == []
    now[0] += 1
    write(sink, 2)
    assert seqs(tmp_path) == [0, 0, 1, 1, 2, 2]
    sink.close()


@pytest.mark.parametrize("group", [3, 100], ids=["a part of it encoded", "nothing encoded"])
@pytest.mark.parametrize("what", ["write_table", "close"])
def test_a_full_disk_loses_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, group: int
) -> None:
    real = getattr(parquet.ParquetWriter, what)
    failed: list[str] = []

    def full(writer: Any, *args: Any) -> None:
        if not failed:
            failed.append(what)
            raise OSError(28, "No space left on device")
        real(writer, *args)

    monkeypatch.setattr("pipeline.sinks.parquet._GROUP", group)
    sink = opened(tmp_path, rows=6)
    write(sink, 0, 1)
    with monkeypatch.context() as patch:
        patch.setattr(parquet.ParquetWriter, what, full)
        with pytest.raises(SinkError, match=r"cannot write .*part-000001\.parquet: No space left"):
            write(sink, 2)
        with pytest.raises(SinkError, match="could not be written before"):
            write(sink, 3)
    with pytest.raises(SinkError, match=r"what is missing is in _pending\.jsonl"):
        sink.close()
    assert [path.name for path in tmp_path.iterdir()] == ["_pending.jsonl"]
    again = opened(tmp_path, rows=6, resume=True)
    write(again, 2, 3)
    again.close()
    assert seqs(tmp_path) == [n for n in range(4) for _ in range(2)]


def test_groups_of_a_file_are_one_table_with_its_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.sinks.parquet._GROUP", 5)
    sink = opened(tmp_path)
    write(sink, *range(20))
    killed(sink)  # With a file begun, which nobody can read.
    again = opened(tmp_path, resume=True)
    write(again, *range(18, 30))
    again.close()
    assert parquet.read_metadata(tmp_path / "part-000001.parquet").num_row_groups > 5
    assert seqs(tmp_path) == [n for n in range(30) for _ in range(2)]
    assert [path.name for path in tmp_path.iterdir()] == ["part-000001.parquet"]
