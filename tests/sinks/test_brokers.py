"""Redis, NATS JetStream and Kafka, the real ones: complete, in order, over restarts; and what they refuse."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.messages import ModelSpec
from pipeline.sinks import build_connector
from pipeline.sinks.connector import Connector, RefusedError, Session, UnreachableError
from pipeline.sinks.nats import subject_of
from tests.servers.programs import Program, free_port, need, records

SPEC = ModelSpec("default", "0" * 64, "nanodet", ("car",), 416, 416)
SESSION = Session("run", "cafe", SPEC, lambda: ("gate",), lambda _: {})
PASSWORD = "s3cret-word"


class Broker:
    """A server, how our connector reaches it, and how anybody reads what is there."""

    def __init__(
        self, program: Program, kind: str, url: str, read: Callable[[], list[int]], **options: Any
    ) -> None:
        self.program, self.kind, self.url, self.read, self.options = program, kind, url, read, options

    def connector(self, **options: Any) -> Connector:
        return build_connector(self.kind, url=self.url, timeout_s=5.0, **(self.options | options))


def redis_of(folder: Path, *more: str) -> Program:
    program = need("redis-server", "redis-server")
    folder.mkdir(exist_ok=True)
    return Program(
        lambda port: [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder),
                      "--appendonly", "yes", "--appendfsync", "always", "--save", "", *more],
        folder,
    )  # fmt: skip


def nats_of(folder: Path, *more: str) -> Program:
    program = need("nats-server", "nats-server")
    return Program(
        lambda port: [program, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder), *more], folder
    )


def read_redis(port: int, **options: Any) -> list[int]:
    import redis

    with redis.Redis(port=port, **options) as client:
        entries: Any = client.xrange("framewire:events")
        for _, fields in entries:
            assert json.loads(fields[b"event"])["sequence"] == int(fields[b"sequence"])
            assert (fields[b"log"], fields[b"source"]) == (b"cafe", b"gate")
        return [int(fields[b"sequence"]) for _, fields in entries]


def read_nats(port: int) -> list[int]:
    import nats

    async def read() -> list[int]:
        client = await nats.connect(f"nats://127.0.0.1:{port}")
        stream = client.jetstream()
        found = []
        state = (await stream.stream_info("FRAMEWIRE")).state
        if state.messages:
            sub = await stream.subscribe("framewire.>", ordered_consumer=True)
            for _ in range(state.messages):
                message = await sub.next_msg(timeout=5)
                assert message.subject == "framewire.gate.update.car"
                found.append(json.loads(message.data)["sequence"])
        await client.close()
        return found

    return asyncio.run(read())


@pytest.fixture(params=["redis", "nats"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    if request.param == "redis":
        with redis_of(tmp_path / "redis") as program:
            yield Broker(
                program, "redis", f"redis://127.0.0.1:{program.port}/0", lambda: read_redis(program.port)
            )
    else:
        with nats_of(tmp_path / "nats") as program:
            yield Broker(program, "nats", f"nats://127.0.0.1:{program.port}", lambda: read_nats(program.port))


def test_all_arrive_in_order_and_over_a_restart(broker: Broker) -> None:
    connector = broker.connector()
    connector.connect(SESSION)
    for first in range(0, 300, 100):
        connector.send(records(first, 100))
    assert broker.read() == list(range(300)), "what was acknowledged is there"
    broker.program.kill()
    with pytest.raises(UnreachableError):
        connector.send(records(300, 100))
    with pytest.raises(UnreachableError):
        connector.connect(SESSION)
    broker.program.start()
    connector.connect(SESSION)
    for first in range(300, 500, 100):
        connector.send(records(first, 100))
    connector.close()
    connector.close()
    assert broker.read() == list(range(500))


def test_what_is_sent_again(broker: Broker) -> None:
    """NATS leaves it out by its id; in Redis it is there twice, to be told by its number."""
    connector = broker.connector()
    connector.connect(SESSION)
    connector.send(records(0, 5))
    connector.send(records(3, 5))
    connector.close()
    again = [3, 4] if broker.kind == "redis" else []
    assert broker.read() == [0, 1, 2, 3, 4, *again, 5, 6, 7]


@pytest.mark.parametrize("kind", ["redis", "nats", "kafka"])
def test_nobody_there(kind: str) -> None:
    port = free_port()
    url = f"127.0.0.1:{port}" if kind == "kafka" else f"{kind}://127.0.0.1:{port}"
    name = "servers" if kind == "kafka" else "url"
    connector = build_connector(kind, **{name: url}, timeout_s=1.0)
    with pytest.raises(UnreachableError, match=str(port)):
        connector.connect(SESSION)
    connector.close()


@pytest.mark.parametrize("kind", ["redis", "nats"])
def test_a_wrong_password_is_said_and_not_shown(kind: str, tmp_path: Path) -> None:
    if kind == "redis":
        program = redis_of(tmp_path / "redis", "--requirepass", PASSWORD)
        url = "redis://127.0.0.1:{}/0"
    else:
        program = nats_of(tmp_path / "nats", "--user", "default", "--pass", PASSWORD)
        url = "nats://127.0.0.1:{}"
    secret = tmp_path / "password"
    with program:
        made = {"url": url.format(program.port), "username": "default", "timeout_s": 3.0}
        wrong = build_connector(kind, password="wr0ng", **made)
        with pytest.raises(UnreachableError) as caught:
            wrong.connect(SESSION)
        assert "wr0ng" not in caught.value.message
        assert "password" in caught.value.message.lower() or "authorization" in caught.value.message.lower()
        secret.write_text(f"{PASSWORD}\n")
        right = build_connector(kind, password_file=str(secret), **made)
        right.connect(SESSION)
        right.send(records(0, 1))
        right.close()


@pytest.mark.parametrize("content", [None, ""])
def test_a_password_file_that_is_not_there_yet(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "password").write_text(content)
    connector = build_connector(
        "redis", url="redis://127.0.0.1:1/0", username="x", password_file=str(tmp_path / "password")
    )
    with pytest.raises(UnreachableError, match="password"):
        connector.connect(SESSION)


def fill(connector: Connector) -> None:
    for _ in range(100):
        connector.send(records(0, 10, path="x" * 10_000))


def test_redis_that_is_full_or_has_something_else_there_is_tried_again(tmp_path: Path) -> None:
    import redis

    with redis_of(tmp_path / "redis", "--maxmemory", "1mb", "--maxmemory-policy", "noeviction") as program:
        connector = build_connector("redis", url=f"redis://127.0.0.1:{program.port}/0")
        connector.connect(SESSION)
        with pytest.raises(UnreachableError, match="maxmemory") as caught:
            fill(connector)
        assert len(caught.value.message) < 200, "and not what was sent"
        connector.close()
        other = build_connector("redis", url=f"redis://127.0.0.1:{program.port}/0", stream="taken")
        with redis.Redis(port=program.port) as client:
            client.config_set("maxmemory", 0)
            client.set("taken", "a string")
        other.connect(SESSION)
        with pytest.raises(UnreachableError, match="WRONGTYPE"):
            other.send(records(0, 1))
        other.close()


def test_an_event_larger_than_nats_takes_is_refused_and_those_before_it_are_there(tmp_path: Path) -> None:
    with nats_of(tmp_path / "nats") as program:
        connector = build_connector("nats", url=f"nats://127.0.0.1:{program.port}")
        connector.connect(SESSION)
        with pytest.raises(RefusedError) as caught:
            connector.send([*records(0, 3), *records(3, 1, path="x" * 2_000_000), *records(4, 1)])
        assert caught.value.done == 3
        connector.close()
        assert read_nats(program.port)[:3] == [0, 1, 2]


@pytest.mark.parametrize(
    ("record", "subject"),
    [
        ({"source": "gate", "type": "start", "label": "car"}, "framewire.gate.start.car"),
        ({"source": "gate", "type": "source"}, "framewire.gate.source"),
        ({"source": "a.b*c>d", "type": "start", "label": "traffic light"},
         "framewire.a%2Eb%2Ac%3Ed.start.traffic%20light"),
    ],
)  # fmt: skip
def test_subjects(record: dict[str, Any], subject: str) -> None:
    assert subject_of("framewire", record) == subject


class Mock:
    """librdkafka's own mock of a cluster, which the producer under test joins."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import confluent_kafka

        self.delivered: list[tuple[str, int, str]] = []
        self.producers: list[Any] = []
        outer = self
        real = confluent_kafka.Producer

        class Producer:
            def __init__(self, settings: dict[str, Any], **options: Any) -> None:
                made = {key: value for key, value in settings.items() if key != "bootstrap.servers"}
                self._inner = real(made | {"test.mock.num.brokers": 1}, **options)
                outer.producers.append(self._inner)

            def produce(
                self, topic: str, value: bytes, *, key: bytes, headers: Any, on_delivery: Any
            ) -> None:
                def report(error: Any, message: Any) -> None:
                    if error is None:
                        outer.delivered.append((topic, message.partition(), key.decode()))
                    on_delivery(error, message)

                self._inner.produce(topic, value, key=key, headers=headers, on_delivery=report)

            def __getattr__(self, name: str) -> Any:
                return getattr(self._inner, name)

        monkeypatch.setattr(confluent_kafka, "Producer", Producer)


