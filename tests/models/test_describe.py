from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.heads import Guess, Signature, TensorInfo
from pipeline.models import describe as module
from pipeline.models.cards import card_of, card_within, check_card
from pipeline.models.describe import describe, judge, word_of

IMAGES = TensorInfo("images", "float32", (1, 3, 64, 64))
OUTPUT = TensorInfo("output", "float32", (1, 84, 85))
ODD = Signature((IMAGES,), (TensorInfo("odd", "float32", (1, 7)),))
PLAIN = {"input_width": 64, "input_height": 64}


def guess(family: str, confidence: float, classes: int = 80, **overrides: Any) -> Guess:
    return Guess(
        family, PLAIN | {"output_names": ("output",)} | overrides, confidence, f"as {family}", classes
    )


def signature(metadata: dict[str, str] | None = None) -> Signature:
    return Signature((IMAGES,), (OUTPUT,), metadata or {}, {"output": np.zeros((1, 84, 85), np.float32)})


@pytest.fixture
def fitting(monkeypatch: pytest.MonkeyPatch) -> list[Guess]:
    """What the heads guess, likeliest first; to be filled."""
    guesses: list[Guess] = []
    monkeypatch.setattr(module, "recognise", lambda signature: guesses)
    return guesses


@pytest.mark.parametrize(
    ("guesses", "card", "expected"),
    [
        ([], {}, (None, 0.0, "unsure", "")),
        ([("yolox", 1.0)], {}, ("yolox", 1.0, "certain", "metadata")),
        ([("yolox", 0.9), ("yolov5", 0.7)], {}, ("yolox", 0.9, "certain", "graph")),
        ([("yolox", 0.6)], {}, ("yolox", 0.6, "likely", "graph")),
        ([("yolox", 0.6), ("yolov5", 0.45)], {}, (None, 0.6, "unsure", "")),
        ([("yolox", 0.4)], {}, (None, 0.4, "unsure", "")),
        ([("yolox", 0.6), ("yolov5", 0.45)], {"family": "yolov5"}, ("yolov5", 1.0, "certain", "card")),
        ([("yolox", 0.9)], {"channels": "rgb"}, ("yolox", 0.9, "certain", "graph")),
    ],
)
def test_judge(
    fitting: list[Guess], guesses: list[tuple[str, float]], card: dict[str, Any], expected: tuple[Any, ...]
) -> None:
    fitting += [guess(*one) for one in guesses]
    verdict = judge(signature(), card, "m")
    chosen = verdict.chosen.family if verdict.chosen else None
    assert (chosen, verdict.confidence, verdict.word, verdict.source) == expected
    assert [one.family for one in verdict.candidates] == [one[0] for one in guesses]


def test_the_card_beside_the_file_wins_over_the_one_within(fitting: list[Guess]) -> None:
    fitting += [guess("yolov8", 0.6), guess("yolox", 0.6), guess("yolov5", 0.6)]
    within = signature({"framewire.card": '{"family": "yolov5", "channels": "rgb"}'})
    assert judge(within, {}, "m").source == "card within"
    spec, why = describe(within, name="m", sha256="", card={}, provider="p")
    assert (spec.family, spec.channels, why) == ("yolov5", "rgb", "its card says so")
    spec, _ = describe(within, name="m", sha256="", card={"family": "yolox"}, provider="p")
    assert (spec.family, spec.channels) == ("yolox", "rgb")


@pytest.mark.parametrize(
    ("confidence", "word"),
    [(1.0, "certain"), (0.85, "certain"), (0.84, "likely"), (0.5, "likely"), (0.49, "unsure")],
)
def test_words(confidence: float, word: str) -> None:
    assert word_of(confidence) == word


@pytest.mark.parametrize(
    ("guesses", "card", "message"),
    [
        ([], {}, "is of no family that we decode"),
        ([("yolox", 0.6), ("yolov5", 0.6)], {}, "  yolov5 60%: as yolov5\n  input  images float32"),
        ([("yolox", 0.9)], {"family": "ssd"}, "the family 'ssd' that its card names; fitting: yolox (90%)"),
        ([], {"family": "ssd"}, "fitting: none"),
        ([("yolox", 0.9)], {"output_names": ["boxes"]}, "names outputs that it lacks: boxes"),
        ([("yolox", 0.9)], {"input_width": 32, "input_height": 64}, "input_width 32, the yolox graph has 64"),
        ([("yolox", 0.9)], {"kind": "classifier"}, "says kind classifier, the yolox graph has detector"),
        ([("yolox", 0.9)], {"labels": ["a", "b"]}, "names 2 labels, the graph tells 80 classes apart"),
    ],
)  # fmt: skip
def test_refusals(
    fitting: list[Guess], guesses: list[tuple[str, float]], card: dict[str, Any], message: str
) -> None:
    fitting += [guess(*one) for one in guesses]
    with pytest.raises(ModelError) as caught:
        describe(signature(), name="m", sha256="", card=card, provider="p")
    assert message in caught.value.message
    assert caught.value.hint


