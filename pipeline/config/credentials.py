"""Keep passwords and tokens out of everything that is shown.

Where a text can be read in two ways, the reading that hides more is taken: a host that is not shown costs a
minute, a password that is shown costs the camera.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["is_secret_name", "redact", "redact_url", "redacted_argv"]

_MASK = "***"
#: Of bounded length, so that a long text without any costs little.
_SCHEME = r"[A-Za-z][A-Za-z0-9+.-]{0,30}://"
#: In a text, a URL ends at white space: a password may hold quotes, brackets and commas.
_TOKEN = re.compile(rf"{_SCHEME}\S+")
_PARTS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(\[[0-9A-Fa-f:.%]*\])?(.*)", re.DOTALL)
#: Unquoted white space in a password breaks a URL in two; a port in that place is none.
_BROKEN = re.compile(
    rf"({_SCHEME}"
    r"[^\s/?#@:\[\]]*:)(?!\d+(?:[/?#]\S*)?\s)"
    r"[^\s@]{1,200}[^\S\n][^\n@]{0,200}@(?:[^\s@]*@)*"
)
_LONG = (
    r"(?:token|secret|passw(?:or)?d|passwd|passwort|passphrase|signature|credential|api[_-]?key|streamid)"
    r"[a-z0-9_.-]*"
)
_SHORT = r"(?:key|auth|authorization|pass|pwd|psw|pw|sig|sas|jwt|session(?:id)?)"
#: The value goes on to the next parameter; closing punctuation around a URL stays.
_QUERY = re.compile(
    rf"(?:(?<![a-z0-9_.-])[a-z0-9_.-]*?{_LONG}|(?<=[?&;#/]){_SHORT})="
    r"([^&\s]*?)(?=[\"')\]>,.;:]{0,2}(?:\s|&|$))",
    re.IGNORECASE,
)
_NAME = re.compile(rf"[a-z0-9_.-]*?{_LONG}|(?:.*[._-])?{_SHORT}|headers|cookies|options", re.IGNORECASE)
_HEADER = re.compile(
    r"\b((?:proxy-)?authorization|(?:set-)?cookie|x-[a-z-]*(?:token|key|auth)[a-z-]*)"
    r"([\"']?\s*[:=]\s*)[^\r\n]+",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    """The same text with the passwords, token-like query values and login headers in it masked.

    Args:
        text: A URL, or any text with URLs in it.

    Returns:
        ``rtsp://user:***@host/path?token=***`` for a URL with a password and a token; other text as it was.
    """
    text = _TOKEN.sub(lambda match: redact_url(match[0]), text)
    text = _BROKEN.sub(rf"\1{_MASK}@", text)
    text = _masked(text, [match.span(1) for match in _QUERY.finditer(text)])
    return _HEADER.sub(rf"\1\2{_MASK}", text)


def redact_url(url: str) -> str:
    """`redact` for what is known to be one URL as a whole, white space included.

    From the first colon after the scheme to the last ``@`` may be a password, wherever that ``@`` stands:
    unquoted passwords hold slashes and question marks.

    Args:
        url: The URL; a text without a scheme is masked as a query only.
    """
    spans = [match.span(1) for match in _QUERY.finditer(url)]
    match = _PARTS.fullmatch(url)
    userinfo, at, _ = match[3].rpartition("@") if match is not None else ("", "", "")
    if match is not None and at:
        start = match.start(3)
        user, colon, _ = userinfo.partition(":")
        if colon:
            spans.append((start + len(user) + 1, start + len(userinfo)))
        # Without a colon the one word may be a user or a token. After a slash it is a part of the path.
        elif not re.search(r"[/?#]", user):
            spans.append((start, start + len(user)))
    return _masked(url, spans)


def _masked(text: str, spans: Sequence[tuple[int, int]]) -> str:
    """The text with each span masked once, those that overlap or touch together."""
    parts: list[str] = []
    done = 0
    masked_to = -1
    for start, end in sorted(spans):
        if start > masked_to:
            parts += [text[done:start], _MASK]
        masked_to = done = max(end, masked_to)
    return "".join(parts) + text[done:]


def is_secret_name(name: str) -> bool:
    """Whether what goes by that name, such as ``passphrase`` or ``headers``, is not to be shown."""
    return bool(_NAME.fullmatch(name))


def redacted_argv(argv: Sequence[str]) -> list[str]:
    """The words of a command line as a process list may show them.

    Args:
        argv: The words, each a whole argument: ``rtsp://…``, ``password=…``, ``--set`` and what follows it.
    """
    shown: list[str] = []
    for index, word in enumerate(argv):
        name, equals, _ = word.partition("=")
        scheme = re.search(_SCHEME, word)
        if equals and "://" not in name and is_secret_name(name.lstrip("-")):
            shown.append(f"{name}={_MASK}")
        elif index and argv[index - 1].startswith("--") and is_secret_name(argv[index - 1][2:]):
            shown.append(_MASK)
        elif scheme is not None:
            shown.append(word[: scheme.start()] + redact_url(word[scheme.start() :]))
        else:
            shown.append(redact(word))
    return shown
