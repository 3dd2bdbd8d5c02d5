"""Kafka over faults of its brokers, read by a consumer: complete, in order, and twice at most what may be."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.config import from_mapping
from pipeline.errors import ConfigError
from pipeline.messages import ModelSpec
from pipeline.sinks import build_connector
from pipeline.sinks.connector import Connector, Listening, RefusedError, Session, UnreachableError
from tests.servers.kafka import INIT_PRODUCER, PRODUCE, KafkaCluster, StrictBroker
from tests.servers.programs import records

SPEC = ModelSpec("default", "0" * 64, "nanodet", ("car",), 416, 416)
SESSION = Session("run", "cafe", SPEC, lambda: ("gate",), lambda _: {})
PASSWORD = "s3cret-word"

#: Answers of a broker (https://kafka.apache.org/protocol#protocol_error_codes).
TOO_LARGE, NOT_LEADER, TIMED_OUT, FEW_REPLICAS, FORBIDDEN, NO_LEAVE = 10, 6, 7, 19, 29, 31


@pytest.fixture
def cluster() -> Iterator[KafkaCluster]:
    with KafkaCluster() as cluster:
        yield cluster


def made(cluster: KafkaCluster, **options: Any) -> Connector:
    return build_connector("kafka", **({"servers": cluster.servers, "timeout_s": 5.0} | options))


def test_a_consumer_finds_all_in_the_order_of_each_source(cluster: KafkaCluster) -> None:
    connector = made(cluster, compression="zstd")
    connector.connect(SESSION)
    for first in range(0, 500, 100):
        both = [records(n, 1, source=("gate", "yard")[n % 2])[0] for n in range(first, first + 100)]
        connector.send(both)
    connector.close()
    found = cluster.read(500)
    assert len(found) == 500
    places = {"gate": set[int](), "yard": set[int]()}
    sequences: dict[str, list[int]] = {"gate": [], "yard": []}
    for message in found:
        event, source = json.loads(message.value()), message.key().decode()
        assert event["source"] == source
        assert dict(message.headers()) == {
            "schema": b"framewire.update/1",
            "sequence": str(event["sequence"]).encode(),
            "id": event["id"].encode(),
        }
        places[source].add(message.partition())
        sequences[source].append(event["sequence"])
    assert [len(partitions) for partitions in places.values()] == [1, 1]
    assert sequences == {"gate": list(range(0, 500, 2)), "yard": list(range(1, 500, 2))}


def test_cut_off_in_the_middle_of_sends(cluster: KafkaCluster) -> None:
    halfway = threading.Event()

    def trouble() -> None:
        halfway.wait(10)
        cluster.down()
        time.sleep(1.2)  # Longer than a message may take.
        cluster.up()

    thread = threading.Thread(target=trouble)
    thread.start()
    connector, at, failures, connected = made(cluster, timeout_s=1.0), 0, 0, False
    unsure: set[int] = set()
    while at < 500:
        try:
            if not connected:
                connector.connect(SESSION)
                connected = True
            connector.send(records(at, 20))
            at += 20
            if at == 200:
                halfway.set()
        except UnreachableError as error:
            unsure |= set(range(at + error.done, at + 20)) if connected else set()
            at, failures, connected = at + error.done, failures + 1, False
            assert failures < 100
    thread.join()
    connector.close()
    assert failures > 0
    found = cluster.sequences(500)
    assert list(dict.fromkeys(found)) == list(range(500)), "all there, and first seen in order"
    twice = {n for n in found if found.count(n) > 1}
    assert twice <= unsure, "nothing twice that was acknowledged"


def test_an_answer_that_comes_too_late_brings_that_batch_twice_and_no_more(cluster: KafkaCluster) -> None:
    connector = made(cluster, timeout_s=1.5)
    connector.connect(SESSION)
    connector.send(records(0, 10))
    cluster.slow(3000)
    with pytest.raises(UnreachableError) as caught:
        connector.send(records(10, 5))
    assert caught.value.done == 0
    connector.close()
    cluster.slow(0)
    connector = made(cluster)
    connector.connect(SESSION)
    connector.send(records(10, 10))
    connector.close()
    assert cluster.sequences(25) == [*range(15), *range(10, 20)]


def test_errors_that_pass_are_not_seen(cluster: KafkaCluster) -> None:
    connector = made(cluster)
    connector.connect(SESSION)
    cluster.fail(PRODUCE, NOT_LEADER, TIMED_OUT, FEW_REPLICAS)
    connector.send(records(0, 10))
    connector.close()
    assert cluster.sequences(10) == list(range(10)), "the producer is idempotent"


def test_a_broker_that_refuses_a_batch_means_one_of_it(cluster: KafkaCluster) -> None:
    """It refuses whole requests; this one has several, and the later ones must not overtake."""
    connector = made(cluster)
    connector.connect(SESSION)
    connector.send(records(0, 1))
    cluster.fail(PRODUCE, TOO_LARGE)
    connector.send(records(1, 50, path="x" * 60_000))
    cluster.fail(PRODUCE, TOO_LARGE, TOO_LARGE)
    with pytest.raises(RefusedError, match="too large") as caught:
        connector.send(records(51, 3))
    assert caught.value.done == 0
    connector.send(records(52, 2))  # As a delivery goes on, having set it aside.
    connector.close()
    assert cluster.sequences(53) == [*range(51), 52, 53], "one by one only one was too large"


def test_nothing_is_sent_behind_what_the_library_refuses(cluster: KafkaCluster) -> None:
    connector = made(cluster)
    connector.connect(SESSION)
    for _ in range(2):
        with pytest.raises(RefusedError, match="too large") as caught:
            connector.send([*records(0, 1, path="x" * 2_000_000), *records(1, 2)])
        assert caught.value.done == 0
    with pytest.raises(RefusedError) as caught:
        connector.send([*records(1, 2), *records(3, 1, path="x" * 2_000_000), *records(4, 2)])
    assert caught.value.done == 2
    connector.send(records(4, 2))
    connector.close()
    assert cluster.sequences(4) == [1, 2, 4, 5]


def test_a_topic_that_is_forbidden_is_waited_for(cluster: KafkaCluster) -> None:
    """Nobody's event is at fault, and an operator can mend it: no dead letters."""
    connector = made(cluster)
    cluster.topic_error(FORBIDDEN)
    with pytest.raises(UnreachableError, match=r"framewire\.events: Broker: Topic authorization failed"):
        connector.connect(SESSION)
    cluster.topic_error(0)
    connector.connect(SESSION)
    cluster.fail(PRODUCE, FORBIDDEN)
    with pytest.raises(UnreachableError, match="Topic authorization failed"):
        connector.send(records(0, 2))
    connector.close()


