"""Cards: what a user, or whoever wrote the file, says of a model; checked field by field.

A card is a JSON file beside the model (``yolo.onnx`` has ``yolo.onnx.json``) with any of the fields of
`CARD_FIELDS`; what it says wins over what was recognised. A file may carry its card within it, as metadata
``framewire.card``, and `pipeline.models.zoo` has one for many a model that can be named; a card beside the
file wins over these.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from pipeline.errors import ModelError
from pipeline.heads import families
from pipeline.models.store import known_card

__all__ = ["CARD_FIELDS", "card_of", "card_within", "check_card"]


@dataclass(frozen=True)
class _Field:
    kind: Any
    words: str
    fits: Callable[[Any], bool] = lambda value: True


_Triple = tuple[float, float, float]
_SIDE = "a whole number of pixels, 1 or more"
_FIELDS: dict[str, _Field] = {
    "family": _Field(str, "the name of a family", bool),
    "labels": _Field(
        tuple[str, ...],
        'a list of class names, ["person", "car"]',
        all,
    ),
    "input_width": _Field(int, _SIDE, lambda side: side >= 1),
    "input_height": _Field(int, _SIDE, lambda side: side >= 1),
    "channels": _Field(Literal["bgr", "rgb"], '"bgr" or "rgb"'),
    "mean": _Field(_Triple, "three numbers on the scale of 0 to 255, [123.675, 116.28, 103.53]"),
    "std": _Field(_Triple, "three numbers other than 0, [255, 255, 255]", all),
    "letterbox": _Field(
        Literal["center", "topleft", "stretch", "crop"], '"center", "topleft", "stretch" or "crop"'
    ),
    "pad_value": _Field(int, "a grey level from 0 to 255", lambda level: 0 <= level <= 255),
    "crop": _Field(float, "a share over 0, up to 1", lambda share: 0 < share <= 1),
    "output_names": _Field(
        tuple[str, ...], "a list of names of the graph's outputs", lambda names: len(names) > 0
    ),
    "kind": _Field(Literal["detector", "classifier"], '"detector" or "classifier"'),
    "nms_iou": _Field(
        float | None, "a number from 0 to 1, or null for no NMS", lambda iou: iou is None or 0 <= iou <= 1
    ),
    "options": _Field(dict[str, Any], 'an object, {"scores": "sigmoid"}'),
    "feeds": _Field(
        dict[str, tuple[float, ...]],
        'an object of lists of numbers by the name of an input, {"image_shape": [416, 416]}',
    ),
    "max_rows": _Field(int, "a whole number, 0 or more", lambda rows: rows >= 0),
}
CARD_FIELDS = tuple(_FIELDS)


def card_of(model: Path) -> dict[str, Any]:
    """The card beside a model file, over that of `pipeline.models.zoo`; empty when there is neither.

    Raises:
        ModelError: the card is not JSON, or has a field or value that it cannot have.
    """
    known = dict(known_card(model))
    path = model.with_name(model.name + ".json")
    if not path.is_file():
        return known
    try:
        card = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"the card {path} cannot be read as JSON: {error}") from error
    return known | check_card(card, f"the card {path}")


def card_within(metadata: Mapping[str, str], name: str) -> dict[str, Any]:
    """The card that a model file carries in its metadata; empty when there is none.

    Args:
        metadata: Key-value metadata of the file.
        name: Name of the model, for errors.

    Raises:
        ModelError: as for `card_of`.
    """
    text = metadata.get("framewire.card", "")
    if not text:
        return {}
    try:
        card = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"the card within model {name!r} is not JSON: {error}") from error
    return check_card(card, f"the card within model {name!r}")


def check_card(card: Any, what: str) -> dict[str, Any]:
    """A card, when it has only fields and values that a card can have.

    Args:
        card: Parsed JSON.
        what: Its name, for errors.

    Raises:
        ModelError: it is no JSON object, or has an unknown field or an impossible value.
    """
    if not isinstance(card, dict):
        raise ModelError(f"{what} is not a JSON object", hint='for example {"family": "yolox"}')
    for field, value in card.items():
        if field not in _FIELDS:
            near = difflib.get_close_matches(str(field), CARD_FIELDS, n=1)
            raise ModelError(
                f"{what} has an unknown field {field!r}",
                hint=f"did you mean {near[0]!r}?" if near else f"its fields are {', '.join(CARD_FIELDS)}",
            )
        _check_value(field, value, what)
    alone = {"input_width", "input_height"} & set(card)
    if len(alone) == 1:
        raise ModelError(f"{what} gives only {alone.pop()}", hint="give input_width and input_height")
    return card


def _check_value(field: str, value: Any, what: str) -> None:
    """Raise unless a field may have the value.

    Raises:
        ModelError: it may not.
    """
    rule = _FIELDS[field]
    try:
        fits = rule.fits(msgspec.convert(value, rule.kind))
    except msgspec.ValidationError:
        fits = False
    if not fits:
        shown = json.dumps(value, default=str)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        raise ModelError(f"{what} has {field} {shown}", hint=f"{field} is {rule.words}")
    if field == "family" and value not in families():
        near = difflib.get_close_matches(value, families(), n=1)
        raise ModelError(
            f"{what} names the family {value!r}, which we do not decode",
            hint=f"did you mean {near[0]!r}?" if near else f"the families are {', '.join(families())}",
        )
