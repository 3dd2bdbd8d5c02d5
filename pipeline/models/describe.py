"""From what a graph declares to a `ModelSpec`: recognised by the heads, corrected by a card.

A card is a JSON file beside the model (``yolo.onnx`` has ``yolo.onnx.json``) with any of the fields
``family``, ``labels``, ``input_width``, ``input_height``, ``channels``, ``mean``, ``std``, ``letterbox``,
``pad_value`` and ``output_names``; what it says wins over what was recognised.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pipeline.errors import ModelError
from pipeline.heads import HEADS, Guess, Signature, TensorInfo, recognise
from pipeline.messages import ModelSpec
from pipeline.models.labels import labels_of
from pipeline.vision.palette import LABELS

__all__ = ["CARD_FIELDS", "card_of", "describe", "describe_tensor"]

CARD_FIELDS = (
    "family", "labels", "input_width", "input_height", "channels", "mean", "std", "letterbox", "pad_value",
    "output_names",
)  # fmt: skip
#: A second family that fits this much less well is no rival.
_CLEAR_LEAD = 0.2
#: Under this confidence a user has to confirm the family.
_SURE = 0.5


def card_of(model: Path) -> dict[str, Any]:
    """The card beside a model file; empty when there is none.

    Raises:
        ModelError: the card is not JSON, or has a field that it cannot have.
    """
    path = model.with_name(model.name + ".json")
    if not path.is_file():
        return {}
    try:
        card = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"the card {path} cannot be read as JSON: {error}") from error
    if not isinstance(card, dict):
        raise ModelError(f"the card {path} is not a JSON object", hint='for example {"family": "yolox"}')
    for field in card:
        if field not in CARD_FIELDS:
            near = difflib.get_close_matches(field, CARD_FIELDS, n=1)
            raise ModelError(
                f"the card {path} has an unknown field {field!r}",
                hint=f"did you mean {near[0]!r}?" if near else f"its fields are {', '.join(CARD_FIELDS)}",
            )
    return card


def describe(
    signature: Signature, *, name: str, sha256: str, card: Mapping[str, Any], provider: str
) -> tuple[ModelSpec, str]:
    """What a model is.

    Args:
        signature: Its inputs, outputs and metadata, with every size known but that of the batch.
        name: Name for the spec and for errors.
        sha256: Digest of its file.
        card: What its card says.
        provider: Execution provider in force.

    Returns:
        The spec, and why it is of that family.

    Raises:
        ModelError: no family fits, several fit equally well, or the card contradicts the graph.
    """
    guess = _choose(recognise(signature), signature, name, str(card.get("family", "")))
    fields: dict[str, Any] = {"output_names": tuple(output.name for output in signature.outputs)}
    fields |= guess.overrides
    fields |= {"name": name, "sha256": sha256, "family": guess.family, "provider": provider}
    fields |= {"labels": ()} | dict(card)
    try:
        spec = msgspec.convert(fields, ModelSpec)
    except msgspec.ValidationError as error:
        raise ModelError(f"the card of model {name!r} does not fit: {error}") from error
    unknown = set(spec.output_names) - {output.name for output in signature.outputs}
    if unknown:
        raise ModelError(
            f"the card of model {name!r} names outputs that it lacks: {', '.join(sorted(unknown))}",
            hint=f"its outputs are {', '.join(output.name for output in signature.outputs)}",
        )
    if "labels" not in card:
        spec = msgspec.structs.replace(spec, labels=_labels(spec, signature))
    return spec, "its card says so" if "family" in card else guess.why


def describe_tensor(info: TensorInfo) -> str:
    """``images uint8 [batch, 416, 416, 3]``."""
    return (
        f"{info.name} {info.dtype} [{', '.join('?' if size is None else str(size) for size in info.shape)}]"
    )


def _choose(guesses: Sequence[Guess], signature: Signature, name: str, family: str) -> Guess:
    if family:
        chosen = [guess for guess in guesses if guess.family == family]
        if chosen:
            return chosen[0]
        fitting = ", ".join(guess.family for guess in guesses) or "none"
        raise ModelError(
            f"model {name!r} cannot be of the family {family!r} that its card names; fitting: {fitting}\n"
            + _seen(signature)
        )
    if not guesses:
        raise ModelError(
            f"model {name!r} is of no family that we decode ({', '.join(sorted(set(HEADS) - {'fake'}))})\n"
            + _seen(signature),
            hint="export a detector of one of these families, or take one of `framewire models list`",
        )
    best = guesses[0]
    rivals = [guess for guess in guesses[1:] if guess.confidence > best.confidence - _CLEAR_LEAD]
    if rivals or best.confidence < _SURE:
        reasons = "\n".join(f"  {guess.family}: {guess.why}" for guess in (best, *rivals))
        raise ModelError(
            f"it is not clear of which family model {name!r} is:\n{reasons}\n" + _seen(signature),
            hint=f'say so in a card, a file of the same name with .json added: {{"family": "{best.family}"}}',
        )
    return best


def _seen(signature: Signature) -> str:
    rows = [("input", info) for info in signature.inputs] + [("output", info) for info in signature.outputs]
    return "\n".join(f"  {kind:6} {describe_tensor(info)}" for kind, info in rows)


def _labels(spec: ModelSpec, signature: Signature) -> tuple[str, ...]:
    if spec.family == "fake":
        return LABELS
    last = {output.name: output.shape[-1] for output in signature.outputs}
    if spec.family == "yolox":  # box and objectness before the classes
        columns, before = last[spec.output_names[0]], 5
    else:
        columns, before = last["scores" if "scores" in last else spec.output_names[0]], 0
    return labels_of(signature.metadata, columns - before if isinstance(columns, int) else 0)
