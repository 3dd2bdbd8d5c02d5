"""How far each sink is that events are delivered to, and what it would not take: a file beside the log."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path
from typing import Any

import msgspec

from pipeline.errors import SinkError
from pipeline.eventlog.database import connect

__all__ = ["Cursors", "cursors_path"]

# A file of its own, so that a delivery never makes the one wait who writes the log.
_TABLES = """
CREATE TABLE IF NOT EXISTS cursors (sink TEXT PRIMARY KEY, log TEXT NOT NULL, next INTEGER NOT NULL)
    WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead_letters (
    sink TEXT NOT NULL, log TEXT NOT NULL, sequence INTEGER NOT NULL, at REAL NOT NULL, error TEXT NOT NULL,
    record BLOB NOT NULL, PRIMARY KEY (sink, log, sequence)
);
"""


def cursors_path(log: Path) -> Path:
    """The file that belongs to a log."""
    return log.with_name(f"{log.name}.delivery")


class Cursors:
    """The cursors of one log; each thread opens its own.

    Args:
        log: The log.

    Raises:
        SinkError: the file beside it cannot be written.
    """

    def __init__(self, log: Path) -> None:
        path = cursors_path(log)
        try:
            self._database = connect(path, writable=True)
            self._database.execute("PRAGMA journal_mode = WAL").fetchone()
            self._database.execute("PRAGMA synchronous = NORMAL")
            self._database.executescript(_TABLES)
        except sqlite3.Error as error:
            raise SinkError(
                f"cannot use {path}: {error}", hint="free space there, or name another event_log.path"
            ) from error

    def get(self, sink: str) -> tuple[str, int] | None:
        """Id of the log, and number of the first event that the sink does not have; None for a new sink."""
        row = self._database.execute("SELECT log, next FROM cursors WHERE sink = ?", (sink,)).fetchone()
        return (str(row[0]), int(row[1])) if row else None

    def put(self, sink: str, log_id: str, following: int) -> None:
        """The sink has all events before that number.

        Raises:
            sqlite3.Error: it could not be written down.
        """
        self._database.execute("INSERT OR REPLACE INTO cursors VALUES (?, ?, ?)", (sink, log_id, following))

    def bury(self, sink: str, log_id: str, record: dict[str, Any], error: str) -> None:
        """Set aside an event that the sink will not take.

        Raises:
            sqlite3.Error: it could not be written down.
        """
        self._database.execute(
            "INSERT OR REPLACE INTO dead_letters VALUES (?, ?, ?, ?, ?, ?)",
            (sink, log_id, record["sequence"], time.time(), error, msgspec.msgpack.encode(record)),
        )

    def dead_letters(self, sink: str) -> list[tuple[dict[str, Any], str]]:
        """What a sink would not take, and why."""
        rows = self._database.execute(
            "SELECT record, error FROM dead_letters WHERE sink = ? ORDER BY at, sequence", (sink,)
        )
        return [(msgspec.msgpack.decode(record), error) for record, error in rows]

    def close(self) -> None:
        """Close the file."""
        self._database.close()
