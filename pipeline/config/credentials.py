"""Keep passwords and tokens out of everything that is shown."""

from __future__ import annotations

import re

__all__ = ["redact"]

_MASK = "***"
_AUTHORITY = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^/\s?#]*)@")
# A password with an unquoted "/" makes a broken URL, but it is still a password.
_BROKEN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^\s/?#@:]+):(?!\d+(?:[/?#\s]|$))[^\s@]*[/?#][^\s]*@")
_TELLTALE = (
    r"(?:[a-z0-9_.-]*(?:token|secret|passw(?:or)?d|passwd|signature|credential|api[_-]?key)[a-z0-9_.-]*"
    r"|key|auth|authorization|pass|pwd|psw|sig|sas|jwt|session(?:id)?)"
)
_QUERY = re.compile(rf"([?&;#]{_TELLTALE}=)[^&;#\s'\"]*", re.IGNORECASE)


def _userinfo(match: re.Match[str]) -> str:
    user, colon, _ = match[2].partition(":")
    # Without a colon the one word may be a user or a token; both stay out.
    return f"{match[1]}{user}:{_MASK}@" if colon else f"{match[1]}{_MASK}@"


def redact(text: str) -> str:
    """The same text with the passwords and token-like query values of the URLs in it masked.

    Args:
        text: A URL, or any text with URLs in it.

    Returns:
        ``rtsp://user:***@host/path?token=***`` for a URL with a password and a token; other text as it was.
    """
    text = _AUTHORITY.sub(_userinfo, text)
    text = _BROKEN.sub(rf"\1\2:{_MASK}@", text)
    return _QUERY.sub(rf"\1{_MASK}", text)
