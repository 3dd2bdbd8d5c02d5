"""CSV: columns that stay, rows that are lines, and frames that are whole."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pipeline.errors import ConfigError, SinkError
from pipeline.sinks.base import Publication
from pipeline.sinks.csv import DETECTION_COLUMNS, EVENT_COLUMNS, CsvSink
from tests.sinks.builders import SPEC, make_event_row, make_header, make_item


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def events(*sequences: int, **changes: object) -> Publication:
    rows = tuple(make_event_row(sequence, **changes) for sequence in sequences)
    return Publication(None, None, rows, lambda: None, None)


@pytest.mark.parametrize("left", [0, 1, 2])
def test_a_frame_of_which_some_rows_were_written_is_completed(tmp_path: Path, left: int) -> None:
    path = tmp_path / "d.csv"
    first = CsvSink(path)
    first.open(SPEC)
    for seq in range(2):
        first.write(make_item(make_header(seq)))
    first.close()
    # Killed while it wrote frame 1: so many of its two rows are there, and half a line.
    whole = path.read_text().splitlines(keepends=True)
    path.write_text("".join(whole[: 3 + left]) + "gate,0,1,40000")
    second = CsvSink(path, resume=True)
    second.open(SPEC)
    for seq in (1, 2):
        second.write(make_item(make_header(seq)))
    second.close()
    rows = [(row["seq"], row["label"]) for row in read(path)]
    assert rows == [(str(seq), label) for seq in range(3) for label in ("car", "person")]


def test_every_file_begins_with_the_columns(tmp_path: Path) -> None:
    sink = CsvSink(tmp_path / "e.csv", "events", max_mb=0.001, keep=20)
    sink.open(SPEC)
    for n in range(20):
        sink.write(events(n))
    sink.close()
    files = [*sorted(tmp_path.glob("e.*Z.csv")), tmp_path / "e.csv"]
    assert len(files) > 3
    assert [int(row["sequence"]) for file in files for row in read(file)] == list(range(20))
    assert {file.read_text().partition("\n")[0] for file in files} == {",".join(EVENT_COLUMNS)}


def test_columns_are_a_contract() -> None:
    """They are only ever added, at the end."""
    assert DETECTION_COLUMNS[:5] == ("source", "epoch", "seq", "pts_ns", "captured_at")
    assert DETECTION_COLUMNS[-5:] == ("x1", "y1", "x2", "y2", "track_id")
    assert (EVENT_COLUMNS[:5], EVENT_COLUMNS[-1]) == (("sequence", "id", "type", "source", "at"), "clip")


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "a\x00b", "a\x85b", "a\u2029b", "\x1b[31m"])
def test_a_row_is_one_line_whatever_is_in_it(tmp_path: Path, text: str) -> None:
    path = tmp_path / "e.csv"
    sink = CsvSink(path, "events")
    sink.open(SPEC)
    sink.write(events(0, label=text))
    sink.close()
    assert len(path.read_text("utf-8").splitlines()) == 2
    (row,) = read(path)
    assert row["label"].isprintable()
    assert row["label"].encode().decode("unicode_escape") == text


def test_a_file_with_other_columns_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("a,b\n1,2\n")
    sink = CsvSink(path, "events", resume=True)
    with pytest.raises(SinkError, match=r"e\.csv:1 is not a line of framewire events: it has 2 columns"):
        sink.open(SPEC)
    assert sink.close() == []
    assert path.read_text() == "a,b\n1,2\n"


def test_wrong_option() -> None:
    with pytest.raises(ConfigError, match="cannot write 'frames'"):
        CsvSink("x", "frames")  # type: ignore[arg-type]
