"""The public wire format: JSON Schemas (draft 2020-12) as package data, and topic names.

Shared by what publishes (``sinks``) and what subscribes (``client``); imports nothing but `errors`.
``docs/events.md`` explains the format to subscribers in any language.
"""

from __future__ import annotations

import json
import re
from difflib import get_close_matches
from importlib.resources import files
from typing import Any
from urllib.parse import unquote

from pipeline.errors import ConfigError

__all__ = ["LOG_ROOT", "TOPIC_ROOT", "VERSION", "load", "names", "parse_topic", "topic"]

#: Version of every public record that this release writes and reads: the number after the slash.
VERSION = 1

TOPIC_ROOT = "framewire/"
#: Root of the topics of the event log: ``framewire.log/<log id>/`` and ``framewire.log/heartbeat/``.
LOG_ROOT = "framewire.log/"

# "/" separates, "%" escapes; "+" and "#" are wildcards on MQTT, where the same topics are used.
_RESERVED = re.compile(r"[/%+#\x00-\x1f\x7f-\x9f]")


def names() -> list[str]:
    """Names that `load` knows, sorted: ``framewire.event.1``, ``framewire.frame.1``, ``summary.1``."""
    return sorted(
        item.name.removesuffix(".json") for item in files(__name__).iterdir() if item.name.endswith(".json")
    )


def load(name: str) -> dict[str, Any]:
    """Read one schema.

    Args:
        name: One of `names`.

    Raises:
        ConfigError: there is no schema of that name.
    """
    known = names()
    if name not in known:
        near = get_close_matches(name, known, 1) or known
        raise ConfigError(f"there is no schema named {name!r}", hint=f"use {' or '.join(near)}")
    schema: dict[str, Any] = json.loads((files(__name__) / f"{name}.json").read_text("utf-8"))
    return schema


def topic(source: str, type: str, label: str = "") -> str:  # noqa: A002  (the word of the wire format)
    """Name the topic of a record: ``framewire/<source>/<type>/<label>/``, or without a label one level less.

    The trailing slash keeps a subscription to ``front`` from matching ``front_door``. Reserved and control
    characters within a name are percent-escaped as UTF-8, so a topic always has three or four levels.
    """
    levels = [source, type, label] if label else [source, type]
    return TOPIC_ROOT + "".join(f"{_RESERVED.sub(_escape, level)}/" for level in levels)


def parse_topic(text: str) -> tuple[str, str, str]:
    """Split a topic into source, type and label (empty when it has none); the inverse of `topic`.

    Raises:
        ValueError: it is not a topic of ours.
    """
    levels = text.removeprefix(TOPIC_ROOT).split("/")
    if not text.startswith(TOPIC_ROOT) or len(levels) not in (3, 4) or levels[-1]:
        raise ValueError(f"not a framewire topic: {text!r}")
    source, kind, *label = (unquote(level) for level in levels[:-1])
    return source, kind, label[0] if label else ""


def _escape(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())
