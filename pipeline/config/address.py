"""The URL of a source taken apart, and its login put in."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote

from pipeline.errors import ConfigError

__all__ = ["is_cut_short", "kind_of", "password_in", "scheme_of", "userinfo_of", "with_login"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://")
_CAMERA = re.compile(r"\d{1,2}|/dev/video\d+")
_PASSWORD_FILE_MAX = 4096


def scheme_of(url: str) -> str:
    """Scheme of a URL in lower case; empty for a path."""
    match = _SCHEME.match(url)
    return match[1].lower() if match else ""


def kind_of(url: str) -> str:
    """``stream``, ``device``, ``push``, ``synthetic`` or ``recording``, by the look of it."""
    if url.startswith("synthetic:"):
        return "synthetic"
    scheme = scheme_of(url)
    if scheme.startswith("push"):
        return "push"
    if scheme and scheme != "file":
        return "stream"
    if _CAMERA.fullmatch(url):
        return "device"
    return "recording"


def userinfo_of(url: str) -> str:
    """What stands before the ``@`` of a URL's host, as written."""
    match = _SCHEME.match(url)
    authority = re.split(r"[/?#]", url[match.end() :], maxsplit=1)[0] if match else ""
    return authority.rpartition("@")[0]


def is_cut_short(url: str) -> bool:
    """Whether a password with a ``/``, ``?`` or ``#`` in it ends the host of a URL too soon.

    ``rtsp://u:a/b@host`` names port ``a`` of host ``u``.
    """
    match = _SCHEME.match(url)
    authority, *after = re.split(r"[/?#]", url[match.end() :], maxsplit=1) if match else ("",)
    port = authority.rpartition("]")[2].rpartition("@")[2].partition(":")[2]
    return "@" in "".join(after) and not re.fullmatch(r"\d*", port)


def with_login(url: str, username: str | None, password: str | None) -> str:
    """The URL with a login in it, percent-quoted; what stands there already stays unless it is given anew."""
    match = _SCHEME.match(url)
    if match is None or (username is None and password is None):
        return url
    given = userinfo_of(url)
    user = given if username is None else quote(username, safe="")
    login = user if password is None else f"{user}:{quote(password, safe='')}"
    rest = url[match.end() :]
    return f"{match[0]}{login}@{rest.removeprefix(f'{given}@') if given else rest}"


def password_in(path: Path) -> str:
    """The only line of a file.

    Raises:
        ConfigError: it is not there, cannot be read, or holds anything else; repeats nothing of it.
    """
    hint = "put the password on the only line of a file that this user can read"
    try:
        with path.open("rb") as file:
            content = file.read(_PASSWORD_FILE_MAX + 1)
        text = content.decode()
    except FileNotFoundError as error:
        raise ConfigError(f"there is no password file {path}", hint=hint) from error
    except OSError as error:
        raise ConfigError(f"the password file {path} cannot be read: {error.strerror}", hint=hint) from error
    except UnicodeDecodeError:
        raise ConfigError(f"the password file {path} is not text", hint=hint) from None
    lines = text.splitlines()
    if len(lines) != 1 or not lines[0] or len(content) > _PASSWORD_FILE_MAX:
        found = "empty" if not text.strip() else "longer than one line"
        raise ConfigError(f"the password file {path} is {found}", hint=hint)
    return lines[0]
