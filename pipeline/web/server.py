"""The server around the app: its socket, its signals, and an end within a bound."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Callable, Generator
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from pipeline.errors import ConfigError
from pipeline.web.connections import BACKLOG, Connection

__all__ = ["bind", "serve"]

#: Idle connections are cheap, but not free.
_KEEP_ALIVE_S = 15
#: A connection that has asked nothing for so long is closed; uvicorn itself waits for ever for the first
#: request, for the rest of one whose head has begun, and for who does not read the answer.
_SILENT_S = 30.0
_EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 0}


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; before models are loaded, so that a wrong address is told at once.

    Args:
        host: Name or address of an interface of this machine.
        port: The port; 0 for any that is free.

    Raises:
        ConfigError: it cannot be bound.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
    except OSError as error:
        raise ConfigError(
            f"{host} is no address of this machine: {error.strerror}", hint="--host 127.0.0.1"
        ) from error
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"cannot listen at {host} port {port}: {error.strerror}",
            hint="choose another with --port, or --port 0 for any that is free",
        ) from error
    return sock


def serve(app: ASGIApp, sock: socket.socket, *, ready: Callable[[], None], stop_s: float) -> int:
    """Answer requests until SIGINT or SIGTERM; a second one ends at once.

    Args:
        app: The app.
        sock: Where; closed at the end.
        ready: Called when requests are answered.
        stop_s: Longest time that requests under way have to end.

    Returns:
        The exit code: 130 after SIGINT, 0 after SIGTERM.
    """
    config = uvicorn.Config(
        app,
        http=Connection,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(stop_s)),
        backlog=BACKLOG,
    )
    # A request is read, its picture fetched and looked at: each of them within `stop_s`.
    server = _Server(config, ready, _SILENT_S + 3 * stop_s)
    asyncio.run(server.serve(sockets=[sock]))
    return _EXIT_CODES.get(signal.Signals(server.received[0]), 0) if server.received else 0


class _Server(uvicorn.Server):
    """Tells when it is ready, and leaves the exit code to us.

    Args:
        config: As uvicorn takes it.
        ready: Called when requests are answered.
        longest_s: A connection whose request is not answered so long after the last one, or after it was
            opened, is one whose answer nobody reads.
    """

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], longest_s: float) -> None:
        super().__init__(config)
        self._longest_s = longest_s
        self.received: list[int] = []
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            self._close_silent(time.monotonic())
        return await super().on_tick(counter)

    def _close_silent(self, now: float) -> None:
        """Close connections on which nothing has been answered for long."""
        for connection in list(self.server_state.connections):
            assert isinstance(connection, Connection)
            if now - connection.since > (_SILENT_S if connection.idle else self._longest_s):
                connection.abort()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        def on_signal(number: int, _: FrameType | None) -> None:
            self.force_exit = bool(self.received)
            self.received.append(number)
            self.should_exit = True

        before = {number: signal.signal(number, on_signal) for number in _EXIT_CODES}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
