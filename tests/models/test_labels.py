from __future__ import annotations

import pytest

from pipeline.models.labels import COCO_80, labels_of

CASES = [
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
]


@pytest.mark.parametrize(("metadata", "classes", "expected"), CASES)
def test_labels_of(metadata: dict[str, str], classes: int, expected: tuple[str, ...]) -> None:
    assert labels_of(metadata, classes) == expected


def test_coco_is_complete() -> None:
    assert len(set(COCO_80)) == 80
    assert (COCO_80[0], COCO_80[2], COCO_80[79]) == ("person", "car", "toothbrush")
