"""A TCP proxy on loopback whose faults are switched while it runs, and a port that nobody ever answers on."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

__all__ = ["TcpProxy", "black_hole_port"]

_CHUNK = 65536
#: How much one direction may hold back before the proxy stops reading from the sender.
_MOST_HELD = 64 << 20


class _Flow:
    """One direction of one connection."""

    def __init__(self, source: socket.socket, target: socket.socket, *, down: bool) -> None:
        self.source, self.target, self.down = source, target, down
        self.held: deque[tuple[float, bytes]] = deque()
        self.held_bytes = 0
        self.passed = 0
        self.ended = False
        self.free_at = 0.0

    def hold(self, data: bytes, due_s: float) -> None:
        self.held.append((due_s, data))
        self.held_bytes += len(data)


class TcpProxy:
    """Forwards to a port on loopback and breaks what it forwards, as it is told; a context manager.

    All switches act on the connections that are open and on those to come. ``down`` is from the server to the
    client. The attributes may be set at any time.

    Args:
        target_port: Port of the real server.

    Attributes:
        port: Where it listens.
        delay_s: Every byte comes so much later, in both directions; order is kept.
        throttle_bytes_s: Most bytes a second down; None for no limit.
        corrupt_every: Every n-th byte down has its bits flipped; None for none.
        connections: How many were accepted.
        down_bytes: How many bytes reached a client.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.port = 0
        self.delay_s = 0.0
        self.throttle_bytes_s: float | None = None
        self.corrupt_every: int | None = None
        self.connections = 0
        self.down_bytes = 0
        self._stalled = self._swallow = False
        self._hold_until = 0.0
        self._selector = selectors.DefaultSelector()
        self._flows: list[_Flow] = []
        self._silent: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self._waker, self._wake = socket.socketpair()
        self._orders: deque[tuple[Callable[[], None], threading.Event]] = deque()
        self._over = False
        self._thread = threading.Thread(target=self._loop, name="tcp proxy", daemon=True)

    def __enter__(self) -> Self:
        self._wake.setblocking(False)
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._listen()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over = True
        with contextlib.suppress(OSError):  # traffic may have woken the thread first, and it has gone
            self._waker.send(b"!")
        self._thread.join()

    def url(self, url: str) -> str:
        """The same address, but through the proxy."""
        return url.replace(f":{self.target_port}/", f":{self.port}/", 1)

    def stall(self, on: bool = True) -> None:
        """Read nothing more, but keep all connections: half open, as behind a router that forgot them."""
        self._do(lambda: setattr(self, "_stalled", on))

    def drop(self) -> None:
        """Close all open connections, to both sides, at once."""
        self._do(self._drop)

    def black_hole(self, on: bool = True) -> None:
        """Accept new connections and never answer on them; those that are open go on."""
        self._do(lambda: setattr(self, "_swallow", on))

    def refuse(self, on: bool = True) -> None:
        """Refuse new connections, as where nothing listens; later, listen on the same port again."""
        self._do(self._deafen if on else self._listen)

    def burst(self, hold_s: float) -> None:
        """Hold everything down back for so long, then deliver it at once."""
        self._do(lambda: setattr(self, "_hold_until", time.monotonic() + hold_s))

    def _do(self, order: Callable[[], None]) -> None:
        """Carry out an order in the proxy's own thread, and wait until it is in force."""
        done = threading.Event()
        self._orders.append((order, done))
        self._waker.send(b"!")
        assert done.wait(10), "the proxy's thread is stuck"

    def _listen(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
            self._listener.setblocking(False)
            self.port = self._listener.getsockname()[1]
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _deafen(self) -> None:
        if self._listener is not None:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _drop(self) -> None:
        for one in {sock for flow in self._flows for sock in (flow.source, flow.target)} | set(self._silent):
            one.close()
        self._flows.clear()
        self._silent.clear()

    def _loop(self) -> None:
        while not self._over:
            for key, _ in self._selector.select(self._pause()):
                if key.fileobj is self._wake:
                    self._wake.recv(_CHUNK)
                elif key.fileobj is self._listener:
                    self._accept()
                else:
                    key.data()
            while self._orders:
                order, done = self._orders.popleft()
                order()
                done.set()
            self._exchange()
        self._drop()
        self._deafen()
        self._selector.close()
        self._waker.close()
        self._wake.close()

    def _pause(self) -> float:
        """How long to sleep: flows are looked at often while there are any, as their sockets are polled."""
        return 0.002 if self._flows else 1.0

    def _accept(self) -> None:
        assert self._listener is not None
        with contextlib.suppress(BlockingIOError):
            client, _ = self._listener.accept()
            self.connections += 1
            if self._swallow:
                self._silent.append(client)
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target_port), timeout=5)
            except OSError:
                client.close()
                return
            for one in (client, server):
                one.setblocking(False)
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._flows += [_Flow(client, server, down=False), _Flow(server, client, down=True)]
            self._opened(client, server)

    def _opened(self, client: socket.socket, server: socket.socket) -> None:
        """A connection was made; for classes that look into it."""

    def _altered(self, data: bytes, source: socket.socket, *, down: bool) -> bytes:
        """What to forward instead of ``data``; for classes that rewrite it."""
        return data

    def _exchange(self) -> None:
        if self._stalled:
            return
        now = time.monotonic()
        broken: set[socket.socket] = set()
        for flow in self._flows:
            try:
                self._take(flow, now)
                self._give(flow, now)
            except OSError:
                broken |= {flow.source, flow.target}
                continue
            if flow.ended and not flow.held:
                broken |= {flow.source, flow.target}
        if broken:
            self._flows = [flow for flow in self._flows if flow.source not in broken]
            for one in broken:
                one.close()

    def _take(self, flow: _Flow, now: float) -> None:
        while not flow.ended and flow.held_bytes < _MOST_HELD:
            try:
                data = flow.source.recv(_CHUNK)
            except BlockingIOError:
                return
            flow.ended = not data
            if data:
                flow.hold(self._altered(data, flow.source, down=flow.down), now + self.delay_s)

    def _give(self, flow: _Flow, now: float) -> None:
        while flow.held and flow.held[0][0] <= now and not (flow.down and now < self._hold_until):
            due, data = flow.held.popleft()
            flow.held_bytes -= len(data)
            allowed = len(data)
            if flow.down and self.throttle_bytes_s is not None:
                if now < flow.free_at:
                    allowed = 0
                else:
                    allowed = min(allowed, max(1, int(self.throttle_bytes_s * 0.02)))
                    flow.free_at = now + allowed / self.throttle_bytes_s
            try:
                given = flow.target.send(self._corrupted(flow, data[:allowed])) if allowed else 0
            except BlockingIOError:
                given = 0
            flow.passed += given
            self.down_bytes += given if flow.down else 0
            if given < len(data):
                flow.held.appendleft((due, data[given:]))
                flow.held_bytes += len(data) - given
                return

    def _corrupted(self, flow: _Flow, data: bytes) -> bytes:
        every = self.corrupt_every
        if not flow.down or every is None:
            return data
        changed = bytearray(data)
        for at in range(every - 1 - flow.passed % every, len(data), every):
            changed[at] ^= 0xFF
        return bytes(changed)


@contextlib.contextmanager
def black_hole_port() -> Iterator[int]:
    """A port on loopback to which ``connect`` neither succeeds nor fails: it waits for its timeout.

    Its queue of connections is full and nobody accepts any, so that the kernel drops every further SYN. No
    root and no address beyond loopback needed, unlike 192.0.2.1, which many sandboxes refuse at once.
    """
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(8):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]
