from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import ConfigError, SinkError
from pipeline.messages import Detections
from pipeline.sinks.base import Publication, Resume
from pipeline.sinks.heatmap import HeatmapSink
from pipeline.sinks.records import frame_record
from tests.sinks.builders import SPEC, make_header, make_result

SIZE = (320, 240)
GREY: NDArray[np.uint8] = np.full((SIZE[1], SIZE[0], 3), 90, np.uint8)
#: Its foot is in the middle of cell (4, 6) of 16 x 12.
BOX = (80.0, 50.0, 100.0, 130.0)


class Feed:
    """Frames of one source for a sink; counts how often pixels are asked for."""

    def __init__(self, sink: HeatmapSink, source: str = "gate", picture: NDArray[np.uint8] | None = GREY):
        self.sink = sink
        self.source = source
        self.picture = picture
        self.asked = 0
        self.seq = 0

    def frame(self, at_s: float, *boxes: tuple[float, ...], epoch: int = 0, **changes: Any) -> None:
        """A frame with objects of class 0 whose tracks are confirmed, unless ``changes`` say otherwise."""
        header = make_header(self.seq, source=self.source, epoch=epoch, pts_ns=round(at_s * 1e9), size=SIZE)
        self.seq += 1
        count = len(boxes)
        found = Detections(
            np.array(boxes, np.float32).reshape(-1, 4),
            [0.5] * count,
            changes.pop("class_ids", [0] * count),
            changes.pop("tracks", list(range(count))),
        )
        result = make_result(header, detections=found, **changes)
        self.sink.write(Publication(header, frame_record(result, SPEC, 0), (), self.give, result))

    def give(self) -> NDArray[np.uint8] | None:
        self.asked += 1
        return self.picture


def open_sink(path: Path, **options: Any) -> HeatmapSink:
    given: dict[str, Any] = {"sources": ["gate"], "columns": 16}
    sink = HeatmapSink(path, **(given | options))
    assert sink.open(SPEC) == Resume()
    return sink


