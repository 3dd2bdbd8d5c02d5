"""NATS JetStream over faults of the server: nothing is lost, nothing comes twice, and no secret is shown."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import from_mapping
from pipeline.config.sinks.brokers import NatsSink
from pipeline.errors import ConfigError
from pipeline.messages import ModelSpec
from pipeline.sinks import build_connector
from pipeline.sinks.connector import Connector, Listening, RefusedError, Session, UnreachableError
from tests.servers.certs import Certificate, certificate
from tests.servers.nats import Nats
from tests.servers.programs import records

SPEC = ModelSpec("default", "0" * 64, "nanodet", ("car",), 416, 416)
SESSION = Session("run", "cafe", SPEC, lambda: ("gate",), lambda _: {})
PASSWORD = "s3cret-word"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Nats]:
    with Nats(tmp_path / "nats") as server:
        yield server


def made(server: Nats, **options: Any) -> Connector:
    return build_connector("nats", **({"url": f"nats://127.0.0.1:{server.port}", "timeout_s": 3.0} | options))


def secured(with_: Certificate) -> str:
    return f'tls {{cert_file: "{with_.cert}", key_file: "{with_.key}"}}\n'


def test_an_answer_that_was_lost_brings_nothing_twice(server: Nats) -> None:
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


def test_killed_in_the_middle_of_sends(server: Nats) -> None:
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
            time.sleep(0.01)
    thread.join()
    connector.close()
    assert failures > 0
    assert server.sequences() == list(range(500)), "all there, in order, none twice"


def test_a_connection_with_nothing_to_send_is_kept(tmp_path: Path) -> None:
    with Nats(tmp_path / "nats", config='ping_interval: "100ms"\nping_max: 2\n') as server:
        connector = made(server)
        assert isinstance(connector, Listening)
        connector.connect(SESSION)
        until = time.monotonic() + 0.7
        while time.monotonic() < until:
            connector.check()
            time.sleep(0.05)
        connector.send(records(0, 3))
        server.kill()
        with pytest.raises(UnreachableError, match="lost"):  # noqa: PT012
            while time.monotonic() < until + 5:
                connector.check()
        connector.close()


def test_a_stream_that_is_there_is_not_changed_and_what_it_does_not_take_is_refused(server: Nats) -> None:
    limits = {"max_msg_size": 2000, "duplicate_window": 300.0, "description": "ours"}

    async def make(jetstream: Any) -> Any:
        return await jetstream.add_stream(name="EVENTS", subjects=["cams.>"], **limits)

    before = server.ask(make).config
    connector = made(server, stream="EVENTS", subject="cams")
    connector.connect(SESSION)
    with pytest.raises(RefusedError, match="size") as caught:
        connector.send([*records(0, 3), *records(3, 1, path="x" * 3000), *records(4, 2)])
    assert caught.value.done == 3
    connector.send(records(4, 2))  # As a delivery goes on, having set it aside.
    connector.close()

    async def look(jetstream: Any) -> Any:
        return await jetstream.stream_info("EVENTS")

    assert server.ask(look).config == before
    found = server.messages("EVENTS")
    assert [event["sequence"] for _, event in found] == [0, 1, 2, 4, 5]
    assert {subject for subject, _ in found} == {"cams.gate.update.car"}


def test_nothing_is_sent_behind_what_is_too_large(server: Nats) -> None:
    connector = made(server)
    connector.connect(SESSION)
    limit = 1 << 20
    frame = len(json.dumps(records(2, 1, path="")[0], separators=(",", ":")))
    for length in (limit, limit - frame):  # The headers are too much for the second.
        with pytest.raises(RefusedError, match=str(limit)) as caught:
            connector.send([*records(0, 2), *records(2, 1, path="x" * length), *records(3, 2)])
        assert caught.value.done == 2
    assert server.sequences() == [0, 1]
    connector.close()


@pytest.mark.parametrize("jetstream", [True, False])
def test_what_is_wrong_is_said(tmp_path: Path, jetstream: bool) -> None:
    config = """authorization {users: [
        {user: "may", password: "pw", permissions: {publish: ["$JS.API.>"]}}
    ]}"""
    with Nats(tmp_path / "nats", config=config, jetstream=jetstream) as server:
        connector = made(server, username="may", password="pw", timeout_s=0.5)
        if not jetstream:
            with pytest.raises(UnreachableError, match="JetStream is not available"):
                connector.connect(SESSION)
        else:
            connector.connect(SESSION)
            with pytest.raises(UnreachableError, match=r"(?i)permissions violation"):
                connector.send(records(0, 1))
        connector.close()


def test_a_token(tmp_path: Path) -> None:
    with Nats(tmp_path / "nats", "--auth", PASSWORD) as server:
        with pytest.raises(UnreachableError, match=r"(?i)authorization") as caught:
            made(server, token="wr0ng").connect(SESSION)
        assert "wr0ng" not in caught.value.message
        connector = made(server, token=PASSWORD)
        connector.connect(SESSION)
        connector.send(records(0, 1))
        connector.close()


def test_tls_and_whom_it_trusts(tmp_path: Path) -> None:
    trusted, other = certificate(), certificate("elsewhere.example")
    with Nats(tmp_path / "nats", config=secured(trusted)) as server:
        url = f"tls://127.0.0.1:{server.port}"
        for ca_file in (str(other.cert), str(tmp_path / "missing")):
            with pytest.raises(UnreachableError, match=r"(?i)certificate"):
                made(server, url=url, ca_file=ca_file).connect(SESSION)
        connector = made(server, url=url, ca_file=str(trusted.cert))
        connector.connect(SESSION)
        connector.send(records(0, 3))
        connector.close()


def test_a_server_without_tls_is_not_shown_the_password() -> None:
    heard = b""

    def serve() -> None:
        nonlocal heard
        with listener.accept()[0] as peer:
            peer.sendall(b'INFO {"server_id":"x","max_payload":1048576,"auth_required":true}\r\n')
            peer.settimeout(5)
            while more := peer.recv(4096):
                heard += more

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        connector = build_connector(
            "nats",
            url=f"tls://127.0.0.1:{listener.getsockname()[1]}",
            username="me",
            password=PASSWORD,
            timeout_s=2.0,
        )
        with pytest.raises(UnreachableError, match="secure connection not available"):
            connector.connect(SESSION)
        thread.join()
    assert heard == b""


def test_credentials_need_a_library_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "nkeys", None)
    with pytest.raises(ConfigError, match="nkeys"):
        build_connector("nats", url="nats://127.0.0.1:1", credentials_file="user.creds")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"nats": "nats://user:s3cret@10.0.0.5:4222"}, "give username: and password:"),
        ({"nats": "nats://10.0.0.5:99999"}, "ports from 1 to 65535"),
        ({"nats": "nats://10.0.0.5:port"}, "must be nats://HOST:PORT"),
        ({"nats": "nats://10.0.0.5:4222?token=s3cret"}, "must be nats://HOST:PORT"),
        ({"nats": "nats://10.0.0.5", "subject": "a.>"}, "must be of letters"),
        ({"nats": "nats://10.0.0.5", "username": "me", "password": "s3cret", "token": "s3cret"}, "keep one"),
    ],
)
def test_a_config_that_makes_no_sense(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_mapping({"publish": [entry]}, "test")
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("stream", ["a.b", "a b", ">", "", "x" * 256])
def test_names_that_no_stream_can_have(stream: str) -> None:
    NatsSink.model_validate({"nats": "nats://10.0.0.5", "stream": "CAMS_2-b"})
    with pytest.raises(ValueError, match=r"stream"):
        NatsSink.model_validate({"nats": "nats://10.0.0.5", "stream": stream})
