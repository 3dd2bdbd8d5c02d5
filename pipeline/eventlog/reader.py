"""Read the event log, from another thread or process than the one that writes it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.eventlog.database import connect, meta

__all__ = ["SEPARATOR", "LogReader", "Match", "Page", "ends", "zones_of"]

#: Between and around the zones of an event in its column.
SEPARATOR = "\x1f"
#: Events looked at for one page at most, so that a filter which finds nothing cannot keep a reader for long.
_SCANNED = 20_000


@dataclass(frozen=True, slots=True)
class Match:
    """Which events are wanted; what is empty lets all through.

    Attributes:
        sources: Names of sources.
        types: Types of events.
        labels: Labels of objects.
        zones: Zones that the event is about, or that its object is in.
    """

    sources: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    zones: tuple[str, ...] = ()

    def where(self) -> tuple[str, list[str]]:
        """The same as the end of a WHERE clause, and its parameters."""
        clause = ""
        given: list[str] = []
        for column, words in (("source", self.sources), ("type", self.types), ("label", self.labels)):
            if words:
                clause += f" AND {column} IN ({', '.join('?' * len(words))})"
                given += words
        if self.zones:
            clause += f" AND ({' OR '.join(['instr(zones, ?) > 0'] * len(self.zones))})"
            given += [f"{SEPARATOR}{zone}{SEPARATOR}" for zone in self.zones]
        return clause, given


@dataclass(frozen=True, slots=True)
class Page:
    """A stretch of the log.

    Attributes:
        log_id: Id of the log.
        oldest: The oldest event that is kept.
        next: Number that the next event will have.
        first: Where the stretch begins: later than asked for when what was asked for is no longer kept.
        end: The number after the stretch.
        records: The matching events of it: msgpack, as they were broadcast, by number.
    """

    log_id: str
    oldest: int
    next: int
    first: int
    end: int
    records: Sequence[tuple[int, bytes]] = ()


class LogReader:
    """A reader of its own; close it in the thread that uses it.

    Args:
        path: The log, which exists.

    Raises:
        sqlite3.Error: it cannot be read; every method raises it, too.
    """

    def __init__(self, path: Path) -> None:
        self._database = connect(path)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def page(
        self, first: int | None, *, end: int | None = None, limit: int = 500, max_bytes: int = 2**20,
        match: Match = Match(),
    ) -> Page:  # fmt: skip
        """Matching events from a number on.

        Args:
            first: Number of the first event that is wanted; None for the one that comes next.
            end: Number after the last; None for all there are.
            limit: Most events.
            max_bytes: Most bytes in all; one event comes in any case.
            match: Which events.
        """
        with _Snapshot(self._database):
            log_id, oldest, following = self._ends()
            first = following if first is None else max(first, oldest)
            end = min(following, following if end is None else end)
            hole = None
            for hole in self._database.execute(
                "SELECT first, last FROM holes WHERE last >= ? ORDER BY first", (first,)
            ):
                if hole[0] > first:
                    end = min(end, hole[0])
                    break
                first = hole[1] + 1
            end = max(first, min(end, first + _SCANNED))
            clause, given = match.where()
            rows = self._database.execute(
                f"SELECT sequence, record FROM events WHERE sequence >= ? AND sequence < ?{clause}"  # noqa: S608
                " ORDER BY sequence LIMIT ?",
                (first, end, *given, limit),
            )
            records: list[tuple[int, bytes]] = []
            size = 0
            for sequence, record in rows:
                if records and size + len(record) > max_bytes:
                    return Page(log_id, oldest, following, first, sequence, records)
                records.append((sequence, record))
                size += len(record)
            if len(records) == limit:
                end = records[-1][0] + 1
            return Page(log_id, oldest, following, first, end, records)

    def since(self, at: float) -> int:
        """Number of the first event that was committed at that UTC time or later, in seconds."""
        at_us = int(at * 1e6)
        with _Snapshot(self._database):
            _, low, high = self._ends()
            while low < high:  # Times rise with numbers, so no index is needed.
                middle = (low + high) // 2
                row = self._database.execute(
                    "SELECT sequence, at_us FROM events WHERE sequence >= ? ORDER BY sequence LIMIT 1",
                    (middle,),
                ).fetchone()
                if row is not None and row[1] < at_us:
                    low = row[0] + 1
                else:
                    high = middle
        return low

    def latest(self, match: Match = Match()) -> Page:
        """The last value of everything: the state of sources, the objects that are there, counts of zones."""
        with _Snapshot(self._database):
            log_id, oldest, following = self._ends()
            clause, given = match.where()
            rows = self._database.execute(
                f"SELECT sequence, record FROM latest WHERE 1{clause} ORDER BY sequence",  # noqa: S608
                given,
            ).fetchall()
        return Page(log_id, oldest, following, following, following, rows)

    def resolve(self, log_id: str, first: int) -> tuple[int, bool]:
        """Where to go on for somebody who had reached ``first`` in another log.

        Returns:
            The number in this log, and whether this is another log which continues that one, so that nothing
            is lost or seen twice. A log that is not known is begun from its oldest event.
        """
        with _Snapshot(self._database):
            present, oldest, _ = self._ends()
            if log_id == present:
                return first, False
            ancestors: list[list[Any]] = json.loads(meta(self._database, "ancestors") or "[]")
        at = next((at for at, (old, _) in enumerate(ancestors) if old == log_id), None)
        if at is None:
            return oldest, False
        # What it saw of the end of a log that was lost is not what has those numbers now.
        return min([first, *(end for _, end in ancestors[at:])]), True

    def _ends(self) -> tuple[str, int, int]:
        return ends(self._database)


def ends(database: sqlite3.Connection) -> tuple[str, int, int]:
    """Id of the log, the oldest event that it keeps, and the number that the next one will have."""
    # One at a time: SQLite answers min() and max() from the tree's ends only if asked for one of them.
    oldest, newest = database.execute(
        "SELECT (SELECT min(sequence) FROM events), (SELECT max(sequence) FROM events)"
    ).fetchone()
    (hole,) = database.execute("SELECT max(last) FROM holes").fetchone()
    following = max(-1 if newest is None else newest, -1 if hole is None else hole) + 1
    return meta(database, "log"), following if oldest is None else oldest, following


class _Snapshot:
    """All that is read within comes from one moment of the log."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def __enter__(self) -> None:
        self._database.execute("BEGIN")

    def __exit__(self, *exc: object) -> None:
        self._database.execute("ROLLBACK")


def zones_of(record: dict[str, Any]) -> str:
    """The column of the zones of an event."""
    zones: Iterable[str] = {*record.get("zones", ()), *([record["zone"]] if "zone" in record else [])}
    return "".join(f"{SEPARATOR}{zone}" for zone in sorted(zones)) + SEPARATOR if zones else ""