def test_classes_that_no_output_shows_do_not_limit_the_labels(fitting: list[Guess]) -> None:
    # DETR's finished layout gives class ids: 80 is what is usual.
    fitting.append(Guess("detr", PLAIN | {"output_names": ("odd",)}, 0.9, "as detr", 80))
    spec, _ = describe(ODD, name="m", sha256="", card={"labels": ["helmet"]}, provider="p")
    assert spec.labels == ("helmet",)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("family", "yolo5", "did you mean"),
        ("family", 5, "the name of a family"),
        ("family", "", "the name of a family"),
        ("labels", "person", 'a list of class names, ["person", "car"]'),
        ("labels", ["person", ""], "a list of class names"),
        ("input_width", 0, "a whole number of pixels"),
        ("input_height", 64.5, "a whole number of pixels"),
        ("channels", "grey", '"bgr" or "rgb"'),
        ("mean", [1, 2], "three numbers"),
        ("std", [1, 0, 1], "three numbers other than 0"),
        ("letterbox", "middle", '"center", "topleft", "stretch" or "crop"'),
        ("pad_value", 256, "a grey level"),
        ("crop", 0, "a share over 0"),
        ("output_names", [], "a list of names"),
        ("kind", "segmenter", '"detector" or "classifier"'),
        ("nms_iou", 45, "a number from 0 to 1, or null"),
        ("options", ["a"], "an object"),
        ("feeds", {"size": "640"}, "an object of lists of numbers"),
        ("max_rows", -1, "0 or more"),
    ],
)
def test_values_that_a_field_cannot_have(field: str, value: Any, words: str) -> None:
    with pytest.raises(ModelError) as caught:
        check_card({field: value}, "the card")
    assert caught.value.message.startswith("the card ")
    assert field in caught.value.message
    assert words in caught.value.hint


def test_a_card_with_every_field_passes() -> None:
    card = {
        "family": "yolox", "labels": ["a"], "input_width": 64, "input_height": 32, "channels": "bgr",
        "mean": [0, 0.5, 1], "std": [255, 255, 255], "letterbox": "crop", "pad_value": 0, "crop": 1,
        "output_names": ["output"], "kind": "detector", "nms_iou": None, "options": {"a": [1]},
        "feeds": {"size": [64, 32]}, "max_rows": 10,
    }  # fmt: skip
    assert check_card(card, "the card") == card
    assert set(card) == set(module.CARD_FIELDS)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("{", "cannot be read as JSON", ""),
        ("[]", "is not a JSON object", '{"family": "yolox"}'),
        ('{"chanels": "rgb"}', "unknown field 'chanels'", "did you mean 'channels'?"),
        ('{"zzz": 1}', "unknown field 'zzz'", "its fields are family, labels"),
        ('{"input_width": 640}', "gives only input_width", "give input_width and input_height"),
    ],
)
def test_cards_that_are_none(text: str, message: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx.json").write_text(text)
    with pytest.raises(ModelError, match=r"m\.onnx\.json") as caught:
        card_of(tmp_path / "m.onnx")
    assert message in caught.value.message
    assert hint in caught.value.hint
    if message.startswith("cannot"):
        with pytest.raises(ModelError, match="the card within model 'm' is not JSON"):
            card_within({"framewire.card": text}, "m")
    else:
        with pytest.raises(ModelError, match="the card within model 'm' "):
            card_within({"framewire.card": text}, "m")


def test_no_card_is_an_empty_one(tmp_path: Path) -> None:
    assert card_of(tmp_path / "m.onnx") == {}
    assert card_within({}, "m") == {}
    (tmp_path / "m.onnx.json").write_text(json.dumps({"family": "yolox"}))
    assert card_of(tmp_path / "m.onnx") == {"family": "yolox"}
