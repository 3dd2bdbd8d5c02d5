"""What is in a model file, which family reads it, how sure that is, and what a card would have to say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.errors import ModelError
from pipeline.heads import Guess, Signature, recognise
from pipeline.messages import ModelSpec
from pipeline.models.cards import card_of, card_within
from pipeline.models.describe import Verdict, describe_tensor, judge, word_of
from pipeline.models.onnx import OnnxRunner
from pipeline.models.store import KNOWN, ModelFile, cached, resolve

__all__ = ["Inspection", "inspect_model"]

#: What no graph says of its picture: guessed from what is usual for the family.
_CONVENTIONS = ("channels", "mean", "std", "letterbox", "pad_value")


@dataclass(frozen=True)
class Inspection:
    """A model file, looked into.

    Attributes:
        report: Plain data, for JSON.
        problem: Why it cannot be used as it is; None where it can.
    """

    report: dict[str, Any]
    problem: ModelError | None


def inspect_model(model: str, device: str = "auto") -> Inspection:
    """Load a model, run it once, and say what it is.

    Args:
        model: As for `pipeline.models.store.resolve`.
        device: As for `pipeline.models.onnx.OnnxRunner`.

    Raises:
        ModelError: there is no such model, the file is no ONNX model, or its card cannot be read.
        ProviderError: the device is not there.
    """
    file = resolve(model)
    card = card_of(file.path)
    runner = OnnxRunner(model, device=device)
    spec, problem = None, None
    try:
        spec = runner.open()
    except ModelError as error:
        if not runner.signature.inputs:
            raise
        problem = error
    finally:
        runner.close()
    signature = runner.signature
    report: dict[str, Any] = {"name": file.name, "path": str(file.path), "sha256": file.sha256}
    report |= _family(signature, card, file, spec, runner.why)
    report |= {
        "inputs": [describe_tensor(info) for info in signature.inputs],
        "outputs": [describe_tensor(info) for info in signature.outputs],
        "ranges": _ranges(signature),
    }
    if spec is not None:
        named = any(cached(known) == file.path for known in KNOWN.values())
        report |= _described(spec, runner, card, named=named)
    elif problem is not None:
        report |= {"problem": problem.message.partition("\n")[0], "hint": problem.hint}
    report["metadata"] = dict(sorted(signature.metadata.items()))
    return Inspection(report, problem)


def _family(
    signature: Signature, card: Mapping[str, Any], file: ModelFile, spec: ModelSpec | None, why: str
) -> dict[str, Any]:
    try:
        verdict = judge(signature, card, file.name)
    except ModelError:  # which opening has raised as well: its card is wrong
        verdict = Verdict(None, 0.0, "unsure", "", tuple(recognise(signature)))
    settled = spec is not None
    return {
        "family": spec.family if spec is not None else None,
        "kind": spec.kind if spec is not None else None,
        "certainty": {
            "confidence": verdict.confidence if settled or verdict.chosen is None else 0.0,
            "word": verdict.word if settled else "unsure",
            "source": verdict.source or None,
        },
        "why": why if settled else "",
        "candidates": [_candidate(guess) for guess in verdict.candidates],
        "cards": [] if settled else [_card_for(guess, card, file) for guess in verdict.candidates],
    }


def _candidate(guess: Guess) -> dict[str, Any]:
    return {
        "family": guess.family,
        "confidence": guess.confidence,
        "word": word_of(guess.confidence),
        "why": guess.why,
    }


def _card_for(guess: Guess, card: Mapping[str, Any], file: ModelFile) -> str:
    """The card that would settle the family, and where it goes."""
    return f"{file.path.name}.json: {json.dumps(dict(card) | {'family': guess.family})}"


def _ranges(signature: Signature) -> dict[str, list[float]]:
    """Least and greatest value of each output for the test picture."""
    found = {}
    for name, values in signature.samples.items():
        if values.size and values.dtype.kind in "fiub":
            finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
            if finite.size:
                found[name] = [round(float(finite.min()), 4), round(float(finite.max()), 4)]
    return found


def _described(
    spec: ModelSpec, runner: OnnxRunner, card: Mapping[str, Any], *, named: bool
) -> dict[str, Any]:
    within = card_within(runner.signature.metadata, spec.name)
    sources = dict.fromkeys(within, "card within") | dict.fromkeys(card, "card")
    # Nothing is assumed of the models that have a name, nor where metadata tell the exporter.
    chosen = next((one for one in recognise(runner.signature) if one.family == spec.family), None)
    known = named or (chosen is not None and chosen.confidence >= 1)
    return {
        "input": {
            "width": spec.input_width,
            "height": spec.input_height,
            "dtype": spec.input_dtype,
            "layout": spec.input_layout,
            "channels": spec.channels,
        },
        "scaling": {"mean": list(spec.mean), "std": list(spec.std)},
        "letterbox": {"mode": spec.letterbox, "pad_value": spec.pad_value}
        | ({"crop": spec.crop} if spec.letterbox == "crop" else {}),
        "nms_iou": spec.nms_iou,
        "options": spec.options,
        "feeds": {name: list(values) for name, values in spec.feeds.items()},
        "from": sources,
        "assumed": [field for field in _CONVENTIONS if field not in sources and not known],
        "labels": list(spec.labels),
        "provider": spec.provider,
        "not_taken": runner.refusals,
    }
