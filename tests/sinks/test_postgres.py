"""PostgreSQL, the real one: each event once, over kills of the server and batches that come again."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.messages import ModelSpec
from pipeline.sinks import build_connector
from pipeline.sinks.connector import Connector, RefusedError, Session, UnreachableError
from tests.servers.postgres import Postgres
from tests.servers.programs import records

SPEC = ModelSpec("default", "0" * 64, "nanodet", ("car",), 416, 416)
SESSION = Session("run", "cafe", SPEC, lambda: ("gate",), lambda _: {})
PASSWORD = "s3cret-word"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("postgres") / "server", PASSWORD) as made:
        yield made


def connector(server: Postgres, **options: Any) -> Connector:
    given = {"url": server.url, "username": "postgres", "password": PASSWORD, "timeout_s": 5.0} | options
    return build_connector("postgres", **given)


def query(server: Postgres, sql: str) -> list[Any]:
    import psycopg

    with psycopg.connect(server.url, user="postgres", password=PASSWORD, autocommit=True) as connection:
        cursor = connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


def sequences(server: Postgres, table: str) -> list[int]:
    return [row[0] for row in query(server, f"SELECT sequence FROM {table} ORDER BY sequence")]


def test_each_is_there_once_over_a_kill_of_the_server(server: Postgres) -> None:
    made = connector(server, table="kills")
    made.connect(SESSION)
    for first in range(0, 300, 100):
        made.send(records(first, 100))
    assert len(sequences(server, "kills")) == 300
    server.kill()
    with pytest.raises(UnreachableError):
        made.send(records(300, 100))
    with pytest.raises(UnreachableError, match=str(server.port)):
        made.connect(SESSION)
    server.start()
    made.connect(SESSION)
    for first in (200, 300, 400):  # some of it was there already
        made.send(records(first, 100))
    made.close()
    made.close()
    assert sequences(server, "kills") == list(range(500))


def test_columns(server: Postgres) -> None:
    made = connector(server, table="columns")
    made.connect(SESSION)
    full = records(
        7, 1, at="2026-01-31T23:59:59.987Z", object_id="run-gate-3", zone="yard", text="é\\u2028'\""
    )
    made.send([*full, {"schema": "framewire.source/1", "sequence": 8, "id": "run-8", "type": "source",
                       "source": "gate", "at": "2026-01-31T09:30:00.250Z", "state": "running"}])  # fmt: skip
    made.close()
    names = "log_id, sequence, id, type, source, at, label, track_id, object_id, zone, record"
    one, other = query(server, f"SELECT {names} FROM columns ORDER BY sequence")
    assert one[:5] == ("cafe", 7, "run-7", "update", "gate")
    assert one[5] == datetime(2026, 1, 31, 23, 59, 59, 987_000, tzinfo=UTC)
    assert one[6:10] == ("car", 3, "run-gate-3", "yard")
    assert one[10] == full[0]
    assert other[6:10] == (None, None, None, None)


def test_what_cannot_be_a_row_is_refused_and_the_others_are_there(server: Postgres) -> None:
    made = connector(server, table="refused")
    made.connect(SESSION)
    bad = records(2, 1, label="a\0b")
    with pytest.raises(RefusedError) as caught:
        made.send([*records(0, 2), *bad, *records(3, 2)])
    assert caught.value.done == 2
    assert sequences(server, "refused") == [0, 1]
    made.send(records(3, 2))
    made.close()
    assert sequences(server, "refused") == [0, 1, 3, 4]


def test_what_an_operator_can_mend_is_tried_again(server: Postgres, tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="password") as caught:
        connector(server, password="wr0ng").connect(SESSION)
    assert "wr0ng" not in caught.value.message
    made = connector(server, table="lost", create=False)
    made.connect(SESSION)
    with pytest.raises(UnreachableError, match="lost"):
        made.send(records(0, 1))
    made.close()
    with pytest.raises(UnreachableError, match="schema"):
        connector(server, table="nowhere.events").connect(SESSION)
    query(server, 'CREATE SCHEMA "Site"')
    other = connector(server, table="Site.Events", password=None, password_file=str(tmp_path / "password"))
    (tmp_path / "password").write_text(PASSWORD)
    other.connect(SESSION)
    other.send(records(0, 1))
    other.close()
    assert sequences(server, '"Site"."Events"') == [0]


def test_two_logs_do_not_get_in_each_others_way(server: Postgres) -> None:
    made = connector(server, table="logs")
    for log_id in ("cafe", "beef"):
        made.connect(Session("run", log_id, SPEC, lambda: (), lambda _: {}))
        made.send(records(0, 2))
    made.close()
    assert sequences(server, "logs") == [0, 0, 1, 1]
