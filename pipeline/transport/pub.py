"""A ZeroMQ PUB socket for the public: topic and payload, to any number of subscribers."""

from __future__ import annotations

import errno
import ipaddress
import re
import time
from collections.abc import Callable
from typing import Any

import zmq

from pipeline.errors import ConfigError, SinkError

__all__ = ["Publisher", "bind_public", "is_local", "next_address"]

_TCP = re.compile(r"tcp://(?P<host>\[[^\]]+\]|[^:\[\]]+):(?P<port>\d+|\*)")
#: A socket that is closed frees its address a moment later, in ZeroMQ's own thread.
_REBIND_S = 2.0
#: ZeroMQ hangs up on whoever sends more: a topic to subscribe to is never so long.
_SUBSCRIPTION_MAX = 4096


def is_local(address: str) -> bool:
    """Tell whether only processes of this host can reach an address to bind.

    Raises:
        ConfigError: it is not ``tcp://HOST:PORT``, ``ipc://PATH`` or ``inproc://NAME``.
    """
    if re.fullmatch(r"(ipc|inproc)://.+", address):
        return True
    match = _TCP.fullmatch(address)
    if match is None or (match["port"] != "*" and int(match["port"]) > 65535):
        raise ConfigError(
            f"{address!r} is not an address to publish at",
            hint="write tcp://127.0.0.1:5556, or ipc:// and a path",
        )
    host = match["host"].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name or an interface; of those only these two are certain
        return host in ("localhost", "lo")


def next_address(address: str) -> str:
    """Where the replay of a stream is when nothing else is said: the port after it, or beside its path."""
    match = _TCP.fullmatch(address)
    if match is None:
        return f"{address}-replay"
    port = match["port"]
    return f"tcp://{match['host']}:{port if port == '*' else int(port) + 1}"


def bind_public(socket: zmq.Socket[Any], address: str, *, again: bool = False) -> None:
    """Bind.

    Args:
        socket: The socket.
        address: Where.
        again: The address was ours just now, and may take a moment to come free.

    Raises:
        SinkError: it cannot be bound; the socket is closed.
    """
    socket.setsockopt(zmq.IPV6, int("[" in address))
    deadline = time.monotonic() + (_REBIND_S if again else 0.0)
    while True:
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            if error.errno == errno.EADDRINUSE and time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            socket.close(0)
            raise _bind_error(address, error) from error
        return


class Publisher:
    """One bound PUB socket; close it, or use it as a context manager.

    A PUB socket never waits: a subscriber that is slower than what it asked for loses messages once
    ``queue_limit`` of them wait for it, and finds out by the numbers in the records.

    Args:
        address: ``tcp://HOST:PORT``, ``ipc://PATH`` or ``inproc://NAME``.
        insecure: Allow an address that other hosts can reach, in plain text and open to all.
        queue_limit: Messages that may wait for one subscriber.
        linger_s: How long ``close`` waits for the tail to be sent.
        context: Shared with whoever owns it; None for one of its own.
        secure: Makes a socket a secure one before it is bound.

    Raises:
        ConfigError: the address is malformed, or reaches beyond this host without ``insecure``.
        SinkError: it cannot be bound.
    """

    def __init__(
        self,
        address: str,
        *,
        insecure: bool = False,
        queue_limit: int = 1000,
        linger_s: float = 2.0,
        context: zmq.Context[Any] | None = None,
        secure: Callable[[zmq.Socket[Any]], None] | None = None,
    ) -> None:
        if not is_local(address) and not insecure and secure is None:
            raise ConfigError(
                f"{address} can be reached from other hosts, and what is published there is not encrypted",
                hint="publish at tcp://127.0.0.1:PORT, give keys, or set insecure: true on a trusted network",
            )
        if queue_limit < 1:  # 0 means "without bound" to ZeroMQ
            raise ConfigError(f"queue_limit is {queue_limit}", hint="write a number of messages, 1 or more")
        self._linger_ms = int(linger_s * 1000)
        self._queue_limit = queue_limit
        self._secure = secure
        self._own = context is None
        self._context = zmq.Context() if context is None else context
        try:
            self._socket = self._bound(address)
        except SinkError:
            if self._own:
                self._context.term()
            raise
        #: The address in force; where the port was ``*``, the one that was given.
        self.address: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def send(self, topic: str, payload: bytes) -> None:
        """Send one message of two parts; never waits."""
        self._socket.send_multipart((topic.encode(), payload))

    def rebind(self) -> None:
        """Hang up on everybody, and take only those again who are let in now.

        Raises:
            SinkError: somebody else has taken the address.
        """
        self._socket.close(0)
        self._socket = self._bound(self.address, again=True)

    def close(self) -> None:
        """Send what still waits, for ``linger_s`` at most, and free the address."""
        self._socket.close(self._linger_ms)
        if self._own:
            self._context.term()

    def _bound(self, address: str, *, again: bool = False) -> zmq.Socket[Any]:
        socket = self._context.socket(zmq.PUB)
        socket.setsockopt(zmq.SNDHWM, self._queue_limit)
        # What comes is a subscription; what goes is not bound by it.
        socket.setsockopt(zmq.MAXMSGSIZE, _SUBSCRIPTION_MAX)
        if self._secure is not None:
            self._secure(socket)
        bind_public(socket, address, again=again)
        return socket


def _bind_error(address: str, error: zmq.ZMQError) -> SinkError:
    if error.errno == errno.EADDRINUSE:
        return SinkError(
            f"cannot publish at {address}: the address is in use",
            hint="stop the other program, or publish at another port",
        )
    return SinkError(
        f"cannot publish at {address}: {error.strerror}",
        hint="use an address of this host, a port above 1023, or an ipc path in a folder that you may write",
    )
