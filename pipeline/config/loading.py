"""Plain data -> `Config`, and what is wrong with it in words: file, line, key, value, and what to write."""

from __future__ import annotations

import json
import types
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from pipeline.config.credentials import is_secret_name, redact, redact_url
from pipeline.config.document import Document, Path_, read, spell
from pipeline.config.model import Config
from pipeline.errors import ConfigError

__all__ = ["InvalidConfigError", "Problem", "from_mapping", "load"]

_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        where: ``FILE:LINE``, or the origin alone when it has no lines.
        key: Path of the key, as ``publish[0].zmq``; empty for the config as a whole.
        text: What is wrong, in words, with the value; credentials are masked.
        hint: What to write instead.
    """

    where: str
    key: str
    text: str
    hint: str

    def __str__(self) -> str:
        subject = f"{self.key} {self.text}" if self.key else self.text
        return f"{self.where}: {subject}"


class InvalidConfigError(ConfigError):
    """A config was read, but what it says cannot be.

    Args:
        problems: All that is wrong with it, in the order of the file.
    """

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        if len(problems) == 1:
            super().__init__(str(problems[0]), hint=problems[0].hint)
            return
        lines = [
            f"{problem}; {problem.hint}" if problem.hint else str(problem) for problem in problems[:_SHOWN]
        ]
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        super().__init__("\n  ".join([f"{len(problems)} things are wrong in the config:", *lines, *more]))


def load(
    path: str | Path,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Config:
    """Read a config file.

    Args:
        path: The YAML file.
        overrides: Values that take precedence, nested as in the file (``{"model": {"confidence": 0.5}}``);
            lists and plain values replace, mappings merge, except that ``sources`` replace all of the file's.
        environ: Variables for ``${NAME}``; the process's own when None.

    Raises:
        ConfigError: it cannot be read; `InvalidConfigError` when a key or value is wrong.
    """
    document = read(path, environ)
    overrides = overrides or {}
    data = {key: value for key, value in document.data.items() if key != "sources" or key not in overrides}
    return _build(data, document, overrides)


def from_mapping(data: Mapping[str, Any], origin: str) -> Config:
    """A config from plain data.

    Args:
        data: Nested as in a file; no variables are filled in.
        origin: What to call it in messages, such as ``command line``.

    Raises:
        InvalidConfigError: a key or value is wrong.
    """
    return _build(data, Document(origin), {})


def _build(data: Mapping[str, Any], document: Document, overrides: Mapping[str, Any]) -> Config:
    merged = _merge(data, overrides)
    try:
        return Config.model_validate(merged)
    except ValidationError as error:
        errors = error.errors()
        # A misspelt key is one mistake, though it is both unknown and missing.
        misspelt = {(*e["loc"][:-1], _near(e["loc"])) for e in errors if e["type"] == "extra_forbidden"}
        told = [e for e in errors if e["type"] != "missing" or e["loc"] not in misspelt]
        problems = [_problem(details, merged, document, overrides) for details in told]
    raise InvalidConfigError(tuple(problem for _, problem in sorted(problems, key=lambda pair: pair[0])))


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        result[key] = _merge(old, value) if both else value  # type: ignore[arg-type]
    return result


def _problem(
    details: ErrorDetails, data: Mapping[str, Any], document: Document, overrides: Mapping[str, Any]
) -> tuple[int, Problem]:
    """One pydantic error in words, with its line for sorting."""
    path, value = _locate(details["loc"], data)
    overridden = bool(path) and _has(overrides, path)
    line = 0 if overridden else _line(path, document)
    where = "command line" if overridden else f"{document.origin}:{line}" if line else document.origin
    shown = path[-1] if details["loc"][-1:] == ("[key]",) else document.raw.get(path, value)
    if any(isinstance(part, str) and is_secret_name(part) for part in path):
        shown = "***"
    text, hint = _words(details, path, shown)
    about_key = details["type"] in ("extra_forbidden", "missing")
    key = spell(path[:-1] if about_key else path)
    return line, Problem(where, redact(key), redact(text), redact(hint))


def _locate(loc: tuple[int | str, ...], data: Any) -> tuple[Path_, Any]:
    """The path in the data that a pydantic location means (union tags left out), and its value."""
    path: list[str | int] = []
    value = data
    for index, part in enumerate(loc):
        here = isinstance(value, Mapping) and part in value
        here = here or (isinstance(value, list | tuple) and isinstance(part, int) and part < len(value))
        # The tag of a sink is a key of it too; it is a step only when it comes last.
        if here and not (len(loc) > index + 1 and path and isinstance(path[-1], int) and _is_tag(path, part)):
            path.append(part)
            value = value[part]
        elif not here and index == len(loc) - 1 and part != "[key]" and not _is_short(path, value, part):
            path.append(part)
            value = None
    return tuple(path), value


def _is_short(path: list[str | int], value: Any, part: str | int) -> bool:
    """Whether a source was written as its URL alone."""
    return path[:1] == ["sources"] and part == "url" and isinstance(value, str | int)


def _is_tag(path: list[str | int], part: str | int) -> bool:
    return path[0] == "publish" and isinstance(part, str)


def _has(data: Any, path: Path_) -> bool:
    for part in path:
        if not isinstance(data, Mapping) or part not in data:
            return not isinstance(data, Mapping)  # inside a list or value that was overridden as a whole
        data = data[part]
    return True


def _line(path: Path_, document: Document) -> int:
    """Line of the path, or of the nearest thing around it."""
    for length in range(len(path), -1, -1):
        if path[:length] in document.lines:
            return document.lines[path[:length]]
    return 0


_EXPECTED = {
    "model_type": ("must hold `key: value` pairs", "write the keys below it, indented"),
    "model_attributes_type": ("must hold `key: value` pairs", "write the keys below it, indented"),
    "dict_type": ("must hold `key: value` pairs", "write the keys below it, indented"),
    "int_parsing": ("must be a whole number", "write a number such as 1"),
    "int_type": ("must be a whole number", "write a number such as 1"),
    "int_from_float": ("must be a whole number", "write a number such as 1"),
    "float_parsing": ("must be a number", "write a number such as 0.5"),
    "float_type": ("must be a number", "write a number such as 0.5"),
    "finite_number": ("must be a finite number", "write a number such as 0.5"),
    "too_short": ("needs an entry", "add one, or leave the key out"),
}
_BOUNDS = {
    "greater_than_equal": "at least",
    "greater_than": "more than",
    "less_than_equal": "at most",
    "less_than": "less than",
}


def _words(details: ErrorDetails, path: Path_, value: Any) -> tuple[str, str]:
    """What is wrong and what to write, by pydantic's type of error."""
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(details["loc"])
    if kind == "missing":
        return f"lacks `{path[-1]}`", f"add `{path[-1]}: …`"
    if kind == "value_error":
        expected, _, hint = str(context["error"]).partition("; ")
        if not expected.startswith("must "):
            return expected, hint
        hint = hint or f"write {expected.removeprefix('must be ').rpartition('such as ')[2]}"
    elif kind == "literal_error":
        options = [option.strip("'") for option in str(context["expected"]).replace(" or ", ", ").split(", ")]
        near = get_close_matches(str(value), options, 1, cutoff=0.7)  # not `cpu` for `gpu`
        expected, hint = f"must be {_either(options)}", f"write {near[0] if near else _either(options)}"
    elif kind in _BOUNDS:
        bound = f"{_BOUNDS[kind]} {next(iter(context.values())):g}"
        expected, hint = f"must be {bound}", f"write a number that is {bound}"
    else:
        expected, hint = _EXPECTED.get(kind, (details["msg"][:1].lower() + details["msg"][1:], ""))
    return f"is {_show(value)}, but {expected}", hint


