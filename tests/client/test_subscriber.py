from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from pipeline.client import Received, Subscriber, parse_message
from pipeline.errors import ConfigError, MessageError, SinkError
from pipeline.sinks.records import topic
from pipeline.sinks.zmq_pub import ZmqSink
from pipeline.transport.pub import Publisher, is_local
from tests.client.stub import StubPublisher
from tests.sinks.builders import SPEC, make_event_row, make_header, make_item

LIMIT_S = 5.0  # never waited for unless something is broken


@pytest.fixture
def stub() -> Iterator[StubPublisher]:
    with StubPublisher() as made:
        yield made


def payload(kind: str, source: str, **more: Any) -> bytes:
    return msgspec.msgpack.encode({"schema": f"framewire.{kind}/1", "source": source, **more})


def joined(stub: StubPublisher, subscriber: Subscriber) -> None:
    """Publish frames and wait for answers until the subscription is in force."""
    while subscriber.receive(0.01) is None and not subscriber.caught_up:
        stub.frame(source="gate")
    while subscriber.receive(0.05) is not None:
        pass


FILTERS: list[tuple[dict[str, list[str]], list[str]]] = [
    ({}, ["gate/start/car", "gate/frame", "gate/end/person", "gate_2/start/car", "gate/source"]),
    ({"sources": ["gate"]}, ["gate/start/car", "gate/frame", "gate/end/person", "gate/source"]),
    ({"types": ["start"]}, ["gate/start/car", "gate_2/start/car"]),
    ({"types": ["frame"]}, ["gate/frame"]),
    ({"labels": ["car"]}, ["gate/start/car", "gate_2/start/car"]),
    ({"zones": ["drive", "lawn"]}, ["gate/start/car", "gate/end/person"]),
    ({"sources": ["gate"], "types": ["start", "end"]}, ["gate/start/car", "gate/end/person"]),
    ({"sources": ["gate"], "labels": ["car", "bus"]}, ["gate/start/car"]),
    (
        {"sources": ["gate", "gate_2"], "types": ["start"], "labels": ["car"]},
        ["gate/start/car", "gate_2/start/car"],
    ),
]


@pytest.mark.parametrize(("filters", "expected"), FILTERS)
@pytest.mark.parametrize("missed", [False, True], ids=["live", "replayed"])
def test_filters(
    stub: StubPublisher, filters: dict[str, list[str]], expected: list[str], missed: bool
) -> None:
    with Subscriber(stub.address, **filters, timeout_s=LIMIT_S) as subscriber:  # type: ignore[arg-type]
        if filters == {"types": ["frame"]}:
            while subscriber.receive(0.01) is None:
                stub.frame(seq=0)
        joined(stub, subscriber)
        stub.mute = missed
        stub.publish(source="gate", label="car", zones=["drive"])
        stub.frame(source="gate")
        stub.publish(type="end", source="gate", label="person", zone="lawn")
        stub.publish(source="gate_2", label="car")
        stub.publish(type="source", source="gate")
        got = [next(subscriber).topic for _ in expected]
        expected = [f"framewire/{name}/" for name in expected]
        assert sorted(got) == sorted(expected)
        if not missed:
            assert got == expected, "frames and events come in the order of their being published"
        assert subscriber.receive(0.02) is None
        assert subscriber.malformed == subscriber.lost == 0


def test_a_sink_can_leave_frames_or_events_out() -> None:
    item = make_item(make_header(0), make_event_row(0))
    sink = ZmqSink("tcp://127.0.0.1:*", events=False)
    sink.open(SPEC)
    with Subscriber(sink.address, types=["frame"], timeout_s=LIMIT_S) as subscriber:
        while (got := subscriber.receive(0.01)) is None:
            sink.write(item)
        sink.write(item)
        assert {got.kind, next(subscriber).kind} == {"frame"}
    sink.close()


def test_the_tail_is_not_lost_when_the_publisher_closes() -> None:
    publisher = Publisher("tcp://127.0.0.1:*", linger_s=LIMIT_S)
    with Subscriber(publisher.address, types=["frame"], timeout_s=LIMIT_S) as subscriber:
        while subscriber.receive(0.01) is None:
            publisher.send(topic("gate", "frame"), payload("frame", "gate"))
        while subscriber.receive(0.05) is not None:
            pass
        body = payload("frame", "gate", filler="x" * 10_000)
        for _ in range(500):
            publisher.send(topic("gate", "frame"), body)
        publisher.close()
        assert sum(1 for _ in zip(range(500), subscriber, strict=False)) == 500


def test_silence_ends_the_iteration(stub: StubPublisher) -> None:
    with Subscriber(stub.address, timeout_s=0.01) as subscriber:
        assert list(subscriber) == []


