"""The server around the app: its socket, its signals, and an end within a bound."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from pipeline.errors import ConfigError

__all__ = ["bind", "serve"]

_BACKLOG = 128
#: Idle connections are cheap, but not free.
_KEEP_ALIVE_S = 15
#: A connection that has asked nothing for so long is closed; uvicorn itself waits for ever for the first
#: request, and for the rest of one whose head has begun.
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
        sock.listen(_BACKLOG)
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
        http="h11",
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(stop_s)),
        # Who connects and says nothing holds a file descriptor: not more of them than a process may have.
        limit_concurrency=500,
    )
    server = _Server(config, ready)
    asyncio.run(server.serve(sockets=[sock]))
    return _EXIT_CODES.get(signal.Signals(server.received[0]), 0) if server.received else 0


class _Server(uvicorn.Server):
    """Tells when it is ready, and leaves the exit code to us."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self.received: list[int] = []
        self._ready = ready
        self._silent: dict[tuple[Any, Any], float] = {}

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            self._close_silent(time.monotonic())
        return await super().on_tick(counter)

    def _close_silent(self, now: float) -> None:
        """Close connections without a request under way whose last one began long ago, or that had none."""
        seen = {}
        for connection in list(self.server_state.connections):
            cycle = getattr(connection, "cycle", None)
            if cycle is not None and not cycle.response_complete:
                continue
            since = self._silent.get((connection, cycle), now)
            seen[connection, cycle] = since
            if now - since > _SILENT_S and connection.transport is not None:
                connection.transport.close()
        self._silent = seen

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
