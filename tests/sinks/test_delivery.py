"""Delivery: in order, at least once, whatever the server does; nothing is given up but what it refuses."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.eventlog.cursors import Cursors
from pipeline.eventlog.log import EventLog
from pipeline.sinks.base import Follower, Publication
from pipeline.sinks.connector import RefusedError, Session, UnreachableError
from pipeline.sinks.delivery import Delivery
from tests.eventlog.records import draft
from tests.sinks.builders import SPEC
from tests.stages.desk import kill

LIMIT_S = 10.0


class Server:
    """What a connector speaks to: takes events, or does what its script says first."""

    def __init__(self, *script: Exception | Callable[[], object]) -> None:
        self.script = list(script)
        self.got: list[int] = []
        self.sessions: list[Session] = []
        self.closed = 0
        self.changed = threading.Condition()

    def connect(self, session: Session) -> None:
        self.sessions.append(session)

    def send(self, records: Sequence[dict[str, Any]]) -> None:
        with self.changed:
            step = self.script.pop(0) if self.script else None
            if callable(step):
                step()
            done = getattr(step, "done", 0) if isinstance(step, Exception) else len(records)
            self.got += [record["sequence"] for record in records[:done]]
            self.changed.notify_all()
        if isinstance(step, Exception):
            raise step

    def close(self) -> None:
        self.closed += 1

    def wait(self, count: int) -> list[int]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.got) >= count, LIMIT_S), self.got
            return list(self.got)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with EventLog(tmp_path / "events.db", "run") as made:
        yield made


def started(log: EventLog, server: Server, **options: Any) -> Delivery:
    given: dict[str, Any] = {"name": "server", "retry_max_s": 0.02, "drain_s": LIMIT_S} | options
    delivery = Delivery(server, **given)
    assert isinstance(delivery, Follower)
    delivery.attach(log)
    delivery.open(SPEC)
    return delivery


def publish(log: EventLog, *deliveries: Delivery, count: int = 1, **fields: Any) -> None:
    key = log.next + 1
    events = log.commit("gate", "event", key, [draft(**fields) for _ in range(count)])
    assert events is not None
    for delivery in deliveries:
        delivery.write(Publication(None, None, events, lambda: None, None))


def test_everything_arrives_in_order(log: EventLog) -> None:
    server = Server()
    delivery = started(log, server)
    for _ in range(50):
        publish(log, delivery, count=9)
    delivery.close()
    assert server.got == list(range(450))
    assert server.closed == 1
    stats = delivery.stats()
    assert (stats["delivered"], stats["behind"], stats["retries"]) == (450, 0, 0)
    assert server.sessions[0].log_id == log.log_id


@pytest.mark.parametrize(
    "script",
    [
        (UnreachableError("refused"),) * 3,
        (UnreachableError("lost", done=2), UnreachableError("lost", done=1)),
        (RefusedError("full", done=2), RefusedError("full", done=0)),
        (ValueError("a bug in a library"),),
        (OSError("no route"), RefusedError("no", done=1), UnreachableError("gone", done=1)),
    ],
)
def test_what_fails_is_sent_again_and_nothing_else(log: EventLog, script: tuple[Exception, ...]) -> None:
    server = Server(*script)
    publish(log, count=5)
    delivery = started(log, server)
    server.wait(5)
    delivery.close()
    assert server.got == [0, 1, 2, 3, 4]
    assert delivery.stats()["retries"] == len(script)
    lost = [step for step in script if not isinstance(step, RefusedError)]
    assert len(server.sessions) == 1 + len(lost), "after a failure it connects anew; a refusal is none"


def test_what_is_refused_for_ever_becomes_a_dead_letter_and_the_next_has_its_turn(
    log: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(*[RefusedError("event 1 is too large", done=1)], *[RefusedError("too large")] * 2)
    publish(log, count=4)
    delivery = started(log, server, attempts=3)
    server.wait(3)
    delivery.close()
    assert server.got == [0, 2, 3]
    stats = delivery.stats()
    assert (stats["dead_letters"], stats["delivered"], stats["behind"]) == (1, 3, 0)
    with contextlib.closing(Cursors(log.path)) as cursors:
        ((record, error),) = cursors.dead_letters("server")
    assert (record["sequence"], error) == (1, "too large")
    assert "event 1 is set aside" in caplog.text


def test_refusals_are_counted_for_one_event_only(log: EventLog) -> None:
    """Each of three events is refused twice; none is refused three times."""
    server = Server(*[RefusedError("busy"), RefusedError("busy")], RefusedError("busy", done=1),
                    RefusedError("busy"), RefusedError("busy", done=1), RefusedError("busy"))  # fmt: skip
    publish(log, count=3)
    delivery = started(log, server, attempts=3)
    server.wait(3)
    delivery.close()
    assert server.got == [0, 1, 2]
    assert delivery.stats()["dead_letters"] == 0


def test_it_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    log = EventLog(path, "run")
    server = Server()
    delivery = started(log, server)
    publish(log, delivery, count=3)
    server.wait(3)
    delivery.close()
    publish(log, count=2)
    kill(log)
    with EventLog(path, "next") as log:
        again = Server()
        delivery = started(log, again)
        publish(log, delivery)
        assert again.wait(3) == [3, 4, 5]
        delivery.close()


def test_a_new_sink_begins_with_the_run(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    with EventLog(path, "run") as log:
        publish(log, count=5)
    with EventLog(path, "next") as log:
        publish(log, count=2)
        server = Server()
        delivery = started(log, server)
        assert server.wait(2) == [5, 6]
        delivery.close()


def test_another_log_is_begun_from_its_start(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.db", "run") as log:
        with contextlib.closing(Cursors(log.path)) as cursors:
            cursors.put("server", "some other log", 999)
        publish(log, count=2)
        server = Server()
        delivery = started(log, server)
        assert server.wait(2) == [0, 1]
        delivery.close()


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"types": ["end"]}, [1]),
        ({"sources": ["yard"]}, [2]),
        ({"zones": ["a"]}, [3]),
        ({"labels": ["x"]}, []),
    ],
)
def test_filters(log: EventLog, filters: dict[str, list[str]], expected: list[int]) -> None:
    log.commit("gate", "event", 1, [draft(), draft("end"), draft(source="yard"), draft(zones=["a", "b"])])
    server = Server()
    delivery = started(log, server, **filters)
    server.wait(len(expected))
    delivery.close()
    assert server.got == expected
    assert delivery.stats()["behind"] == 0, "what it does not want, it is not behind with"


def test_what_the_log_forgets_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "events.db"
    with EventLog(path, "run") as log:
        publish(log, count=10)
        with contextlib.closing(Cursors(path)) as cursors:
            cursors.put("server", log.log_id, 2)
        log._delete(7)
        server = Server()
        delivery = started(log, server)
        assert server.wait(3) == [7, 8, 9]
        delivery.close()
        assert delivery.stats()["missed"] == 5
    assert "5 events were forgotten" in caplog.text


def test_the_end_of_the_run_does_not_wait_for_a_server_that_is_not_there(
    log: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    server = Server(*[UnreachableError("nobody there")] * 10_000)
    delivery = started(log, server, drain_s=0.2, retry_max_s=60.0)
    publish(log, delivery, count=3)
    started_at = time.monotonic()
    delivery.close()
    assert time.monotonic() - started_at < LIMIT_S
    assert delivery.stats()["behind"] == 3
    assert "3 events wait in the event log for the next run" in caplog.text
    assert caplog.text.count("nobody there") == 1, "said once"


def test_a_connector_that_hangs_does_not_hang_the_run(
    log: EventLog, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.sinks.delivery._GRACE_S", 0.05)
    over = threading.Event()
    server = Server(lambda: over.wait(LIMIT_S))
    delivery = started(log, server, drain_s=0.05)
    thread = delivery._thread
    publish(log, delivery)
    delivery.close()
    assert "is left behind" in caplog.text
    over.set()
    assert thread is not None
    thread.join(LIMIT_S)
    assert not thread.is_alive()


class Ear(Server):
    """A connector that also hears commands."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = threading.Event()
        self.back = threading.Event()

    def connect(self, session: Session) -> None:
        super().connect(session)
        if len(self.sessions) == 2:
            self.back.set()

    def check(self) -> None:
        if self.lost.is_set() and not self.back.is_set():
            raise UnreachableError("hung up on")


def test_one_who_listens_is_connected_with_nothing_to_send(
    log: EventLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pipeline.sinks.delivery._LOOK_S", 0.01)
    server = Ear()
    delivery = started(log, server)
    server.lost.set()
    assert server.back.wait(LIMIT_S), "and again when the connection is lost"
    publish(log, delivery)
    assert server.wait(1) == [0]
    delivery.close()
    assert "hung up on" in caplog.text
    assert "connected again" in caplog.text
