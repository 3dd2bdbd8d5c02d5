"""A file server on loopback that misbehaves as a test says."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

__all__ = ["Served", "serving"]


@dataclass
class Served:
    """What the server gives, and what it was asked.

    Attributes:
        body: The file.
        breaks_after: Bytes after which each answer ends, one per request; then whole answers.
        statuses: Status of each request in turn, instead of the file; then the file.
        ranges: Whether it honours Range.
        location: Where to redirect, if anywhere.
        url: Its address.
        asked: The Range header of each request, or an empty string.
        users: The Authorization header of each request, or an empty string.
    """

    body: bytes
    breaks_after: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    ranges: bool = True
    location: str = ""
    url: str = ""
    asked: list[str] = field(default_factory=list)
    users: list[str] = field(default_factory=list)


@contextmanager
def serving(served: Served) -> Iterator[Served]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            served.asked.append(wanted)
            served.users.append(self.headers.get("Authorization", ""))
            if served.statuses:
                self.answer(served.statuses.pop(0), {}, b"")
                return
            if served.location:
                self.answer(302, {"Location": served.location}, b"")
                return
            found = re.fullmatch(r"bytes=(\d+)-", wanted)
            if not found or not served.ranges:
                self.answer(200, {}, served.body)
                return
            start = int(found[1])
            if start >= len(served.body):
                self.answer(416, {}, b"")
                return
            shown = f"bytes {start}-{len(served.body) - 1}/{len(served.body)}"
            self.answer(206, {"Content-Range": shown}, served.body[start:])

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if body and served.breaks_after:
                body = body[: served.breaks_after.pop(0)]
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        served.url = f"http://127.0.0.1:{server.server_address[1]}/files/model.onnx"
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
