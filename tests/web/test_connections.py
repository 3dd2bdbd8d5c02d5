"""What a connection does before and beside requests: too many of them, and what is no HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any
from unittest.mock import Mock

import pytest

pytest.importorskip("fastapi")

import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from pipeline.web import connections
from pipeline.web.connections import Connection


async def reading(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that takes the whole body before it answers."""
    while (message := await receive())["type"] != "http.disconnect" and message.get("more_body"):
        pass
    await PlainTextResponse("read")(scope, receive, send)


async def hasty(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that answers at once, as one that refuses does."""
    await PlainTextResponse(Request(scope).url.path)(scope, receive, send)


def connection(state: ServerState, app: Any = reading) -> tuple[Connection, Mock]:
    """A connection, and the transport that it writes to; needs a running loop."""
    config = uvicorn.Config(app, http=Connection, log_config=None, lifespan="off", ws="none")
    one = Connection(config, state, {})
    transport = Mock(asyncio.Transport)
    transport.get_extra_info.return_value = None
    transport.is_closing.return_value = False
    one.connection_made(transport)
    return one, transport


def said(data: bytes, app: Any) -> tuple[bytes, Mock]:
    """All that is answered to ``data``."""

    async def say() -> tuple[bytes, Mock]:
        state = ServerState()
        one, transport = connection(state, app)
        one.data_received(data)
        await asyncio.gather(*state.tasks)
        one.connection_lost(None)
        return b"".join(call.args[0] for call in transport.write.call_args_list), transport

    return asyncio.run(say())


CHUNKED = b" /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "app", "body"),
    [
        pytest.param(b"\x16\x03\x01 TLS\r\n\r\n", reading, True, id="no HTTP"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", reading, True, id="no host"),
        pytest.param(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", reading, True,
            id="two lengths",
        ),
        pytest.param(b"POST" + CHUNKED + b"5\r\nabcdefgh\r\n", reading, True, id="longer than it says"),
        pytest.param(b"POST" + CHUNKED + b"zz\r\n", hasty, True, id="no length, app answers, too"),
        pytest.param(b"HEAD" + CHUNKED + b"zz\r\n", hasty, False, id="no length, answer without a body"),
    ],
)  # fmt: skip
def test_what_is_no_http(data: bytes, app: Any, body: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pipeline.web.connections")
    answer, transport = said(data, app)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.count(b"HTTP/1.1 ") == 1
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    assert b"connection: close" in head.lower()
    assert (json.loads(rest)["status"] == 400) if body else not rest
    assert transport.close.called
    assert [one.getMessage() for one in caplog.records if one.name.startswith("pipeline")] == [
        "- no HTTP: 400"
    ]
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


def test_an_answer_that_has_begun_is_not_followed_by_another() -> None:
    body = b"7\r\nno more\r\nzz\r\n"  # the app has answered when the rest of the body comes

    async def say() -> Mock:
        state = ServerState()
        one, transport = connection(state, hasty)
        one.data_received(b"POST" + CHUNKED)
        await asyncio.gather(*state.tasks)
        one.data_received(body)
        one.connection_lost(None)
        return transport

    transport = asyncio.run(say())
    answer = b"".join(call.args[0] for call in transport.write.call_args_list)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.count(b"HTTP/1.1 ") == 1
    assert transport.close.called


@pytest.mark.parametrize(
    ("since", "busy", "closed"),
    [
        pytest.param([2.0, 1.0, 3.0], [], 1, id="the longest idle"),
        pytest.param([2.0, 1.0, 3.0], [1], 0, id="not who waits for an answer"),
        pytest.param([2.0, 1.0, 3.0], [0, 1, 2], 3, id="the new one where all others wait"),
    ],
)
def test_too_many(since: list[float], busy: list[int], closed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_MOST", len(since))

    async def open_them() -> tuple[list[Mock], int]:
        state = ServerState()
        made = []
        for number, when in enumerate(since):
            one, transport = connection(state)
            one.since = when
            one.cycle = Mock(response_complete=number not in busy)
            made.append(transport)
        assert not any(transport.abort.called for transport in made)
        made.append(connection(state)[1])
        return made, len(state.connections)

    made, left = asyncio.run(open_them())
    assert [transport.abort.called for transport in made] == [number == closed for number in range(4)]
    assert left == len(since)


def test_who_is_answered_is_no_longer_the_longest_idle() -> None:
    async def ask() -> tuple[float, float, bool]:
        state = ServerState()
        one, _ = connection(state)
        one.since = before = -1.0
        one.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        waits = not one.idle
        await asyncio.gather(*state.tasks)
        assert one.idle
        one.connection_lost(None)
        return before, one.since, waits

    before, after, waits = asyncio.run(ask())
    assert waits
    assert after > before
