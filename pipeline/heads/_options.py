"""Options of a spec, read and checked."""

from __future__ import annotations

from pipeline.errors import ModelError
from pipeline.messages import ModelSpec

__all__ = ["first_class_of", "one_of"]


def one_of(spec: ModelSpec, option: str, values: tuple[str, ...]) -> str:
    """An option that takes one of some words, the first of them where nothing is said.

    Raises:
        ModelError: it is another word.
    """
    value = spec.options.get(option, values[0])
    if value not in values:
        raise ModelError(
            f"the option {option} of model {spec.name!r} is {value!r}", hint=f"use one of {', '.join(values)}"
        )
    return str(value)


def first_class_of(spec: ModelSpec) -> int:
    """The option ``first_class``: the id by which the graph calls the first label (0).

    Raises:
        ModelError: it is no whole number.
    """
    value = spec.options.get("first_class", 0)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ModelError(
            f"the option first_class of model {spec.name!r} is {value!r}, not a whole number",
            hint="0 where class ids count from 0, 1 where they count from 1",
        )
    return value
