"""The file of the event log: its tables, how it is opened, and what is done with a damaged one."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import sqlite3
import time
from pathlib import Path
from typing import Literal

from pipeline.errors import SinkError

__all__ = [
    "Sync", "boot_id", "connect", "is_damage", "lock", "meta", "open_for_writing", "put_meta", "release",
    "reserve", "spare_pages",
]  # fmt: skip

log = logging.getLogger(__name__)

#: ``normal`` survives the death of every process, ``full`` a loss of power too, at the price of a wait for
#: the disk with each commit.
Sync = Literal["normal", "full"]

_APPLICATION = 0x66775F6C  # "fw_l", in the header of the file: this one is ours
_VERSION = 1
_MAGIC = b"SQLite format 3\0"
#: Logs that this one goes on from; who has not been here since has to begin anew.
_ANCESTORS = 16

#: Pages of the journal before it goes home, and what is kept free on the disk for that: on a full one nothing
#: can be deleted either before there is room in the journal.
_JOURNAL_PAGES = 1000
_PAGE_BYTES = 4096
_RESERVE_BYTES = 6 * 2**20

_TABLES = f"""
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    sequence INTEGER PRIMARY KEY, at_us INTEGER NOT NULL, source TEXT NOT NULL, type TEXT NOT NULL,
    label TEXT NOT NULL, zones TEXT NOT NULL, record BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS latest (
    key TEXT PRIMARY KEY, sequence INTEGER NOT NULL, source TEXT NOT NULL, type TEXT NOT NULL,
    label TEXT NOT NULL, zones TEXT NOT NULL, record BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tickets (
    source TEXT NOT NULL, ticket TEXT NOT NULL, key INTEGER NOT NULL, PRIMARY KEY (source, ticket)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS holes (first INTEGER PRIMARY KEY, last INTEGER NOT NULL);
"""


def connect(path: Path, *, writable: bool = False) -> sqlite3.Connection:
    """A connection that begins no transaction by itself; any thread may use it, one at a time."""
    mode = "rwc" if writable else "ro"
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False,
        timeout=5.0, cached_statements=64,
    )  # fmt: skip


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that the file is not a sound database (any more)."""
    return isinstance(error, sqlite3.DatabaseError) and getattr(error, "sqlite_errorcode", 0) & 0xFF in (
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    )


def lock(path: Path) -> int:
    """Make this process the only one that writes the log; the descriptor that holds the lock.

    The kernel lets go of it however the process ends.

    Raises:
        SinkError: another process writes it, or the folder cannot be written.
    """
    beside = path.with_name(f"{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        held = os.open(beside, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SinkError(
            f"cannot write the event log {path}: {error.strerror}",
            hint="name a file that you may write with event_log.path",
        ) from error
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(held)
        raise SinkError(
            f"another run writes the event log {path}",
            hint="stop that run, or give this one a log of its own with event_log.path",
        ) from error
    return held


def open_for_writing(path: Path, sync: Sync) -> sqlite3.Connection:
    """Open the log, make it if there is none; a damaged one is put aside, loudly, and a new one begun.

    Raises:
        SinkError: the file is something else, or of a newer version, or cannot be written.
    """
    _refuse_strangers(path)
    try:
        return _opened(path, sync)
    except sqlite3.Error as error:
        if not is_damage(error):
            raise _unusable(path, error) from error
        aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        log.error("the event log %s is damaged (%s): put aside as %s, a new one begins", path, error, aside)
        path.replace(aside)
        for ending in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + ending).replace(aside.with_name(aside.name + ending))
    try:
        return _opened(path, sync)
    except sqlite3.Error as error:
        raise _unusable(path, error) from error


def _opened(path: Path, sync: Sync) -> sqlite3.Connection:
    database = connect(path, writable=True)
    try:
        (version,) = database.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise SinkError(
                f"the event log {path} was written by a newer framewire (version {version} of its tables)",
                hint="use that framewire, or name another file with event_log.path",
            )
        database.execute("PRAGMA journal_mode = WAL").fetchone()
        database.execute(f"PRAGMA synchronous = {sync.upper()}")
        database.execute(f"PRAGMA wal_autocheckpoint = {_JOURNAL_PAGES}")
        if version < _VERSION:
            database.executescript(_TABLES)
        # A look at every page would take seconds on a large log; a broken tree shows at its ends.
        database.execute("SELECT min(sequence), max(sequence) FROM events").fetchone()
        _identify(database)
    except BaseException:
        database.close()
        raise
    return database


def _identify(database: sqlite3.Connection) -> None:
    """Give the log its id; a new one when power was lost, for events may then be gone that were broadcast.

    Without ``synchronous = FULL`` the last commits before a loss of power are not on the disk. Their numbers
    will be given again, to other events; so whoever had seen the old ones must be able to tell.
    """
    old, boot = meta(database, "log"), boot_id()
    if not old:
        put_meta(database, "log", secrets.token_hex(8))
    elif meta(database, "open") and meta(database, "open") != boot:
        ancestors = json.loads(meta(database, "ancestors") or "[]")
        (last,) = database.execute("SELECT max(sequence) FROM events").fetchone()
        ancestors.append([old, 0 if last is None else last + 1])
        put_meta(database, "ancestors", json.dumps(ancestors[-_ANCESTORS:]))
        put_meta(database, "log", secrets.token_hex(8))
        log.warning("the machine went down while the event log was open; the last events before may be lost")
    put_meta(database, "open", boot)


def reserve(path: Path) -> bool:
    """Keep some space of the disk for hard times; whether there is that much.

    With it given back, a log on a full disk can write its journal home and forget its oldest events.
    """
    beside = _reserve_path(path)
    try:
        if beside.exists() and beside.stat().st_size == _RESERVE_BYTES:
            return True
        with beside.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, _RESERVE_BYTES)
    except OSError:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        return False
    return True


def release(path: Path) -> None:
    """Give the reserve back to the disk."""
    with contextlib.suppress(OSError):
        _reserve_path(path).unlink(missing_ok=True)


def spare_pages(path: Path) -> int:
    """Pages by which the file may grow on a disk that is nearly full, once its journal has what it needs."""
    try:
        disk = os.statvfs(path.parent)
        journal = path.with_name(f"{path.name}-wal").stat().st_size
    except OSError:
        return 0
    free = disk.f_bavail * disk.f_frsize - max(0, _JOURNAL_PAGES * _PAGE_BYTES * 5 // 4 - journal)
    return max(0, free // _PAGE_BYTES)


def _reserve_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.reserve")


def meta(database: sqlite3.Connection, key: str) -> str:
    """A fact about the log; empty when it is not known."""
    row = database.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return str(row[0]) if row else ""


def put_meta(database: sqlite3.Connection, key: str, value: str) -> None:
    """Write down a fact about the log."""
    database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))


def boot_id() -> str:
    """Tells this start of the machine from others."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "unknown"


def _refuse_strangers(path: Path) -> None:
    try:
        with path.open("rb") as file:
            head = file.read(100)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unusable(path, error) from error
    ours = head.startswith(_MAGIC) and int.from_bytes(head[68:72], "big") in (0, _APPLICATION)
    if head and not ours:
        raise SinkError(f"{path} is no event log", hint="name another file with event_log.path")


def _unusable(path: Path, error: Exception) -> SinkError:
    return SinkError(
        f"cannot use the event log {path}: {error}",
        hint="free space there, or name a file that you may write with event_log.path",
    )
