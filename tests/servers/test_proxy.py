"""The fault proxy: each fault is what it says."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.servers.proxy import TcpProxy, black_hole_port


@dataclass
class Line:
    """A proxy with both its ends in the test's hands."""

    proxy: TcpProxy
    listener: socket.socket
    client: socket.socket
    server: socket.socket

    def receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count and (more := self.client.recv(count - len(data))):
            data += more
        return data


@pytest.fixture
def line() -> Iterator[Line]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        with TcpProxy(listener.getsockname()[1]) as proxy, connect(proxy) as client:
            server, _ = listener.accept()
            with server:
                server.settimeout(5)
                yield Line(proxy, listener, client, server)


def connect(proxy: TcpProxy, timeout_s: float = 5.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=timeout_s)


def test_it_forwards_both_ways_and_ends_with_either_side(line: Line) -> None:
    data = bytes(range(256)) * 1000
    line.client.sendall(b"hello")
    assert line.server.recv(10) == b"hello"
    line.server.sendall(data)
    assert line.receive(len(data)) == data
    line.server.close()
    assert line.client.recv(1) == b""
    assert (line.proxy.connections, line.proxy.down_bytes) == (1, len(data))


def test_delay_keeps_the_order(line: Line) -> None:
    line.proxy.delay_s = 0.2
    before = time.monotonic()
    line.server.sendall(b"1")
    line.server.sendall(b"2")
    assert line.receive(2) == b"12"
    assert time.monotonic() - before >= 0.2


def test_stalled_nothing_comes_and_nothing_breaks(line: Line) -> None:
    line.proxy.stall()
    line.server.sendall(b"late")
    line.client.settimeout(0.1)
    with pytest.raises(TimeoutError):
        line.client.recv(4)
    line.proxy.stall(False)
    line.client.settimeout(5)
    assert line.receive(4) == b"late"


def test_dropped_both_sides_are_told(line: Line) -> None:
    line.proxy.drop()
    assert line.client.recv(1) == b""
    assert line.server.recv(1) == b""


def test_a_black_hole_accepts_and_never_answers(line: Line) -> None:
    line.proxy.black_hole()
    with connect(line.proxy, 0.1) as client:
        client.sendall(b"anybody?")
        with pytest.raises(TimeoutError):
            client.recv(1)
    line.server.sendall(b"old")
    assert line.receive(3) == b"old"


def test_refused_until_it_listens_again(line: Line) -> None:
    port = line.proxy.port
    line.proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect(line.proxy)
    line.proxy.refuse(False)
    assert line.proxy.port == port
    connect(line.proxy).close()


def test_throttled_it_takes_its_time(line: Line) -> None:
    line.proxy.throttle_bytes_s = 20_000
    before = time.monotonic()
    line.server.sendall(bytes(8_000))
    assert len(line.receive(8_000)) == 8_000
    assert time.monotonic() - before >= 0.3


def test_corrupted_every_nth_byte_is_wrong(line: Line) -> None:
    line.proxy.corrupt_every = 100
    for _ in range(3):  # the count goes on over pieces
        line.server.sendall(bytes(250))
    wrong = [at for at, value in enumerate(line.receive(750)) if value]
    assert wrong == [99, 199, 299, 399, 499, 599, 699]
    line.client.sendall(bytes(500))
    assert not any(line.server.recv(500))


def test_burst_holds_and_then_lets_all_go(line: Line) -> None:
    before = time.monotonic()
    line.proxy.burst(0.3)
    for piece in (b"1", b"2", b"3"):
        line.server.sendall(piece)
    assert line.client.recv(10) == b"123"
    assert time.monotonic() - before >= 0.3


def test_a_server_that_is_not_there(line: Line) -> None:
    line.listener.close()
    with connect(line.proxy) as client:
        assert client.recv(1) == b""


@pytest.mark.parametrize("fault", [TcpProxy.stall, TcpProxy.black_hole, TcpProxy.refuse])
def test_it_stops_in_any_state(fault: Callable[[TcpProxy], None]) -> None:
    with TcpProxy(9) as proxy:
        fault(proxy)
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)


def test_connecting_to_a_black_hole_port_times_out() -> None:
    with black_hole_port() as port, pytest.raises(TimeoutError):
        socket.create_connection(("127.0.0.1", port), timeout=0.3)
