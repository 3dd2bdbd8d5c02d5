"""The boxes of the whole pipeline are the boxes of YOLOX run the straightforward way, in one process.

``scripts/check_fast_path`` makes the same comparison over all frames of more videos.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.sources.locate import image_files
from scripts._reference import NMS_IOU, Agreement, Found, YoloxReference, agree, bgr_frames
from tests.e2e.running import config_for, execute, lines

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

LOWEST, OVER = 0.25, 0.3
VIDEO = "videos/carnd_vehicle_test_video.mp4"

#: Detections of the reference by source and frame.
Expected = dict[tuple[str, int], Found]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


@pytest.fixture(scope="module")
def model(assets: Path) -> Path:
    return assets / "models" / "yolox_nano_416.onnx"


@pytest.fixture(scope="module")
def expected(assets: Path, model: Path) -> Expected:
    reference = YoloxReference(model, confidence=LOWEST, one_ratio=True)
    found: Expected = {}
    for frame, path in enumerate(image_files(assets / "images")):
        found["images", frame] = reference.detect(np.asarray(cv2.imread(str(path)), np.uint8))
    for frame, bgr in enumerate(bgr_frames(assets / VIDEO)):
        found["video", frame] = reference.detect(bgr)
    return found


def compare(
    mode: str, assets: Path, model: Path, expected: Expected, out: Path, *, iou: float, score: float
) -> Agreement:
    """All detections of the reference against one run of the pipeline, all its processes."""
    config = config_for(
        out,
        {"images": str(assets / "images"), "video": str(assets / VIDEO)},
        model={"name": str(model), "device": "cpu", "confidence": LOWEST, "nms_iou": NMS_IOU},
        preprocess=mode,
    )
    finished = execute(config)
    assert finished.exit_code == 0, finished.outcome.error
    records = {(r["source"], r["seq"]): r for r in lines(out / "detections.jsonl")}
    assert records.keys() == expected.keys()
    total = Agreement()
    for key, wanted in expected.items():
        ours = Found.of_record(records[key])
        total.add(
            agree(wanted, ours, iou_at_least=iou, score_within=score, over=OVER, frame=f"{key[0]} {key[1]}")
        )
    assert total.expected > 150
    return total


def test_exact_gives_the_boxes_of_the_reference(
    assets: Path, model: Path, expected: Expected, tmp_path: Path
) -> None:
    total = compare("exact", assets, model, expected, tmp_path, iou=0.99, score=0.005)
    assert not total.missed


def test_fast_keeps_98_of_100(assets: Path, model: Path, expected: Expected, tmp_path: Path) -> None:
    total = compare("fast", assets, model, expected, tmp_path, iou=0.9, score=1.0)
    assert total.percent >= 98.0, total.missed
