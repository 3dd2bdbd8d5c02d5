"""Control sockets: heard by name, lost without harm, and a bell that wakes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from pipeline.errors import TransportError
from pipeline.transport.control import ControlClient, ControlServer, Doorbell, Ringer, Waiter
from pipeline.transport.link import make_context

WAIT_S = 5.0


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    made = make_context()
    yield made
    made.term()  # hangs, and so fails by timeout, when a test leaves a socket open


@pytest.fixture
def endpoint(tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/c"


def hear(client: ControlClient) -> bytes | None:
    waiter = Waiter()
    waiter.add(client.socket)
    assert waiter.wait(WAIT_S)
    return client.receive()


def test_both_ways_by_name(context: zmq.Context[Any], endpoint: str) -> None:
    server = ControlServer(context, endpoint)
    clients = [ControlClient(context, endpoint, name) for name in ("infer-0", "infer-1")]
    for client in clients:
        client.send(b"here")
        heard = server.receive(WAIT_S)
        assert heard is not None
        server.send(heard[0], b"hello " + heard[0].encode())
    assert [hear(client) for client in clients] == [b"hello infer-0", b"hello infer-1"]
    assert clients[0].receive() is None
    assert server.receive(0) is None
    for client in clients:
        client.close()
    server.close()


def test_nobody_there_does_no_harm(context: zmq.Context[Any], endpoint: str) -> None:
    server = ControlServer(context, endpoint)
    server.send("infer-7", b"are you there?")
    assert server.receive(0) is None
    server.close()


def test_a_restarted_worker_takes_its_name_over(context: zmq.Context[Any], endpoint: str) -> None:
    server = ControlServer(context, endpoint)
    old = ControlClient(context, endpoint, "infer-0")
    old.send(b"one")
    assert server.receive(WAIT_S) == ("infer-0", b"one")
    new = ControlClient(context, endpoint, "infer-0")
    new.send(b"two")
    assert server.receive(WAIT_S) == ("infer-0", b"two")
    server.send("infer-0", b"for the new one")
    assert hear(new) == b"for the new one"
    assert old.receive() is None
    for end in (old, new, server):
        end.close()


def test_messages_of_another_shape_are_passed_over(context: zmq.Context[Any], endpoint: str) -> None:
    server = ControlServer(context, endpoint)
    client = ControlClient(context, endpoint, "infer-0")
    client.socket.send_multipart([b"one", b"two"])
    client.send(b"good")
    assert server.receive(WAIT_S) is None
    assert server.receive(WAIT_S) == ("infer-0", b"good")
    client.close()
    server.close()


def test_an_endpoint_that_cannot_be_bound(context: zmq.Context[Any], tmp_path: Path) -> None:
    with pytest.raises(TransportError, match=r"cannot bind ipc://.*nowhere"):
        ControlServer(context, f"ipc://{tmp_path}/nowhere/c")


def test_a_bell_wakes_and_can_be_silenced(context: zmq.Context[Any], endpoint: str) -> None:
    bell = Doorbell(context, endpoint)
    ringer = Ringer(context)
    waiter = Waiter()
    waiter.add(bell.socket)
    assert not waiter.wait(0)
    ringer.ring(endpoint)
    assert waiter.wait(WAIT_S)
    bell.silence()
    assert not waiter.wait(0)
    ringer.ring(endpoint)
    assert waiter.wait(WAIT_S)
    ringer.close()
    bell.close()


def test_rings_that_nobody_hears_never_block(context: zmq.Context[Any], endpoint: str) -> None:
    ringer = Ringer(context)
    for _ in range(300):  # more than the socket holds
        ringer.ring(endpoint)
    ringer.close()


def test_a_waiter_also_watches_file_descriptors() -> None:
    read, write = os.pipe()
    waiter = Waiter()
    waiter.add(read)
    assert not waiter.wait(0)
    os.write(write, b"x")
    assert waiter.wait(WAIT_S)
    os.close(read)
    os.close(write)
