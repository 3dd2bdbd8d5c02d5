"""Graphs of which no YOLO head may be sure, and graphs that are none of theirs."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.heads import Signature, load_head, recognise
from pipeline.models.describe import describe
from tests.heads.test_yolo_recognise import (
    AT_416,
    GRIDS,
    NAMES,
    RNG,
    ULTRALYTICS,
    decoded,
    finished,
    raw,
    row7,
    signature,
    turned,
)  # fmt: skip

#: No confident answer, with or without a card that the message asks for; and the families in question.
UNCLEAR: dict[str, tuple[Signature, set[str]]] = {
    "9 and 10 classes, decoded": (
        signature({"out": (1, 8400, 14)}, {"out": decoded(8400, 14)}), {"yolov5", "yolov8"}
    ),
    "undecoded grids, finest first": (
        signature(dict(reversed(GRIDS.items())), inputs=AT_416), {"yolov3"}
    ),
    "undecoded grids of 27 classes, or just features": (
        signature({key: (1, 96, *shape[2:]) for key, shape in GRIDS.items()}, inputs=AT_416), {"yolov3"}
    ),
    "rows of seven without a name": (
        signature({"rows": ("n", 7)}, inputs={"x": (1, 3, 640, 640)}), {"yolov5", "yolonas"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNCLEAR)
def test_what_is_unclear_needs_a_card(name: str) -> None:
    given, families = UNCLEAR[name]
    with pytest.raises(ModelError, match="not clear of which family") as caught:
        describe(given, name="m", sha256="", card={}, provider="")
    assert {guess.family for guess in recognise(given)} >= families
    for family in families:
        assert f"\n  {family} " in caught.value.message
        assert describe(given, name="m", sha256="", card={"family": family}, provider="")[0].family == family


OTHERS: dict[str, Signature] = {
    "other places": signature({"output": (1, 3549, 85)}),
    "yolov8 with logits": signature(
        {"output0": (1, 84, 8400)}, {"output0": turned(decoded(8400, 84)) * 9 - 5}
    ),
    "yolov5 before its decoding": signature({"o": (1, 25200, 85)}, {"o": raw(25200, 85)}),
    "grids after their sigmoid": signature(
        GRIDS,
        {name: np.full((1, 255, size, size), 0.4) for name, size in zip("abc", (13, 26, 52), strict=True)},
        inputs=AT_416,
    ),
    "grids of two sizes": signature({"a": (1, 255, 13, 13), "b": (1, 21, 26, 26)}, inputs=AT_416),
    "rows that do not fall": signature({"o": (1, 300, 6)}, {"o": finished()[:, ::-1]}),
    "rows without ids": signature({"o": (1, 300, 6)}, {"o": finished() + np.float32(0.3)}),
    "rows of nothing known": signature({"o": ("n", 7)}, {"o": row7(6) + np.float32(0.3)}),
    "rotated rows": signature({"o": (1, 300, 7)}, meta=ULTRALYTICS | {"task": "obb"}),
    "names that do not fit": signature({"o": (1, 85, 8400)}, meta=NAMES),
    "detr": signature({"boxes": (1, 300, 4), "scores": (1, 300, 80)}),
    "boxes in shares": signature(
        {"x": (1, 8400, 4), "y": (1, 8400, 80)},
        {"x": RNG.random((1, 8400, 4), np.float32), "y": RNG.random((1, 8400, 80), np.float32)},
    ),
    "the default": signature(
        {"boxes": (1, 3549, 4), "scores": (1, 3549, 80)}, inputs={"images": (1, 416, 416, 3)}, dtype="uint8"
    ),
    "classifier": signature({"output": (1, 1000)}),
    "no outputs": signature({}),
}  # fmt: skip
YOLOS = ("yolox", "yolov5", "yolov8", "yolov10", "yolov3", "yolonas")


@pytest.mark.parametrize("name", OTHERS)
def test_others_are_left_alone(name: str) -> None:
    taken = [load_head(family).recognise(OTHERS[name]) for family in YOLOS]
    assert [guess.why for guess in taken if guess is not None and guess.confidence >= 0.35] == []
