"""Real models through framewire's own code, object by object against reference implementations."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pipeline.tasks.analyzer import Analyzer
from tests.oracles.cases import CLASSIFIER, COCO_CASES, FACE_CASES, Case
from tests.oracles.classifier import ImagenetOracle
from tests.oracles.common import Found, agreed, read_picture

#: One file a layout; `scripts/check_accuracy` measures all files on all pictures.
CASES = tuple(case for case in COCO_CASES if "dynbatch" not in case.file and "fp16" not in case.file)
PICTURES = ("000724", "001000", "001268", "001490", "001503", "001761")
#: The last four show faces over 100 pixels wide, for which the coarse levels are.
FACES = ("001000", "001268", "002299", "002149", "008277", "008532", "009914")


@cache
def pictures(assets: Path, names: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(read_picture(assets / "coco" / "val2017" / f"000000{name}.jpg") for name in names)


def carded(model: Path, card: Mapping[str, Any], folder: Path) -> str:
    """The model with its card beside it."""
    link = folder / model.name
    link.symlink_to(model.resolve())
    if card:
        link.with_name(link.name + ".json").write_text(json.dumps(dict(card)))
    return str(link)


def share_agreed(case: Case, assets: Path, folder: Path, names: tuple[str, ...], least: int) -> float:
    oracle = case.make(assets)
    model = carded(case.path(assets), case.card, folder)
    same = objects = 0
    with Analyzer(model, device="cpu", threads=1, confidence=case.confidence, nms_iou=case.nms_iou) as ours:
        assert ours.spec.family == case.family
        for bgr in pictures(assets, names):
            found = ours.read(bgr).detections
            rows = zip(
                found.boxes_xyxy.tolist(), found.scores.tolist(), found.class_ids.tolist(), strict=True
            )
            mine = [
                Found(x1, y1, x2, y2, score, ours.spec.labels[class_id])
                for (x1, y1, x2, y2), score, class_id in rows
            ]
            both, most = agreed(oracle.detect(bgr), mine)
            same, objects = same + both, objects + most
    assert objects >= least, "too few objects to say anything"
    return same / objects


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_detectors_find_what_the_reference_finds(case: Case, assets: Path, tmp_path: Path) -> None:
    assert share_agreed(case, assets, tmp_path, PICTURES, 25) >= 0.98


@pytest.mark.parametrize("case", FACE_CASES, ids=lambda case: case.name)
def test_faces(case: Case, assets: Path, tmp_path: Path) -> None:
    assert share_agreed(case, assets, tmp_path, FACES, 10) >= 0.98


def test_priors_are_those_within_the_other_export(assets: Path) -> None:
    """The same network with its boxes finished and unfinished: the reference implementations agree, too."""
    finished, raw = (case.make(assets) for case in FACE_CASES)
    pairs = [agreed(finished.detect(bgr), raw.detect(bgr)) for bgr in pictures(assets, FACES)]
    assert sum(both for both, _ in pairs) == sum(most for _, most in pairs) >= 10


def test_classes(assets: Path, tmp_path: Path) -> None:
    model = assets / "models" / CLASSIFIER
    oracle = ImagenetOracle(model, [str(index) for index in range(1000)])
    sure = 0
    with Analyzer(carded(model, {}, tmp_path), device="cpu", threads=1, task="classify") as ours:
        for bgr in pictures(assets, PICTURES):
            label, probability = oracle.classify(bgr, 1)[0]
            classes = ours.read(bgr).classes
            assert classes is not None
            if probability >= 0.5:  # below, the filter that scales the picture decides
                sure += 1
                assert str(classes.class_ids[0]) == label
    assert sure >= 2
