"""COCO: put together from what was kept, however often that is interrupted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import SinkError
from pipeline.messages import Detections
from pipeline.sinks.coco import CocoSink
from tests.sinks.builders import SPEC, make_header, make_item, make_result


def write(sink: CocoSink, *seqs: int, source: str = "gate") -> None:
    for seq in seqs:
        sink.write(make_item(make_header(seq, source=source)))


def read(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text())
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("left", ["c.json.frames", "c.json"], ids=["results only", "both"])
def test_ended_when_it_had_put_the_files_together_it_goes_on(tmp_path: Path, left: str) -> None:
    """Killed before what was kept was removed, or ended for good though more frames came."""
    path = tmp_path / "c.json"
    whole = CocoSink(tmp_path / "whole.json")
    whole.open(SPEC)
    write(whole, 0, 1, 2)
    write(whole, 0, source="yard")
    write(whole, 3)
    whole.close()
    first = CocoSink(path)
    first.open(SPEC)
    write(first, 0, 1, 2)
    write(first, 0, source="yard")
    kept = (tmp_path / "c.json.frames").read_bytes()
    first.close()
    if left.endswith("frames"):
        path.unlink()
        (tmp_path / left).write_bytes(kept)
    second = CocoSink(path, resume=True)
    assert second.open(SPEC).next_seq == {"gate": 3, "yard": 1}
    write(second, 2, 3)
    second.close()
    assert read(path) == read(tmp_path / "whole.json")
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "c-results.json", "c.json", "whole-results.json", "whole.json",
    ]  # fmt: skip


def test_every_annotation_has_its_category(tmp_path: Path) -> None:
    """Also one that the model does not name."""
    sink = CocoSink(tmp_path / "c.json")
    sink.open(SPEC)
    result = make_result(make_header(), detections=Detections([[0, 0, 9, 9]], [0.9], [5], [1]))
    sink.write(make_item(make_header(), detections=result.detections))
    sink.close()
    found = read(tmp_path / "c.json")
    names = {category["id"]: category["name"] for category in found["categories"]}
    assert names[found["annotations"][0]["category_id"]] == "class_5"


def test_a_file_that_cannot_be_written_leaves_what_was_kept(tmp_path: Path) -> None:
    (tmp_path / "c-results.json.tmp").mkdir()
    sink = CocoSink(tmp_path / "c.json")
    sink.open(SPEC)
    write(sink, 0, 1)
    with pytest.raises(SinkError, match=r"cannot write .*c\.json"):
        sink.close()
    (tmp_path / "c-results.json.tmp").rmdir()
    again = CocoSink(tmp_path / "c.json", resume=True)
    again.open(SPEC)
    again.close()
    assert len(read(tmp_path / "c.json")["images"]) == 2


def test_nothing_is_valid_too(tmp_path: Path) -> None:
    sink = CocoSink(tmp_path / "c.json")
    sink.open(SPEC)
    sink.close()
    found = read(tmp_path / "c.json")
    assert (found["images"], found["annotations"]) == ([], [])
    assert json.loads((tmp_path / "c-results.json").read_text()) == []
