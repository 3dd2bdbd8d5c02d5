from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ModelError
from pipeline.models.labels import COCO_80, imagenet_1000, labels_of

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT.parent / "shared" / "assets" / "models" / "labels"

HF = {"id2label": {"0": "cat", "1": "dog"}, "label2id": {"cat": 0, "dog": 1}}
CASES: list[tuple[dict[str, str], int, tuple[str, ...]]] = [
    # metadata, classes, expected
    ({}, 80, COCO_80),
    ({}, 2, ("class_0", "class_1")),
    ({}, 0, ()),
    ({"names": '["cat", "dog"]'}, 2, ("cat", "dog")),
    ({"names": "{0: 'cat', 1: \"dog's\"}"}, 2, ("cat", "dog's")),
    ({"names": '{"1": "dog", "0": "cat"}'}, 2, ("cat", "dog")),
    ({"names": "['cat', 'dog']"}, 3, ("class_0", "class_1", "class_2")),  # too few to be its classes
    ({"names": '{"0": "cat", "2": "dog"}'}, 2, ("class_0", "class_1")),  # a gap
    ({"names": "__import__('os')"}, 1, ("class_0",)),
    ({"names": "[1, 2]"}, 2, ("class_0", "class_1")),
    ({"names": "7"}, 1, ("class_0",)),
    ({"names": "(" * 5000}, 1, ("class_0",)),
    # Other exporters
    ({"labels": '["cat", "dog"]'}, 2, ("cat", "dog")),
    ({"class_names": "cat, dog"}, 2, ("cat", "dog")),
    ({"classes": "traffic light\nstop sign\n"}, 2, ("traffic light", "stop sign")),
    ({"id2label": json.dumps(HF["id2label"])}, 2, ("cat", "dog")),
    ({"config": json.dumps(HF)}, 2, ("cat", "dog")),
    ({"config": "[]"}, 2, ("class_0", "class_1")),
    ({"names": "", "labels": '["cat", "dog"]'}, 2, ("cat", "dog")),
    ({"names": '["cat", "dog"]', "labels": '["a", "b"]'}, 2, ("cat", "dog")),
    ({"labels": "cat,,dog"}, 3, ("class_0", "class_1", "class_2")),
    ({"labels": '["cat", "dog"'}, 2, ("class_0", "class_1")),  # cut off
    # The file's own words win over a known set.
    ({"names": json.dumps([f"n{index}" for index in range(80)])}, 80, tuple(f"n{i}" for i in range(80))),
]


@pytest.mark.parametrize(("metadata", "classes", "expected"), CASES)
def test_labels_of(metadata: dict[str, str], classes: int, expected: tuple[str, ...]) -> None:
    assert labels_of(metadata, classes) == expected


@pytest.mark.parametrize("classes", [0, 1, 2, 79, 80, 81, 90, 91, 92, 1000, 1001])
@pytest.mark.parametrize("kind", ["", "detector", "classifier"])
def test_there_are_as_many_as_classes_each_once(classes: int, kind: str) -> None:
    labels = labels_of({}, classes, kind)
    assert len(labels) == len(set(labels)) == classes


def test_coco_is_complete() -> None:
    assert len(set(COCO_80)) == 80
    assert (COCO_80[0], COCO_80[2], COCO_80[79]) == ("person", "car", "toothbrush")


def test_coco_by_its_ids() -> None:
    by_id = labels_of({}, 91)
    assert (by_id[0], by_id[1], by_id[12], by_id[13]) == ("background", "person", "unused_12", "stop sign")
    assert (by_id[18], by_id[44], by_id[90]) == ("dog", "bottle", "toothbrush")
    assert labels_of({}, 90) == by_id[1:]
    assert labels_of({}, 81) == ("background", *COCO_80)
    assert sum(label.startswith("unused_") for label in by_id) == 10


def test_coco_by_its_ids_is_as_others_have_it() -> None:
    ids, names = ASSETS / "coco80_to_coco91_ids.json", ASSETS / "ssd_coco90_zero_based.txt"
    if not ids.is_file() or not names.is_file():
        pytest.skip("the reference lists are not on this machine")
    by_id = labels_of({}, 91)
    assert tuple(by_id[number] for number in json.loads(ids.read_text())) == COCO_80
    for ours, theirs in zip(by_id[1:], names.read_text().splitlines(), strict=True):
        assert ours == theirs or (theirs == "???" and ours.startswith("unused_"))


def test_imagenet() -> None:
    labels = imagenet_1000()
    assert len(set(labels)) == 1000
    assert (labels[0], labels[294], labels[950], labels[999]) == (
        "tench",
        "brown bear",
        "orange",
        "toilet tissue",
    )
    assert labels_of({}, 1001) == ("background", *labels)


def test_imagenet_is_as_others_have_it() -> None:
    path = ASSETS / "imagenet1000.txt"
    if not path.is_file():
        pytest.skip("the reference list is not on this machine")
    theirs = path.read_text().splitlines()
    # They list synonyms; the first one is ours, but for two names that would stand twice.
    different = [
        ours for ours, one in zip(imagenet_1000(), theirs, strict=True) if ours not in one.split(", ")
    ]
    assert different == ["crane bird", "maillot tank suit"]


def test_sets_of_the_other_kind_are_left_out() -> None:
    assert labels_of({}, 80, "classifier")[0] == "class_0"
    assert labels_of({}, 1000, "detector")[0] == "class_0"


def script() -> Any:
    """``scripts/build_labels`` as a module."""
    loader = importlib.machinery.SourceFileLoader("build_labels", str(ROOT / "scripts" / "build_labels"))
    spec = importlib.util.spec_from_loader("build_labels", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def wheel_with(path: Path, source: str) -> str:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("torchvision/models/_meta.py", source)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_script_reads_the_list_out_of_a_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, wheel = script(), tmp_path / "torchvision.whl"
    names = [f"name {index}" for index in range(1000)]
    monkeypatch.setattr(module, "SHA256", wheel_with(wheel, f"_IMAGENET_CATEGORIES = {names!r}\n"))
    assert module.names_in(wheel) == names
    for source in ("_IMAGENET_CATEGORIES = ['a']\n", "x = 1\n"):
        monkeypatch.setattr(module, "SHA256", wheel_with(wheel, source))
        with pytest.raises(ModelError, match="holds no"):
            module.names_in(wheel)


def test_the_script_refuses_another_wheel(tmp_path: Path) -> None:
    wheel_with(tmp_path / "torchvision.whl", "_IMAGENET_CATEGORIES = []\n")
    with pytest.raises(ModelError, match="not the wheel"):
        script().names_in(tmp_path / "torchvision.whl")
    with pytest.raises(ModelError, match="cannot be read"):
        script().names_in(tmp_path / "none.whl")
