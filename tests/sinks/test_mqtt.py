"""A real mosquitto: complete, in order, over restarts; what it refuses; what Home Assistant gets to see."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import pytest

from pipeline.errors import ConfigError
from pipeline.sinks.connector import RefusedError, Session, UnreachableError
from pipeline.sinks.mqtt import MqttConnector
from tests.servers.certs import certificate
from tests.servers.mosquitto import Heard, Listener, Mosquitto
from tests.servers.programs import free_port
from tests.sinks.builders import SPEC, make_event_row

PASSWORD = "s3cret-word"
Protocol = Literal["5", "3.1.1"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)


class Run:
    """The run as the connector knows it: one source, and how it is set."""

    def __init__(self) -> None:
        self.setting: dict[str, Any] = {"enabled": True, "confidence": 0.4}
        self.asked: list[dict[str, Any]] = []

    def control(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(request)
        if request["name"] != "gate":
            raise ConfigError(f"there is no source {request['name']}", hint="the sources of this run: gate")
        self.setting |= {key: request[key] for key in self.setting if key in request}
        return dict(self.setting)

    @property
    def session(self) -> Session:
        return Session("run", "cafe", SPEC, lambda: ("gate",), self.control)


def rows(first: int, last: int, **more: Any) -> list[dict[str, Any]]:
    return [make_event_row(number, type="update", **more) for number in range(first, last)]


def large(sequence: int) -> dict[str, Any]:
    return make_event_row(sequence, type="update") | {"message": "x" * 30_000}


def events(heard: Sequence[Heard]) -> list[int]:
    """Sequences of the events among what was heard."""
    found = []
    for one in heard:
        if one.topic.split("/")[-2:-1] == ["update"]:
            found.append(json.loads(one.payload)["sequence"])
            assert one.properties in ({}, {"log": "cafe", "sequence": str(found[-1])})
            assert not one.retain
    return found


def configs(heard: Sequence[Heard]) -> dict[str, Any]:
    """What Home Assistant discovers of what was heard, by topic."""
    return {one.topic: json.loads(one.payload) for one in heard if one.topic.endswith("/config")}


def grown(count: int, heard: Sequence[Heard]) -> bool:
    return len(heard) >= count


def wait_for(listener: Listener, count: int) -> list[Heard]:
    """Wait until so many events were heard."""
    return listener.wait(lambda heard: len(heard) >= count and len(events(heard)) >= count)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Mosquitto]:
    with Mosquitto(tmp_path / "mosquitto") as running:
        yield running


@contextmanager
def connected(server: Mosquitto, run: Run | None = None, **options: Any) -> Iterator[MqttConnector]:
    with closing(MqttConnector(server.url, timeout_s=5.0, **options)) as connector:
        connector.connect((run or Run()).session)
        yield connector


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_complete_and_in_order(server: Mosquitto, protocol: Protocol) -> None:
    with Listener(server, "framewire/#") as listener, connected(server, protocol=protocol) as connector:
        for first in range(0, 500, 200):
            connector.send(rows(first, min(first + 200, 500)))
        heard = wait_for(listener, 500)
        assert events(heard) == list(range(500))
        one = next(one for one in heard if one.topic == "framewire/gate/update/car")
        assert json.loads(one.payload) == rows(0, 1)[0]
        assert one.properties.keys() == ({"log", "sequence"} if protocol == "5" else set())


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_is_killed_gets_the_rest_later(server: Mosquitto, protocol: Protocol) -> None:
    run = Run()
    with closing(MqttConnector(server.url, protocol=protocol, timeout_s=5.0)) as connector:
        connector.connect(run.session)
        todo = rows(0, 5000)
        with Listener(server, "framewire/#") as listener:

            def kill() -> None:
                listener.wait(lambda heard: len(heard) > 300)
                server.stop(signal.SIGKILL)

            killer = threading.Thread(target=kill)
            killer.start()
            with pytest.raises(UnreachableError) as lost:
                connector.send(todo)
            killer.join()
            assert 0 < lost.value.done < len(todo)
            # What is said to have arrived was passed on.
            wait_for(listener, lost.value.done)
            assert events(listener.heard)[: lost.value.done] == list(range(lost.value.done))
        with pytest.raises(UnreachableError, match="hung up"):
            connector.send(todo[:1])
        with pytest.raises(UnreachableError, match=r"cannot connect: .*refused"):
            connector.connect(run.session)
        server.start()
        with Listener(server, "framewire/#") as listener:
            connector.connect(run.session)
            connector.send(todo[lost.value.done : lost.value.done + 300])
            heard = events(wait_for(listener, 300))
            assert heard == list(range(lost.value.done, lost.value.done + 300))
            # It had forgotten the states, and has them again.
            listener.wait_for("framewire/gate/objects/car", "count", 1)
            listener.wait_last("framewire/gate/availability", b"online")


def test_who_is_slow_is_not_gone_for_ever(server: Mosquitto) -> None:
    with closing(MqttConnector(server.url, timeout_s=0.5)) as connector:
        connector.connect(Run().session)
        server.pause()
        try:
            with pytest.raises(UnreachableError, match=r"no acknowledgement came within 0\.5 s") as slow:
                connector.send(rows(0, 5))
            assert slow.value.done == 0
            with pytest.raises(UnreachableError, match=r"does not answer|timed out"):
                connector.connect(Run().session)
        finally:
            server.resume()
        connector.connect(Run().session)
        connector.send(rows(0, 5))


def test_the_last_will_of_a_process_that_is_killed(server: Mosquitto) -> None:
    program = """
