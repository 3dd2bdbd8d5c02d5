"""What the sections are made of: the frozen base and the checked field types."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

__all__ = [
    "Count", "Fraction", "Label", "Seconds", "Section", "SourceName", "Switch", "Text",
    "is_loopback", "listed",
]  # fmt: skip

_SOURCE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Section(BaseModel):
    """A part of the config: frozen, unknown keys refused."""

    # Errors are put into words by `loading`, which knows what must not be shown.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


def _number(value: Any) -> Any:
    if isinstance(value, bool):  # pydantic would take `true` for 1
        raise ValueError("must be a number")
    return value


def _switch(value: Any) -> Any:
    if isinstance(value, bool) or (isinstance(value, str) and value.lower() in ("true", "false")):
        return value
    raise ValueError("must be true or false")


def _text(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("must be text; put it in quotes")
    if not value.strip():
        raise ValueError("must not be empty; write something, or leave the key out")
    return value


def _source_name(value: str) -> str:
    if not _SOURCE_NAME.fullmatch(value):
        raise ValueError("must be a name of 1 to 64 letters, digits, `_` or `-`")
    return value


def listed(what: str) -> BeforeValidator:
    """Refuse anything but a list, with an example of what to write."""

    def check(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise ValueError(f"must be a list, such as {what}")
        return value

    return BeforeValidator(check)


def is_loopback(host: str) -> bool:
    """Whether a host, by name or address, can be reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", "lo")


Count = Annotated[int, Field(ge=1), BeforeValidator(_number)]
Fraction = Annotated[float, Field(ge=0, le=1), BeforeValidator(_number)]
Seconds = Annotated[float, Field(ge=0, le=86400 * 365), BeforeValidator(_number)]
Switch = Annotated[bool, BeforeValidator(_switch)]
Text = Annotated[str, Field(min_length=1), BeforeValidator(_text)]
Label = Text
SourceName = Annotated[
    str, Field(json_schema_extra={"pattern": "^[A-Za-z0-9_-]{1,64}$"}), BeforeValidator(_source_name)
]
