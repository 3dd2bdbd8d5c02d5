"""Labels of a picture, in percent."""

from __future__ import annotations

import pytest

from pipeline.analytics.tags import tags_of
from pipeline.messages import Classes, Detections

LABELS = ("person", "car", "dog")


def objects(*pairs: tuple[int, float]) -> Detections:
    return Detections(
        [[0, 0, 9, 9]] * len(pairs), [score for _, score in pairs], [class_id for class_id, _ in pairs]
    )


@pytest.mark.parametrize(
    ("detections", "classes", "expected"),
    [
        pytest.param(objects(), None, {}, id="nothing there"),
        pytest.param(
            objects((1, 0.93), (1, 0.5), (0, 0.71)), None, {"car": 93, "person": 71}, id="best of each"
        ),
        pytest.param(objects((2, 0.001)), None, {"dog": 1}, id="never 0 percent"),
        pytest.param(objects((0, 1.0)), None, {"person": 100}, id="certain"),
        pytest.param(objects((7, 0.5)), None, {"class_7": 50}, id="a class without a name"),
        pytest.param(objects(), Classes((2, 0), (0.6, 0.2)), {"dog": 60, "person": 20}, id="a classifier's"),
    ],
)
def test_tags(detections: Detections, classes: Classes | None, expected: dict[str, int]) -> None:
    found = tags_of(LABELS, detections, classes)
    assert found == expected
    assert list(found) == list(expected)
