"""Class names that exporters write into a model file."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

__all__ = ["names_in"]

#: Keys in the order in which they are believed: ultralytics writes ``names``, others one of the rest.
_KEYS = ("names", "labels", "class_names", "classes", "id2label")
#: Keys whose value is a JSON object with one of the above in it: a Hugging Face configuration.
_NESTED = ("config", "hf_config")


def names_in(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """The class names in the metadata of a model file, by class id; empty where there are none.

    Args:
        metadata: Key-value metadata. ``names``, ``labels``, ``class_names``, ``classes`` or ``id2label``
            may hold a list of names or a table from class id to name, as JSON or as a Python literal, or
            names separated by lines or commas; ``config`` a Hugging Face configuration with an
            ``id2label``.
    """
    for key in _KEYS:
        if names := _names_of(metadata.get(key, "")):
            return names
    for key in _NESTED:
        value = _literal(metadata.get(key, ""))
        if isinstance(value, dict):
            for inner in _KEYS:
                if names := _names_from(value.get(inner)):
                    return names
    return ()


def _names_of(text: str) -> tuple[str, ...]:
    value = _literal(text)
    if value is not None:
        return _names_from(value)
    if any(mark in text for mark in "[]{}()"):
        return ()  # meant to be a literal, and is none
    parts = [part.strip() for part in text.strip().split("\n" if "\n" in text.strip() else ",")]
    return tuple(parts) if len(parts) > 1 and all(parts) else ()


def _literal(text: str) -> Any:
    for read in (json.loads, ast.literal_eval):
        try:
            return read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return None


def _names_from(value: Any) -> tuple[str, ...]:
    """Names of a list, or of a table without gaps."""
    if isinstance(value, dict):
        by_id = {str(key): name for key, name in value.items()}
        value = [by_id.get(str(index)) for index in range(len(by_id))]
    if isinstance(value, list | tuple) and all(isinstance(name, str) for name in value):
        return tuple(value)
    return ()
