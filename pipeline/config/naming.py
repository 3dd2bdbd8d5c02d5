"""Names for sources that were given without one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

__all__ = ["name_sources"]

_LONGEST = 64


def name_sources(urls: Sequence[str]) -> dict[str, str]:
    """A name for each source, as ``sources:`` takes them.

    The name is the file's or stream's own, without its folder, suffix, host and credentials; a second one
    of that name gets a number.

    Args:
        urls: Paths and URLs, in order.

    Returns:
        URL by name, in the same order.
    """
    named: dict[str, str] = {}
    for url in urls:
        plain = _plain(url)
        base = re.sub(r"[^A-Za-z0-9_-]+", "_", plain).strip("_")[:_LONGEST] or "source"
        name, number = base, 2
        while name in named:
            ending = f"-{number}"
            name, number = base[: _LONGEST - len(ending)] + ending, number + 1
        named[name] = url
    return named


def _plain(url: str) -> str:
    """The last word of a path or URL; never anything that may be a password."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):(//)?(.*)", url, re.DOTALL)
    if not match:
        return PurePosixPath(url).stem
    if not match[2]:
        return match[1]
    before, _, rest = match[3].rpartition("@")
    if re.search(r"[?#]", before):  # That ``@`` may be in the middle of a token as well as before the host.
        return match[1]
    host, _, path = re.split(r"[?#]", rest)[0].partition("/")
    last = PurePosixPath(path).stem
    # Some cameras want the login in the path: /user=admin_password=…_channel=1.sdp
    return last if last and "=" not in path else host or match[1]
