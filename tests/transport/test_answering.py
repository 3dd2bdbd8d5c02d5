"""The socket that answers: to whom it should, and nothing that is sent to it can stop it."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import zmq

from pipeline.errors import SinkError
from pipeline.transport.answering import Answering

LIMIT_MS = 10_000


def answer(body: bytes) -> Sequence[bytes] | None:
    """Says what it was asked, many times if that is asked; nothing to what begins with a question mark."""
    if body.startswith(b"?"):
        return None
    return [b"you said", body] if body != b"much" else [b"x" * 2**20]


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    made: zmq.Context[Any] = zmq.Context()
    yield made
    made.term()


@pytest.fixture
def answering(context: zmq.Context[Any]) -> Iterator[Answering]:
    closed: list[bool] = []
    made = Answering(context, "tcp://127.0.0.1:*", lambda: (answer, lambda: closed.append(True)))
    yield made
    made.close()
    assert closed == [True]


def client(context: zmq.Context[Any], address: str, kind: int = zmq.DEALER) -> zmq.Socket[Any]:
    made: zmq.Socket[Any] = context.socket(kind)
    made.linger = 0
    made.rcvtimeo = LIMIT_MS
    made.connect(address)
    return made


def ask(socket: zmq.Socket[Any], *parts: bytes) -> list[bytes]:
    socket.send_multipart(parts)
    return socket.recv_multipart()


def insist(socket: zmq.Socket[Any], body: bytes) -> None:
    """Ask until there is an answer: what is sent into a connection that is being cut is lost."""
    socket.rcvtimeo = 200
    for _ in range(LIMIT_MS // 200):
        with contextlib.suppress(zmq.Again):
            assert ask(socket, body) == [b"you said", body]
            return
    raise AssertionError("it did not come back")


@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.REQ])
def test_an_answer(context: zmq.Context[Any], answering: Answering, kind: int) -> None:
    with client(context, answering.address, kind) as peer:
        assert ask(peer, b"hello") == [b"you said", b"hello"]
    assert answering.answered == 1


@pytest.mark.parametrize(
    "parts", [[b"?"], [b"a", b"b"], [b"", b"", b"x"], [b"x"] * 100, [b"", b"?"], [b"a", b"", b"b"]]
)
def test_what_is_no_request_is_counted(
    context: zmq.Context[Any], answering: Answering, parts: list[bytes]
) -> None:
    with client(context, answering.address) as peer:
        peer.send_multipart(parts)
        assert ask(peer, b"still there") == [b"you said", b"still there"]
    assert answering.malformed == 1


def test_who_sends_too_much_is_cut_off_and_others_are_served(
    context: zmq.Context[Any], answering: Answering
) -> None:
    with client(context, answering.address) as peer, client(context, answering.address) as other:
        peer.send(b"x" * 100_000)
        assert ask(other, b"hello") == [b"you said", b"hello"]
        # ZeroMQ connects again by itself.
        assert ask(peer, b"sorry") == [b"you said", b"sorry"]
    assert answering.answered == 2


@pytest.mark.parametrize("junk", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 5000, b"\0" * 64, b""])
def test_bytes_that_are_not_zeromq(context: zmq.Context[Any], answering: Answering, junk: bytes) -> None:
    host, _, port = answering.address.removeprefix("tcp://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(junk)
        with client(context, answering.address) as peer:
            assert ask(peer, b"hello") == [b"you said", b"hello"]


def test_one_who_never_reads_costs_a_few_replies_and_holds_nobody_up(
    context: zmq.Context[Any], answering: Answering
) -> None:
    with client(context, answering.address) as greedy, client(context, answering.address) as peer:
        greedy.rcvhwm = 1
        for _ in range(200):
            greedy.send(b"much")
        assert ask(peer, b"hello") == [b"you said", b"hello"]


def test_everybody_is_hung_up_on_and_may_come_again(context: zmq.Context[Any], answering: Answering) -> None:
    with client(context, answering.address) as peer:
        assert ask(peer, b"one")[1] == b"one"
        before = answering.address
        answering.rebind()
        with client(context, before) as other:
            insist(other, b"two")
        insist(peer, b"three")
        assert answering.address == before


def test_an_address_that_is_taken(context: zmq.Context[Any], answering: Answering) -> None:
    nobody: Callable[[], tuple[Any, Any]] = lambda: (answer, lambda: None)  # noqa: E731
    with pytest.raises(SinkError, match="in use"):
        Answering(context, answering.address, nobody)