@pytest.mark.parametrize("idle", [True, False])
def test_a_producer_that_gets_no_leave_is_waited_for(cluster: KafkaCluster, idle: bool) -> None:
    connector = made(cluster)
    assert isinstance(connector, Listening)
    cluster.fail(INIT_PRODUCER, NO_LEAVE)
    connector.connect(SESSION)
    with pytest.raises(UnreachableError, match=r"(?i)authorization failed"):  # noqa: PT012
        until = time.monotonic() + 5
        while idle and time.monotonic() < until:
            connector.check()
            time.sleep(0.01)
        connector.send(records(0, 2))
    connector.close()


def test_a_wrong_password_is_said_and_not_shown() -> None:
    with StrictBroker() as broker:
        connector = build_connector(
            "kafka", servers=broker.server, security="sasl_plaintext", mechanism="PLAIN",
            username="me", password=PASSWORD, timeout_s=1.0,
        )  # fmt: skip
        with pytest.raises(UnreachableError, match="Authentication failed") as caught:
            connector.connect(SESSION)
        connector.close()
    assert PASSWORD.encode() in broker.seen
    assert PASSWORD not in caught.value.message


def test_the_library_talks_to_our_log_only(
    cluster: KafkaCluster, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG, "pipeline.sinks.kafka")
    connector = made(cluster)
    assert isinstance(connector, Listening)
    connector.connect(SESSION)
    connector.send(records(0, 1))
    cluster.down()
    until = time.monotonic() + 5
    while "Disconnected" not in caplog.text and time.monotonic() < until:
        connector.check()
        time.sleep(0.01)
    connector.close()
    assert "Disconnected" in caplog.text
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"kafka": "user:s3cret@one:9092"}, "give username: and password:"),
        ({"kafka": "kafka://one:9092"}, "must be servers, such as"),
        ({"kafka": "one:9092,two:99999"}, "ports from 1 to 65535"),
        ({"kafka": "one:9092", "topic": ".."}, "must be a topic"),
        ({"kafka": "one:9092", "username": "me", "password": "s3cret"}, "security: sasl_"),
        ({"kafka": "one:9092", "security": "sasl_ssl"}, "needs a username"),
        ({"kafka": "one:9092", "security": "sasl_ssl", "username": "me"}, "add password:"),
        ({"kafka": "one:9092", "ca_file": "ca.pem"}, "write security: ssl"),
    ],
)
def test_a_config_that_makes_no_sense(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_mapping({"publish": [entry]}, "test")
    assert said in str(caught.value)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("servers", ["one", "one:9092,10.0.0.6:9092", "[::1]:9092,two:9092"])
def test_servers_that_are_right(servers: str) -> None:
    from_mapping({"publish": [{"kafka": servers}]}, "test")
