from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.errors import SinkError
from pipeline.messages import Detections, Result
from pipeline.sinks.snapshots import Snapshots
from tests.sinks.builders import make_header, make_result

Box = tuple[float, float, float, float]
SIZE = (640, 480)
SHARP = np.repeat(np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 1), np.uint8), 3, axis=2)
BLURRED: NDArray[np.uint8] = np.asarray(cv2.GaussianBlur(SHARP, (0, 0), 6), np.uint8)
MIDDLE: Box = (300.0, 200.0, 340.0, 280.0)


def frame(
    at_ms: int, *objects: tuple[int, Box, float], source: str = "gate", epoch: int = 0, status: str = "ok"
) -> Result:
    """A frame with objects: track id, box and score."""
    header = make_header(at_ms, source=source, epoch=epoch, pts_ns=at_ms * 1_000_000, size=SIZE)
    found = Detections(
        np.array([box for _, box, _ in objects], np.float32).reshape(-1, 4),
        [score for _, _, score in objects],
        [0] * len(objects),
        [track_id for track_id, _, _ in objects],
    )
    return make_result(header, detections=found, status=status)


class Camera:
    """Gives pictures, and counts them."""

    def __init__(self, bgr: NDArray[np.uint8] | None = SHARP) -> None:
        self.bgr = bgr
        self.asked = 0

    def __call__(self) -> NDArray[np.uint8] | None:
        self.asked += 1
        return self.bgr


def read(path: Path) -> NDArray[np.uint8]:
    return np.asarray(cv2.imread(str(path)), np.uint8)


