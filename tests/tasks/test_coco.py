"""Truth that is checked before anything runs, and scores that are pycocotools' own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.errors import ConfigError, SinkError, SourceError, SourceNotFoundError
from pipeline.messages import Detections
from pipeline.tasks.coco import Match, Truth, load_truth, match_labels, read_picture
from pipeline.tasks.coco_plot import check_plot, write_plot
from pipeline.tasks.coco_scores import METRICS, Scores, coco_rows, detect_all, need_scorer, score
from pipeline.tasks.reading import Found

LABELS = ("person", "car", "kite")


def document() -> dict[str, Any]:
    """Two pictures; two persons and a car in the first, a crowd and a kite in the second."""
    boxes = [(1, 7, [2, 2, 20, 10]), (1, 7, [30, 20, 20, 20]), (1, 3, [40, 2, 10, 10]), (2, 9, [4, 4, 8, 8])]
    annotations = [
        {"id": index, "image_id": image, "category_id": category, "bbox": box}
        for index, (image, category, box) in enumerate(boxes)
    ]
    crowd = {"id": 9, "image_id": 2, "category_id": 7, "bbox": [20, 20, 30, 20], "iscrowd": 1, "area": 300.5}
    return {
        "images": [
            {"id": 1, "file_name": "one.png", "width": 64, "height": 48},
            {"id": 2, "file_name": "two.png", "width": 64, "height": 48},
        ],
        "annotations": [*annotations, crowd],
        "categories": [
            {"id": 7, "name": "person"},
            {"id": 3, "name": "car"},
            {"id": 9, "name": "kite"},
        ],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one.png", "two.png"):
        assert cv2.imwrite(str(tmp_path / name), np.full((48, 64, 3), 90, np.uint8))
    return tmp_path


def write(folder: Path, content: Any) -> Path:
    path = folder / "truth.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def truth_of(folder: Path, content: Any = None, limit: int | None = None) -> Truth:
    return load_truth(write(folder, content or document()), folder, limit)


def all_found(truth: Truth, labels: tuple[str, ...] = LABELS) -> dict[int, Detections]:
    """Detections that are the truth itself."""
    numbers = {truth.categories[name]: index for index, name in enumerate(labels) if name in truth.categories}
    found = {}
    for picture in truth.pictures:
        rows = [
            row for row in truth.annotations if row["image_id"] == picture.image_id and not row["iscrowd"]
        ]
        boxes = np.array([row["bbox"] for row in rows], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        ids = [numbers[row["category_id"]] for row in rows]
        found[picture.image_id] = Detections(boxes, np.full(len(rows), 0.9), ids)
    return found


def test_truth_is_read_and_completed(folder: Path) -> None:
    truth = truth_of(folder)
    assert [picture.image_id for picture in truth.pictures] == [1, 2]
    assert truth.categories == {"person": 7, "car": 3, "kite": 9}
    assert truth.annotations[0]["area"] == 200  # 20 x 10, where the file gives none
    assert [row["iscrowd"] for row in truth.annotations] == [0, 0, 0, 0, 1]
    assert truth.annotations[4]["area"] == 300.5
    assert all(row["id"] > 0 for row in truth.annotations)  # 0 would count as no match


def test_a_limit_takes_the_first_pictures_and_their_objects(folder: Path) -> None:
    truth = truth_of(folder, limit=1)
    assert [picture.image_id for picture in truth.pictures] == [1]
    assert {row["image_id"] for row in truth.annotations} == {1}


def changed(part: str, index: int, **fields: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        content[part][index] = {**content[part][index], **fields}

    return change


def dropped(part: str) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        del content[part]

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dropped("annotations"), "no list annotations"),
        (changed("images", 1, width="64"), "images[1] has no width, or not a number"),
        (changed("images", 1, file_name=None), "images[1] has no file_name, or not a text"),
        (changed("images", 1, id=1), "images[1] has the id 1 of another one"),
        (changed("categories", 1, name="person"), "categories[1] has no name of its own: 'person'"),
        (changed("categories", 2, id=7), "categories[2] has no name of its own"),
        (changed("annotations", 3, image_id=99), "annotations[3] belongs to an image that the file does not"),
        (changed("annotations", 3, category_id=99), "annotations[3] belongs to a category that the file"),
        (changed("annotations", 3, bbox=[1, 2, 3]), "annotations[3] has the bbox [1, 2, 3]"),
        (changed("annotations", 3, bbox=[1, 2, -3, 4]), "annotations[3] has the bbox"),
        (changed("annotations", 3, bbox=[1, 2, float("nan"), 4]), "annotations[3] has the bbox"),
        (changed("annotations", 3, area="big"), "annotations[3] has the area 'big'"),
        (lambda content: content["images"].clear() or content["annotations"].clear(), "names no pictures"),
    ],
)
def test_damaged_annotations_are_told(
    folder: Path, change: Callable[[dict[str, Any]], Any], said: str
) -> None:
    content = document()
    change(content)
    with pytest.raises(ConfigError) as caught:
        truth_of(folder, content)
    assert said in caught.value.message
    assert "truth.json" in caught.value.message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"images": [', "is not JSON"),
        ("[" * 99_999, "is not JSON"),
        ("[]", "not in COCO's format"),
        ('{"images": {}}', "no list images"),
    ],
)
def test_what_is_no_annotation_file(folder: Path, content: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        truth_of(folder, content)


def test_what_is_not_there(folder: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="there is no file"):
        load_truth(folder / "none.json", folder)
    with pytest.raises(SourceNotFoundError, match="is no folder of images"):
        load_truth(write(folder, document()), folder / "none")
    (folder / "two.png").unlink()
    with pytest.raises(SourceNotFoundError, match=r"1 of 2 pictures .*two\.png"):
        truth_of(folder)
    assert len(truth_of(folder, limit=1).pictures) == 1


@pytest.mark.parametrize(
    ("data", "said", "hint"),
    [
        (cv2.imencode(".png", np.zeros((48, 60, 3), np.uint8))[1].tobytes(), "is 60x48, annotated as 64x48",
         "other files"),
        (cv2.imencode(".png", np.zeros((64, 48, 3), np.uint8))[1].tobytes(), "is 48x64, annotated", "EXIF"),
        (b"not a picture", "is no whole image", "fetch"),
    ],
)  # fmt: skip
def test_pictures_that_cannot_be_measured(folder: Path, data: bytes, said: str, hint: str) -> None:
    truth = truth_of(folder)
    truth.pictures[0].path.write_bytes(data)
    with pytest.raises(SourceError) as caught:
        read_picture(truth.pictures[0])
    assert said in caught.value.message
    assert hint in caught.value.hint


def test_labels_are_matched_by_name(folder: Path) -> None:
    match = match_labels(("car", "boat", "person"), truth_of(folder), "m")
    assert match == Match((3, None, 7), ("person", "car"), ("kite",), ("boat",))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (("boat", "plane"), "no label of the model m is a category of the annotations: it knows boat, plane"),
        (tuple(f"class_{index}" for index in range(8)), "class_4 and 3 more; they have person, car, kite"),
        (("car", "car"), "several classes of the name car"),
    ],
)
def test_labels_that_do_not_match(folder: Path, labels: tuple[str, ...], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        match_labels(labels, truth_of(folder), "m")
    assert said in caught.value.message


def scored(truth: Truth, found: dict[int, Detections], labels: tuple[str, ...] = LABELS) -> Scores:
    match = match_labels(labels, truth, "m")
    return score(truth, coco_rows(found, match), match)


def test_the_truth_itself_scores_one(folder: Path) -> None:
    truth = truth_of(folder)
    scores = scored(truth, all_found(truth))
    assert tuple(scores.metrics) == METRICS
    assert scores.metrics["AP"] == scores.metrics["AP50"] == scores.metrics["AR100"] == pytest.approx(1)
    assert scores.metrics["APm"] is None  # no object of that size
    assert scores.metrics["APl"] is None
    assert {name: one.objects for name, one in scores.per_class.items()} == {"person": 2, "car": 1, "kite": 1}
    assert scores.recall.shape == (101,)
    assert all(np.allclose(curve, 1) for curve in scores.curves.values())
    assert scores.detections == 4


def test_half_of_the_objects_is_half_of_the_recalls(folder: Path) -> None:
    truth = truth_of(folder)
    found = all_found(truth)
    found[1] = found[1].select([0, 2])  # one person of two
    scores = scored(truth, found)
    person = scores.per_class["person"]
    assert person.ap == pytest.approx(51 / 101)  # precision 1 at recalls 0 to 0.50, then 0
    assert scores.metrics["AP"] == pytest.approx((51 / 101 + 1 + 1) / 3)


def test_a_box_that_is_off_counts_at_low_iou_only(folder: Path) -> None:
    truth = truth_of(folder)
    found = all_found(truth)
    boxes = found[2].boxes_xyxy.copy()
    boxes[:, 2] += 4  # 8 wide made 12: IoU 0.667
    found[2] = Detections(boxes, found[2].scores, found[2].class_ids)
    kite = scored(truth, found).per_class["kite"]
    assert kite.ap50 == pytest.approx(1)
    assert kite.ap == pytest.approx(0.4)  # IoU 0.50, 0.55, 0.60, 0.65 of ten


def test_nothing_found_scores_nothing(folder: Path) -> None:
    truth = truth_of(folder)
    scores = scored(truth, {1: Detections.empty(), 2: Detections.empty()})
    assert scores.metrics["AP"] == 0
    assert scores.detections == 0


def test_only_shared_classes_count(folder: Path) -> None:
    truth = truth_of(folder)
    labels = ("boat", "car")  # finds a boat, which is no category, and knows no person
    found = {1: Detections([[40, 2, 50, 12], [0, 0, 9, 9]], [0.9, 0.8], [1, 0]), 2: Detections.empty()}
    scores = scored(truth, found, labels)
    assert scores.metrics["AP"] == pytest.approx(1)
    assert list(scores.per_class) == ["car"]
    assert scores.detections == 1


def test_every_picture_is_read_once(folder: Path) -> None:
    truth = truth_of(folder)
    done: list[int] = []
    found = detect_all(truth.pictures, lambda bgr: Found(Detections.empty()), lambda: done.append(1))
    assert list(found) == [1, 2]
    assert len(done) == 2


def test_missing_libraries_name_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ConfigError, match="pycocotools") as caught:
        need_scorer()
    assert "framewire[eval]" in caught.value.hint
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match="matplotlib") as caught:
        check_plot(tmp_path / "curve.png")
    assert "framewire[eval]" in caught.value.hint


def test_plots(folder: Path) -> None:
    truth = truth_of(folder)
    scores = scored(truth, all_found(truth))
    write_plot(folder / "curve.png", scores, "m")
    drawn = cv2.imread(str(folder / "curve.png"))
    assert drawn is not None
    assert drawn.shape == (600, 840, 3)
    write_plot(folder / "curve.html", scores, "a <b> & c")
    page = (folder / "curve.html").read_text("utf-8")
    assert "<h1>a &lt;b&gt; &amp; c</h1>" in page
    assert "<svg" in page
    assert "<td>person</td><td>1.000</td><td>1.000</td><td>2</td>" in page
    assert "<script" not in page
    assert 'src="' not in page


@pytest.mark.parametrize(
    ("name", "error"), [("curve.pdf", ConfigError), ("none/curve.png", SinkError), ("curve", ConfigError)]
)
def test_plots_that_cannot_be_drawn(tmp_path: Path, name: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        check_plot(tmp_path / name)
