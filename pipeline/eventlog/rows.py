"""One commit of the event log, as SQL."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.eventlog.latest import Value

__all__ = ["Row", "insert", "size"]


@dataclass(frozen=True, slots=True)
class Row:
    """One event on its way to the disk.

    Attributes:
        columns: Those of the table ``events``: sequence, time of the commit in microseconds, source, type,
            label, zones, record.
        value: What it is the newest word on.
        ticket: Source, kind and key of what brought it.
    """

    columns: tuple[int, int, str, str, str, str, bytes]
    value: Value | None
    ticket: tuple[str, str, int]


def insert(database: sqlite3.Connection, rows: Sequence[Row]) -> None:
    """Commit events, all or none.

    Raises:
        sqlite3.Error: none are; a transaction may be open.
    """
    execute = database.execute
    execute("BEGIN IMMEDIATE")
    for row in rows:
        execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)", row.columns)
        if row.value is None:
            continue
        if row.value.gone:
            execute("DELETE FROM latest WHERE key = ?", (row.value.key,))
        else:
            sequence, _, *others = row.columns
            execute(
                "INSERT OR REPLACE INTO latest VALUES (?, ?, ?, ?, ?, ?, ?)",
                (row.value.key, sequence, *others),
            )
    for ticket in dict.fromkeys(row.ticket for row in rows):
        execute("INSERT OR REPLACE INTO tickets VALUES (?, ?, ?)", ticket)
    execute("COMMIT")


def size(database: sqlite3.Connection) -> int:
    """Bytes in use; the file itself may be larger by what was forgotten, and is used again."""
    try:
        pages, free, page = (
            database.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("page_count", "freelist_count", "page_size")
        )
    except sqlite3.Error:
        return 0
    return int((pages - free) * page)
