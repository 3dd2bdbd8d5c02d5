"""Connections on which nothing is asked, or whose answer nobody reads."""

from __future__ import annotations

from typing import Any, cast
from unittest.mock import Mock

import pytest

pytest.importorskip("fastapi")

import uvicorn

from pipeline.web.connections import Connection
from pipeline.web.server import _SILENT_S, _Server

LONGEST_S = 100.0


@pytest.mark.parametrize(
    ("idle", "age", "closed"),
    [
        pytest.param(True, _SILENT_S - 1, False, id="idle"),
        pytest.param(True, _SILENT_S + 1, True, id="idle for long"),
        pytest.param(False, _SILENT_S + 1, False, id="waits for its answer"),
        pytest.param(False, LONGEST_S + 1, True, id="does not read its answer"),
    ],
)
def test_who_is_silent_is_cut_and_who_waits_is_not(idle: bool, age: float, closed: bool) -> None:
    server = _Server(uvicorn.Config(cast(Any, None)), lambda: None, LONGEST_S)
    connection = Mock(Connection, idle=idle, since=1000.0)
    server.server_state.connections.add(connection)
    server._close_silent(1000.0 + age)
    assert connection.abort.called is closed
