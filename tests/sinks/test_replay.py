"""Requests for the past, and what is none."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.eventlog.log import EventLog
from pipeline.sinks.replay import SCHEMA, Replay
from tests.eventlog.records import draft

ASK = {"schema": SCHEMA, "id": 7, "do": "events"}


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    now = [1000.0]

    def clock() -> float:
        now[0] += 1
        return now[0]

    with EventLog(tmp_path / "events.db", "run", clock=clock) as made:
        for key in range(1, 6):
            made.commit("gate", "event", key, [draft(track_id=key)])
        yield made


@pytest.fixture
def replay(log: EventLog) -> Iterator[Replay]:
    with contextlib.closing(Replay(log.path)) as made:
        yield made


def ask(
    replay: Replay, fields: dict[str, Any], *, plain: bool = False
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    encode = msgspec.json.encode if plain else msgspec.msgpack.encode
    decode: Any = msgspec.json.decode if plain else msgspec.msgpack.decode
    parts = replay.answer(encode(ASK | fields))
    assert parts is not None
    header, *records = (decode(part) for part in parts)
    assert (header["schema"], header["id"], header["count"]) == (SCHEMA, 7, len(records))
    return header, records


@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(
    ("fields", "first", "end", "found"),
    [
        ({"from": 0}, 0, 5, [0, 1, 2, 3, 4]),
        ({"from": 3}, 3, 5, [3, 4]),
        ({"from": 1, "until": 3}, 1, 3, [1, 2]),
        ({"from": 0, "limit": 2}, 0, 2, [0, 1]),
        ({"since": 1003.5}, 3, 5, [3, 4]),
        ({"since": "1970-01-01T00:16:44Z"}, 3, 5, [3, 4]),
        ({}, 5, 5, []),
        ({"from": 0, "types": ["end"]}, 0, 5, []),
        ({"from": 0, "unheard_of": 1}, 0, 5, [0, 1, 2, 3, 4]),
        ({"do": "latest"}, 5, 5, [0, 1, 2, 3, 4]),
        ({"do": "latest", "sources": ["yard"]}, 5, 5, []),
    ],
)
def test_answers(
    log: EventLog, replay: Replay, plain: bool, fields: dict[str, Any], first: int, end: int, found: list[int]
) -> None:
    header, records = ask(replay, fields, plain=plain)
    assert (header["from"], header["to"], header["oldest"], header["next"]) == (first, end, 0, 5)
    assert [record["sequence"] for record in records] == found
    assert header["log"] == log.log_id
    assert "error" not in header


def test_the_log_that_a_number_belongs_to(log: EventLog, replay: Replay) -> None:
    assert "continued" not in ask(replay, {"from": 3, "log": log.log_id})[0]
    header, records = ask(replay, {"from": 3, "log": "another"})
    assert (header["from"], len(records), header.get("continued")) == (0, 5, None)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"do": "everything"}, "Invalid enum value"),
        ({"from": -1}, "Expected `int` >= 0"),
        ({"from": "x"}, "Expected `int | null`"),
        ({"limit": 0}, "Expected `int` >= 1"),
        ({"limit": 1001}, "Expected `int` <= 1000"),
        ({"since": "2026-01-31T09:30:00"}, "timezone"),
        ({"sources": ["x" * 300]}, "length <= 256"),
        ({"schema": "framewire.replay/2"}, "Invalid enum value"),
    ],
)
def test_what_is_wrong_is_said(replay: Replay, fields: dict[str, Any], error: str) -> None:
    header, records = ask(replay, fields)
    assert error in header["error"]
    assert records == []
    assert "log" not in header


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"{}", b"\xc0", b"null", b"[1]", b"\xff" * 64,
     json.dumps({"schema": "x/1", "id": 1}).encode(),
     json.dumps({"schema": SCHEMA, "id": -1}).encode(), json.dumps({"schema": SCHEMA, "id": "1"}).encode(),
     json.dumps({"schema": SCHEMA, "id": 2**80}).encode(), b"[" * 60_000, b"\x91" * 60_000,
     b'{"schema":"\xff"}'],
)  # fmt: skip
def test_what_is_no_request_gets_no_answer(replay: Replay, body: bytes) -> None:
    assert replay.answer(body) is None


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes(replay: Replay, body: bytes) -> None:
    assert replay.answer(body) is None


_PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=9)
    | st.binary(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(
    st.dictionaries(
        st.sampled_from(["do", "from", "since", "until", "limit", "log", "zones", "types"]), _PLAIN
    )
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_fields_get_an_answer(replay: Replay, fields: dict[str, Any]) -> None:
    header, records = ask(replay, fields)
    assert "error" in header or header["count"] == len(records)


def test_a_log_that_cannot_be_read_is_said_and_not_an_empty_answer(log: EventLog, replay: Replay) -> None:
    replay.close()
    header, _ = ask(replay, {"from": 0})
    assert header["error"] == "the event log cannot be read now"
