"""The subscriber against a publisher that comes late, goes away, forgets, and does not answer."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.client import Event, Place, Received, Subscriber, subscriber
from pipeline.client.wire import replay_address
from pipeline.errors import ConfigError, MessageError
from tests.client.stub import StubLog, StubPublisher

LIMIT_S = 10.0


@pytest.fixture
def stub() -> Iterator[StubPublisher]:
    with StubPublisher() as made:
        yield made


def numbers(events: Subscriber, count: int) -> list[int | None]:
    return [item.sequence for item in itertools.islice(events, count)]


def until(events: Subscriber, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        assert events.receive(0.01) is None


def following(stub: StubPublisher, **more: Any) -> Subscriber:
    return Subscriber(stub.address, types=["start"], timeout_s=LIMIT_S, **more)


def test_before_the_publisher_and_after_it(stub: StubPublisher) -> None:
    log = StubLog()
    ports = (stub.port, stub.replay_port)
    stub.close()
    with following(stub) as events:
        with StubPublisher(log, *ports) as first:
            for _ in range(3):
                first.publish()  # nobody has joined yet
            assert numbers(events, 3) == [0, 1, 2]
            first.publish()
            assert numbers(events, 1) == [3]
        log.commit()
        with StubPublisher(log, *ports) as second:
            second.publish()
            assert numbers(events, 2) == [4, 5]
            assert (events.lost, events.resets) == (0, 0)
        with StubPublisher(StubLog("b" * 16), *ports) as other:
            other.publish()
            got = next(events)
            assert (got.sequence, got.log, events.resets) == (0, "b" * 16, 1)


def test_the_place_of_the_replay_may_change(stub: StubPublisher) -> None:
    port = stub.port
    with following(stub) as events:
        stub.publish()
        assert numbers(events, 1) == [0]
        stub.close()
        with StubPublisher(stub.log, port) as elsewhere:
            elsewhere.mute = True
            elsewhere.publish()
            assert numbers(events, 1) == [1]
            assert events.refilled == 1


def test_a_slow_subscriber_gets_all_in_the_end() -> None:
    with StubPublisher(hwm=5, page=100) as stub, following(stub, queue_limit=5) as events:
        stub.publish()
        assert numbers(events, 1) == [0]
        for _ in range(3000):
            stub.publish(filler="x" * 1000)
        assert numbers(events, 3000) == list(range(1, 3001))
        assert events.refilled > 0
        assert events.lost == 0


def test_an_answer_that_never_comes_is_asked_for_again(
    stub: StubPublisher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipeline.client.feed.RETRY_S", 0.05)
    monkeypatch.setattr(subscriber, "_SILENT_S", 0.1)
    stub.log.commit()
    stub.deaf = True
    with following(stub, from_sequence=0) as events, caplog.at_level(logging.WARNING):
        until(events, lambda: len(stub.asked) > 4)
        assert len({request["id"] for request in stub.asked}) == len(stub.asked)
        until(events, lambda: bool(caplog.records))
        stub.deaf = False
        assert numbers(events, 1) == [0]
    assert [record.getMessage()[:38] for record in caplog.records] == [
        "no answer from the replay endpoint of "
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"from_sequence": 2}, [2, 3]),
        ({"since": 0}, [0, 1, 2, 3]),
        ({"since": "1970-01-01T00:00:00Z"}, [0, 1, 2, 3]),
        ({"since": datetime(2020, 1, 1, tzinfo=UTC)}, [0, 1, 2, 3]),
        ({"since": time.time() + 1e6}, []),
        ({}, [0, 1, 2, 3]),
        ({"from_sequence": 1, "log": "0" * 16}, [1, 2, 3]),
        ({"from_sequence": 1, "log": "f" * 16}, [0, 1, 2, 3]),
        ({"snapshot": True}, [2, 3]),
    ],
)
def test_starts_without_following(stub: StubPublisher, options: dict[str, Any], expected: list[int]) -> None:
    for track in (1, 2, 1, 3):
        stub.publish(track_id=track)
    stub.publish(type="end", track_id=2)
    with following(stub, follow=False, **options) as events:
        got = [item.sequence for item in events]
        assert got == expected
        assert events.caught_up
        assert events.resets == (options.get("log") == "f" * 16)


def test_forgotten_events_are_counted(stub: StubPublisher) -> None:
    for _ in range(10):
        stub.log.commit()
    stub.log.forget(7)
    with following(stub, follow=False, from_sequence=2) as events:
        assert [item.sequence for item in events] == [7, 8, 9]
        assert events.lost == 5


def test_the_cursor(stub: StubPublisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriber, "_MOVE_ON_S", 0.1)
    path = tmp_path / "cursor"

    def saved() -> Any:
        return json.loads(path.read_bytes())["next"]

    with following(stub, cursor=path) as events:
        until(events, path.exists)
        assert saved() == 0
        for _ in range(4):
            stub.publish()
        assert numbers(events, 2) == [0, 1]
        assert saved() == 1, "the second is still being worked on"
        events.commit()
        assert saved() == 2
        assert events.place == Place(2, stub.log.id)
        assert numbers(events, 1) == [2]
    with following(stub, cursor=path, snapshot=True) as events:
        assert numbers(events, 2) == [2, 3], "not committed, so it comes again; and no snapshot"
        assert saved() == 3
    with following(stub, cursor=path) as events:
        assert numbers(events, 1) == [3]
        assert events.receive(0) is None
        for _ in range(3):
            stub.publish(type="update")
        until(events, lambda: bool(saved() == 7))
    stub.log.forget(6)
    with following(stub, cursor=path, follow=False) as events:
        assert list(events) == []
        assert events.lost == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == ["cursor"]


@pytest.mark.parametrize("text", ["", "{}", '{"schema": "framewire.cursor/2", "log": "", "next": 1}', "7"])
def test_what_is_no_cursor_is_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "cursor"
    path.write_text(text)
    with pytest.raises(ConfigError, match="is no cursor"):
        Subscriber("tcp://127.0.0.1:9", cursor=path)
    assert path.read_text() == text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"since": "yesterday"}, "is no time"),
        ({"since": datetime(2026, 1, 1)}, "no time zone"),
        ({"since": -1}, "no time in UTC seconds"),
        ({"since": 1, "from_sequence": 1}, "one start only"),
        ({"since": 1, "snapshot": True}, "one start only"),
        ({"from_sequence": -1}, "numbers begin with 0"),
        ({"log": "a"}, "give from_sequence"),
        ({"types": ["frame"], "since": 1}, "no going back"),
        ({"types": ["frame"], "follow": False}, "no going back"),
        ({"cursor": "/no/such/folder/c"}, "there is no folder"),
        ({"keys": "/no/such/file"}, "cannot read the keys"),
        ({"replay": "udp://x"}, "cannot replay from"),
    ],
)
def test_arguments_that_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Subscriber("tcp://127.0.0.1:9", **options)


def test_keys_that_are_none_are_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    secret = "s3cret"
    for text in (secret, f'{{"secret": "{secret}"}}'):
        path.write_text(text)
        with pytest.raises(ConfigError, match="does not hold the keys") as raised:
            Subscriber("tcp://127.0.0.1:9", keys=path)
        assert secret not in str(raised.value)
    keys = {
        "schema": "framewire.keys/1",
        "name": "x",
        "public": "a" * 40,
        "secret": secret,
        "server": "é" * 40,
    }
    for change in ({}, {"secret": "\x7f" * 40, "server": "b" * 40}):
        path.write_text(json.dumps(keys | change))
        with pytest.raises(ConfigError, match="key") as raised:
            Subscriber("tcp://127.0.0.1:9", keys=path)
        assert secret not in str(raised.value)


@pytest.mark.parametrize(
    ("said", "address", "expected"),
    [
        ("tcp://127.0.0.1:5557", "tcp://127.0.0.1:5556", "tcp://127.0.0.1:5557"),
        ("tcp://0.0.0.0:5557", "tcp://camera.lan:5556", "tcp://camera.lan:5557"),
        ("tcp://*:5557", "tcp://[fe80::1]:5556", "tcp://[fe80::1]:5557"),
        ("tcp://[::]:5557", "ipc:///tmp/x", "tcp://127.0.0.1:5557"),
        ("ipc:///tmp/x-replay", "ipc:///tmp/x", "ipc:///tmp/x-replay"),
    ],
)
def test_where_to_ask(said: str, address: str, expected: str) -> None:
    assert replay_address(said, address) == expected


def test_where_to_ask_can_be_said() -> None:
    with StubPublisher(said="tcp://127.0.0.1:9") as stub:
        stub.log.commit()
        with following(stub, replay=stub.replay, since=0) as events:
            assert numbers(events, 1) == [0]


@pytest.mark.parametrize("encode", [msgspec.msgpack.encode, msgspec.json.encode])
def test_fields_have_types(encode: Any) -> None:
    with StubPublisher(encode=encode) as stub, following(stub) as events:
        stub.publish(label="car", track_id=3, box_xyxy=[1, 2, 3, 4.5], zones=["a", "b"], newer=1, zone="a")
        got = next(events)
    assert (got.label, got.zone, got.zones, got.log) == ("car", "a", ("a", "b"), "0" * 16)
    assert got.at == datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
    assert isinstance(got.event, Event)
    assert (got.event.at, got.event.track_id, got.event.box_xyxy) == (got.at, 3, (1.0, 2.0, 3.0, 4.5))
    assert got.record["newer"] == 1
    with pytest.raises(MessageError, match="not an event"):
        Received("t", "frame", {"source": "x"}).event  # noqa: B018
    with pytest.raises(MessageError, match="no time"):
        Received("t", "frame", {"source": "x"}).at  # noqa: B018


def test_every_field_of_an_event_is_in_the_schema() -> None:
    from pipeline.schemas import load

    text = json.dumps(load("framewire.event.1"))
    missing = [field for field in Event.__struct_fields__ if f'"{field}"' not in text]
    assert not missing


# Asynchronous


def test_async_iteration_and_cancelling(stub: StubPublisher) -> None:
    async def main() -> list[int | None]:
        got: list[int | None] = []
        async with following(stub) as events:
            for number in range(5):
                stub.mute = number % 2 == 1
                waiting = asyncio.create_task(events.areceive(0.001))
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
                stub.publish()
            async for item in events:
                got.append(item.sequence)
                if item.sequence == 4:
                    break
            assert await events.areceive(0.01) is None
            last = asyncio.create_task(events.areceive(LIMIT_S))
            stub.publish()
            heard = await last
            assert heard is not None
            return [*got, heard.sequence]

    assert asyncio.run(main(), debug=True) == [0, 1, 2, 3, 4, 5]
    gc.collect()  # what was left open would warn now, and a warning is an error


def test_async_waiting_burns_no_time(stub: StubPublisher) -> None:
    async def main() -> float:
        async with following(stub) as events:
            stub.publish()
            assert await events.areceive(LIMIT_S) is not None
            before = time.thread_time()
            assert await events.areceive(0.3) is None
            return time.thread_time() - before

    assert asyncio.run(main()) < 0.1


def test_two_subscribers_share_a_loop_with_others(stub: StubPublisher) -> None:
    stub.log.records.extend(StubLog().commit() | {"sequence": number} for number in range(2000))
    stub.log.times.extend([time.time()] * 2000)

    async def main() -> tuple[int, int]:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        async with following(stub, since=0, follow=False) as one, following(stub, since=0) as two:
            first = [item.sequence async for item in one]
            async for item in two:
                if item.sequence == 1999:
                    break
        task.cancel()
        return len(first), turns

    got, turns = asyncio.run(main())
    assert got == 2000
    assert turns > 20
