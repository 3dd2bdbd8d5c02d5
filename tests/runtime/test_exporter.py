"""The exporter over real HTTP: scraped, waited for, refused, closed."""

from __future__ import annotations

import gzip
import http.client
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from pipeline.errors import ConfigError
from pipeline.runtime import exporter
from pipeline.runtime.exporter import MetricsServer
from pipeline.runtime.metrics import View
from tests.helpers import make_ledger

LIMIT_S = 5.0  # never waited for unless something is broken


class Scraper(threading.Thread):
    """One GET in a thread of its own."""

    def __init__(self, url: str, **headers: str) -> None:
        super().__init__(daemon=True)
        self.status = 0
        self.body = b""
        self.kind = ""
        self._at = urlsplit(url)
        self._headers = headers
        self.start()

    def run(self) -> None:
        connection = http.client.HTTPConnection(str(self._at.hostname), self._at.port, timeout=LIMIT_S)
        connection.request("GET", self._at.path, headers=self._headers)
        answer = connection.getresponse()
        self.body, self.kind = answer.read(), answer.headers["Content-Type"]
        self.status = answer.status
        connection.close()


def served(server: MetricsServer, *scrapers: Scraper) -> None:
    """Come by, as the supervisor does, until all have their answer."""
    deadline = time.monotonic() + LIMIT_S
    while any(scraper.is_alive() for scraper in scrapers) and time.monotonic() < deadline:
        server.serve()
        scrapers[0].join(0.005)
    for scraper in scrapers:
        scraper.join(LIMIT_S)


class Owner:
    """Holds the books, and notes which thread reads them."""

    def __init__(self) -> None:
        self.ledger = make_ledger(decoded=1)
        self.readers: set[int] = set()

    def view(self) -> View:
        self.readers.add(threading.get_ident())
        return View({"gate": self.ledger})


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def server(owner: Owner) -> Iterator[MetricsServer]:
    with MetricsServer("127.0.0.1:0", owner.view) as made:
        yield made


def decoded(body: str, parse: Callable[[str], object] = text_string_to_metric_families) -> list[float]:
    return [
        sample.value
        for family in parse(body)  # type: ignore[attr-defined]
        for sample in family.samples
        if sample.name == "framewire_frames_decoded_total"
    ]


def test_a_scrape_gets_what_the_books_say_now(server: MetricsServer, owner: Owner) -> None:
    for count in (5, 6):
        owner.ledger["decoded"] = count
        scraper = Scraper(server.url)
        served(server, scraper)
        assert scraper.status == 200
        assert scraper.kind.startswith("text/plain")
        assert decoded(scraper.body.decode()) == [count]


def test_the_books_are_read_by_their_owners_thread_only(server: MetricsServer, owner: Owner) -> None:
    scrapers = [Scraper(server.url) for _ in range(8)]
    served(server, *scrapers)
    assert {scraper.status for scraper in scrapers} == {200}
    assert owner.readers == {threading.get_ident()}


def test_openmetrics_and_gzip_for_who_asks(server: MetricsServer) -> None:
    scraper = Scraper(server.url, **{"Accept": "application/openmetrics-text", "Accept-Encoding": "gzip"})
    served(server, scraper)
    assert scraper.kind.startswith("application/openmetrics-text")
    text = gzip.decompress(scraper.body).decode()
    assert text.endswith("# EOF\n")
    assert decoded(text, openmetrics.text_string_to_metric_families) == [1]


def test_nothing_is_read_when_nobody_asks(server: MetricsServer, owner: Owner) -> None:
    server.serve()
    assert not owner.readers


def test_other_paths_are_not_found(server: MetricsServer) -> None:
    scraper = Scraper(server.url.removesuffix("metrics"))
    served(server, scraper)
    assert (scraper.status, scraper.body) == (404, b"metrics are at /metrics\n")


def test_a_run_without_a_moment_says_so(server: MetricsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "_WAIT_S", 0.01)
    scraper = Scraper(server.url)
    scraper.join(LIMIT_S)
    assert (scraper.status, scraper.kind) == (503, "text/plain")


def test_closing_refuses_who_waits_and_frees_the_port(
    owner: Owner, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    server = MetricsServer("127.0.0.1:0", owner.view)
    scraper = Scraper(server.url)
    deadline = time.monotonic() + LIMIT_S
    while server._scrapes.empty() and time.monotonic() < deadline:
        scraper.join(0.005)
    server.close()
    server.close()
    scraper.join(LIMIT_S)
    assert scraper.status == 503
    assert not owner.readers
    port = int(str(urlsplit(server.url).port))
    MetricsServer(f"127.0.0.1:{port}", owner.view).close()
    assert "metrics" not in [thread.name for thread in threading.enumerate()]
    assert capfd.readouterr() == ("", "")


def test_clients_that_talk_nonsense_or_hang_up_do_no_harm(
    server: MetricsServer, capfd: pytest.CaptureFixture[str]
) -> None:
    at = urlsplit(server.url)
    for words in (
        b"",
        b"\x00\xff\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n",
        b"POST / HTTP/9\r\n\r\n",
    ):
        with socket.create_connection((str(at.hostname), at.port), timeout=LIMIT_S) as client:
            client.sendall(words)
    scraper = Scraper(server.url)
    served(server, scraper)
    assert scraper.status == 200
    assert capfd.readouterr() == ("", "")


def test_a_port_in_use(server: MetricsServer, owner: Owner) -> None:
    with pytest.raises(ConfigError, match="in use") as raised:
        MetricsServer(f"127.0.0.1:{urlsplit(server.url).port}", owner.view)
    assert "another port" in raised.value.hint


@pytest.mark.parametrize("listen", ["", "9464", ":9464", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:99999"])
def test_addresses_that_are_refused(listen: str, owner: Owner) -> None:
    with pytest.raises(ConfigError, match="not an address"):
        MetricsServer(listen, owner.view)


def test_ipv6(owner: Owner) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this host has no IPv6")
    with MetricsServer("[::1]:0", owner.view) as server:
        assert server.url.startswith("http://[::1]:")
        scraper = Scraper(server.url)
        served(server, scraper)
        assert scraper.status == 200


def test_workers_do_not_load_it() -> None:
    code = "import pipeline.runtime.child, sys; print('prometheus_client' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"
