"""Write the event log: number events, commit them, forget the oldest; a full disk never stops the run."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from pipeline.eventlog.database import (
    Sync,
    is_damage,
    lock,
    meta,
    open_for_writing,
    put_meta,
    release,
    reserve,
    spare_pages,
)
from pipeline.eventlog.latest import value_of
from pipeline.eventlog.reader import LogReader, ends, zones_of
from pipeline.eventlog.rows import Row, insert, size

__all__ = ["EventLog", "LogState"]

log = logging.getLogger(__name__)

#: Between two looks at age and size, and between two attempts to write again, seconds.
_LOOK_S = 1.0
#: Events forgotten at once: a few milliseconds, in the way of the frames.
_CHUNK = 500
#: Share of the log that makes room when the disk is full.
_ROOM = 0.1
#: Without trouble for so long, the log is sound again.
_CALM_S = 30.0
#: What SQLite can do.
_MOST_PAGES = 0xFFFFFFFE
#: Events that wait in memory while nothing can be written.
_PENDING = 10_000


@dataclass(frozen=True, slots=True)
class LogState:
    """A change in the state of the log, for an event of its own.

    Attributes:
        state: ``degraded`` or ``recovered``.
        reason: Why, in one word: ``disk_full``, ``io_error``, ``read_only``, ``damaged``.
        message: The same in a sentence.
        dropped: Events that the log has lost by it so far, before their time.
    """

    state: Literal["degraded", "recovered"]
    reason: str
    message: str
    dropped: int


class EventLog:
    """The one writer of a log.

    The file outlives the run; numbers go on from run to run. What `commit` has returned survives the death of
    every process. It belongs to one thread; `pipeline.eventlog.reader.LogReader` reads it from others.

    Args:
        path: The file; folders on the way are made.
        run_id: Id of the run, part of every event's id.
        keep_s: Age at which events are forgotten, seconds; None for no such limit.
        max_bytes: Size above which the oldest are forgotten.
        sync: ``normal`` or ``full``, which survives a loss of power.
        at_least: The first number that is certainly free; what lies between was lost with a full disk.
        clock: Gives UTC seconds.

    Attributes:
        log_id: Id of the log.
        next: Number that the next event will have.
        oldest: The oldest event that is kept.
        first: Number of the first event of this run.
        dropped: Events lost to a full or broken disk before their time.
        left_open: The last event of each object that an earlier run never ended, for it was killed as a
            whole; only where this run has just begun.

    Raises:
        SinkError: it cannot be written, is none, or is written by another run.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        run_id: str,
        *,
        keep_s: float | None = None,
        max_bytes: int = 2**30,
        sync: Sync = "normal",
        at_least: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = Path(path)
        self.run_id = run_id
        self.dropped = 0
        self._keep_s = keep_s
        self._max_bytes = max_bytes
        self._clock = clock
        self._pending: deque[Row] = deque()
        self._states: list[LogState] = []
        self._trouble = ""
        self._trouble_at = 0.0
        self._looked_at = 0.0
        self._lock = lock(self.path)
        try:
            self._database = open_for_writing(self.path, sync)
        except BaseException:
            os.close(self._lock)
            raise
        self.log_id, self.oldest, self.next = ends(self._database)
        row = self._database.execute("SELECT at_us FROM events ORDER BY sequence DESC LIMIT 1").fetchone()
        self._last_us = int(row[0]) if row else 0
        reserve(self.path)
        self.left_open: list[dict[str, Any]] = []
        self._begin_run()
        if at_least > self.next:
            self._hole(self.next, at_least - 1)
            self.next = at_least

    def __enter__(self) -> EventLog:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def commit(
        self, source: str, ticket: str, key: int, drafts: Sequence[dict[str, Any]]
    ) -> tuple[dict[str, Any], ...] | None:
        """Number events and commit them, all or none.

        Args:
            source: Their source.
            ticket: Whether a frame or something else brought them: for each there is one key.
            key: What brought them, such as the frame's number; what comes again after a kill has it again.
            drafts: Event records; ``sequence`` and ``id`` are filled in, here and in what is returned.

        Returns:
            The records; None if they were committed before, and nothing was done.
        """
        if not drafts:
            return ()
        if self._committed(source, ticket, key):
            return None
        self._last_us = max(self._last_us, int(self._clock() * 1e6))
        rows = []
        for sequence, record in enumerate(drafts, self.next):
            record["sequence"], record["id"] = sequence, f"{self.run_id}-{sequence}"
            columns = (
                sequence, self._last_us, record["source"], record["type"], record.get("label", ""),
                zones_of(record), msgspec.msgpack.encode(record),
            )  # fmt: skip
            rows.append(Row(columns, value_of(record), (source, ticket, key)))
        self.next += len(rows)
        if self._pending or not self._written(rows):
            self._keep(rows)
        return tuple(drafts)

    def tick(self) -> list[LogState]:
        """Forget what is too old or too much, write what could not be written; what has changed by it.

        Cheap to call often: there is a look once a second.
        """
        now = time.monotonic()
        if now - self._looked_at >= _LOOK_S:
            self._looked_at = now
            if self._pending:
                self._flush()
            else:
                self._forget()
            if self._trouble and not self._pending and now - self._trouble_at > _CALM_S:
                # Not before there is room to spare: else each event would drop the oldest again.
                if reserve(self.path):
                    self._database.execute(f"PRAGMA max_page_count = {_MOST_PAGES}")
                    self._say("recovered", self._trouble, "the event log is written again")
                    self._trouble = ""
                else:
                    self._trouble_at = now
        states, self._states = self._states, []
        return states

    def reader(self) -> LogReader:
        """A reader of this log."""
        return LogReader(self.path)

    def stats(self) -> dict[str, int]:
        """Numbers for metrics."""
        return {
            "next": self.next,
            "oldest": self.oldest,
            "bytes": size(self._database),
            "dropped": self.dropped,
            "pending": len(self._pending),
            "degraded": int(bool(self._trouble)),
        }

    def close(self) -> None:
        """Write what still waits, if that works now, and let go of the file; harmless when done before."""
        if self._lock < 0:
            return
        self._flush()
        release(self.path)
        with contextlib.suppress(sqlite3.Error):
            put_meta(self._database, "open", "")
        self._database.close()
        os.close(self._lock)
        self._lock = -1

    def _begin_run(self) -> None:
        database = self._database
        if meta(database, "run") == self.run_id:
            self.first = int(meta(database, "first"))
            return
        self.first = self.next
        with contextlib.suppress(sqlite3.Error):  # On a full disk it goes on without.
            database.execute("BEGIN")
            put_meta(database, "run", self.run_id)
            put_meta(database, "first", str(self.first))
            database.execute("DELETE FROM tickets")
            # Nobody follows the objects of a run that is over.
            left = database.execute("SELECT record FROM latest WHERE key LIKE 'object/%' ORDER BY sequence")
            self.left_open = [msgspec.msgpack.decode(record) for (record,) in left]
            database.execute("DELETE FROM latest WHERE key NOT LIKE 'source/%'")
            database.execute("COMMIT")
        self._roll_back()

    def _committed(self, source: str, ticket: str, key: int) -> bool:
        for row in reversed(self._pending):
            if row.ticket[:2] == (source, ticket):
                return row.ticket[2] == key
        try:
            row = self._database.execute(
                "SELECT key FROM tickets WHERE source = ? AND ticket = ?", (source, ticket)
            ).fetchone()
        except sqlite3.Error as error:
            self._worry(error)
            return False
        return row is not None and row[0] == key

    def _written(self, rows: Sequence[Row]) -> bool:
        """Commit; after a failure once more, with what is oldest out of the way."""
        try:
            insert(self._database, rows)
        except sqlite3.Error as error:
            self._roll_back()
            self._worry(error)
            if is_damage(error) or not self._make_room():
                return False
            try:
                insert(self._database, rows)
            except sqlite3.Error:
                self._roll_back()
                return False
        return True

    def _roll_back(self) -> None:
        if self._database.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")

    def _keep(self, rows: Sequence[Row]) -> None:
        """Hold in memory what cannot be written, the newest of it."""
        self._pending.extend(rows)
        while len(self._pending) > _PENDING:
            self._pending.popleft()
            self.dropped += 1

    def _flush(self) -> None:
        if not self._pending:
            return
        rows = list(self._pending)
        _, _, following = ends(self._database) if not self._trouble else ("", 0, self._following())
        if following < rows[0].columns[0]:
            self._hole(following, rows[0].columns[0] - 1)
        if self._written(rows):
            self._pending.clear()
            log.warning("event log: %d events that waited in memory are written", len(rows))

    def _following(self) -> int:
        """The number after the last that is on the disk."""
        try:
            return ends(self._database)[2]
        except sqlite3.Error:
            return self._pending[0].columns[0]

    def _hole(self, first: int, last: int) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._database.execute("INSERT OR REPLACE INTO holes VALUES (?, ?)", (first, last))

    def _forget(self) -> None:
        """Forget a chunk of what is too old or too much; never the last event, which tells the numbers."""
        until = self.oldest
        try:
            if self._keep_s is not None:
                before_us = int((self._clock() - self._keep_s) * 1e6)
                (until,) = self._database.execute(
                    "SELECT coalesce(max(sequence) + 1, ?) FROM (SELECT sequence, at_us FROM events"
                    " ORDER BY sequence LIMIT ?) WHERE at_us < ?",
                    (until, _CHUNK, before_us),
                ).fetchone()
            if size(self._database) > self._max_bytes:
                until = max(until, self.oldest + _CHUNK)
            until = min(until, self.next - 1)
            if until > self.oldest:
                self._delete(until)
                self._looked_at = 0.0  # There may be more: the next tick goes on.
        except sqlite3.Error as error:
            self._roll_back()
            self._worry(error)

    def _delete(self, until: int) -> None:
        self._database.execute("DELETE FROM events WHERE sequence < ?", (until,))
        self._database.execute("DELETE FROM holes WHERE last < ?", (until,))
        self.oldest = until

    def _make_room(self) -> bool:
        """Forget the oldest because the disk is full; whether that worked."""
        kept = self.next - self.oldest
        until = min(self.oldest + max(_CHUNK, int(kept * _ROOM)), self.next - kept // 2 - 1)
        if until <= self.oldest:
            return False
        release(self.path)
        try:
            # What is in the journal goes home, so that its file, as long as it is, is written from its start.
            self._database.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
            gone = until - self.oldest
            self._delete(until)
            self._database.execute("PRAGMA wal_checkpoint(RESTART)").fetchone()
            # It makes do with what there is: a page too many would fit the journal, and then not go home.
            (pages,) = self._database.execute("PRAGMA page_count").fetchone()
            self._database.execute(f"PRAGMA max_page_count = {pages + spare_pages(self.path)}")
        except sqlite3.Error:
            self._roll_back()
            return False
        self.dropped += gone
        return True

    def _worry(self, error: sqlite3.Error) -> None:
        reason = _reason(error)
        if not self._trouble:
            self._say(
                "degraded",
                reason,
                f"cannot write {self.path} ({error}): the oldest events are dropped, detection goes on",
            )
        self._trouble, self._trouble_at = reason, time.monotonic()

    def _say(self, state: Literal["degraded", "recovered"], reason: str, message: str) -> None:
        level = logging.ERROR if state == "degraded" else logging.WARNING
        log.log(level, "event log %s (%s): %s", state, reason, message)
        self._states.append(LogState(state, reason, message, self.dropped))


def _reason(error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if is_damage(error):
        return "damaged"
    named = {
        sqlite3.SQLITE_FULL: "disk_full",
        sqlite3.SQLITE_READONLY: "read_only",
        sqlite3.SQLITE_CANTOPEN: "read_only",
    }
    return named.get(code, "io_error")
