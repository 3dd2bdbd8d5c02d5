"""Decoders, one file per model family, and the table that names them."""

from __future__ import annotations

from importlib import import_module
from typing import cast

from pipeline.errors import ModelError
from pipeline.heads.base import Guess, Head, Signature, TensorInfo

__all__ = ["HEADS", "Guess", "Head", "Signature", "TensorInfo", "load_head", "recognise"]

#: Family -> ``module:Class``.
HEADS: dict[str, str] = {
    "yolox": "pipeline.heads.yolox:YoloxHead",
    "nanodet": "pipeline.heads.nanodet:NanodetHead",
    "fake": "pipeline.heads.fake:FakeHead",
}


def load_head(family: str) -> Head:
    """The decoder of a family; its module is imported now.

    Raises:
        ModelError: there is no such family.
    """
    if family not in HEADS:
        raise ModelError(
            f"no head decodes the model family {family!r}",
            hint=f"the families are {', '.join(sorted(HEADS))}",
        )
    module, _, name = HEADS[family].partition(":")
    return cast(Head, getattr(import_module(module), name)())


def recognise(signature: Signature) -> list[Guess]:
    """The families that fit a graph, likeliest first; empty when no head decodes it."""
    guesses = [load_head(family).recognise(signature) for family in HEADS]
    return sorted((guess for guess in guesses if guess is not None), key=lambda guess: -guess.confidence)
