"""The exporter: serves the metrics of a run to Prometheus over HTTP."""

from __future__ import annotations

import queue
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pipeline.errors import ConfigError
from pipeline.runtime.metrics import View, families

__all__ = ["MetricsServer"]

_WAIT_S = 5.0
_SILENT_S = 10.0
_HINT = "write HOST:PORT, such as 127.0.0.1:9464"


class MetricsServer:
    """Serves ``/metrics`` over HTTP.

    A scrape waits until the thread that owns the books comes by and calls `serve`: so nothing is read while
    it is changed or taken away, and no scrape, however slow its client, holds the run up.

    Args:
        listen: ``HOST:PORT``; port 0 takes any that is free.
        view: Says what there is to tell; called in `serve` only.

    Raises:
        ConfigError: it is not an address to listen at, or it is in use.
    """

    def __init__(self, listen: str, view: Callable[[], View]) -> None:
        self._view = view
        self._scrapes: queue.SimpleQueue[_Scrape] = queue.SimpleQueue()
        self._closed = threading.Event()
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Handover(self._ask))
        self._app = make_wsgi_app(registry)
        host, port = _parse(listen)
        server = _Server6 if ":" in host else _Server
        try:
            self._http = server((host, port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"cannot serve metrics at {listen}: {error.strerror or error}",
                hint="stop the other program, or choose another port; " + _HINT,
            ) from error
        self._http.set_app(self._serve_http)
        shown = f"[{host}]" if ":" in host else host
        #: Where the metrics are.
        self.url = f"http://{shown}:{self._http.server_port}/metrics"
        self._thread = threading.Thread(
            target=self._http.serve_forever, args=(0.05,), name="metrics", daemon=True
        )
        self._thread.start()

    def __enter__(self) -> MetricsServer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def serve(self) -> None:
        """Answer scrapes that wait; to be called a few times a second by the thread that owns the books."""
        waiting = []
        while not self._scrapes.empty():
            waiting.append(self._scrapes.get())
        if not waiting:
            return
        found = list(families(self._view()))
        for scrape in waiting:
            scrape.found = found
            scrape.done.set()

    def close(self) -> None:
        """Stop listening; scrapes that wait are refused. Harmless when closed already."""
        self._closed.set()
        while not self._scrapes.empty():
            self._scrapes.get().done.set()
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
        self._http.server_close()

    def _ask(self) -> list[Metric]:
        scrape = _Scrape()
        self._scrapes.put(scrape)
        deadline = time.monotonic() + _WAIT_S
        while not scrape.done.wait(0.1) and not self._closed.is_set() and time.monotonic() < deadline:
            pass
        if scrape.found is None:
            raise _BusyError
        return scrape.found

    def _serve_http(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if environ["PATH_INFO"] != "/metrics":
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"metrics are at /metrics\n"]
        try:
            page: Iterable[bytes] = self._app(environ, start_response)
        except _BusyError:
            start_response("503 Service Unavailable", [("Content-Type", "text/plain")])
            return [b"the run is starting or ending; ask again\n"]
        return page


class _BusyError(Exception):
    """The thread that owns the books did not come by."""


class _Scrape:
    def __init__(self) -> None:
        self.done = threading.Event()
        self.found: list[Metric] | None = None


class _Handover(Collector):
    """Has another thread collect."""

    def __init__(self, ask: Callable[[], list[Metric]]) -> None:
        self._ask = ask

    def collect(self) -> Iterable[Metric]:
        return self._ask()


class _Handler(WSGIRequestHandler):
    timeout = _SILENT_S  # A client that says nothing holds its thread for so long.

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (its name upstream)
        """Log nothing: scrapes come for ever."""


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 64

    def server_bind(self) -> None:
        """Bind without asking the name server who we are, which may take seconds."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""


class _Server6(_Server):
    address_family = socket.AF_INET6


def _parse(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{listen!r} is not an address to serve metrics at", hint=_HINT)
    return host.strip("[]"), int(port)