def test_each_object_has_a_picture_from_its_first_frame_on(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    found = snapshots.take(frame(0, (3, MIDDLE, 0.8), (-1, (0, 0, 50, 50), 0.9)), Camera())
    assert found == {3: "snapshots/gate/3.jpg"}
    assert snapshots.take(frame(40, (4, MIDDLE, 0.5)), Camera()) == {
        3: "snapshots/gate/3.jpg",
        4: "snapshots/gate/4.jpg",
    }
    names = sorted(path.name for path in (tmp_path / "snapshots/gate").iterdir())
    assert names == [".best.json", "3.jpg", "4.jpg"]
    picture = read(tmp_path / found[3])
    assert picture.shape == (160, 160, 3)
    expected = SHARP[160:320, 240:400].astype(int)
    assert np.abs(picture - expected).mean() < 20  # noise in a JPEG; another part differs by 85


@pytest.mark.parametrize(
    ("box", "size"),
    [
        ((0.0, 0.0, 20.0, 20.0), (160, 160)),
        ((620.0, 440.0, 640.0, 480.0), (160, 160)),
        ((100.0, 100.0, 300.0, 400.0), (280, 420)),
        ((-50.0, -50.0, 700.0, 500.0), (640, 480)),
        ((900.0, 900.0, 901.0, 901.0), (160, 160)),
    ],
)
def test_what_is_around_it(tmp_path: Path, box: Box, size: tuple[int, int]) -> None:
    Snapshots(tmp_path).take(frame(0, (3, box, 0.8)), Camera())
    assert read(tmp_path / "snapshots/gate/3.jpg").shape == (size[1], size[0], 3)


def test_a_large_picture_is_made_smaller(tmp_path: Path) -> None:
    large = np.zeros((SIZE[1] * 6, SIZE[0] * 6, 3), np.uint8)
    Snapshots(tmp_path).take(frame(0, (3, (0.0, 0.0, 640.0, 480.0), 0.8)), Camera(large))
    assert read(tmp_path / "snapshots/gate/3.jpg").shape == (960, 1280, 3)


#: A picture, and one that takes its place or not.
BETTER = [
    ("larger", (3, MIDDLE, 0.8), (3, (290.0, 180.0, 350.0, 300.0), 0.8), True),
    ("a little larger", (3, MIDDLE, 0.8), (3, (300.0, 200.0, 342.0, 282.0), 0.8), False),
    ("smaller", (3, MIDDLE, 0.8), (3, (310.0, 220.0, 330.0, 260.0), 0.9), False),
    ("surer", (3, MIDDLE, 0.5), (3, MIDDLE, 0.8), True),
    ("a little surer", (3, MIDDLE, 0.75), (3, MIDDLE, 0.8), False),
    ("whole", (3, (0.0, 200.0, 40.0, 280.0), 0.8), (3, MIDDLE, 0.8), True),
    ("cut", (3, MIDDLE, 0.6), (3, (0.0, 200.0, 50.0, 290.0), 0.8), False),
]


@pytest.mark.parametrize(("_", "first", "second", "taken"), BETTER, ids=[row[0] for row in BETTER])
def test_what_is_better(
    tmp_path: Path, _: str, first: tuple[int, Box, float], second: tuple[int, Box, float], taken: bool
) -> None:
    snapshots = Snapshots(tmp_path)
    snapshots.take(frame(0, first), Camera())
    path = tmp_path / "snapshots/gate/3.jpg"
    before = path.read_bytes()
    camera = Camera(255 - SHARP)
    snapshots.take(frame(600, second), camera)
    assert (path.read_bytes() != before) is taken
    assert camera.asked == taken  # pixels are not made for nothing


def test_sharp_instead_of_blurred(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    path = tmp_path / "snapshots/gate/3.jpg"
    snapshots.take(frame(0, (3, MIDDLE, 0.8)), Camera(BLURRED))
    before = path.read_bytes()
    snapshots.take(frame(600, (3, MIDDLE, 0.8)), Camera())
    sharp = path.read_bytes()
    assert sharp != before
    snapshots.take(frame(1200, (3, MIDDLE, 0.82)), Camera(BLURRED))
    assert path.read_bytes() == sharp


def test_alone_instead_of_behind_somebody(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    path = tmp_path / "snapshots/gate/3.jpg"
    snapshots.take(frame(0, (3, MIDDLE, 0.8), (4, (310.0, 210.0, 350.0, 300.0), 0.8)), Camera())
    before = path.read_bytes()
    snapshots.take(frame(600, (3, MIDDLE, 0.8), (4, (400.0, 210.0, 440.0, 300.0), 0.8)), Camera(255 - SHARP))
    assert path.read_bytes() != before


def test_not_more_often_than_every_half_second(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    path = tmp_path / "snapshots/gate/3.jpg"
    looks = []
    for n in range(20):  # it grows by a fifth in each frame
        half = 10 + 2.0 * n
        box = (320 - half, 240 - half, 320 + half, 240 + half)
        snapshots.take(frame(n * 100, (3, box, 0.8)), Camera(SHARP + np.uint8(n)))
        looks.append(path.read_bytes())
    assert len(set(looks)) == 4


def test_the_time_of_another_epoch_may_start_again(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    snapshots.take(frame(90_000, (3, MIDDLE, 0.4)), Camera())
    camera = Camera()
    snapshots.take(frame(0, (3, MIDDLE, 0.9), epoch=1), camera)
    assert camera.asked == 1


def test_frames_without_pixels_or_that_failed(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    assert snapshots.take(frame(0, (3, MIDDLE, 0.8)), Camera(None)) == {}
    assert snapshots.take(frame(0, (3, MIDDLE, 0.8), status="failed"), Camera()) == {}
    untracked = make_result(make_header(), detections=Detections([MIDDLE], [0.5], [0]))
    assert snapshots.take(untracked, Camera()) == {}
    assert not list(tmp_path.iterdir())


def test_after_a_kill_a_worse_picture_takes_no_place(tmp_path: Path) -> None:
    Snapshots(tmp_path).take(frame(0, (3, MIDDLE, 0.8), (4, MIDDLE, 0.3)), Camera())
    before = (tmp_path / "snapshots/gate/3.jpg").read_bytes()
    resumed = Snapshots(tmp_path, resume=True)
    assert sorted(resumed.take(frame(900, (3, MIDDLE, 0.5)), Camera(255 - SHARP))) == [3, 4]
    assert (tmp_path / "snapshots/gate/3.jpg").read_bytes() == before


def test_another_run_in_the_same_folder_starts_anew(tmp_path: Path) -> None:
    Snapshots(tmp_path).take(frame(0, (3, MIDDLE, 0.8)), Camera())
    (tmp_path / "snapshots/gate/of mine.jpg").write_bytes(b"")
    assert list(Snapshots(tmp_path).take(frame(0, (1, MIDDLE, 0.2)), Camera())) == [1]
    assert sorted(path.name for path in tmp_path.rglob("*.jpg")) == ["1.jpg", "of mine.jpg"]


def test_forgotten_objects_keep_their_files(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path)
    snapshots.take(frame(0, (3, MIDDLE, 0.8), (4, MIDDLE, 0.8)), Camera())
    snapshots.forget("gate", [3, 99])
    assert list(snapshots.take(frame(40), Camera())) == [4]
    snapshots.forget("gate")
    snapshots.forget("yard", [1])
    assert len(list(tmp_path.rglob("*.jpg"))) == 2


@pytest.mark.parametrize("source", ["..", ".", "a/../../b", "Straße 1", "rtsp://x?y=1"])
def test_a_source_of_any_name_stays_in_its_folder(tmp_path: Path, source: str) -> None:
    (name,) = Snapshots(tmp_path / "run").take(frame(0, (3, MIDDLE, 0.8), source=source), Camera()).values()
    path = (tmp_path / "run" / name).resolve()
    assert path.is_file()
    assert path.parent.parent == (tmp_path / "run" / "snapshots").resolve()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "snapshots").write_bytes(b"")
    with pytest.raises(SinkError, match="snapshots"):
        Snapshots(tmp_path).take(frame(0, (3, MIDDLE, 0.8)), Camera())


def test_a_state_that_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "snapshots/gate").mkdir(parents=True)
    (tmp_path / "snapshots/gate/.best.json").write_bytes(b"{")
    with pytest.raises(SinkError, match="not what framewire wrote"):
        Snapshots(tmp_path, resume=True).take(frame(0, (3, MIDDLE, 0.8)), Camera())