MALFORMED: list[tuple[list[bytes], str]] = [
    ([b"framewire/gate/frame/"], "1 parts"),
    ([b"framewire/gate/frame/", b"", b""], "3 parts"),
    ([b"framewire/gate/frame/", b""], ""),
    ([b"framewire/gate/frame/", b"\xc1"], ""),
    ([b"framewire/gate/frame/", b"{torn"], ""),
    ([b"framewire/gate/frame/", b"[1]"], ""),
    ([b"framewire/gate/frame/", msgspec.msgpack.encode([1])], ""),
    ([b"framewire/gate/frame/", msgspec.msgpack.encode({})], "do not belong"),
    ([b"framewire/gate/frame/", payload("start", "gate")], "do not belong"),
    ([b"framewire/gate/frame/", payload("frame", "yard")], "do not belong"),
    ([b"framewire/\xff/frame/", payload("frame", "gate")], ""),
    ([b"framewire/frame", payload("frame", "gate")], "not a framewire topic"),
    ([b"elsewhere", payload("frame", "gate")], "not a framewire topic"),
]


@pytest.mark.parametrize(("parts", "words"), MALFORMED)
def test_malformed_messages_are_refused(parts: list[bytes], words: str) -> None:
    with pytest.raises(MessageError, match=f"not a framewire message: .*{words}"):
        parse_message(parts)


def test_malformed_messages_are_counted_and_the_next_one_arrives(stub: StubPublisher) -> None:
    with Subscriber(stub.address, timeout_s=LIMIT_S) as subscriber:
        joined(stub, subscriber)
        ours = [parts for parts, _ in MALFORMED if parts[0] == b"framewire/gate/frame/"]
        ours += [
            [b"framewire.log/heartbeat/", b"{}"],
            [b"framewire.log/heartbeat/", msgspec.msgpack.encode(stub.log.heartbeat("udp://nowhere"))],
            [b"framewire.log/heartbeat/", msgspec.msgpack.encode(stub.log.heartbeat("tcp://x:99999"))],
            [b"framewire.log/0000000000000000/", b"\xc1"],
            [b"framewire.log/0000000000000000/", b""],
            [b"framewire.log/0000000000000000/", payload("start", "gate")],
        ]
        for parts in ours:
            stub.raw(parts)
        stub.frame(last=True)
        while not next(subscriber).record.get("last"):
            pass
        assert subscriber.malformed == len(ours)


def test_an_unknown_version_is_refused_and_unknown_fields_are_not(stub: StubPublisher) -> None:
    with Subscriber(stub.address, timeout_s=LIMIT_S) as subscriber:
        joined(stub, subscriber)
        for publish in (stub.frame, stub.publish):
            kind = "frame" if publish == stub.frame else "start"
            publish(schema=f"framewire.{kind}/2")
            publish(colour="blue")
            with pytest.raises(
                MessageError, match=rf"'framewire\.{kind}/2'; this subscriber reads version 1"
            ):
                next(subscriber)
            assert next(subscriber).record["colour"] == "blue"


def test_a_kind_that_a_later_release_adds_arrives() -> None:
    got = parse_message([b"framewire/gate/zone_entered/car/", payload("zone_entered", "gate", label="car")])
    assert got == Received("framewire/gate/zone_entered/car/", "zone_entered", got.record)


@pytest.mark.parametrize(
    "address", ["", "gate", "tcp://nowhere", "http://127.0.0.1:1", "tcp://127.0.0.1:99999"]
)
def test_wrong_addresses(address: str) -> None:
    with pytest.raises(ConfigError, match="cannot connect to"):
        Subscriber(address)
    with pytest.raises(ConfigError, match="is not an address to publish at"):
        Publisher(address)


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("tcp://127.0.0.1:5556", True), ("tcp://127.9.9.9:*", True), ("tcp://[::1]:5556", True),
        ("tcp://localhost:5556", True), ("tcp://lo:5556", True), ("ipc:///tmp/x", True), ("inproc://x", True),
        ("tcp://*:5556", False), ("tcp://0.0.0.0:5556", False), ("tcp://[::]:5556", False),
        ("tcp://192.168.0.5:5556", False), ("tcp://eth0:5556", False),
    ],
)  # fmt: skip
def test_is_local(address: str, local: bool) -> None:
    assert is_local(address) is local


def test_beyond_this_host_only_on_purpose() -> None:
    with pytest.raises(ConfigError, match="can be reached from other hosts"):
        ZmqSink("tcp://0.0.0.0:*").open(SPEC)
    sink = ZmqSink("tcp://0.0.0.0:*", insecure=True)
    sink.open(SPEC)
    sink.close()


def test_mistakes(stub: StubPublisher) -> None:
    with pytest.raises(SinkError, match=f"cannot publish at {stub.address}: the address is in use"):
        Publisher(stub.address)
    with pytest.raises(SinkError, match="cannot publish at ipc:///no/such/folder/x"):
        Publisher("ipc:///no/such/folder/x")
    with pytest.raises(ConfigError, match="queue_limit is 0"):
        Publisher("tcp://127.0.0.1:*", queue_limit=0)
    with pytest.raises(ConfigError, match="cannot write 'xml'"):
        ZmqSink("tcp://127.0.0.1:*", "xml")  # type: ignore[arg-type]


def test_importing_the_client_loads_nothing_heavy() -> None:
    code = (
        "import sys, pipeline.client;"
        "bad = {'av', 'cv2', 'onnxruntime', 'supervision', 'scipy', 'pydantic', 'rich'} & set(sys.modules);"
        "own = {m for m in sys.modules if m.startswith('pipeline.')};"
        "bad |= {m for m in own if m.split('.')[1] not in ('client', 'schemas', 'messages', 'errors')};"
        "sys.exit(repr(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
