"""Connections of the server: no more than it has file descriptors for, and errors of HTTP itself."""

from __future__ import annotations

import asyncio
import logging
import time

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from pipeline.web.problems import Problem, problem_response

__all__ = ["BACKLOG", "Connection"]

_log = logging.getLogger(__name__)

#: Connections that wait to be accepted; so many are accepted at once, too, before one can be closed.
BACKLOG = 128
#: A process may usually have 1024 files open, and models, fetches and that burst need some of them.
_MOST = 500


class Connection(H11Protocol):
    """One connection of a client.

    Where there are too many, the one that has been idle longest is closed: who opens connections and says
    nothing shuts nobody out, nor leaves the process without file descriptors.

    Attributes:
        since: When it was opened or last answered a request, on the monotonic clock in seconds.
    """

    since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self.since = time.monotonic()
        if len(self.connections) > _MOST:
            idle = [one for one in self.connections if isinstance(one, Connection) and one.idle]
            min(idle, key=lambda one: one.since).abort()  # this one, where all others are busy

    def on_response_complete(self) -> None:
        """See `H11Protocol`."""
        self.since = time.monotonic()
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """Say that what came is no HTTP, unless an answer is under way; then only close."""
        _log.info("%s no HTTP: 400", self.client[0] if self.client else "-")
        body = True
        if not self.idle:
            body = self.cycle.scope["method"] != "HEAD"
            self.cycle.disconnected = True  # what the app still says of this request goes nowhere
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            response = problem_response(Problem(400, "the request is no HTTP that can be read"))
            headers = [*response.raw_headers, (b"connection", b"close")]
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=bytes(response.body) if body else b""),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    @property
    def idle(self) -> bool:
        """Whether no request is under way; one whose head is not whole is none."""
        cycle = getattr(self, "cycle", None)  # None before the first one, whatever its type says
        return cycle is None or bool(cycle.response_complete)

    def abort(self) -> None:
        """Close it at once, whatever the client has not read yet."""
        self.connections.discard(self)
        self.transport.abort()
