"""PostgreSQL, the real one: each event once, over kills of the server and batches that come again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import from_mapping
from pipeline.errors import ConfigError
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


@pytest.mark.parametrize(
    ("table", "wrong", "said"),
    [
        ("constraint", {"label": "cat"}, "check"),
        ("needed", {"label": None}, "not-null"),
        ("wide", {"source": "".join(chr(0x4E00 + n * 7 % 20000) for n in range(4000))}, "index row"),
        ("number", {"track_id": 2**70}, "bigint"),
        ("day", {"at": "2026-02-30T09:30:00Z"}, "date/time"),
        ("deep", {"text": "a\0b"}, "Unicode"),
    ],
)
def test_a_row_that_the_table_forbids_does_not_block_the_others(
    server: Postgres, table: str, wrong: dict[str, Any], said: str
) -> None:
    made = connector(server, table=table)
    made.connect(SESSION)
    query(server, f'ALTER TABLE "{table}" ADD CHECK (label <> $$cat$$)')
    query(server, f'ALTER TABLE "{table}" ALTER label SET NOT NULL')
    with pytest.raises(RefusedError, match=said) as caught:
        made.send([*records(0, 3), *records(3, 1, **wrong), *records(4, 2)])
    assert caught.value.done == 3
    made.send(records(4, 2))
    made.close()
    assert sequences(server, f'"{table}"') == [0, 1, 2, 4, 5]


def test_text_that_the_database_has_no_letters_for(server: Postgres) -> None:
    query(server, "CREATE DATABASE old ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    made = connector(server, url=server.url.replace("/postgres", "/old"))
    made.connect(SESSION)
    made.send(records(0, 1, label="caf\u00e9"))
    with pytest.raises(RefusedError, match="LATIN1") as caught:
        made.send([*records(1, 1), *records(2, 1, label="\u8eca")])
    made.close()
    assert caught.value.done == 1


def test_the_right_to_insert_is_enough(server: Postgres) -> None:
    made = connector(server, table="given")
    made.connect(SESSION)
    made.close()
    query(server, f"CREATE ROLE writer LOGIN PASSWORD '{PASSWORD}'")
    query(server, "GRANT INSERT ON given TO writer")
    writer = connector(server, table="given", username="writer")
    writer.connect(SESSION)
    writer.send(records(0, 2))
    writer.send(records(0, 3))
    writer.close()
    assert sequences(server, "given") == [0, 1, 2]
    with pytest.raises(UnreachableError, match="permission denied"):
        connector(server, table="elsewhere", username="writer").connect(SESSION)


def test_a_server_that_is_frozen_costs_the_timeout_and_no_more(server: Postgres) -> None:
    made = connector(server, table="frozen", timeout_s=0.3)
    made.connect(SESSION)
    made.send(records(0, 1))
    ((pid,),) = query(server, "SELECT pid FROM pg_stat_activity WHERE application_name = 'framewire'")
    os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with pytest.raises(UnreachableError, match="in time"):
            made.send(records(1, 2))
        made.close()
        assert time.monotonic() - began < 10
    finally:
        os.kill(pid, signal.SIGCONT)
    made.connect(SESSION)
    made.send(records(1, 2))
    made.close()
    assert sequences(server, "frozen") == [0, 1, 2]


def test_a_table_that_is_locked_is_tried_again(server: Postgres) -> None:
    import psycopg

    made = connector(server, table="locked", timeout_s=0.3)
    made.connect(SESSION)
    with psycopg.connect(server.url, user="postgres", password=PASSWORD) as other:
        other.execute("LOCK TABLE locked")
        with pytest.raises(UnreachableError, match="timeout"):
            made.send(records(0, 2))
    made.connect(SESSION)
    made.send(records(0, 2))
    made.close()
    assert sequences(server, "locked") == [0, 1]


def test_a_database_that_may_only_be_read_is_tried_again(server: Postgres) -> None:
    query(server, "CREATE DATABASE museum")
    query(server, "ALTER DATABASE museum SET default_transaction_read_only = on")
    with pytest.raises(UnreachableError, match="read-only"):
        connector(server, url=server.url.replace("/postgres", "/museum")).connect(SESSION)


def test_times_do_not_depend_on_who_writes_or_reads(
    server: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = ["2026-03-29T01:30:00.123456Z", "2026-10-25T01:30:00.000001Z", "2026-01-31T23:59:59.999Z"]
    monkeypatch.setenv("PGTZ", "America/New_York")
    monkeypatch.setenv("PGDATESTYLE", "SQL, DMY")
    made = connector(server, table="times")
    made.connect(SESSION)
    made.send([record for n, at in enumerate(times) for record in records(n, 1, at=at)])
    made.close()
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    monkeypatch.delenv("PGDATESTYLE")
    found = query(server, "SELECT at FROM times ORDER BY sequence")
    assert [row[0] for row in found] == [datetime.fromisoformat(at) for at in times]


def test_the_longest_name_of_a_table_has_its_index(server: Postgres) -> None:
    table = "t" * 63
    made = connector(server, table=table)
    made.connect(SESSION)
    made.close()
    found = query(server, f"SELECT indexdef FROM pg_indexes WHERE tablename = '{table}'")
    assert any("(source, at)" in row[0] for row in found)


def test_an_error_has_nothing_of_what_follows_the_name_of_the_database(server: Postgres) -> None:
    with pytest.raises(UnreachableError) as caught:
        connector(server, url=f"{server.url}?passfile=/{PASSWORD}", password="wr0ng").connect(SESSION)
    assert PASSWORD not in caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{PASSWORD}@db.example/cameras",
        f"postgresql://db.example/cameras?user=me&password={PASSWORD}",
        f"postgresql://db.example/cameras?sslpassword={PASSWORD}",
    ],
)
def test_no_password_in_a_url(url: str) -> None:
    with pytest.raises(ConfigError, match="must have no") as caught:
        from_mapping({"publish": [{"postgres": url}]}, "test")
    assert PASSWORD not in f"{caught.value} {caught.value.hint}"
