"""A receiver of webhooks that checks signatures by itself, and fails, stalls and lies when it is told to."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from tests.servers.certs import Certificate

__all__ = ["Receiver", "dripping", "endless", "half_an_answer", "hang_up", "not_http", "waiting"]


class Receiver:
    """Listens on loopback; use as a context manager.

    Args:
        script: What to do with each request, in turn: a status to answer with, or a function that gets the
            handler and answers by itself; when it is used up, 204.
        certificate: Speak TLS.
        secret: Check that requests are signed with it.

    Attributes:
        got: Bodies of the requests that were answered with 2xx, decoded.
        requests: Headers of all requests.
    """

    def __init__(
        self,
        *script: int | Callable[[BaseHTTPRequestHandler], None],
        certificate: Certificate | None = None,
        secret: bytes | None = None,
    ) -> None:
        self.script = list(script)
        self.got: list[Any] = []
        self.requests: list[dict[str, str]] = []
        self.over = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                receiver._handle(self, secret)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.cert, certificate.key)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if certificate else ''}://127.0.0.1:{self._server.server_port}/hook"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def sequences(self) -> list[int]:
        """Numbers of the events that were taken, in order."""
        events = [one for body in self.got for one in (body if isinstance(body, list) else [body])]
        return [int(event.get("data", event)["sequence"]) for event in events]

    def _handle(self, handler: BaseHTTPRequestHandler, secret: bytes | None) -> None:
        body = handler.rfile.read(int(handler.headers["content-length"]))
        self.requests.append({name.lower(): value for name, value in handler.headers.items()})
        if secret is not None and not _signed(handler, body, secret):
            self._answer(handler, 401)
            return
        step = self.script.pop(0) if self.script else 204
        if callable(step):
            step(handler)
            return
        if 200 <= step < 300:
            self.got.append(json.loads(body))
        self._answer(handler, step)

    @staticmethod
    def _answer(handler: BaseHTTPRequestHandler, status: int) -> None:
        handler.send_response(status)
        handler.send_header("content-length", "0")
        if 300 <= status < 400:
            handler.send_header("location", "https://elsewhere.example/")
        handler.end_headers()


def _signed(handler: BaseHTTPRequestHandler, body: bytes, secret: bytes) -> bool:
    name, at = handler.headers["webhook-id"], handler.headers["webhook-timestamp"]
    made = hmac.new(secret, f"{name}.{at}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(made).decode()}" in handler.headers["webhook-signature"].split(" ")


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """Close the connection without an answer."""
    handler.close_connection = True
    handler.connection.shutdown(socket.SHUT_RDWR)


def half_an_answer(handler: BaseHTTPRequestHandler) -> None:
    """Say that all is well, promise a body, and hang up."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nx")
    hang_up(handler)


def endless(handler: BaseHTTPRequestHandler) -> None:
    """An answer that does not end."""
    handler.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        handler.wfile.write(b"x" * 65536)


def not_http(handler: BaseHTTPRequestHandler) -> None:
    """Something else."""
    handler.wfile.write(b"220 mail.example ESMTP\r\n")
    hang_up(handler)


def dripping(over: threading.Event) -> Callable[[BaseHTTPRequestHandler], None]:
    """A byte now and then, never a whole answer."""

    def drip(handler: BaseHTTPRequestHandler) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nx: " + b"y" * 10_000:
            handler.wfile.write(bytes([byte]))
            if over.wait(0.02):
                return

    return drip


def waiting(over: threading.Event) -> Callable[[BaseHTTPRequestHandler], None]:
    """No answer at all."""

    def wait(_: BaseHTTPRequestHandler) -> None:
        over.wait(30)

    return wait
