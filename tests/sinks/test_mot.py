"""MOT: a frame killed between its rows, sources that come later, and the numbers of frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pipeline.messages import Detections
from pipeline.sinks.mot import MotSink
from pipeline.tasks.mot import read_rows
from tests.sinks.builders import SPEC, make_header, make_item

TWO = Detections([[0, 0, 10, 10], [20, 20, 40, 50]], [0.9, 0.8], [0, 0], [1, 2])


def test_a_frame_of_which_some_rows_were_written_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "m.txt"
    first = MotSink(path, ("gate",))
    first.open(SPEC)
    first.write(make_item(make_header(0), detections=TWO))
    first.write(make_item(make_header(1), detections=TWO))
    first.close()
    path.write_bytes(path.read_bytes()[:-30])  # Within the last row.
    second = MotSink(path, ("gate",), resume=True)
    assert second.open(SPEC).next_seq == {"gate": 2}
    second.write(make_item(make_header(1), detections=TWO))
    second.write(make_item(make_header(2), detections=TWO))
    second.close()
    rows = read_rows(path)
    np.testing.assert_array_equal(rows[:, :2], [(frame, who) for frame in (1, 2, 3) for who in (1, 2)])


def test_a_source_that_is_added_later_has_its_own_file_after_a_kill_too(tmp_path: Path) -> None:
    first = MotSink(tmp_path / "m.txt", ("gate",))
    first.open(SPEC)
    first.write(make_item(make_header(0, source="late"), detections=TWO))
    first.close()
    second = MotSink(tmp_path / "m.txt", ("gate",), resume=True)
    second.open(SPEC)
    second.write(make_item(make_header(0, source="late"), detections=TWO))  # It comes again.
    second.write(make_item(make_header(1, source="late"), detections=TWO))
    assert [Path(name).name for name in second.close()] == ["m.txt", "m-late.txt"]
    assert read_rows(tmp_path / "m-late.txt")[:, 0].tolist() == [1, 1, 2, 2]
