from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import ConfigError, SinkError
from pipeline.sinks.base import Publication, Resume
from pipeline.sinks.contact_sheet import ContactSheetSink
from tests.sinks.builders import SPEC, make_header, make_item


def make_sheet(
    path: Path, count: int, sources: tuple[str, ...] = ("gate",), columns: int = 3, rows: int = 4
) -> list[str]:
    sink = ContactSheetSink(path, columns=columns, rows=rows)
    assert sink.open(SPEC) == Resume()
    for seq in range(count):
        for number, source in enumerate(sources):
            level = 255 * seq // max(count - 1, 1)
            picture = np.full((96, 128, 3), (level, level, 100 * number), np.uint8)
            sink.write(make_item(make_header(seq, source=source), picture=picture))
    return sink.close()


def tile_levels(path: Path, columns: int, rows: int) -> list[int]:
    """Blue of each tile, at a place without boxes."""
    sheet: NDArray[np.uint8] = np.asarray(cv2.imread(str(path)), np.uint8)
    height, width = sheet.shape[0] // rows, sheet.shape[1] // columns
    return [
        int(sheet[r * height + height // 2, c * width + width * 9 // 10, 0])
        for r in range(rows)
        for c in range(columns)
    ]


@pytest.mark.parametrize("count", [12, 13, 24, 25, 100, 777])
def test_tiles_are_spread_over_a_run_of_unknown_length(tmp_path: Path, count: int) -> None:
    path = tmp_path / "out" / "contact-sheet.png"
    assert make_sheet(path, count) == [str(path)]
    levels = tile_levels(path, 3, 4)
    assert levels == sorted(levels)
    steps = np.diff(levels)
    assert levels[0] == 0
    assert levels[-1] >= 255 * 0.9
    assert np.max(steps) <= 2.6 * 255 / 11  # no stretch of the run is left out


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (3, 1), (4, 2), (12, 4)])
def test_a_short_run_has_fewer_rows(tmp_path: Path, count: int, rows: int) -> None:
    path = tmp_path / "sheet.png"
    make_sheet(path, count)
    sheet = np.asarray(cv2.imread(str(path)))
    assert sheet.shape[1] == 1600
    assert round(sheet.shape[0] / 430) == rows


def test_every_source_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    make_sheet(path, 200, ("a", "b"))
    sheet = np.asarray(cv2.imread(str(path)))
    red = [int(sheet[r * sheet.shape[0] // 4 + 200, c * 533 + 480, 2]) for r in range(4) for c in range(3)]
    assert red.count(0) == red.count(100) == 6


def test_more_sources_than_tiles_come_to_an_end(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    assert make_sheet(path, 3, ("a", "b", "c", "d", "e"), columns=2, rows=1) == [str(path)]


def test_nothing_to_show(tmp_path: Path) -> None:
    path = tmp_path / "sheet.png"
    path.write_bytes(b"of an earlier run")
    sink = ContactSheetSink(path)
    sink.open(SPEC)
    sink.write(make_item(make_header()))
    sink.write(Publication(None, None, (), lambda: None, None))
    assert sink.close() == []
    assert not path.exists()


def test_odd_shapes_and_names(tmp_path: Path) -> None:
    sink = ContactSheetSink(tmp_path / "sheet.png", columns=4)
    sink.open(SPEC)
    for seq, size in enumerate([(1, 1), (640, 3), (3, 640), (1080, 1920)]):
        header = make_header(seq, source="Straße " * 20, size=size, pts_ns=seq * 3600 * 10**9)
        sink.write(make_item(header, picture=np.zeros((size[1], size[0], 3), np.uint8)))
    assert len(sink.close()) == 1


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0 x 4 tiles"):
        ContactSheetSink(tmp_path / "x.png", columns=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(SinkError, match=r"x\.png"):
        ContactSheetSink(tmp_path / "file" / "x.png").open(SPEC)
    sink = ContactSheetSink(tmp_path / "x.png")
    sink.open(SPEC)
    sink.write(make_item(make_header(), picture=np.zeros((9, 9, 3), np.uint8)))
    (tmp_path / "x.png").mkdir()
    with pytest.raises(SinkError, match=r"x\.png"):
        sink.close()
