"""A ROUTER socket for the public that answers requests from a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from pipeline.errors import FramewireError
from pipeline.transport.pub import bind_public

__all__ = ["Answer", "Answering"]

log = logging.getLogger(__name__)

#: Given a request, the parts of its reply; None for what is no request, which gets none.
Answer = Callable[[bytes], Sequence[bytes] | None]

#: ZeroMQ hangs up on whoever sends a larger part, before it is in memory.
_REQUEST_MAX = 64 * 1024
#: Replies that may wait for one client. One who asks and never reads costs that much, and no more.
_REPLIES = 4
_REQUESTS = 64
#: Parts of a request: our own, and the empty delimiter of a REQ socket before it.
_PARTS = 2


class Answering:
    """Answers until it is closed.

    Args:
        context: Shared with whoever owns it.
        address: Where to bind.
        make: Makes what answers; called in the thread, which also closes it.
        secure: Makes a socket a secure one before it is bound.

    Attributes:
        address: The address in force.
        answered: Requests that were answered.
        malformed: Messages that were no requests, and were dropped.

    Raises:
        SinkError: it cannot be bound.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        address: str,
        make: Callable[[], tuple[Answer, Callable[[], None]]],
        secure: Callable[[zmq.Socket[Any]], None] = lambda _: None,
    ) -> None:
        self.answered = self.malformed = 0
        self._context = context
        self._make = make
        self._secure = secure
        self._socket = self._bound(address)
        self.address: str = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)
        inside = f"inproc://answering-{id(self)}"
        self._commands = context.socket(zmq.PAIR)
        self._commands.bind(inside)
        self._thread = threading.Thread(target=self._run, args=(inside,), name="replay", daemon=True)
        self._thread.start()

    def rebind(self) -> None:
        """Hang up on everybody, and take only those again who are let in now."""
        self._commands.send(b"rebind")

    def close(self) -> None:
        """End the thread and free the address."""
        self._commands.send(b"close")
        self._thread.join()
        self._commands.close(0)

    def _bound(self, address: str, *, again: bool = False) -> zmq.Socket[Any]:
        socket: zmq.Socket[Any] = self._context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.MAXMSGSIZE, _REQUEST_MAX)
        socket.setsockopt(zmq.SNDHWM, _REPLIES)
        socket.setsockopt(zmq.RCVHWM, _REQUESTS)
        socket.setsockopt(zmq.LINGER, 0)
        self._secure(socket)
        bind_public(socket, address, again=again)
        return socket

    def _run(self, inside: str) -> None:
        answer, done = self._make()
        commands = self._context.socket(zmq.PAIR)
        commands.connect(inside)
        poller = zmq.Poller()
        poller.register(commands, zmq.POLLIN)
        poller.register(self._socket, zmq.POLLIN)
        try:
            while True:
                ready = dict(poller.poll())
                if commands in ready:
                    if commands.recv() == b"close":
                        return
                    poller.unregister(self._socket)
                    self._socket.close(0)
                    self._socket = self._bound(self.address, again=True)
                    poller.register(self._socket, zmq.POLLIN)
                elif self._socket in ready:
                    self._serve(answer)
        except FramewireError as error:
            log.error("no replay any more: %s", error)
        finally:
            done()
            commands.close(0)
            self._socket.close(0)

    def _serve(self, answer: Answer) -> None:
        parts = self._socket.recv_multipart()
        client, envelope, body = parts[0], parts[1:-1], parts[-1]
        fine = len(parts) > 1 and len(envelope) < _PARTS and not any(envelope)
        reply = answer(body) if fine else None
        if reply is None:
            self.malformed += 1
            return
        # To a client whose replies pile up, or who has gone, ROUTER drops it: it will ask again.
        self._socket.send_multipart([client, *envelope, *reply])
        self.answered += 1
