"""From what a graph declares to a `ModelSpec`: recognised by the heads, corrected by a card.

The heads guess from shapes, names and the values of one test run how well a graph fits their family. The best
guess is taken where it is likely and clearly ahead of the others; a card (`pipeline.models.cards`) decides
between several, and its other fields win over what was guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from pipeline.errors import ModelError
from pipeline.heads import Guess, Signature, TensorInfo, families, recognise
from pipeline.heads.base import image_input
from pipeline.messages import ModelSpec
from pipeline.models.cards import CARD_FIELDS, card_of, card_within
from pipeline.models.labels import labels_of
from pipeline.vision.palette import LABELS

__all__ = ["CARD_FIELDS", "Verdict", "card_of", "describe", "describe_tensor", "judge", "word_of"]

#: A second family that fits this much less well is no rival.
_CLEAR_LEAD = 0.2
#: Under this confidence a user has to confirm the family.
_SURE = 0.5
#: From this confidence on, shapes and values leave no doubt.
_CERTAIN = 0.85

Word = Literal["certain", "likely", "unsure"]


@dataclass(frozen=True)
class Verdict:
    """Of which family a graph is, and how sure that is.

    Attributes:
        chosen: What it is taken for; None where a user has to say.
        confidence: 0..1 that it is of the likeliest family; 1 where a card or its metadata says so.
        word: The same as a word; ``unsure`` also where a second family fits nearly as well.
        source: What settled it: ``card`` (beside the file, or of a model with a name), ``card within`` the
            file, its ``metadata``, or the ``graph`` alone; empty where nothing did.
        candidates: All families that fit, likeliest first.
    """

    chosen: Guess | None
    confidence: float
    word: Word
    source: Literal["card", "card within", "metadata", "graph", ""]
    candidates: tuple[Guess, ...]


def judge(signature: Signature, card: Mapping[str, Any], name: str) -> Verdict:
    """Of which family a graph is.

    Args:
        signature: As for `describe`.
        card: What its card says, without that within the file.
        name: Name of the model, for errors.

    Raises:
        ModelError: a card names a family that the graph does not fit, or the card within is wrong.
    """
    guesses = tuple(recognise(signature))
    within = card_within(signature.metadata, name)
    family = str(card.get("family") or within.get("family") or "")
    if family:
        for guess in guesses:
            if guess.family == family:
                return Verdict(guess, 1.0, "certain", "card" if "family" in card else "card within", guesses)
        told = _told(signature, within, family)
        if told is not None:
            return Verdict(told, 1.0, "certain", "card within", guesses)
        fitting = ", ".join(f"{guess.family} ({guess.confidence:.0%})" for guess in guesses) or "none"
        reasons = "".join(f"{_line(guess)}\n" for guess in guesses)
        raise ModelError(
            f"model {name!r} cannot be of the family {family!r} that its card names; fitting: {fitting}\n"
            + reasons
            + _seen(signature),
            hint=f'write {{"family": "{guesses[0].family}"}}, or leave the family out'
            if guesses
            else "framewire models inspect FILE shows what the file holds",
        )
    if not guesses:
        return Verdict(None, 0.0, "unsure", "", ())
    best = guesses[0]
    rivals = [guess for guess in guesses[1:] if guess.confidence > best.confidence - _CLEAR_LEAD]
    if rivals or best.confidence < _SURE:
        return Verdict(None, best.confidence, "unsure", "", guesses)
    source: Literal["metadata", "graph"] = "metadata" if best.confidence >= 1 else "graph"
    return Verdict(best, best.confidence, word_of(best.confidence), source, guesses)


def _told(signature: Signature, within: Mapping[str, Any], family: str) -> Guess | None:
    """What a complete card within a file says: `pipeline.models.graph` writes one where it changes a graph.

    Such a graph need not look like its family any more: it takes pixels, and gives the best rows only.
    """
    picture = image_input(signature)
    if picture is None or family != within.get("family") or not set(CARD_FIELDS) <= set(within):
        return None
    if family not in families():
        return None
    overrides = picture.overrides() | {"kind": within["kind"]}
    return Guess(family, overrides, 1.0, "the card within says so", len(within["labels"]))


def word_of(confidence: float) -> Word:
    """``certain``, ``likely`` or ``unsure``."""
    return "certain" if confidence >= _CERTAIN else "likely" if confidence >= _SURE else "unsure"


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
    verdict = judge(signature, card, name)
    guess = verdict.chosen
    if guess is None:
        raise _unsettled(verdict, signature, name)
    card = card_within(signature.metadata, name) | dict(card)
    fields: dict[str, Any] = {"output_names": tuple(output.name for output in signature.outputs)}
    fields |= guess.overrides
    fields |= {"name": name, "sha256": sha256, "family": guess.family, "provider": provider}
    fields |= {"labels": ()} | dict(card)
    try:
        spec = msgspec.convert(fields, ModelSpec)
    except msgspec.ValidationError as error:
        raise ModelError(f"the card of model {name!r} does not fit: {error}") from error
    _check_against(spec, guess, signature)
    if not card.get("labels"):
        labels = LABELS if spec.family == "fake" else guess.labels
        spec = msgspec.structs.replace(
            spec, labels=labels or labels_of(signature.metadata, guess.classes, spec.kind)
        )
    return spec, "its card says so" if "family" in card else guess.why


def describe_tensor(info: TensorInfo) -> str:
    """``images uint8 [batch, 416, 416, 3]``."""
    return (
        f"{info.name} {info.dtype} [{', '.join('?' if size is None else str(size) for size in info.shape)}]"
    )


def _check_against(spec: ModelSpec, guess: Guess, signature: Signature) -> None:
    """Raise where a card contradicts the graph.

    Raises:
        ModelError: it names outputs that are not there, another input size, another kind of model, or more
            or fewer labels than there are classes.
    """
    outputs = {output.name for output in signature.outputs}
    unknown = set(spec.output_names) - outputs
    if unknown:
        raise ModelError(
            f"the card of model {spec.name!r} names outputs that it lacks: {', '.join(sorted(unknown))}",
            hint=f"its outputs are {', '.join(output.name for output in signature.outputs)}",
        )
    found = {"kind": "detector"} | dict(guess.overrides)
    for field in ("input_width", "input_height", "kind"):
        wanted, seen = getattr(spec, field), found.get(field, getattr(spec, field))
        if wanted != seen:
            raise ModelError(
                f"the card of model {spec.name!r} says {field} {wanted}, the {guess.family} graph has {seen}",
                hint=f"leave {field} out of the card",
            )
    sizes = {size for output in signature.outputs for size in output.shape if isinstance(size, int)}
    # A head may take the usual number for granted where no output shows it: classes, with no object, with
    # a box, with a box and an objectness.
    shown = guess.classes and sizes & {guess.classes + others for others in (0, 1, 4, 5)}
    if shown and len(spec.labels) not in (0, guess.classes):
        raise ModelError(
            f"the card of model {spec.name!r} names {len(spec.labels)} labels, "
            f"the graph tells {guess.classes} classes apart",
            hint="name every class of the model, in its order",
        )


def _unsettled(verdict: Verdict, signature: Signature, name: str) -> ModelError:
    if not verdict.candidates:
        return ModelError(
            f"model {name!r} is of no family that we decode ({', '.join(families())})\n" + _seen(signature),
            hint="export a detector of one of these families, or take one of `framewire models list`",
        )
    reasons = "\n".join(map(_line, verdict.candidates))
    likeliest = verdict.candidates[0].family
    return ModelError(
        f"it is not clear of which family model {name!r} is:\n{reasons}\n" + _seen(signature),
        hint=f'say so in a card, a file of the same name with .json added: {{"family": "{likeliest}"}}; '
        f"framewire models add FILE --name NAME --family {likeliest} writes one",
    )


def _line(guess: Guess) -> str:
    return f"  {guess.family} {guess.confidence:.0%}: {guess.why}"


def _seen(signature: Signature) -> str:
    rows = [("input", info) for info in signature.inputs] + [("output", info) for info in signature.outputs]
    return "\n".join(f"  {kind:6} {describe_tensor(info)}" for kind, info in rows)
