"""One publish with its books, journals and sinks, and what capture would have written there."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.eventlog.log import EventLog
from pipeline.messages import EndOfStream, Message, State
from pipeline.sinks.base import Sink
from pipeline.stages.publish import PublishStage
from pipeline.transport.journal import SourceState
from pipeline.transport.ledger import Ledger
from pipeline.transport.shm import Pools
from tests.helpers import SPEC, make_ledger

__all__ = ["Desk", "end", "kill", "say", "scratch_log"]


def say(
    ledger: Ledger,
    state: State,
    reason: str = "",
    message: str = "",
    *,
    seq: int = 0,
    at: float = 1_769_852_400.0,
    late: bool = False,
    epoch: int = 0,
) -> SourceState:
    """Write a change of state as capture does; one that is ``late`` waits for no frame any more."""
    change = SourceState(state, reason, message, at, 0 if late else time.monotonic_ns(), epoch, seq)
    ledger.journal.write(change)
    return change


def end(seq: int, source: str = "gate", **changes: Any) -> EndOfStream:
    """The end of a source."""
    fields: dict[str, Any] = {"state": "ended", "reason": "end_of_file", "at": 99.0}
    return EndOfStream(source, 0, seq, **(fields | changes))


def kill(log: EventLog) -> None:
    """Let go of a log as the kernel does: what was not committed is gone, and nobody says goodbye."""
    if log._lock >= 0:
        log._database.close()
        os.close(log._lock)
        log._lock = -1


def scratch_log(owner: object) -> Path:
    """Where a log may lie as long as its owner lives."""
    folder = Path(tempfile.mkdtemp(prefix="framewire-desk-"))
    weakref.finalize(owner, shutil.rmtree, folder)
    return folder / "events.db"


class Desk:
    """A publish over books, pools and sinks. Fresh books begin with ``running``."""

    def __init__(
        self,
        *sinks: Sink,
        ledgers: dict[str, Ledger] | None = None,
        pools: Pools | None = None,
        sources: tuple[str, ...] = ("gate",),
        open_objects: Path | None = None,
        ring: Callable[[str], None] | None = None,
        log: Path | None = None,
        log_class: type[EventLog] = EventLog,
        run_id: str = "run",
        opened: Path | None = None,
    ) -> None:
        self.sinks = sinks
        self.ledgers = ledgers or {source: make_ledger() for source in sources}
        if ledgers is None:
            for ledger in self.ledgers.values():
                say(ledger, "running")
        self.pools = pools or Pools()
        self.rung: list[str] = []
        self.log_path = log or scratch_log(self)
        self.logs: list[EventLog] = []

        def open_log(at_least: int) -> EventLog:
            self.logs.append(log_class(self.log_path, run_id, at_least=at_least))
            weakref.finalize(self, kill, self.logs[-1])
            return self.logs[-1]

        self.stage = PublishStage(
            sinks=sinks,
            ledger_of=self.ledgers.__getitem__,
            pools=self.pools,
            ring=ring or self.rung.append,
            sources=lambda: tuple(self.ledgers),
            run_id=run_id,
            open_log=open_log,
            open_objects=open_objects,
            opened=opened,
        )
        self.stage.open()
        self.stage.begin(SPEC)

    def give(self, *messages: Message) -> None:
        """Hand messages over; the end of a source is in its journal before, as capture has it."""
        for message in messages:
            if isinstance(message, EndOfStream):
                ledger = self.ledgers[message.source]
                last = ledger.journal.last()
                if last is None or last.state not in ("ended", "failed"):
                    say(ledger, message.state, message.reason, seq=message.seq)
            assert list(self.stage.process(message, self.pools.view)) == []

    def kill(self) -> None:
        """Let go of the event log as the kernel does when the process is killed."""
        for log in self.logs:
            kill(log)

    @property
    def ledger(self) -> Ledger:
        """The books of the only source."""
        return self.ledgers["gate"]
