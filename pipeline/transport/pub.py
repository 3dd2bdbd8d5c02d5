"""A ZeroMQ PUB socket for the public: topic and payload, to any number of subscribers."""

from __future__ import annotations

import errno
import ipaddress
import re

import zmq

from pipeline.errors import ConfigError, SinkError

__all__ = ["Publisher", "is_local"]

_TCP = re.compile(r"tcp://(?P<host>\[[^\]]+\]|[^:\[\]]+):(?P<port>\d+|\*)")


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


class Publisher:
    """One bound PUB socket; close it, or use it as a context manager.

    A PUB socket never waits: a subscriber that is slower than what it asked for loses messages once
    ``queue_limit`` of them wait for it, and finds out by the numbers in the records.

    Args:
        address: ``tcp://HOST:PORT``, ``ipc://PATH`` or ``inproc://NAME``.
        insecure: Allow an address that other hosts can reach, in plain text and open to all.
        queue_limit: Messages that may wait for one subscriber.
        linger_s: How long ``close`` waits for the tail to be sent.

    Raises:
        ConfigError: the address is malformed, or reaches beyond this host without ``insecure``.
        SinkError: it cannot be bound.
    """

    def __init__(
        self, address: str, *, insecure: bool = False, queue_limit: int = 1000, linger_s: float = 2.0
    ) -> None:
        if not is_local(address) and not insecure:
            raise ConfigError(
                f"{address} can be reached from other hosts, and what is published there is not encrypted",
                hint="publish at tcp://127.0.0.1:PORT, or set insecure: true if the network is trusted",
            )
        if queue_limit < 1:  # 0 means "without bound" to ZeroMQ
            raise ConfigError(f"queue_limit is {queue_limit}", hint="write a number of messages, 1 or more")
        self._linger_ms = int(linger_s * 1000)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.SNDHWM, queue_limit)
        self._socket.setsockopt(zmq.IPV6, int("[" in address))
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self._socket.close(0)
            self._context.term()
            raise _bind_error(address, error) from error
        #: The address in force; where the port was ``*``, the one that was given.
        self.address: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def send(self, topic: str, payload: bytes) -> None:
        """Send one message of two parts; never waits."""
        self._socket.send_multipart((topic.encode(), payload))

    def close(self) -> None:
        """Send what still waits, for ``linger_s`` at most, and free the address."""
        self._socket.close(self._linger_ms)
        self._context.term()


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