import sys
from tests.sinks.test_mqtt import MqttConnector, Run, rows
connector = MqttConnector(sys.argv[1])
connector.connect(Run().session)
connector.send(rows(0, 3))
print("up", flush=True)
sys.stdin.read()
"""
    with Listener(server, "framewire/#") as listener:
        process = subprocess.Popen(
            [sys.executable, "-c", program, server.url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            listener.wait_last("framewire/availability", b"online")
            process.kill()
            listener.wait_last("framewire/availability", b"offline")
        # The next process takes over what the server has kept: object 3 is still there.
        with connected(server) as connector:
            listener.wait_last("framewire/availability", b"online")
            connector.send([make_event_row(3, type="start", track_id=4)])
            listener.wait_for("framewire/gate/objects/car", "count", 2)
        listener.wait_last("framewire/availability", b"offline")
    with Listener(server, "framewire/availability") as late:
        assert late.wait(lambda heard: len(heard) == 1)[0].retain


def test_who_comes_later_discovers_everything(server: Mosquitto) -> None:
    with connected(server, commands=True) as connector:
        connector.send([make_event_row(0, type="start", track_id=3)])
        with Listener(server, "framewire/gate/confidence/state") as settings:
            settings.wait_last("framewire/gate/confidence/state", b"0.4")
        with Listener(server, "homeassistant/#", "framewire/#") as later:
            # Six entities, and five states: two entities show the same one.
            heard = later.wait(lambda heard: len(heard) >= 11)
            assert all(one.retain for one in heard)
            found = configs(heard)
            names = ["Confidence", "Connection", "Detection", "Running", "car count", "car present"]
            assert sorted(config["name"] for config in found.values()) == names
            assert {config["state_topic"] for config in found.values()} == {one.topic for one in heard} - set(
                found
            )
            # Home Assistant has started again, and asks.
            later.say("homeassistant/status", "online")
            later.wait(lambda heard: configs(heard[11:]) == found)


def test_a_will_that_comes_late_is_put_right(server: Mosquitto) -> None:
    with Listener(server, "framewire/availability") as listener, connected(server):
        listener.wait_last("framewire/availability", b"online")
        before = len(listener.heard)
        listener.say("framewire/availability", "offline", retain=True)
        listener.wait(lambda heard: [one.payload for one in heard[before:]] == [b"offline", b"online"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_commands(server: Mosquitto, protocol: Protocol, caplog: pytest.LogCaptureFixture) -> None:
    run = Run()
    with Listener(server, "framewire/gate/+/state") as listener:
        listener.say("framewire/gate/detection/set", "OFF", retain=True)
        with connected(server, run, commands=True, protocol=protocol), caplog.at_level(logging.WARNING):
            listener.wait_last("framewire/gate/detection/state", b"ON")
            assert run.setting["enabled"], "a command that was retained is old"
            for what, payload, state in [
                ("detection", "OFF", b"OFF"), ("confidence", "0.25", b"0.25"), ("detection", "on", b"ON"),
                ("confidence", "1", b"1"),
            ]:  # fmt: skip
                listener.say(f"framewire/gate/{what}/set", payload)
                listener.wait_last(f"framewire/gate/{what}/state", state)
            assert run.setting == {"enabled": True, "confidence": 1.0}
            assert caplog.records == []
            for what, payload, reason in [
                ("detection", "maybe", "'maybe' is neither ON nor OFF"),
                ("confidence", "1.5", "'1.5' is no number from 0 to 1"),
                ("confidence", "nan", "'nan' is no number from 0 to 1"),
                ("confidence", "", "'' is no number from 0 to 1"),
            ]:
                before = len(listener.heard)
                listener.say(f"framewire/gate/{what}/set", payload)
                listener.wait(partial(grown, before + 2))
                said = caplog.records[-1].getMessage()
                assert said == f"framewire/gate/{what}/set: nothing is changed: {reason}"
            assert run.setting == {"enabled": True, "confidence": 1.0}
            listener.say("framewire/porch/detection/set", "OFF")
            listener.say("framewire/gate/detection/set", "OFF")
            listener.wait_last("framewire/gate/detection/state", b"OFF")
            assert caplog.records[-1].getMessage().endswith("there is no source porch")


def test_events_go_on_while_a_command_takes_its_time(server: Mosquitto) -> None:
    run, go = Run(), threading.Event()
    session = Session(
        "run", "cafe", SPEC, lambda: ("gate",), lambda request: run.control(request) if go.wait(10) else {}
    )
    with Listener(server, "framewire/#") as listener:
        connector = MqttConnector(server.url, commands=True, timeout_s=2.0)
        with closing(connector):
            connector.connect(session)
            connector.send(rows(0, 100))
            wait_for(listener, 100)
            assert run.asked == []
            go.set()
            listener.wait_last("framewire/gate/detection/state", b"ON")


def test_a_wrong_password_is_not_shown(tmp_path: Path) -> None:
    with Mosquitto(tmp_path / "m", users={"cam": PASSWORD}) as server:
        secret = tmp_path / "password"
        secret.write_text("wrong-" + PASSWORD + "\n")
        for protocol in PROTOCOLS:
            connector = MqttConnector(
                server.url, username="cam", password_file=str(secret), protocol=protocol, timeout_s=5.0
            )
            with pytest.raises(UnreachableError, match="refuses the connection") as refused:
                connector.connect(Run().session)
            assert PASSWORD not in str(refused.value)
            connector.close()
        # An operator mends it, and the same connector gets in.
        secret.write_text(PASSWORD + "\n")
        with closing(connector):
            connector.connect(Run().session)
            connector.send(rows(0, 2))


def test_tls(tmp_path: Path) -> None:
    made, wrong = certificate(), certificate("elsewhere.invalid")
    with Mosquitto(tmp_path / "m", tls=made) as server:
        with (
            Listener(server, "framewire/#") as listener,
            connected(server, ca_file=str(made.cert)) as connector,
        ):
            connector.send(rows(0, 20))
            assert events(wait_for(listener, 20)) == list(range(20))
        for ca_file in (None, str(wrong.cert), "/nowhere.pem"):
            stranger = MqttConnector(server.url, ca_file=ca_file, timeout_s=5.0)
            with pytest.raises(UnreachableError, match="certificate"):
                stranger.connect(Run().session)
            stranger.close()


def test_a_topic_that_is_forbidden(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    acl = "topic readwrite framewire/gate/#\ntopic readwrite framewire/availability\n"
    with (
        Mosquitto(tmp_path / "m", acl=acl) as server,
        Listener(server, "framewire/gate/#") as listener,
        caplog.at_level(logging.WARNING),
        connected(server) as connector,
    ):
        batch = [*rows(0, 3), *rows(3, 4, source="porch"), *rows(4, 300)]
        with pytest.raises(RefusedError, match="framewire/porch/update/car: not authorized") as refused:
            connector.send(batch)
        assert refused.value.done == 3
        passed = len(listener.heard)
        for _ in range(3):  # Again and again, and nothing is sent past it.
            with pytest.raises(RefusedError) as refused:
                connector.send(batch[3:])
            assert refused.value.done == 0
        connector.send(batch[4:])
        got = events(listener.wait(lambda heard: 299 in events(heard[-5:])))
        assert set(got) == set(range(300)) - {3}
        assert got[-296:] == list(range(4, 300))
        assert len(got) < 299 + 25, f"only one window overtook it, {passed} messages"
        # Home Assistant's topics are forbidden too: said once each, and no event is held up by it.
        warned = [record.getMessage() for record in caplog.records]
        assert any("homeassistant/binary_sensor" in text for text in warned)
        assert len(warned) == len(set(warned))


def test_an_event_that_is_too_large(tmp_path: Path) -> None:
    with (
        Mosquitto(tmp_path / "m", more="max_packet_size 20000") as server,
        connected(server) as connector,
    ):
        batch = [*rows(0, 1), large(1), *rows(2, 3)]
        with pytest.raises(RefusedError, match="packet too large") as refused:
            connector.send(batch)
        assert refused.value.done == 1
        connector.send(batch[2:])


@pytest.mark.parametrize(
    ("protocol", "limit"), [("5", "message_size_limit 20000"), ("3.1.1", "max_packet_size 20000")]
)
def test_a_server_that_hangs_up_on_an_event(tmp_path: Path, protocol: Protocol, limit: str) -> None:
    batch, raised = [*rows(0, 1), large(1), *rows(2, 3)], list[type[Exception]]()
    with (
        Mosquitto(tmp_path / "m", more=limit) as server,
        closing(MqttConnector(server.url, protocol=protocol, timeout_s=5.0)) as connector,
    ):
        while len(raised) < 10 and RefusedError not in raised:
            connector.connect(Run().session)
            try:
                connector.send(batch)
            except (UnreachableError, RefusedError) as error:
                raised.append(type(error))
                batch = batch[error.done :]
        # Once with the one before it, once in company, and three times alone.
        assert 3 < len(raised) < 7
        assert raised[-1] is RefusedError
        assert batch[0]["sequence"] == 1
        connector.connect(Run().session)
        connector.send(batch[1:])


def test_a_loss_is_seen_while_nothing_is_sent(server: Mosquitto) -> None:
    with connected(server) as connector:
        connector.check()
        server.stop()
        reason, deadline = "", time.monotonic() + 10
        while not reason and time.monotonic() < deadline:
            try:
                connector.check()
            except UnreachableError as error:
                reason = error.message
        assert "hung up" in reason
        connector.close()
        with pytest.raises(UnreachableError, match="not connected"):
            connector.check()


def test_nobody_is_there() -> None:
    connector = MqttConnector(f"mqtt://127.0.0.1:{free_port()}", timeout_s=2.0)
    with pytest.raises(UnreachableError, match="cannot connect"):
        connector.connect(Run().session)
    connector.close()


def test_the_library_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "paho.mqtt.client", None)
    with pytest.raises(ConfigError) as missing:
        MqttConnector("mqtt://127.0.0.1")
    assert 'pip install "framewire[mqtt]"' in str(missing.value)
