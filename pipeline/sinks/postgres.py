"""Deliver events to a table of PostgreSQL."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
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
_COLUMNS = ("id", "type", "source", "at", "label", "track_id", "object_id", "zone")


class PostgresConnector:
    """Inserts each batch in one transaction; what is there already is left alone, so nothing is there twice.

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
        self._url, self._create = url, create
        self._options: dict[str, Any] = {
            "sslmode": sslmode,
            "connect_timeout": max(2, round(timeout_s)),
            "application_name": "framewire",
            "options": f"-c statement_timeout={int(timeout_s * 1000)}",
            # A server that has gone without a word is noticed by the system, too.
            "tcp_user_timeout": int(timeout_s * 1000),
        }
        if ca_file is not None:
            self._options["sslrootcert"] = ca_file
        if username is not None:
            self._options["user"] = username
        self._password, self._password_file = password, password_file
        names = {
            "table": sql.Identifier(*table.split(".")),
            "index": sql.Identifier(f"{table.rpartition('.')[2]}_source_at"[:63]),
        }
        self._table_sql, self._index_sql, self._insert_sql = (
            sql.SQL(text).format(**{key: name for key, name in names.items() if f"{{{key}}}" in text})
            for text in (_TABLE, _INDEX, _INSERT)
        )
        self._connection: Any = None
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
            if self._create:
                with self._connection.transaction():
                    self._connection.execute(self._table_sql)
                    self._connection.execute(self._index_sql)
            self._connection.commit()
        except self._library.Error as error:
            self.close()
            raise UnreachableError(f"cannot connect to {self._url}: {_first_line(error)}") from error

    def send(self, records: Sequence[dict[str, Any]]) -> None:
        """See `Connector.send`."""
        try:
            self._insert(records)
        except self._library.DataError:
            # One of them cannot be a row; which, only one by one can tell.
            for done, record in enumerate(records):
                try:
                    self._insert([record])
                except self._library.DataError as error:
                    raise RefusedError(f"{self._url}: {_first_line(error)}", done=done) from error
                except self._library.Error as error:
                    raise UnreachableError(f"{self._url}: {_first_line(error)}", done=done) from error
        except self._library.Error as error:
            raise UnreachableError(f"{self._url}: {_first_line(error)}") from error

    def close(self) -> None:
        """See `Connector.close`."""
        if self._connection is not None:
            with contextlib.suppress(self._library.Error, OSError):
                self._connection.close()
            self._connection = None

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


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