def _show(value: Any) -> str:
    text = redact_url(value) if isinstance(value, str) and "://" in value else ""
    text = redact(text or (value if isinstance(value, str) else json.dumps(value, default=str)))
    if value in (None, ""):
        return "empty"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"the list {text}" if len(text) <= 60 else "a list"
    return f"`{text}`" if len(text) <= 80 else f"`{text[:77]}…`"


def _either(options: list[str]) -> str:
    return options[0] if len(options) == 1 else f"{', '.join(options[:-1])} or {options[-1]}"


def _unknown_key(loc: tuple[int | str, ...]) -> tuple[str, str]:
    text = f"has no key `{loc[-1]}`" if len(loc) > 1 else f"there is no section `{loc[-1]}`"
    if loc == ("stages", "capture"):
        return text, "leave it out: capture runs once per source"
    near = _near(loc)
    return text, f"write `{near}`" if near else f"its keys are {', '.join(_known(loc))}"


def _near(loc: tuple[int | str, ...]) -> str:
    return next(iter(get_close_matches(str(loc[-1]), _known(loc), 1, cutoff=0.5)), "")


def _known(loc: tuple[int | str, ...]) -> list[str]:
    section = _section(loc[:-1])
    keys = [field.alias or name for name, field in section.model_fields.items()] if section else []
    # Of a sink the word that says what it is comes first, whatever section it has its other keys from.
    return sorted(keys, key=lambda key: key != getattr(section, "kind", None))


def _section(loc: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The section at a pydantic location, found through the type annotations."""
    kind: Any = Config
    for part in loc:
        kind = _bare(kind)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(str(part))
            kind = field.annotation if field else None
        elif get_origin(kind) is dict:
            kind = get_args(kind)[1]
        elif get_origin(kind) is tuple:
            kind = get_args(kind)[0]
        else:  # a union of sinks: the location names the kind
            kind = next((m for m in map(_bare, get_args(kind)) if getattr(m, "kind", None) == part), None)
    kind = _bare(kind)
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _bare(kind: Any) -> Any:
    """An annotation without ``Annotated`` and without ``| None``."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, types.UnionType):
        members = [member for member in get_args(kind) if member is not type(None)]
        if len(members) == 1:
            return _bare(members[0])
    if get_origin(kind) is Literal:
        return None
    return kind
