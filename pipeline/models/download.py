"""A file over HTTP into a cache: resumed, verified, and either whole or not there at all."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import ModelError

__all__ = ["Progress", "copy_file", "fetch", "sha256_of"]

#: Called with the bytes that are there and the bytes that there will be.
Progress = Callable[[int, int], None]

_CHUNK = 1 << 18
_TIMEOUT_S = 30.0
#: Waits before the tries after the first, in seconds; bytes that arrive start the count again.
_BACK_OFF_S = (1.0, 2.0, 4.0, 8.0)


class _BrokenError(Exception):
    """The transfer may succeed when tried again."""


class _RefusedError(Exception):
    """This address will not give the file, however often it is asked."""


def sha256_of(path: Path) -> str:
    """Digest of a file, lower-case hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(
    urls: Sequence[str],
    target: Path,
    *,
    sha256: str,
    size: int,
    progress: Progress | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Put a file at ``target``; a transfer that broke off earlier is continued.

    Proxies are taken from the environment, as urllib does. Of several processes that want the same file,
    one fetches it.

    Args:
        urls: Addresses that give the file, tried in order; a user and password in them are sent as basic
            authentication and never shown.
        target: Where it goes; the folder is made. Nothing is there until the digest has been checked.
        sha256: Digest that the file must have, lower-case hex.
        size: Bytes that it must have.
        progress: Told how far the transfer is.
        pause: Waits between tries, in seconds.

    Raises:
        ModelError: no address gave the file, it is not the one expected, or it cannot be written.
    """
    part = target.with_name(target.name + ".part")
    with _writing(part) as file:
        if target.exists():
            return  # another process has fetched it while we waited for the lock
        failures: list[str] = []
        for url in urls:
            try:
                _fetch_from(url, file, part, sha256, size, progress, pause)
            except _RefusedError as error:
                failures.append(f"{_shown(url)}: {error}")
                continue
            part.replace(target)
            return
    raise ModelError(
        f"{target.name} could not be fetched: {'; '.join(failures)}",
        hint="a transfer that broke off continues when tried again; without a way out, fetch "
        f"{_shown(urls[-1])} elsewhere and give it with `framewire models pull NAME --from FILE`",
    )


def copy_file(source: Path, target: Path, *, sha256: str, progress: Progress | None = None) -> None:
    """Put a file that the user has at ``target``, verified.

    Args:
        source: The file.
        target: Where it goes; the folder is made.
        sha256: Digest that it must have, lower-case hex.
        progress: Told when it is done.

    Raises:
        ModelError: it cannot be read or written, or is not the one expected; ``target`` is untouched.
    """
    try:
        digest = sha256_of(source)
    except OSError as error:
        raise ModelError(f"{source} cannot be read: {error.strerror}") from error
    if digest != sha256:
        raise ModelError(
            f"{source} is not {target.name}: its sha256 is {digest}, expected {sha256}",
            hint="fetch the file again; it is damaged or of another version",
        )
    part = target.with_name(target.name + ".part")
    with _writing(part) as file, source.open("rb") as data:
        file.truncate(0)
        try:
            shutil.copyfileobj(data, file, _CHUNK)
            file.flush()
        except OSError as error:
            raise _not_written(part, error) from error
        part.replace(target)
    if progress:
        progress(source.stat().st_size, source.stat().st_size)


@contextmanager
def _writing(part: Path) -> Iterator[BinaryIO]:
    """The partial file, at its end, locked against other processes; an empty one does not stay."""
    file = _locked(part)
    with file:
        try:
            yield file
        finally:
            if os.fstat(file.fileno()).st_size == 0:
                part.unlink(missing_ok=True)


def _locked(part: Path) -> BinaryIO:
    while True:
        try:
            part.parent.mkdir(parents=True, exist_ok=True)
            file = part.open("ab")
        except OSError as error:
            raise _not_written(part, error) from error
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            # Whoever held the lock before may have renamed or removed the file that we opened.
            if os.path.samestat(os.fstat(file.fileno()), part.stat()):
                return file
        except FileNotFoundError:
            pass
        file.close()


def _not_written(path: Path, error: OSError) -> ModelError:
    free = ""
    for folder in path.parents:
        if folder.is_dir():
            free = f" ({shutil.disk_usage(folder).free / 1e6:.0f} MB free)"
            break
    return ModelError(
        f"{path} cannot be written{free}: {error.strerror}",
        hint="make room there, or name another folder with FRAMEWIRE_CACHE",
    )


def _fetch_from(
    url: str,
    file: BinaryIO,
    part: Path,
    sha256: str,
    size: int,
    progress: Progress | None,
    pause: Callable[[float], None],
) -> None:
    """Fill the partial file from one address and check it.

    Raises:
        _RefusedError: the address does not give the file.
        ModelError: the file cannot be written.
    """
    waits = iter(_BACK_OFF_S)
    while True:
        before = part.stat().st_size
        if before > size:
            file.truncate(0)
            before = 0
        try:
            if before < size:
                _transfer(url, file, part, size, progress)
        except _BrokenError as error:
            if part.stat().st_size > before:
                waits = iter(_BACK_OFF_S)
            wait = next(waits, None)
            if wait is None:
                raise _RefusedError(str(error)) from error
            pause(wait)
            continue
        if sha256_of(part) == sha256:
            return
        file.truncate(0)
        # What an earlier run left may be of another file: only a transfer from the start condemns the source.
        if before == 0:
            raise _RefusedError(f"what it gives is not the file expected (sha256 {sha256[:12]}…)")


def _transfer(url: str, file: BinaryIO, part: Path, size: int, progress: Progress | None) -> None:
    """One request, from the end of the partial file on.

    Raises:
        _BrokenError: it broke off.
        _RefusedError: the server does not give the file.
        ModelError: the file cannot be written.
    """
    offset = part.stat().st_size
    try:
        with urllib.request.urlopen(_request(url, offset), timeout=_TIMEOUT_S) as response:  # noqa: S310
            if offset and not _continues(response, offset):
                file.truncate(0)
                offset = 0
            while chunk := response.read(_CHUNK):
                offset += len(chunk)
                if offset > size:
                    file.truncate(0)
                    raise _RefusedError(f"it gives more than the {size:,} bytes expected")
                _write(file, part, chunk)
                if progress:
                    progress(offset, size)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                file.truncate(0)
                raise _BrokenError("HTTP 416") from error
            again = error.code >= 500 or error.code in (408, 429)
            raise (_BrokenError if again else _RefusedError)(f"HTTP {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        # Not error itself: urllib puts the address, with its password, into some of them.
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _BrokenError(getattr(reason, "strerror", None) or type(reason).__name__) from error
    if offset < size:
        raise _BrokenError(f"it ended after {offset:,} of {size:,} bytes")


def _write(file: BinaryIO, part: Path, chunk: bytes) -> None:
    try:
        file.write(chunk)
        file.flush()
    except OSError as error:
        raise _not_written(part, error) from error


def _request(url: str, offset: int) -> urllib.request.Request:
    """The request for a file from ``offset`` on.

    Raises:
        _RefusedError: it is not an HTTP address.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _RefusedError("not an http or https address")
    headers = {"User-Agent": "framewire", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    request = urllib.request.Request(_without_user(url), headers=headers)  # noqa: S310
    if parts.username is not None:
        user = ":".join(urllib.parse.unquote(part) for part in (parts.username, parts.password or ""))
        # Not followed to where a redirect leads.
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(user.encode()).decode())
    return request


def _continues(response: http.client.HTTPResponse, offset: int) -> bool:
    """Whether a response goes on where we stopped; else it starts from the beginning."""
    found = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    partial = response.status == http.HTTPStatus.PARTIAL_CONTENT
    return partial and found is not None and int(found[1]) == offset


def _without_user(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _shown(url: str) -> str:
    """An address as it may stand in an error: without user, password and query."""
    return urllib.parse.urlsplit(_without_user(url))._replace(query="", fragment="").geturl()
