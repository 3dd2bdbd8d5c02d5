from __future__ import annotations

from typing import Any

import pytest

from pipeline.config import STAGES, Config, from_mapping
from pipeline.stages.base import STAGES as REAL_STAGES


def config(**sections: Any) -> Config:
    return from_mapping(sections, "test")


def test_the_stages_are_the_stages() -> None:
    assert STAGES == REAL_STAGES


@pytest.mark.parametrize(
    ("groups", "expected"),
    [
        ([], [("capture",), ("preprocess",), ("infer",), ("postprocess",), ("publish",)]),
        (
            [["preprocess", "infer"], ["postprocess", "publish"]],
            [("capture",), ("preprocess", "infer"), ("postprocess", "publish")],
        ),
        (
            [["postprocess", "publish"]],
            [("capture",), ("preprocess",), ("infer",), ("postprocess", "publish")],
        ),
        ([list(STAGES)], [STAGES]),
    ],
)
def test_placement(groups: list[list[str]], expected: list[tuple[str, ...]]) -> None:
    assert list(config(groups=groups).placement()) == expected


@pytest.mark.parametrize(
    ("stages", "groups", "stage", "expected"),
    [
        ({}, [], "capture", 1),
        ({}, [], "infer", "auto"),
        ({}, [], "postprocess", 1),
        ({"infer": {"replicas": 3}}, [], "infer", 3),
        ({"infer": {"replicas": 3}}, [["preprocess", "infer"]], "preprocess", 3),
        ({"preprocess": {"replicas": 2}}, [["preprocess", "infer"]], "infer", 2),
        ({}, [["preprocess", "infer"]], "preprocess", "auto"),
        ({}, [["infer", "postprocess", "publish"]], "infer", 1),
        ({}, [["capture", "preprocess", "infer"]], "infer", 1),
    ],
)
def test_replicas(stages: dict[str, Any], groups: list[list[str]], stage: str, expected: int | str) -> None:
    assert config(stages=stages, groups=groups).replicas(stage) == expected
