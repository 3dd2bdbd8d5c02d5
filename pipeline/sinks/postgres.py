"""Deliver events to a table of PostgreSQL."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from pipeline.sinks.client import library, secret_of
from pipeline.sinks.connector import RefusedError, Session, UnreachableError

__all__ = ["PostgresConnector"]

_TABLE = """
CREATE TABLE IF NOT EXISTS {table} (
    log_id text NOT NULL, sequence bigint NOT NULL, id text NOT NULL, type text NOT NULL,
    source text NOT NULL, at timestamptz NOT NULL, label text, track_id bigint, object_id text, zone text,
    record jsonb NOT NULL, PRIMARY KEY (log_id, sequence)
)
"""
_INDEX = "CREATE INDEX IF NOT EXISTS {index} ON {table} (source, at)"
_INSERT = """
INSERT INTO {table} (log_id, sequence, id, type, source, at, label, track_id, object_id, zone, record)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING
"""
#: Classes of SQLSTATE that speak of the row: data, constraints, limits.
_OF_THE_ROW = ("22", "23", "54")
#: The server breaks a statement off by itself; one that is frozen cannot, and is given so much longer.
_GRACE_S = 1.0
_COLUMNS = ("id", "type", "source", "at", "label", "track_id", "object_id", "zone")


class PostgresConnector:
    """Inserts each batch in one transaction; what is there already is left alone, so nothing is there twice.

    A table that exists is taken as it is: only the right to insert is needed. Rows that its owner's
    constraints forbid are refused, like those that cannot be stored.

    Args:
        url: ``postgresql://HOST:PORT/NAME``.
        table: ``TABLE`` or ``SCHEMA.TABLE``.
        create: Make it if there is none.
        sslmode: As libpq has it.
        ca_file: Certificates to trust.
        username: User name; None for libpq's own choice.
        password: Its password; None for libpq's own ways to find one.
        password_file: A file with the password.
        timeout_s: How long an answer may take.

    Raises:
        ConfigError: the library is not installed.
    """

    def __init__(
        self,
        url: str,
        table: str = "framewire_events",
        create: bool = True,
        sslmode: str = "prefer",
        ca_file: str | None = None,
        username: str | None = None,
        password: str | None = None,
        password_file: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self._library = library("psycopg", "postgres")
        sql = library("psycopg.sql", "postgres")
        self._url, self._create, self._timeout_s = url, create, timeout_s
        # What follows the `?` may hold more than an error should say.
        self._where = url.partition("?")[0]
        self._options: dict[str, Any] = {
            "sslmode": sslmode,
            "connect_timeout": max(2, round(timeout_s)),
            "application_name": "framewire",
            # Whatever the database is in: the server then says which text does not fit, and not a codec.
            "client_encoding": "UTF8",
            "options": f"-c statement_timeout={max(1, int(timeout_s * 1000))}",
            # A server that has gone without a word is noticed by the system, too.
            "tcp_user_timeout": max(1, int(timeout_s * 1000)),
        }
        if ca_file is not None:
            self._options["sslrootcert"] = ca_file
        if username is not None:
            self._options["user"] = username
        self._password, self._password_file = password, password_file
        names = {
            "table": sql.Identifier(*table.split(".")),
            # 63 bytes are all that a name may have.
            "index": sql.Identifier(f"{table.rpartition('.')[2][:53]}_source_at"),
        }
        self._name: str = names["table"].as_string()
        self._table_sql, self._index_sql, self._insert_sql = (
            sql.SQL(text).format(**{key: name for key, name in names.items() if f"{{{key}}}" in text})
            for text in (_TABLE, _INDEX, _INSERT)
        )
        self._connection: Any = None
        self._socket: socket.socket | None = None
        self._late = False
        self._log_id = ""

    def connect(self, session: Session) -> None:
        """See `Connector.connect`."""
        self.close()
        self._log_id = session.log_id
        options = dict(self._options)
        password = secret_of(self._password, self._password_file)
        if password is not None:
            options["password"] = password
        try:
            self._connection = self._library.connect(self._url, **options)
            # A second handle of the same socket, to hang up while libpq waits at the first.
            self._socket = socket.socket(fileno=os.dup(self._connection.fileno()))
            with self._hanging_up(), self._connection.transaction():
                if self._create and not self._exists():
                    self._connection.execute(self._table_sql)
                    self._connection.execute(self._index_sql)
        except self._library.Error as error:
            self.close()
            raise UnreachableError(f"cannot connect to {self._where}: {self._why(error)}") from error

    def send(self, records: Sequence[dict[str, Any]]) -> None:
        """See `Connector.send`."""
        done = 0
        try:
            with self._hanging_up():
                try:
                    self._insert(records)
                except self._library.Error as error:
                    if not _is_of_the_row(error):
                        raise
                    # One of them cannot be a row; which, only one by one can tell.
                    for record in records:
                        self._insert([record])
                        done += 1
        except self._library.Error as error:
            kind = RefusedError if _is_of_the_row(error) else UnreachableError
            raise kind(f"{self._where}: {self._why(error)}", done=done) from error

    def close(self) -> None:
        """See `Connector.close`."""
        if self._connection is not None:
            with contextlib.suppress(self._library.Error, OSError):
                self._connection.close()
            self._connection = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @contextlib.contextmanager
    def _hanging_up(self) -> Iterator[None]:
        """Hang up when what is within takes too long: libpq has no limit of its own for a frozen server."""
        assert self._socket is not None
        self._late = False
        timer = threading.Timer(self._timeout_s + _GRACE_S, self._hang_up, [self._socket])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    def _hang_up(self, connection: socket.socket) -> None:
        self._late = True
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    def _why(self, error: Any) -> str:
        return "no answer in time" if self._late else _said(error)

    def _exists(self) -> bool:
        """``CREATE ... IF NOT EXISTS`` asks for the right to create before it looks."""
        found = self._connection.execute("SELECT to_regclass(%s) IS NOT NULL", [self._name]).fetchone()
        return bool(found[0])

    def _insert(self, records: Sequence[dict[str, Any]]) -> None:
        rows = [
            (
                self._log_id,
                record["sequence"],
                *(record.get(column) for column in _COLUMNS),
                msgspec.json.encode(record).decode(),
            )
            for record in records
        ]
        with self._connection.transaction(), self._connection.cursor() as cursor:
            cursor.executemany(self._insert_sql, rows)


def _is_of_the_row(error: Any) -> bool:
    """Without a state it comes from the library itself, which has names for the same classes."""
    state = error.sqlstate or ("22" if type(error).__name__ == "DataError" else "")
    return state.startswith(_OF_THE_ROW)


def _said(error: Any) -> str:
    """The message alone: what else the server says quotes the row."""
    return error.diag.message_primary or " ".join(str(error).split())[:300] or type(error).__name__
