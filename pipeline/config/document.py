"""YAML text -> plain data, with the line of each value, variables filled in and traps refused.

Keys are always text: ``no:`` and ``8:`` name what they say instead of becoming ``False`` and a number.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline.config.variables import expand
from pipeline.errors import ConfigError

__all__ = ["Document", "Path_", "parse", "read", "spell"]

Path_ = tuple[str | int, ...]

_MAX_BYTES = 1 << 20
_MAX_NODES = 20_000
_MAX_DEPTH = 20
_MERGE = "tag:yaml.org,2002:merge"


@dataclass(slots=True)
class Document:
    """What a file says.

    Attributes:
        origin: Name of the file, for messages.
        data: Its content.
        lines: Line number, from 1, of each key and list item.
        raw: Text before variables were filled in, where there were any; safe to show.
    """

    origin: str
    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[Path_, int] = field(default_factory=dict)
    raw: dict[Path_, str] = field(default_factory=dict)


def spell(path: Path_) -> str:
    """A path as a user writes it: ``publish[0].zmq``."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read(path: str | Path, environ: Mapping[str, str] | None = None) -> Document:
    """Read a file.

    Args:
        path: The file.
        environ: Variables for ``${NAME}``; the process's own when None.

    Raises:
        ConfigError: it is not there, not readable, not YAML, or names a variable that is not set.
    """
    file = Path(path)
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
    except FileNotFoundError as error:
        near = sorted(p.name for p in file.parent.glob("*.y*ml"))[:5] if file.parent.is_dir() else []
        hint = f"in {file.parent} there are {', '.join(near)}" if near else "check the path"
        raise ConfigError(f"there is no config file {file}", hint=hint) from error
    except OSError as error:
        raise ConfigError(
            f"cannot read the config {file}: {error.strerror}", hint="give the path of a YAML file"
        ) from error
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{file} is over 1 MB, too long for a config", hint="give the path of a YAML file")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{file} is not text: byte {error.start} is not UTF-8",
            hint="to run a video file, type: framewire run FILE (without -c)",
        ) from error
    return parse(text, str(file), environ)


def parse(text: str, origin: str, environ: Mapping[str, str] | None = None) -> Document:
    """Read a text; see `read`."""
    loader: yaml.SafeLoader | None = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            raise ConfigError(
                f"{origin} is empty",
                hint="write at least: sources: {camera: video.mp4}; see configs/demo.yaml",
            )
        if not isinstance(node, yaml.MappingNode):
            kind = "a list" if isinstance(node, yaml.SequenceNode) else "plain text"
            raise ConfigError(
                f"{origin}:{node.start_mark.line + 1}: this is {kind}, not a config",
                hint="a config consists of `key: value` lines, such as `sources: {camera: video.mp4}`",
            )
        walker = _Walker(loader, origin, os.environ if environ is None else environ)
        walker.document.data = walker.value(node, ())
    except yaml.YAMLError as error:
        raise _in_words(error, origin) from None  # its excerpt of the file may hold a password
    except RecursionError as error:
        raise ConfigError(
            f"{origin} is nested too deeply", hint="a config has five levels at most"
        ) from error
    finally:
        if loader is not None:
            loader.dispose()
    return walker.document


def _in_words(error: yaml.YAMLError, origin: str) -> ConfigError:
    """What PyYAML found, without its multi-line excerpt of the file."""
    hint = "check the indentation, and put text with `: ` or ` #` or braces in it in quotes"
    if not isinstance(error, yaml.MarkedYAMLError):
        return ConfigError(f"{origin} is not YAML: it holds control characters", hint="save it as plain text")
    mark = error.problem_mark or error.context_mark
    where = f"{origin}:{mark.line + 1}" if mark else origin
    problem = " ".join(part for part in (error.context, error.problem) if part)
    if "'\\t'" in problem:
        hint = "indent with spaces, not with tabs"
    elif "single document" in problem:
        hint = "keep one document: remove the `---` line and what follows it"
    elif "constructor for the tag" in problem:
        hint = "write the value without a `!tag`"
    return ConfigError(f"{where}: this is not YAML: {problem}", hint=hint)


class _Walker:
    """One pass over the nodes."""

    def __init__(self, loader: yaml.SafeLoader, origin: str, environ: Mapping[str, str]) -> None:
        self.document = Document(origin)
        self._loader = loader
        self._environ = environ
        self._nodes = 0

    def _error(self, node: yaml.Node, message: str, hint: str) -> ConfigError:
        return ConfigError(f"{self.document.origin}:{node.start_mark.line + 1}: {message}", hint=hint)

    def value(self, node: yaml.Node, path: Path_) -> Any:
        self._nodes += 1
        if self._nodes > _MAX_NODES or len(path) > _MAX_DEPTH:
            raise self._error(node, "too many or too deeply nested values", "look for an alias that grows")
        self.document.lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, i)) for i, item in enumerate(node.value)]
        built = self._loader.construct_object(node)
        return self._fill(built, node, path) if isinstance(built, str) and "$" in built else built

    def _mapping(self, node: yaml.MappingNode, path: Path_) -> dict[str, Any]:
        first: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._error(key, "a key must be a word, not a list or mapping", "write `key: value`")
            if key.tag != _MERGE and key.value in first:
                raise self._error(
                    key,
                    f"{spell((*path, key.value))} is there twice, first on line {first[key.value]}",
                    "keep one of them",
                )
            first[key.value] = key.start_mark.line + 1
        self._loader.flatten_mapping(node)  # after the check: a key may override a merged one
        result = {}
        for key, value in node.value:
            below = (*path, key.value)
            self.document.lines[below] = key.start_mark.line + 1
            result[key.value] = self.value(value, below)
        return result

    def _fill(self, text: str, node: yaml.Node, path: Path_) -> str:
        self.document.raw[path] = text
        subject = f"{self.document.origin}:{node.start_mark.line + 1}: {spell(path)}"
        return expand(text, self._environ, subject=subject)
