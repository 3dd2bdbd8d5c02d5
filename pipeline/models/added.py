"""Models that a user adds under a name of their own: the file, or a link to it, and its card in the cache.

A model is added only after it has been opened, run on one picture and decoded, so that a name in the list is
one that works. Its family is written into its card: what it was taken for it stays, whatever later versions
recognise.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads import load_classifier, load_head
from pipeline.messages import ModelSpec
from pipeline.models.cards import card_of, check_card
from pipeline.models.onnx import OnnxRunner
from pipeline.models.store import ALIASES, KNOWN, added, added_dir, resolve

__all__ = ["add_model", "remove_model"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: Low enough that nearly every cell of a head is decoded, and its numbers are checked.
_LOW = 0.01


def add_model(
    file: str, name: str, card: Mapping[str, Any], *, link: bool = False, replace: bool = False
) -> ModelSpec:
    """Give a model file a name, once it has been seen to work.

    Args:
        file: Path of an ONNX file, or a name; a card beside it counts.
        name: The name to be: letters, digits, ``.``, ``_`` and ``-``.
        card: Fields of a card, over those of the card beside the file.
        link: Keep a link to the file instead of a copy.
        replace: Take the place of a model that was added under the same name.

    Returns:
        What the model is.

    Raises:
        ModelError: the name is taken or is none, the card is wrong, no family or several fit, or the model
            does not run; nothing has been added then.
    """
    _check_name(name, replace)
    source = resolve(file)
    own = card_of(source.path) | check_card(dict(card), f"the card of {name!r}")
    with _writing():
        added_dir().mkdir(parents=True, exist_ok=True)
        # Inside the folder, so that the last steps are renames.
        with tempfile.TemporaryDirectory(dir=added_dir()) as folder:
            staged = Path(folder) / f"{name}.onnx"
            if link:
                staged.symlink_to(source.path.resolve())
            else:
                shutil.copyfile(source.path, staged)
            staged_card = Path(folder) / f"{name}.onnx.json"
            _write_card(staged_card, own)
            try:
                spec = _tried(staged)
            except ModelError as error:
                told = error.message.replace(str(staged), str(source.path))
                raise ModelError(told, hint=error.hint) from error
            _write_card(staged_card, own | {"family": spec.family, "kind": spec.kind} | _size_of(spec))
            # The card first: a file without it might be taken for something else.
            staged_card.replace(added_dir() / staged_card.name)
            staged.replace(added_dir() / staged.name)
    return spec


def remove_model(name: str) -> Path:
    """Take out a model that was added; of a link only the link.

    Args:
        name: Its name.

    Returns:
        Where it lay.

    Raises:
        ModelError: no model was added under this name, or it cannot be removed.
    """
    path = added().get(name)
    if path is None:
        names = ", ".join(added()) or "none"
        what = "comes with framewire" if name in KNOWN or name in ALIASES else "was not added"
        raise ModelError(f"the model {name!r} {what}", hint=f"models that were added: {names}")
    with _writing():
        path.unlink()
        path.with_name(path.name + ".json").unlink(missing_ok=True)
    return path


def _check_name(name: str, replace: bool) -> None:
    if not _NAME.fullmatch(name) or name.endswith((".onnx", ".json")) or name.partition("?")[0] == "fake":
        raise ModelError(
            f"a model cannot be called {name!r}",
            hint="use up to 64 letters, digits, '.', '_' and '-', no .onnx at the end, and not fake",
        )
    if name in KNOWN or name in ALIASES:
        raise ModelError(f"the name {name!r} is taken: it comes with framewire", hint="choose another one")
    if name in added() and not replace:
        raise ModelError(
            f"the name {name!r} is taken: {added()[name]}",
            hint=f"framewire models remove {name}, or add it with --replace",
        )


def _tried(path: Path) -> ModelSpec:
    """Open a model, run it on a picture of noise, and decode what it gives.

    Raises:
        ModelError: one of these fails.
    """
    runner = OnnxRunner(str(path), device="cpu")
    try:
        spec = runner.open()
        outputs = [
            np.empty(shape, dtype)
            for shape, dtype in zip(runner.output_shapes, runner.output_dtypes, strict=True)
        ]
        runner.forward(_noise(spec), outputs)
    finally:
        runner.close()
    if spec.kind == "classifier":
        load_classifier(spec.family).classify(outputs, spec, 5)
    else:
        load_head(spec.family).decode(outputs, spec, _LOW)
    return spec


def _noise(spec: ModelSpec) -> NDArray[Any]:
    """A tensor (1, …) as preprocessing makes it from a picture of noise."""
    size = (1, spec.input_height, spec.input_width, 3)
    pixels: NDArray[Any] = np.random.default_rng(0).integers(0, 256, size)
    if spec.input_dtype != "uint8":
        pixels = (pixels - np.array(spec.mean)) / np.array(spec.std)
    ordered = pixels.transpose(0, 3, 1, 2) if spec.input_layout == "nchw" else pixels
    return np.ascontiguousarray(ordered, spec.input_dtype)


def _size_of(spec: ModelSpec) -> dict[str, int]:
    return {"input_width": spec.input_width, "input_height": spec.input_height}


def _write_card(path: Path, card: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", "utf-8")


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ModelError(
            f"{added_dir()} cannot be written: {error.strerror}",
            hint="make room there, or name another folder with FRAMEWIRE_CACHE",
        ) from error
