"""Connections on which nothing is asked."""

from __future__ import annotations

from typing import Any, cast
from unittest.mock import Mock

import pytest

pytest.importorskip("fastapi")

import uvicorn

from pipeline.web.server import _SILENT_S, _Server


def connection(*, done: bool | None) -> Any:
    """A connection without a request so far (None), with one that is answered, or with one under way."""
    cycle = None if done is None else Mock(response_complete=done)
    # By identity, as uvicorn's are.
    return Mock(cycle=cycle)


def test_who_is_silent_is_cut_and_who_waits_is_not() -> None:
    server = _Server(uvicorn.Config(cast(Any, None)), lambda: None)
    silent, answered, waiting = connection(done=None), connection(done=True), connection(done=False)
    busy = connection(done=True)
    server.server_state.connections.update([silent, answered, waiting, busy])
    for now in (0.0, _SILENT_S - 1, _SILENT_S + 1):
        busy.cycle = Mock(response_complete=True)  # another request since the last look
        server._close_silent(now)
    assert silent.transport.close.called
    assert answered.transport.close.called
    assert not waiting.transport.close.called
    assert not busy.transport.close.called


def test_who_has_left_is_forgotten() -> None:
    server = _Server(uvicorn.Config(cast(Any, None)), lambda: None)
    gone = connection(done=None)
    server.server_state.connections.add(gone)
    server._close_silent(0.0)
    server.server_state.connections.clear()
    server._close_silent(1.0)
    assert server._silent == {}
