"""Control sockets: apart from the data, so that a command never queues behind a frame.

Workers talk to the supervisor over one ROUTER; `Doorbell` is the end-to-end path by which the last holder
of a frame wakes the capture that waits for its slot. Bodies are opaque bytes: `runtime.control` gives
them meaning.
"""

from __future__ import annotations

import contextlib
from typing import Any

import zmq

from pipeline.errors import TransportError

__all__ = ["Asker", "ControlClient", "ControlServer", "Doorbell", "Replier", "Ringer", "Waiter"]


class ControlServer:
    """The supervisor's end: hears all workers, speaks to each by name."""

    def __init__(self, context: zmq.Context[Any], endpoint: str) -> None:
        self._socket = context.socket(zmq.ROUTER)
        self._socket.linger = 500
        self._socket.router_handover = 1  # A restarted worker takes its name over from the dead one.
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self._socket.close()
            raise TransportError(f"cannot bind {endpoint}: {error.strerror}") from error

    def receive(self, timeout_s: float) -> tuple[str, bytes] | None:
        """The next (worker, body), waiting at most ``timeout_s``."""
        if not self._socket.poll(int(timeout_s * 1000)):
            return None
        frames = self._socket.recv_multipart()
        return (frames[0].decode(errors="replace"), frames[1]) if len(frames) == 2 else None

    def send(self, worker: str, body: bytes) -> None:
        """Say something to a worker; one that is not there (yet) does not hear it."""
        with contextlib.suppress(zmq.ZMQError):
            self._socket.send_multipart([worker.encode(), body], zmq.DONTWAIT)

    def close(self) -> None:
        """Close it, giving last words half a second to leave."""
        self._socket.close()


class ControlClient:
    """A worker's end. Belongs to one thread."""

    def __init__(self, context: zmq.Context[Any], endpoint: str, name: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.identity = name.encode()
        self.socket.linger = 1000
        self.socket.connect(endpoint)

    def send(self, body: bytes) -> None:
        """Say something to the supervisor; dropped when it does not listen any more."""
        with contextlib.suppress(zmq.ZMQError):
            self.socket.send(body, zmq.DONTWAIT)

    def receive(self) -> bytes | None:
        """What the supervisor said, if anything."""
        try:
            body: bytes = self.socket.recv(zmq.DONTWAIT)
            return body
        except zmq.Again:
            return None

    def close(self) -> None:
        """Close it; what was said leaves within a second."""
        self.socket.close()


class Replier:
    """Answers requests, one at a time; an asker that has gone does no harm."""

    def __init__(self, context: zmq.Context[Any], endpoint: str) -> None:
        self._socket = context.socket(zmq.ROUTER)
        self._socket.linger = 500
        self._socket.maxmsgsize = 1 << 20
        self._asker: bytes = b""
        try:
            self._socket.bind(endpoint)
        except zmq.ZMQError as error:
            self._socket.close()
            raise TransportError(f"cannot bind {endpoint}: {error.strerror}") from error

    def receive(self) -> bytes | None:
        """The next request, if one has come; `reply` answers it."""
        with contextlib.suppress(zmq.Again):
            while True:
                frames: list[bytes] = self._socket.recv_multipart(zmq.DONTWAIT)
                if len(frames) == 2:
                    self._asker = frames[0]
                    return frames[1]
        return None

    def reply(self, body: bytes) -> None:
        """Answer the last request."""
        with contextlib.suppress(zmq.ZMQError):
            self._socket.send_multipart([self._asker, body], zmq.DONTWAIT)

    def close(self) -> None:
        """Close it, giving the last answer half a second to leave."""
        self._socket.close()


class Asker:
    """The other end of a `Replier`."""

    def __init__(self, context: zmq.Context[Any], endpoint: str) -> None:
        self._socket = context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.connect(endpoint)

    def ask(self, body: bytes, timeout_s: float) -> bytes | None:
        """The answer to a request; None when there is none within ``timeout_s``."""
        self._socket.send(body)
        if not self._socket.poll(int(timeout_s * 1000)):
            return None
        answer: bytes = self._socket.recv()
        return answer

    def close(self) -> None:
        """Close it."""
        self._socket.close()


class Doorbell:
    """Capture's end of the wake-up path: rings when a slot came free."""

    def __init__(self, context: zmq.Context[Any], endpoint: str) -> None:
        self.socket = context.socket(zmq.PULL)
        self.socket.linger = 0
        self.socket.bind(endpoint)

    def silence(self) -> None:
        """Take in all rings."""
        with contextlib.suppress(zmq.Again):
            while True:
                self.socket.recv(zmq.DONTWAIT)

    def close(self) -> None:
        """Unbind."""
        self.socket.close()


class Ringer:
    """The other end: rings the bell of any source, connecting at first use."""

    def __init__(self, context: zmq.Context[Any]) -> None:
        self._context = context
        self._sockets: dict[str, zmq.Socket[bytes]] = {}

    def ring(self, endpoint: str) -> None:
        """Wake whoever binds ``endpoint``. Lost rings do no harm: capture also looks by itself."""
        socket = self._sockets.get(endpoint)
        if socket is None:
            socket = self._sockets[endpoint] = self._context.socket(zmq.PUSH)
            socket.linger = 0
            socket.sndhwm = 64
            socket.connect(endpoint)
        with contextlib.suppress(zmq.Again):
            socket.send(b"", zmq.DONTWAIT)

    def close(self) -> None:
        """Close all."""
        for socket in self._sockets.values():
            socket.close()
        self._sockets.clear()


class Waiter:
    """Waits for any of several sockets or file descriptors."""

    def __init__(self) -> None:
        self._poller = zmq.Poller()

    def add(self, thing: Any) -> None:
        """Watch a ZeroMQ socket or a file descriptor for input."""
        self._poller.register(thing, zmq.POLLIN)

    def wait(self, timeout_s: float) -> bool:
        """Wait until one has input, at most ``timeout_s``; whether one has."""
        return bool(self._poller.poll(int(timeout_s * 1000)))
