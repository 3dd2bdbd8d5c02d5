"""Where a subscription begins: now, at a time, at a number, or where it stopped (a cursor file)."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from pipeline.errors import ConfigError

__all__ = ["Cursor", "Place", "utc_seconds"]

_HINT = 'write UTC seconds, a datetime with a zone, or a time such as "2026-01-31T09:30:00Z"'


class Place(msgspec.Struct, frozen=True):
    """A place in an event log.

    Attributes:
        next: Number of the first event that comes there.
        log: Id of the log; empty for whichever there is.
    """

    next: int
    log: str = ""


class _Saved(msgspec.Struct):
    schema: Literal["framewire.cursor/1"]
    log: str
    next: int


class Cursor:
    """A file that holds how far a subscriber has come; written anew and put in place in one step.

    Args:
        path: The file; it need not exist.

    Raises:
        ConfigError: it exists and is no cursor, or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._beside = path.with_name(f".{path.name}.new")
        #: What the file says; None while there is none.
        self.place: Place | None = None
        try:
            saved = msgspec.json.decode(path.read_bytes(), type=_Saved)
        except FileNotFoundError:
            if not path.parent.is_dir():
                raise ConfigError(
                    f"there is no folder {path.parent} for the cursor", hint="make it first"
                ) from None
            return
        except OSError as error:
            raise ConfigError(f"cannot read the cursor {path}: {error.strerror}") from error
        except msgspec.DecodeError as error:
            raise ConfigError(
                f"{path} is no cursor: {error}", hint="name another file, or delete it to begin anew"
            ) from error
        self.place = Place(saved.next, saved.log)

    def write(self, place: Place) -> None:
        """Put a place into the file, which holds either the old one or the new one at every moment.

        Raises:
            ConfigError: it cannot be written.
        """
        if place == self.place:
            return
        try:
            self._beside.write_bytes(
                msgspec.json.encode(_Saved("framewire.cursor/1", place.log, place.next)) + b"\n"
            )
            self._beside.replace(self._path)
        except OSError as error:
            raise ConfigError(
                f"cannot write the cursor {self._path}: {error.strerror}",
                hint="free space there, or name a file that you may write",
            ) from error
        self.place = place


def utc_seconds(given: float | str | datetime) -> float:
    """A time as UTC seconds.

    Args:
        given: UTC seconds, a datetime with a zone, or ISO 8601 text with a zone.

    Raises:
        ConfigError: it is none of these.
    """
    if isinstance(given, str):
        if re.fullmatch(r"\d+(\.\d+)?", given):
            return float(given)
        try:
            given = datetime.fromisoformat(given)
        except ValueError:
            raise ConfigError(f"{given!r} is no time", hint=_HINT) from None
    if isinstance(given, datetime):
        if given.tzinfo is None:
            raise ConfigError(f"{given.isoformat()} has no time zone", hint=_HINT)
        return given.timestamp()
    if isinstance(given, bool) or not 0 <= given < 1e11:
        raise ConfigError(f"{given!r} is no time in UTC seconds", hint=_HINT)
    return float(given)
