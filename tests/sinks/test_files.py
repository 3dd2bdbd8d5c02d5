"""CSV, MOT, ONVIF, COCO and Parquet: read by others' readers, whole after a kill, nothing twice."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from pipeline.errors import ConfigError, SinkError
from pipeline.messages import Detections
from pipeline.sinks import build_sink
from pipeline.sinks.base import Publication, Sink
from pipeline.tasks.mot import read_rows
from tests.sinks.builders import SPEC, make_event_row, make_header, make_item

TT = "{http://www.onvif.org/ver10/schema}"
NOBODY = Detections.empty()


def events(*rows: dict[str, Any]) -> Publication:
    return Publication(None, None, rows, lambda: None, None)


def frame(seq: int, source: str = "gate", *, empty: bool = False) -> Publication:
    header = make_header(seq, source=source)
    return make_item(header, detections=NOBODY) if empty else make_item(header)


def csv_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text("utf-8"))))


def onvif_seqs(path: Path) -> list[int]:
    text = path.read_text("utf-8")
    ElementTree.fromstring(text)
    return [int(line.partition("seq ")[2].partition(" ")[0]) for line in text.splitlines() if "seq " in line]


def coco_seqs(path: Path) -> list[int]:
    images = json.loads(path.read_text())["images"]
    return [int(Path(image["file_name"]).stem) for image in images]


def parquet_seqs(path: Path) -> list[int]:
    import pyarrow.dataset as dataset

    return [
        int(seq)
        for seq in dataset.dataset(sorted(map(str, path.glob("*.parquet")))).to_table()["seq"].to_pylist()
    ]


#: Kinds that hold frames: file, options, reader of the numbers of its frames, and rows for each frame.
KINDS: dict[str, tuple[str, dict[str, Any], Callable[[Path], list[int]], int]] = {
    "csv": ("d.csv", {}, lambda path: [int(row["seq"]) for row in csv_rows(path)], 2),
    "mot": ("m.txt", {"sources": ("gate",)}, lambda path: [int(f) - 1 for f in read_rows(path)[:, 0]], 1),
    "onvif": ("o.xml", {"sources": ("gate",)}, onvif_seqs, 1),
    "coco": ("c.json", {}, coco_seqs, 1),
    "parquet": ("p", {"rows": 5}, parquet_seqs, 2),
}


@pytest.fixture(params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def made(kind: str, folder: Path, *, resume: bool = False) -> Sink:
    name, options, _, _ = KINDS[kind]
    return build_sink(kind, resume=resume, path=str(folder / name), **options)


def seqs(kind: str, folder: Path) -> list[int]:
    name, _, read, _ = KINDS[kind]
    return read(folder / name)


def test_every_frame_is_there_once_wherever_it_was_killed(kind: str, tmp_path: Path) -> None:
    times = KINDS[kind][3]
    for killed_after in range(6):
        folder = tmp_path / str(killed_after)
        first = made(kind, folder)
        first.open(SPEC)
        for seq in range(killed_after):
            first.write(frame(seq))
        # The process is gone: nothing is closed. The system closes its files.
        for file in vars(first).values():
            for one in file.values() if isinstance(file, dict) else [file]:
                with contextlib.suppress(AttributeError):
                    one._fd = -1
        second = made(kind, folder, resume=True)
        resume = second.open(SPEC)
        assert resume.next_seq.get("gate", 0) == killed_after
        for seq in range(max(0, killed_after - 2), 6):  # some come again
            second.write(frame(seq))
        assert second.close()
        assert seqs(kind, folder) == [seq for seq in range(6) for _ in range(times)]


def test_a_torn_line_is_cut(kind: str, tmp_path: Path) -> None:
    first = made(kind, tmp_path)
    first.open(SPEC)
    first.write(frame(0))
    first.write(frame(1))
    (file,) = [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".parquet"]
    with file.open("ab") as torn:
        torn.write(b'{"source": "ga')
    second = made(kind, tmp_path, resume=True)
    second.open(SPEC)
    second.write(frame(2))
    second.close()
    assert seqs(kind, tmp_path) == [seq for seq in range(3) for _ in range(KINDS[kind][3])]


def test_a_foreign_file_is_left_alone(kind: str, tmp_path: Path) -> None:
    where = {"coco": "c.json.frames", "parquet": "p/_pending.jsonl"}.get(kind, KINDS[kind][0])
    path = tmp_path / where
    path.parent.mkdir(exist_ok=True)
    path.write_text("first line\nmy notes, and nothing else\n")
    sink = made(kind, tmp_path, resume=True)
    with pytest.raises(SinkError, match=r"my|line|keeps"):
        sink.open(SPEC)
    sink.close()
    assert path.read_text() == "first line\nmy notes, and nothing else\n"


def test_nothing_found_is_a_file_all_the_same(kind: str, tmp_path: Path) -> None:
    sink = made(kind, tmp_path)
    sink.open(SPEC)
    sink.write(frame(0, empty=True))
    files = sink.close()
    assert files
    assert all(Path(file).exists() for file in files)
    assert sink.close() == []


def test_csv_of_detections(tmp_path: Path) -> None:
    sink = build_sink("csv", path=str(tmp_path / "d.csv"))
    sink.open(SPEC)
    sink.write(frame(3))
    sink.close()
    car, person = csv_rows(tmp_path / "d.csv")
    assert (car["source"], car["seq"], car["label"], car["track_id"]) == ("gate", "3", "car", "3")
    assert [float(car[name]) for name in ("x1", "y1", "x2", "y2")] == [16, 24, 64, 72]
    assert (person["label"], person["track_id"]) == ("person", "")


def test_csv_of_events_stays_one_line_each(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    sink = build_sink("csv", path=str(path), what="events")
    assert sink.open(SPEC).next_sequence == 0
    odd = 'say "stop", then;\r\ngo\u2028on'
    sink.write(events(make_event_row(0, zones=("yard", "street")), make_event_row(1, label=odd)))
    sink.close()
    first, second = csv_rows(path)
    assert (first["sequence"], first["zones"], first["at"]) == (
        "0",
        "yard;street",
        "2026-01-31T09:40:00.250Z",
    )
    assert second["label"] == r'say "stop", then;\r\ngo\u2028on'
    assert len(path.read_text().splitlines()) == 3
    again = build_sink("csv", resume=True, path=str(path), what="events")
    assert again.open(SPEC).next_sequence == 2
    again.write(events(make_event_row(1), make_event_row(2)))
    again.close()
    assert [row["sequence"] for row in csv_rows(path)] == ["0", "1", "2"]


def test_mot_has_a_file_for_each_source_and_tracked_objects_only(tmp_path: Path) -> None:
    sink = build_sink("mot", path=str(tmp_path / "m.txt"), sources=("gate", "yard"))
    sink.open(SPEC)
    sink.write(frame(0))
    sink.write(frame(4, "yard"))
    assert sorted(Path(name).name for name in sink.close()) == ["m-gate.txt", "m-yard.txt"]
    (row,) = read_rows(tmp_path / "m-yard.txt")
    np.testing.assert_allclose(row, [5, 3, 16, 24, 48, 48, 0.87, -1, -1, -1])


def test_onvif_coordinates_point_up_and_words_are_escaped(tmp_path: Path) -> None:
    spec = type(SPEC)(
        **{name: getattr(SPEC, name) for name in SPEC.__struct_fields__} | {"labels": ("a<&\x00b",) * 3}
    )
    sink = build_sink("onvif", path=str(tmp_path / "o.xml"), sources=("gate",))
    sink.open(spec)
    item = frame(0)
    assert item.frame is not None
    item.frame["detections"][0]["label"] = "a<&\x00b"
    sink.write(item)
    sink.close()
    root = ElementTree.parse(tmp_path / "o.xml").getroot()
    assert root.tag == f"{TT}MetadataStream"
    (shown,) = root.iter(f"{TT}Frame")
    assert shown.get("UtcTime") == "2026-01-31T09:40:00.250Z"
    car, person = shown.iter(f"{TT}Object")
    assert (car.get("ObjectId"), person.get("ObjectId")) == ("3", None)
    box = next(car.iter(f"{TT}BoundingBox"))
    found = [float(box.get(side) or "nan") for side in ("left", "top", "right", "bottom")]
    assert found == pytest.approx([-0.75, 0.5, 0.0, -0.5])
    kind = next(car.iter(f"{TT}Type"))
    assert (kind.text, kind.get("Likelihood")) == ("a<&?b", "0.8700")


def test_coco_is_what_pycocotools_reads(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    sink = build_sink("coco", path=str(tmp_path / "c.json"))
    sink.open(SPEC)
    for seq in range(3):
        sink.write(frame(seq, empty=seq == 1))
    assert [Path(name).name for name in sink.close()] == ["c.json", "c-results.json"]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO(str(tmp_path / "c.json"))
        found = truth.loadRes(str(tmp_path / "c-results.json"))
    assert len(truth.imgs) == 3
    assert [truth.cats[at]["name"] for at in sorted(truth.cats)] == list(SPEC.labels)
    first = truth.anns[1]
    assert (first["bbox"], first["category_id"], first["track_id"]) == ([16.0, 24.0, 48.0, 48.0], 3, 3)
    assert [ann["image_id"] for ann in found.anns.values()] == [1, 1, 3, 3]
    assert [path.name for path in tmp_path.iterdir() if "frames" in path.name] == []


def test_parquet_columns_have_types(tmp_path: Path) -> None:
    import pyarrow as arrow
    import pyarrow.parquet as parquet

    sink = build_sink("parquet", path=str(tmp_path), what="events", rows=3)
    sink.open(SPEC)
    for n in range(7):
        sink.write(events(make_event_row(n, zones=("yard",) if n else None)))
    sink.close()
    parts = sorted(tmp_path.glob("*.parquet"))
    assert [parquet.read_metadata(part).num_rows for part in parts] == [3, 3, 1]
    table = arrow.concat_tables([parquet.read_table(part) for part in parts])
    assert table["sequence"].to_pylist() == list(range(7))
    assert table.schema.field("at").type == arrow.timestamp("us", tz="UTC")
    assert table["at"][0].as_py().isoformat() == "2026-01-31T09:40:00.250000+00:00"
    assert table.schema.field("confidence").type == arrow.float64()
    assert table["zones"].to_pylist()[:2] == [None, ["yard"]]
    assert sorted(path.name for path in tmp_path.iterdir()) == [part.name for part in parts]
    again = build_sink("parquet", resume=True, path=str(tmp_path), what="events", rows=3)
    assert again.open(SPEC).next_sequence == 7, "from the last file"
    again.close()


def test_parquet_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match="not installed") as caught:
        build_sink("parquet", path="x")
    assert 'pip install "framewire[parquet]"' in caught.value.hint
