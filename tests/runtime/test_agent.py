"""The worker's second thread: beats, commands, logs, and the end of the supervisor."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.runtime.agent import ORPHANED, Agent, AgentLog
from pipeline.runtime.control import (
    Beat,
    Finished,
    Go,
    PeerDied,
    Ready,
    Report,
    Said,
    Stop,
    decode_report,
    encode,
)
from pipeline.transport.control import ControlClient, ControlServer, Waiter
from pipeline.transport.link import make_context

WAIT_S = 5.0


class Office:
    """The supervisor's end, and an agent that speaks with it."""

    def __init__(self, folder: Path) -> None:
        self.context = make_context()
        self.endpoint = f"ipc://{folder}/control"
        self.server = ControlServer(self.context, self.endpoint)
        self.agents: list[Agent] = []
        self.lifeline, self.held = os.pipe()

    def agent(self, *, beat_s: float = 30.0, watched: bool = False) -> Agent:
        made = Agent(
            lambda: ControlClient(self.context, self.endpoint, "infer-0"),
            lifeline=self.lifeline if watched else -1,
            beat_s=beat_s,
        )
        self.agents.append(made)
        return made

    def hear(self, kind: type[Any]) -> Any:
        for _ in range(200):
            heard = self.server.receive(WAIT_S)
            assert heard is not None, f"no {kind.__name__} came"
            assert heard[0] == "infer-0"
            report: Report = decode_report(heard[1])
            if isinstance(report, kind):
                return report
        raise AssertionError(f"no {kind.__name__} among 200 reports")

    def close(self) -> None:
        for agent in self.agents:
            agent.close()
        self.server.close()
        os.close(self.lifeline)
        if self.held >= 0:
            os.close(self.held)
        self.context.term()


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "agent"]


def wait_for(agent: Agent) -> list[Any]:
    waiter = Waiter()
    waiter.add(agent.wake_fd)
    assert waiter.wait(WAIT_S), "the main thread is woken"
    return list(agent.commands())


def test_beats_say_how_long_a_message_takes_and_what_the_worker_counts(office: Office) -> None:
    agent = office.agent(beat_s=0.01)
    assert office.hear(Beat) == Beat(0.0, {})
    agent.summary = {"stale": 3}
    agent.busy_since = -1000.0
    while (beat := office.hear(Beat)).busy_s == 0.0 or not beat.summary:
        pass
    assert beat.busy_s >= 1000
    assert beat.summary == {"stale": 3}


def test_commands_wake_the_main_thread_in_order(office: Office) -> None:
    agent = office.agent()
    office.hear(Beat)
    for command in (Go(), PeerDied("infer-1", "infer_died"), Stop("interrupted")):
        office.server.send("infer-0", encode(command))
    got: list[Any] = []
    while len(got) < 3:
        got += wait_for(agent)
    assert got == [Go(), PeerDied("infer-1", "infer_died"), Stop("interrupted")]
    assert agent.commands() == []


def test_a_command_that_is_none_is_said_and_does_no_harm(office: Office) -> None:
    agent = office.agent()
    office.hear(Beat)
    office.server.send("infer-0", b"\xff garbage")
    wait_for(agent)
    agent.report(Ready())
    assert office.hear(Said).level == logging.WARNING
    office.server.send("infer-0", encode(Go()))
    assert wait_for(agent) == [Go()]


def test_reports_leave_at_once_and_the_last_words_before_the_end(office: Office) -> None:
    agent = office.agent()
    agent.report(Ready())
    assert office.hear(Ready) == Ready()
    agent.report(Said(20, "one"))
    agent.report(Finished({"files": []}))
    agent.close()
    office.agents.remove(agent)
    assert office.hear(Said) == Said(20, "one")
    assert office.hear(Finished) == Finished({"files": []})


def test_any_thread_may_wake_the_main_one(office: Office) -> None:
    agent = office.agent()
    for _ in range(100_000 // 1000):
        agent.wake()
    assert wait_for(agent) == []
    waiter = Waiter()
    waiter.add(agent.wake_fd)
    assert not waiter.wait(0), "commands() has silenced it"


def test_log_records_go_to_the_supervisor(office: Office) -> None:
    agent = office.agent()
    log = logging.getLogger("pipeline.test")
    log.propagate = False
    handler = AgentLog(agent, "infer-0")
    log.addHandler(handler)
    log.warning("frame %d is odd", 3)
    log.removeHandler(handler)
    assert office.hear(Said) == Said(logging.WARNING, "infer-0: frame 3 is odd")


def test_when_the_supervisor_is_gone_it_stops_in_order_and_for_certain(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    timers: list[tuple[float, Any, Any]] = []

    class FakeTimer:
        daemon = False

        def __init__(self, interval: float, function: Any, args: Any) -> None:
            timers.append((interval, function, args))

        def start(self) -> None:
            assert self.daemon

    monkeypatch.setattr("pipeline.runtime.agent.threading.Timer", FakeTimer)
    agent = office.agent(watched=True)
    office.hear(Beat)
    assert agent.commands() == []
    os.close(office.held)
    office.held = -1
    assert wait_for(agent) == [Stop(ORPHANED)]
    agent.report(Ready())
    office.hear(Ready)  # the thread goes on: the timer is set by now
    assert timers == [(5.0, os._exit, (1,))]


def test_what_lies_in_the_lifeline_is_not_its_end(office: Office) -> None:
    agent = office.agent(watched=True)
    os.write(office.held, b"x" * 10)
    agent.report(Ready())
    office.hear(Ready)
    assert agent.commands() == []
