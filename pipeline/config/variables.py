"""``${NAME}`` in a text: variables of the environment, filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pipeline.errors import ConfigError

__all__ = ["expand"]

_VARIABLE = re.compile(r"\$(?:(\$)|\{([^}]*)(\})?)?")
_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)


def expand(text: str, environ: Mapping[str, str], *, subject: str = "the source") -> str:
    """The text with ``${NAME}`` and ``${NAME:-default}`` filled in; ``$$`` is a dollar sign.

    What a variable holds is not searched for further ones.

    Args:
        text: Any text, such as a URL typed on a command line.
        environ: Value by name.
        subject: What the text is, for messages: ``gate.yaml:3: sources.gate.url``.

    Raises:
        ConfigError: a variable is not set or empty and has no default, or a ``${`` is not closed. The message
            holds the name of the variable and nothing of the text.
    """

    def replace(match: re.Match[str]) -> str:
        if match[1] or match[2] is None:  # a lone dollar sign is just that
            return "$"
        name = _NAME.fullmatch(match[2]) if match[3] else None
        if name is None:
            raise ConfigError(
                f"{subject} has a `${{` that is not ${{NAME}}",
                hint="write ${NAME} or ${NAME:-default}; $$ for a dollar sign",
            )
        value = environ.get(name[1]) or name[2]
        if value is None:
            raise ConfigError(
                f"{subject} needs the environment variable {name[1]}, which is not set or is empty",
                hint=f"type: export {name[1]}=…, or write ${{{name[1]}:-default}}",
            )
        return value

    return _VARIABLE.sub(replace, text)