def numbers(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    return found


@pytest.mark.parametrize("step_s", [0.04, 0.1, 0.5, 2.0])
def test_seconds_do_not_depend_on_the_frame_rate(tmp_path: Path, step_s: float) -> None:
    path = tmp_path / "out" / "heatmap.png"
    sink = open_sink(path)
    feed = Feed(sink)
    for n in range(round(10 / step_s) + 1):
        feed.frame(n * step_s, BOX)
    assert sink.close() == [str(path), str(path.with_suffix(".json"))]
    found = numbers(path.with_suffix(".json"))
    assert (found["schema"], found["source"]) == ("framewire.heatmap/1", "gate")
    seconds = np.array(found["seconds"])
    assert seconds.shape == (12, 16)
    assert seconds[6, 4] == pytest.approx(10)
    assert seconds.sum() == found["objects_s"] == pytest.approx(10)


def test_what_counts(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "heatmap.png", labels=["person"])
    feed = Feed(sink)
    edge = (300.0, 200.0, 360.0, 250.0)  # its foot is beyond the corner
    feed.frame(0, BOX)
    feed.frame(1, BOX, edge, BOX, BOX, tracks=[1, 2, 3, -1], class_ids=[0, 0, 2, 0])
    feed.frame(2, BOX, status="failed", reason="broken")
    feed.frame(3, BOX, lost="infer_died", status="failed")
    feed.frame(4, edge, tracks=None)
    feed.frame(4, edge)
    sink.write(Publication(None, None, (), lambda: None, None))
    sink.close()
    seconds = np.array(numbers(tmp_path / "heatmap.json")["seconds"])
    assert seconds[6, 4] == 1
    assert seconds[11, 15] == 1 + 3
    assert seconds.sum() == 5


def test_gaps_and_epochs(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "heatmap.png")
    feed = Feed(sink)
    feed.frame(0, BOX)
    feed.frame(100, BOX)  # 5 s of these
    feed.frame(3, BOX, epoch=1)
    feed.frame(4, BOX, epoch=1)
    sink.close()
    assert numbers(tmp_path / "heatmap.json")["objects_s"] == 6


def test_the_picture(tmp_path: Path) -> None:
    """Hot where somebody stood, as it was where nobody did, and a scale below."""
    path = tmp_path / "heatmap.png"
    sink = open_sink(path, columns=64)
    feed = Feed(sink)
    for n in range(100):
        feed.frame(n / 10, BOX)
    sink.close()
    map_ = np.asarray(cv2.imread(str(path)), np.int64)
    assert map_.shape == (720 + 44, 960, 3)
    blue, green, red = map_[390, 270].tolist()
    assert red > 100
    assert red > green + 50
    assert red > blue + 50
    assert (map_[:300] == 90).all()
    assert (map_[:720, 400:] == 90).all()
    assert len(np.unique(map_[730, 10:380].reshape(-1, 3), axis=0)) > 100
    assert feed.asked == 2  # at the start, and after 5 s


def test_it_is_written_on_the_way(tmp_path: Path) -> None:
    path = tmp_path / "heatmap.png"
    feed = Feed(open_sink(path))
    for n in range(59):
        feed.frame(n, BOX)
    assert not path.exists()
    assert numbers(tmp_path / "heatmap.json")["objects_s"] == 55
    feed.frame(60, BOX)
    assert path.exists()
    path.unlink()
    feed.frame(61, BOX)
    assert not path.exists()


def test_a_killed_publisher_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "heatmap.png"
    feed = Feed(open_sink(path))
    for n in range(13):
        feed.frame(n, BOX)  # written at 10 s
    resumed = open_sink(path, resume=True)
    feed.sink = resumed
    feed.seq = 9
    for n in (9, 10, 13, 14):  # two of them come a second time
        feed.seq = n
        feed.frame(n, BOX)
    resumed.close()
    assert numbers(tmp_path / "heatmap.json")["objects_s"] == 14
    again = open_sink(path, resume=True)
    before = path.read_bytes()
    assert len(again.close()) == 2
    assert path.read_bytes() == before
    assert open_sink(path).close() == []
    assert not list(tmp_path.iterdir())


def test_several_sources(tmp_path: Path) -> None:
    sink = open_sink(tmp_path / "heatmap.png", sources=["gate", "a/b"])
    for source in ("gate", "a/b", "added.later"):
        feed = Feed(sink, source)
        feed.frame(0, BOX)
        feed.frame(1, BOX)
    names = [Path(name).name for name in sink.close()]
    assert names == [
        "heatmap-gate.png", "heatmap-gate.json", "heatmap-a%2Fb.png", "heatmap-a%2Fb.json",
        "heatmap-added.later.png", "heatmap-added.later.json",
    ]  # fmt: skip
    assert all((tmp_path / name).is_file() for name in names)


@pytest.mark.parametrize("size", [(1, 1), (4, 300), (300, 4), (1080, 1920)])
def test_odd_pictures(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "heatmap.png"
    sink = open_sink(path)
    feed = Feed(sink, picture=np.zeros((size[1], size[0], 3), np.uint8))
    feed.frame(0)
    feed.frame(1, BOX)
    sink.close()
    assert np.asarray(cv2.imread(str(path))).shape[1] >= 480


def test_without_pixels_or_objects(tmp_path: Path) -> None:
    path = tmp_path / "heatmap.png"
    sink = open_sink(path)
    feed = Feed(sink, picture=None)
    for n in range(20):
        feed.frame(n / 10)
    assert len(sink.close()) == 2
    assert np.asarray(cv2.imread(str(path))).shape == (720 + 44, 960, 3)
    assert feed.asked == 1


def test_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="3 columns"):
        HeatmapSink(tmp_path / "x.png", ["gate"], columns=3)
    with pytest.raises(ConfigError, match="'persn'"):
        HeatmapSink(tmp_path / "x.png", ["gate"], labels=["persn"]).open(SPEC)
    (tmp_path / "x.json").write_text("{}", encoding="utf-8")
    with pytest.raises(SinkError, match="not a heat map"):
        HeatmapSink(tmp_path / "x.png", ["gate"], resume=True).open(SPEC)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SinkError, match="cannot write"):
        HeatmapSink(tmp_path / "file" / "x.png", ["gate"]).open(SPEC)