def test_kafka_reports_what_was_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    mock = Mock(monkeypatch)
    connector = build_connector("kafka", servers="mock:9092", timeout_s=10.0)
    connector.connect(SESSION)
    for first in range(0, 500, 100):
        connector.send(records(first, 100))
        assert len(mock.delivered) == first + 100, "send returns when all are acknowledged"
    assert {(topic, key) for topic, _, key in mock.delivered} == {("framewire.events", "gate")}
    assert len({partition for _, partition, _ in mock.delivered}) == 1, "one source, one partition"
    connector.close()


def test_kafka_refuses_what_is_too_large_and_has_what_was_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    mock = Mock(monkeypatch)
    connector = build_connector("kafka", servers="mock:9092", timeout_s=10.0)
    connector.connect(SESSION)
    with pytest.raises(RefusedError, match=r"(?i)size|large") as caught:
        connector.send([*records(0, 2), *records(2, 1, path="x" * 2_000_000), *records(3, 1)])
    assert caught.value.done == 2
    assert len(mock.delivered) >= 2
    connector.connect(SESSION)
    connector.send(records(3, 1))
    connector.close()


@pytest.mark.parametrize("kind", ["redis", "nats", "kafka"])
def test_a_missing_library_names_the_extra(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    name = {"kafka": "confluent_kafka"}.get(kind, kind)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match="not installed") as caught:
        build_connector(kind, **{"servers" if kind == "kafka" else "url": "x"})
    assert f'pip install "framewire[{kind}]"' in caught.value.hint
