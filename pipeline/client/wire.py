"""The sockets of a subscriber: SUB for what is live, DEALER for what is replayed; see ``docs/stream.md``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import msgspec
import zmq

from pipeline.client.received import MalformedError
from pipeline.errors import ConfigError
from pipeline.schemas import LOG_ROOT

__all__ = ["HEARTBEAT", "Keys", "Wire", "decode", "read_keys", "replay_address"]

HEARTBEAT = f"{LOG_ROOT}heartbeat/"
_HINT = "write the address at which the pipeline publishes, such as tcp://127.0.0.1:5556"
_TCP = re.compile(r"tcp://(?P<host>\[[^\]]+\]|[^:\[\]]+):(?P<port>\d+)")
_ANY_HOST = ("0.0.0.0", "*", "[::]")  # noqa: S104  (what a server may say; nothing is bound here)
_PING_MS = 5_000


class Keys(msgspec.Struct, frozen=True):
    """A key file of a client: Z85 texts of 40 characters."""

    schema: Literal["framewire.keys/1"]
    public: str
    secret: str
    server: str

    def __repr__(self) -> str:
        return f"Keys(public={self.public!r})"


def read_keys(path: Path) -> Keys:
    """Read a key file.

    Raises:
        ConfigError: there is none, or it does not hold the keys of a client. Never says what it holds.
    """
    hint = "name the file that `framewire keys` made for this client"
    try:
        keys = msgspec.json.decode(path.read_bytes(), type=Keys)
    except OSError as error:
        raise ConfigError(f"cannot read the keys {path}: {error.strerror}", hint=hint) from error
    except msgspec.DecodeError:
        raise ConfigError(f"{path} does not hold the keys of a client", hint=hint) from None
    if any(len(key) != 40 or not key.isascii() for key in (keys.public, keys.secret, keys.server)):
        raise ConfigError(f"{path} holds a key that is not 40 characters long", hint=hint)
    return keys


def replay_address(said: str, address: str) -> str:
    """Where to ask for what was missed.

    Args:
        said: What the heartbeat says; its host may stand for all hosts of the publisher.
        address: Where we are connected to the publisher.

    Raises:
        MalformedError: there is nothing to connect to.
    """
    if said.startswith("ipc://") and len(said) > len("ipc://"):
        return said
    found = _TCP.fullmatch(said)
    if found is None or not 0 < int(found["port"]) < 65536:
        raise MalformedError(f"cannot replay from {said!r}")
    if found["host"] in _ANY_HOST:
        ours = _TCP.fullmatch(address)
        return f"tcp://{ours['host'] if ours else '127.0.0.1'}:{found['port']}"
    return said


def decode(payload: bytes) -> Any:
    """Content of a payload, JSON exactly if it begins with ``{``.

    Raises:
        MalformedError: it is neither JSON nor msgpack.
    """
    try:
        return msgspec.json.decode(payload) if payload[:1] == b"{" else msgspec.msgpack.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedError(str(error)) from error


class Wire:
    """The two sockets; nothing here ever waits but `wait`.

    Args:
        address: Where the pipeline publishes.
        prefixes: Topics to subscribe to.
        queue_limit: Messages that may wait here until they are read.
        keys: Keys for CURVE; None for a connection that is not encrypted.

    Raises:
        ConfigError: the address is not one to connect to, or the keys are none.
    """

    def __init__(self, address: str, prefixes: Iterable[str], queue_limit: int, keys: Keys | None) -> None:
        port = re.fullmatch(r"tcp://.+:(\d+)", address)
        if port is not None and not 0 < int(port[1]) < 65536:  # ZeroMQ would wait there for ever
            raise ConfigError(f"cannot connect to {address!r}: there is no such port", hint=_HINT)
        self._keys = keys
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._replay: zmq.Socket[bytes] | None = None
        self._replay_at = ""
        self._live = self._context.socket(zmq.SUB)
        try:
            self._live.setsockopt(zmq.RCVHWM, queue_limit)
            for prefix in prefixes:
                self._live.setsockopt(zmq.SUBSCRIBE, prefix.encode())
            self._connect(self._live, address)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(f"cannot connect to {address!r}: {error.strerror}", hint=_HINT) from error
        except ConfigError:
            self.close()
            raise

    def ask_at(self, address: str) -> bool:
        """Send what is asked from now on to this address; whether it is another one than before.

        Raises:
            MalformedError: ZeroMQ cannot connect to it.
        """
        if address == self._replay_at:
            return False
        socket = self._context.socket(zmq.DEALER)
        try:
            # A question that waits for a connection reaches the server as soon as there is one.
            socket.setsockopt(zmq.SNDHWM, 1)
            self._connect(socket, address)
        except zmq.ZMQError as error:
            socket.close(0)
            raise MalformedError(f"cannot replay from {address!r}: {error.strerror}") from error
        if self._replay is not None:
            self._replay.close(0)
        self._replay, self._replay_at = socket, address
        return True

    def send(self, request: dict[str, Any]) -> None:
        """Ask; a question that the server cannot take now is dropped, for it will be asked again."""
        if self._replay is not None:
            try:
                self._replay.send(msgspec.msgpack.encode(request), zmq.DONTWAIT)
            except zmq.Again:
                return

    def answer(self) -> list[bytes] | None:
        """The next answer that has come."""
        return None if self._replay is None else _received(self._replay)

    def message(self) -> list[bytes] | None:
        """The next live message that has come."""
        return _received(self._live)

    def wait(self, timeout_s: float | None) -> None:
        """Wait until something comes, for ``timeout_s`` at most."""
        poller = zmq.Poller()
        for socket in self._sockets():
            poller.register(socket, zmq.POLLIN)
        poller.poll(None if timeout_s is None else max(0, int(timeout_s * 1000) + 1))

    def descriptors(self) -> list[int]:
        """Descriptors that are readable when something may have come.

        Trust them only after `answer` and `message` have both said None: ZeroMQ raises them at the edge.
        """
        return [int(socket.getsockopt(zmq.FD)) for socket in self._sockets()]

    def close(self) -> None:
        """Disconnect; harmless when closed already."""
        for socket in self._sockets():
            socket.close(0)
        self._context.term()

    def _sockets(self) -> list[zmq.Socket[bytes]]:
        return [self._live] if self._replay is None else [self._live, self._replay]

    def _connect(self, socket: zmq.Socket[bytes], address: str) -> None:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.IPV6, int("[" in address))
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
        # Without a question now and then, a publisher whose host died would look silent for ever.
        socket.setsockopt(zmq.HEARTBEAT_IVL, _PING_MS)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, 2 * _PING_MS)
        if self._keys is not None:
            try:
                socket.setsockopt(zmq.CURVE_SERVERKEY, self._keys.server.encode())
                socket.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public.encode())
                socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret.encode())
            except zmq.ZMQError as error:
                raise ConfigError("the key file holds what is no key") from error
        socket.connect(address)


def _received(socket: zmq.Socket[bytes]) -> list[bytes] | None:
    try:
        return socket.recv_multipart(zmq.DONTWAIT)
    except zmq.Again:
        return None
