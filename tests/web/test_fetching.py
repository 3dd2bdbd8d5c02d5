"""Fetching from listed hosts only, whatever a URL tries."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("fastapi")

from pipeline.errors import ConfigError
from pipeline.web.fetching import fetch, is_public, parse_hosts
from pipeline.web.problems import Problem


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers by path."""

    server: _Server

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers["Host"]))
        if self.path == "/elsewhere":
            self.send_response(302)
            self.send_header("Location", "/a.jpg")
            self.end_headers()
        elif self.path == "/missing":
            self.send_error(404)
        elif self.path in ("/large", "/short"):
            self.send_response(200)
            self.send_header("Content-Length", "5000" if self.path == "/large" else "500")
            self.end_headers()
            self.wfile.write(bytes(50))
        elif self.path in ("/endless", "/drip", "/drip-head"):
            self._go_on()
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"picture")

    def _go_on(self) -> None:
        if self.path != "/drip-head":
            self.send_response(200)
            self.end_headers()
        piece = bytes(4096) if self.path == "/endless" else b"X"
        try:
            while not self.server.over.wait(0 if self.path == "/endless" else 0.02):
                self.wfile.write(piece)
        except OSError:
            return

    def log_message(self, *_: Any) -> None:
        pass


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.seen: list[tuple[str, str]] = []
        self.over = threading.Event()


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.over.set()
        found.shutdown()
        thread.join()


def get(url: str, *entries: str, timeout_s: float = 5.0) -> bytes:
    return fetch(url, parse_hosts(entries), max_bytes=1000, timeout_s=timeout_s)


def status(url: str, *entries: str, timeout_s: float = 5.0) -> int:
    with pytest.raises(Problem) as caught:
        get(url, *entries, timeout_s=timeout_s)
    return caught.value.status


def test_from_a_listed_address(server: _Server) -> None:
    port = server.server_port
    assert get(f"http://127.0.0.1:{port}/a.jpg?size=2#x", f"127.0.0.1:{port}") == b"picture"
    assert server.seen == [("/a.jpg?size=2", f"127.0.0.1:{port}")]


def test_a_name_with_its_address_is_not_looked_up(server: _Server, monkeypatch: pytest.MonkeyPatch) -> None:
    port = server.server_port
    asked: list[str] = []
    original = socket.getaddrinfo

    def watched(host: str, *rest: Any, **options: Any) -> Any:
        asked.append(host)
        return original(host, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", watched)
    assert get(f"http://nas.local:{port}/", f"nas.local:{port}=127.0.0.1") == b"picture"
    assert server.seen == [("/", f"nas.local:{port}")]
    assert set(asked) == {"127.0.0.1"}


@pytest.mark.parametrize(
    ("url", "entries", "expected"),
    [
        pytest.param("http://example.com/a.jpg", [], 403, id="nothing is listed"),
        pytest.param("http://example.com/a.jpg", ["example.org"], 403, id="another host"),
        pytest.param("http://www.example.com/a.jpg", ["example.com"], 403, id="below a listed host"),
        pytest.param("http://example.com:81/", ["example.com"], 403, id="another port"),
        pytest.param("http://example.com/", ["example.com:81"], 403, id="another port is listed"),
        pytest.param("http://example.com./", ["example.com"], 403, id="a dot more"),
        pytest.param("http://127.0.0.1/", ["localhost"], 403, id="the address of a listed name"),
        pytest.param("http://0x7f.1/", ["127.0.0.1"], 403, id="an address in other clothes"),
        pytest.param("http://[::ffff:127.0.0.1]/", ["127.0.0.1"], 403, id="an address inside another"),
        pytest.param("http://example.com@127.0.0.1/", ["example.com"], 400, id="a user"),
        pytest.param("http://example.com\\@127.0.0.1/", ["example.com"], 400, id="a backslash"),
        pytest.param("http://example.com/a b", ["example.com"], 400, id="a blank"),
        pytest.param("http://example.com/\r\nHost: x", ["example.com"], 400, id="a line break"),
        pytest.param("file:///etc/passwd", ["example.com"], 400, id="a file"),
        pytest.param("ftp://example.com/", ["example.com"], 400, id="another scheme"),
        pytest.param("//example.com/", ["example.com"], 400, id="no scheme"),
        pytest.param("http://[::1/", ["[::1]"], 400, id="half an address"),
        pytest.param("http://example.com:99999/", ["example.com"], 400, id="no port"),
    ],
)
def test_where_nobody_is_asked(
    url: str, entries: list[str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "getaddrinfo")
    monkeypatch.delattr(socket, "create_connection")
    assert status(url, *entries) == expected


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["10.1.2.3"],
        ["169.254.169.254"],
        ["::1"],
        ["fe80::1%eth0"],
        ["93.184.216.34", "10.0.0.1"],
    ],
)
def test_a_listed_name_that_leads_inside(addresses: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.delattr(socket, "create_connection")
    assert status("http://example.com/", "example.com") == 403


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.216.34", True), ("2606:2800:220:1::1", True), ("127.0.0.1", False), ("0.0.0.0", False),
        ("10.0.0.1", False), ("172.16.0.1", False), ("192.168.1.1", False), ("100.64.0.1", False),
        ("169.254.169.254", False), ("224.0.0.1", False), ("255.255.255.255", False), ("::", False),
        ("::1", False), ("fc00::1", False), ("fe80::1", False), ("ff02::1", False),
        ("::ffff:10.0.0.1", False), ("::ffff:93.184.216.34", True), ("2002:0a00:0001::1", False),
        ("64:ff9b::10.0.0.1", False), ("64:ff9b::93.184.216.34", True),
    ],
)  # fmt: skip
def test_public_addresses(address: str, expected: bool) -> None:
    assert is_public(address) is expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/elsewhere", 502), ("/missing", 502), ("/large", 413), ("/endless", 413), ("/short", 502)],
)
def test_answers_that_are_no_picture(server: _Server, path: str, expected: int) -> None:
    port = server.server_port
    assert status(f"http://127.0.0.1:{port}{path}", f"127.0.0.1:{port}") == expected
    assert [seen for seen, _ in server.seen] == [path]


def test_a_file_that_breaks_off(server: _Server) -> None:
    port = server.server_port
    with pytest.raises(Problem, match="before the file was whole"):
        get(f"http://127.0.0.1:{port}/short", f"127.0.0.1:{port}")


@pytest.mark.parametrize("path", ["/drip", "/drip-head"])
def test_who_drips_is_cut(server: _Server, path: str) -> None:
    port = server.server_port
    start = time.monotonic()
    assert status(f"http://127.0.0.1:{port}{path}", f"127.0.0.1:{port}", timeout_s=0.3) == 504
    assert time.monotonic() - start < 3


def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert status(f"http://127.0.0.1:{port}/", f"127.0.0.1:{port}") == 502


def test_no_tls_there(server: _Server) -> None:
    port = server.server_port
    assert status(f"https://127.0.0.1:{port}/", f"127.0.0.1:{port}") == 502


@pytest.mark.parametrize("entry", ["", "http://example.com", "a b", "example.com:0", "nas=nowhere", "a@b"])
def test_entries_that_name_no_host(entry: str) -> None:
    with pytest.raises(ConfigError, match="no host"):
        parse_hosts([entry])


def test_entries() -> None:
    assert parse_hosts(["Example.com", "a.b:81", "[::1]:82", "10.0.0.1", "nas=10.0.0.2"]) == {
        ("example.com", None): None,
        ("a.b", 81): None,
        ("::1", 82): "::1",
        ("10.0.0.1", None): "10.0.0.1",
        ("nas", None): "10.0.0.2",
    }
