"""Who is let in: the keyring decides, at each handshake, and those who are revoked can be cut off."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from pipeline.errors import ConfigError, TransportError
from pipeline.transport import curve
from pipeline.transport.curve import Curve, apply
from pipeline.transport.keyring import Bundle, Keyring

LIMIT_MS = 10_000


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curve, "_HANDSHAKE_MS", 300)


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring(tmp_path / "keys")


class Server:
    """A ROUTER that says back what it hears, turned by whoever waits for an answer."""

    def __init__(self, keyring: Keyring) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.curve = Curve(self.context, keyring, poll_s=0.02)
        self.socket = self._bound("tcp://127.0.0.1:*")
        self.address: str = self.socket.getsockopt_string(zmq.LAST_ENDPOINT)
        self.users: list[str] = []

    def turn(self) -> None:
        while self.socket.poll(0):
            frames = self.socket.recv_multipart(copy=False)
            self.users.append(str(frames[-1].get("User-Id")))
            self.socket.send_multipart([frame.bytes for frame in frames])

    def rebind(self) -> None:
        self.socket.close(0)
        for _ in range(LIMIT_MS // 5):
            try:
                self.socket = self._bound(self.address)
                return
            except zmq.ZMQError:
                zmq.Poller().poll(5)
        raise AssertionError("the address does not come free")

    def close(self) -> None:
        self.socket.close(0)
        self.curve.close()
        self.context.term()  # hangs, and so fails by timeout, when a socket was left open

    def _bound(self, address: str) -> zmq.Socket[Any]:
        made: zmq.Socket[Any] = self.context.socket(zmq.ROUTER)
        self.curve.secure(made)
        try:
            made.bind(address)
        except zmq.ZMQError:
            made.close(0)
            raise
        return made


@pytest.fixture
def server(keyring: Keyring) -> Iterator[Server]:
    made = Server(keyring)
    yield made
    made.close()


@pytest.fixture
def clients() -> Iterator[Callable[..., zmq.Socket[Any]]]:
    context: zmq.Context[Any] = zmq.Context()
    made: list[zmq.Socket[Any]] = []

    def connect(address: str, bundle: Bundle | None) -> zmq.Socket[Any]:
        socket: zmq.Socket[Any] = context.socket(zmq.DEALER)
        socket.linger = 0
        socket.reconnect_ivl = 20
        if bundle is not None:
            apply(bundle, socket)
        socket.connect(address)
        made.append(socket)
        return socket

    yield connect
    for socket in made:
        socket.close()
    context.term()


def until(condition: Callable[[], object], server: Server) -> None:
    for _ in range(LIMIT_MS // 5):
        server.turn()
        if condition():
            return
        server.socket.poll(5)
    raise AssertionError("it did not come to pass")


def served(socket: zmq.Socket[Any], server: Server) -> bool:
    """Say something until it comes back: what is on its way when a connection is cut is lost."""
    for _ in range(LIMIT_MS // 100):
        socket.send(b"hello", zmq.DONTWAIT)
        for _ in range(20):
            server.turn()
            if socket.poll(5):
                return bool(socket.recv() == b"hello")
    raise AssertionError("no answer")


def test_a_known_client_is_served_under_its_name(server: Server, keyring: Keyring, clients: Any) -> None:
    assert served(clients(server.address, keyring.new("desk")), server)
    assert set(server.users) == {"desk"}
    assert (server.curve.accepted, server.curve.refused) == (1, 0)
    assert not server.curve.revoked()


@pytest.mark.parametrize("wrong", ["unknown key", "no key", "another server"])
def test_others_are_refused_and_counted_by_the_reason(
    server: Server,
    keyring: Keyring,
    clients: Any,
    tmp_path: Path,
    wrong: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    elsewhere = Keyring(tmp_path / "elsewhere").new("desk")
    bundle, words, address = {
        "unknown key": (
            msgspec.structs.replace(elsewhere, server=keyring.server()[0]),
            "not known, or was revoked", "127.0.0.1",
        ),
        "no key": (None, "key file", ""),  # either end may notice first
        "another server": (elsewhere, "of another server", ""),
    }[wrong]  # fmt: skip
    stranger = clients(server.address, bundle)
    stranger.send(b"let me in")
    until(lambda: server.curve.refused >= (1 if bundle is None else 2), server)
    assert not stranger.poll(0)
    assert [reason for reason in server.curve.refusals if words in reason]
    (line,) = caplog.messages  # once a minute
    assert line.startswith(f"refused a connection{address and f' from {address}'}: ")
    assert words in line
    assert served(clients(server.address, keyring.new("good")), server)
    assert server.curve.accepted == 1
    assert set(server.users) == {"good"}


def test_a_new_key_holds_without_a_restart_of_either_end(
    server: Server, keyring: Keyring, clients: Any, tmp_path: Path
) -> None:
    bundle = keyring.new("desk")
    path = keyring.folder / "clients" / "desk.json"
    aside = path.rename(tmp_path / "aside")  # not copied to this server yet
    client = clients(server.address, bundle)
    until(lambda: server.curve.refused, server)
    aside.rename(path)
    assert served(client, server)


def test_a_revoked_client_is_cut_off_and_the_others_come_back(
    server: Server, keyring: Keyring, clients: Any
) -> None:
    bad, good = clients(server.address, keyring.new("bad")), clients(server.address, keyring.new("good"))
    keyring.new("never-here")
    assert served(bad, server)
    assert served(good, server)
    keyring.revoke("never-here")
    keyring.revoke("bad")
    until(server.curve.revoked, server)
    assert not server.curve.revoked(), "it is said once"
    server.rebind()
    server.users.clear()
    assert served(good, server)
    before = server.curve.refused
    bad.send(b"hello", zmq.DONTWAIT)
    until(lambda: server.curve.refused > before, server)
    assert not bad.poll(0)
    assert set(server.users) == {"good"}
    assert not server.curve.revoked()


def test_a_name_that_was_given_anew_does_not_keep_the_old_key(
    server: Server, keyring: Keyring, clients: Any
) -> None:
    assert served(clients(server.address, keyring.new("desk")), server)
    keyring.revoke("desk")
    keyring.new("desk")
    until(server.curve.revoked, server)


def test_keys_that_nobody_used_cut_nobody_off(server: Server, keyring: Keyring, clients: Any) -> None:
    client = clients(server.address, keyring.new("desk"))
    assert served(client, server)
    looks = 0
    look = keyring.clients

    def counted() -> Any:
        nonlocal looks
        looks += 1
        return look()

    server.curve._keyring.clients = counted  # type: ignore[method-assign]
    keyring.new("spare")
    Keyring(keyring.folder).revoke("spare")
    until(lambda: looks > 3, server)
    assert not server.curve.revoked()


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_a_folder_that_cannot_be_read_refuses_but_cuts_nobody_off(
    server: Server, keyring: Keyring, clients: Any
) -> None:
    client = clients(server.address, keyring.new("desk"))
    assert served(client, server)
    folder = keyring.folder / "clients"
    folder.chmod(0)
    try:
        clients(server.address, None)
        until(lambda: server.curve.refused, server)
        assert served(client, server)
    finally:
        folder.chmod(0o700)


def test_a_folder_that_fails_refuses_but_cuts_nobody_off(
    server: Server, keyring: Keyring, clients: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = keyring.new("desk")
    client = clients(server.address, bundle)
    assert served(client, server)
    looks = 0

    def fail() -> Any:
        nonlocal looks
        looks += 1
        raise ConfigError("cannot read the keys")

    with monkeypatch.context() as patch:
        patch.setattr(keyring, "clients", fail)
        late = clients(server.address, bundle)
        until(lambda: server.curve.refusals["cannot read the keys"] and looks > 3, server)
        assert served(client, server)
        assert not server.curve.revoked()
    assert served(late, server)


def test_when_the_handler_has_ended_nobody_is_let_in(keyring: Keyring, clients: Any) -> None:
    server = Server(keyring)
    bundle = keyring.new("desk")
    server.curve.close()
    client = clients(server.address, bundle)
    client.send(b"hello")
    assert not client.poll(300)
    assert not server.socket.poll(0)
    server.close()


def test_what_is_no_handshake_of_ours_is_refused(server: Server, keyring: Keyring) -> None:
    """Anything in the process may ask the handler: it answers, and goes on."""
    key = bytes(32)
    requests = [
        [b""], [b"1.0", b"1"], [b"2.0", b"1", b"framewire", b"", b"", b"CURVE", key],
        [b"1.0", b"1", b"framewire", b"", b"", b"NULL"],
        [b"1.0", b"1", b"framewire", b"", b"", b"CURVE", b"x"],
        [b"1.0", b"1", b"framewire", b"", b"", b"PLAIN", b"a", b"b"],
    ]  # fmt: skip
    with server.context.socket(zmq.REQ) as asker:
        asker.linger = 0
        asker.connect("inproc://zeromq.zap.01")
        for request in requests:
            asker.send_multipart(request)
            assert asker.poll(LIMIT_MS)
            assert asker.recv_multipart()[2] == b"400"
        for domain, address in ((b"other", b"10.0.0.7"), (b"\xff", b"\xff"), (b"framewire", b"10.0.0.7")):
            asker.send_multipart([b"1.0", b"7", domain, address, b"", b"CURVE", key])
            assert asker.poll(LIMIT_MS)
            assert asker.recv_multipart() == [b"1.0", b"7", b"300", b"", b"", b""]
    assert server.curve.refused == 3
    assert server.curve.accepted == 0


def test_one_handler_for_a_context(server: Server, keyring: Keyring) -> None:
    with pytest.raises(TransportError, match="handler of keys already"):
        Curve(server.context, keyring)


def test_keys_that_others_can_read_start_nothing(keyring: Keyring) -> None:
    keyring.server()
    (keyring.folder / "server.json").chmod(0o644)
    context: zmq.Context[Any] = zmq.Context()
    with pytest.raises(ConfigError, match="other users"):
        Curve(context, keyring)
    context.term()


def test_closing_twice_and_in_a_context_that_ends(keyring: Keyring) -> None:
    context: zmq.Context[Any] = zmq.Context()
    made = Curve(context, keyring)
    made.close()
    made.close()
    again = Curve(context, keyring)
    again.close()
    context.term()
