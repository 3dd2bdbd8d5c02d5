"""``framewire eval coco``: what is printed where, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.cli import main
from pipeline.tasks.analyzer import Analyzer

FAKE = "fake"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three pictures, annotated with just what the fake model finds in them, and one kind of object more."""
    rng = np.random.default_rng(0)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    with Analyzer(FAKE, confidence=0.1) as model:
        names = list(model.spec.labels)
        for number in (1, 2, 3):
            bgr = rng.integers(0, 256, (48, 64, 3)).astype(np.uint8)
            assert cv2.imwrite(str(tmp_path / f"{number}.png"), bgr)
            images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 48})
            found = model.read(bgr).detections
            for box, class_id in zip(found.boxes_xyxy.tolist(), found.class_ids.tolist(), strict=True):
                size = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
                annotations.append({"image_id": number, "category_id": class_id + 1, "bbox": size})
    assert annotations
    categories = [{"id": index, "name": name} for index, name in enumerate([*names, "unicorn"], 1)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "truth.json").write_text(json.dumps(document))
    return tmp_path


def arguments(data: Path, *more: str) -> list[str]:
    paths = ["--images", str(data), "--annotations", str(data / "truth.json")]
    return ["eval", "coco", *paths, "--model", FAKE, "--confidence", "0.1", *more]


def test_json_is_all_that_is_printed(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(data, "--json")) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert report["AP"] == pytest.approx(1)
    for name in ("AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl"):
        assert name in report
    assert "unicorn" not in report["per_class"]
    assert report["not_in_model"] == ["unicorn"]
    assert report["images"] == 3
    assert report["model"]["family"] == "fake"
    there = [one for one in report["per_class"].values() if one["objects"]]
    assert there
    assert all(one["AP"] == pytest.approx(1) for one in there)
    assert "1 of the annotations' categories are unknown to the model and NOT measured: unicorn" in err


def test_tables(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plot = data / "curve.html"
    assert main(arguments(data, "--limit", "2", "--plot", str(plot))) == 0
    out, err = capsys.readouterr()
    assert "2 pictures" in out
    assert "AP50" in out
    assert "AR100" in out
    assert "1.000" in out
    assert f"wrote {plot}" in err.replace("\n", "")
    assert "<svg" in plot.read_text("utf-8")


@pytest.mark.parametrize(
    ("change", "code", "said"),
    [
        ({"--annotations": "none.json"}, 3, "there is no file"),
        ({"--images": "none"}, 3, "is no folder of images"),
        ({"--plot": "curve.pdf"}, 2, ".png or .html"),
        ({"--model": "none.onnx"}, 4, "none.onnx"),
        ({"--confidence": "2"}, 2, "equal to 1"),
        ({"--limit": "0"}, 2, "equal to 1"),
    ],
)
def test_wrong_arguments(
    data: Path, capsys: pytest.CaptureFixture[str], change: dict[str, str], code: int, said: str
) -> None:
    more = [part for pair in change.items() for part in pair]
    assert main(arguments(data, *more)) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err


def test_a_classifier_is_refused(data: Path, capsys: pytest.CaptureFixture[str], assets: Path) -> None:
    model = str(assets / "models" / "classifier" / "mobilenetv2_dynint8.onnx")
    assert main(arguments(data, "--model", model)) == 2
    assert "detect needs a detector" in capsys.readouterr().err


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "coco", "--help"]) == 0
    assert "Example: framewire eval coco" in " ".join(capsys.readouterr().out.split())
