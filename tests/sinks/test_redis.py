"""Redis Streams over faults of the server: nothing is lost, and what came twice is counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import from_mapping
from pipeline.errors import ConfigError
from pipeline.messages import ModelSpec
from pipeline.sinks import build_connector
from pipeline.sinks.connector import Connector, Session, UnreachableError
from tests.servers.certs import certificate
from tests.servers.programs import records
from tests.servers.redis import Redis

SPEC = ModelSpec("default", "0" * 64, "nanodet", ("car",), 416, 416)
SESSION = Session("run", "cafe", SPEC, lambda: ("gate",), lambda _: {})


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Redis]:
    with Redis(tmp_path / "redis") as server:
        yield server


def made(server: Redis, **options: Any) -> Connector:
    return build_connector(
        "redis", **({"url": f"redis://127.0.0.1:{server.port}/0", "timeout_s": 3.0} | options)
    )


def test_an_answer_that_was_lost_brings_nothing_twice(server: Redis) -> None:
    connector = made(server, timeout_s=0.3)
    connector.connect(SESSION)
    connector.send(records(0, 100))
    server.freeze()
    with pytest.raises(UnreachableError) as caught:
        connector.send(records(100, 100))
    assert caught.value.done == 0
    server.thaw()  # It does what it had heard.
    connector.connect(SESSION)
    connector.send(records(100, 100))
    connector.send(records(200, 10))
    connector.close()
    assert server.sequences() == list(range(210))


def test_what_others_write_and_a_log_that_begins_anew_are_no_obstacle(server: Redis) -> None:
    with server.client() as client:
        client.xadd("framewire:events", {"something": "else"})
    for log_id in ("cafe", "beef"):
        connector = made(server)
        connector.connect(replace(SESSION, log_id=log_id))
        connector.send(records(0, 20))
        connector.close()
    assert server.sequences("cafe") == server.sequences("beef") == list(range(20))


def test_killed_in_the_middle_of_sends(server: Redis) -> None:
    """Batches go out all the time, and the server is killed and started where one of them happens to be."""
    halfway = threading.Event()

    def trouble() -> None:
        halfway.wait(10)
        server.kill()
        server.start()

    thread = threading.Thread(target=trouble)
    thread.start()
    connector, at, failures, connected = made(server), 0, 0, False
    while at < 500:
        try:
            if not connected:
                connector.connect(SESSION)
                connected = True
            connector.send(records(at, 5))
            at += 5
            if at == 200:
                halfway.set()
        except UnreachableError as error:
            at, failures, connected = at + error.done, failures + 1, False
            assert failures < 10_000
    thread.join()
    connector.close()
    assert failures > 0
    assert server.sequences() == list(range(500)), "all there, in order, none twice"


def test_a_replica_takes_nothing_until_it_is_the_master(server: Redis) -> None:
    connector = made(server)
    with server.client() as client:
        connector.connect(SESSION)
        client.replicaof("127.0.0.1", "1")
        with pytest.raises(UnreachableError, match=r"(?i)replica|READONLY"):
            connector.send(records(0, 3))
        client.replicaof("NO", "ONE")
    connector.connect(SESSION)
    connector.send(records(0, 3))
    connector.close()
    assert server.sequences() == [0, 1, 2]


def test_the_stream_stays_about_as_long_as_it_may_be(server: Redis) -> None:
    connector = made(server, max_length=100)
    connector.connect(SESSION)
    for first in range(0, 500, 100):
        connector.send(records(first, 100))
    connector.close()
    kept = server.sequences()
    assert 100 <= len(kept) <= 200, "the newest; whole nodes of 100 entries are dropped"
    assert kept == list(range(500 - len(kept), 500))


def test_over_a_unix_socket(server: Redis) -> None:
    connector = made(server, url=f"unix://{server.socket}?db=0")
    connector.connect(SESSION)
    connector.send(records(0, 3))
    connector.close()
    assert server.sequences() == [0, 1, 2]


def test_tls_and_whom_it_trusts(tmp_path: Path) -> None:
    trusted, other = certificate(), certificate("elsewhere.example")
    with Redis(tmp_path / "redis", certificate=trusted) as server:
        url = f"rediss://127.0.0.1:{server.port}/0"
        for ca_file in (None, str(other.cert), str(tmp_path / "missing")):
            with pytest.raises(UnreachableError, match=r"(?i)certificate|no such file"):
                made(server, url=url, ca_file=ca_file).connect(SESSION)
        connector = made(server, url=url, ca_file=str(trusted.cert))
        connector.connect(SESSION)
        connector.send(records(0, 3))
        connector.close()
        assert server.sequences() == [0, 1, 2]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"redis": "redis://user:s3cret@10.0.0.5:6379"}, "give username: and password:"),
        ({"redis": "redis://10.0.0.5:6379/0?password=s3cret"}, "must be redis://HOST:PORT/DB"),
        ({"redis": "unix:///run/redis.sock?password=s3cret"}, "must be redis://HOST:PORT/DB"),
        ({"redis": "redis://10.0.0.5:99999"}, "ports from 1 to 65535"),
        ({"redis": "redis://10.0.0.5:port"}, "must be redis://HOST:PORT/DB"),
        ({"redis": "redis://10.0.0.5/events"}, "must be redis://HOST:PORT/DB"),
        ({"redis": "http://10.0.0.5"}, "must be a URL such as redis://"),
        ({"redis": "redis://10.0.0.5", "ca_file": "ca.pem"}, "write rediss://"),
        ({"redis": "redis://10.0.0.5", "password": "s3cret"}, "add username:"),
    ],
)
def test_a_config_that_makes_no_sense(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_mapping({"publish": [entry]}, "test")
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["redis://10.0.0.5", "rediss://r.example:6380/3", "redis://[::1]:6379/0", "unix:///run/r.sock?db=2"],
)
def test_urls_that_are_right(url: str) -> None:
    from_mapping({"publish": [{"redis": url}]}, "test")
