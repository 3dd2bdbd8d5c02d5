"""Writes the changes of state of a source into its journal, from whichever thread notices them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Literal

from pipeline.messages import State
from pipeline.sources.base import Source
from pipeline.sources.live.camera import LiveSource
from pipeline.sources.live.states import Change
from pipeline.transport.journal import SourceState
from pipeline.transport.ledger import STATES, Ledger

__all__ = ["StateTeller"]

log = logging.getLogger(__name__)


class StateTeller:
    """Tells the states of one source; ``capture`` has one.

    Args:
        ledger: The books of the source.
        source: The source.

    Attributes:
        on_lost: Called when the connection is lost, before that is written down.
        first_epoch: What to add to the epochs of a live source, which begin at 0 in each process.
    """

    def __init__(self, ledger: Ledger, source: Source) -> None:
        self.first_epoch = 0
        self.on_lost: Callable[[], None] = lambda: None
        self._ledger = ledger
        self._source = source
        self._lock = threading.Lock()
        self._over = False

    def say(self, state: State, reason: str = "", message: str = "") -> None:
        """Write a change down."""
        with self._lock:
            self._say(Change(state, reason, message, time.time(), time.monotonic_ns()))

    def end(self, state: Literal["ended", "failed"], reason: str, message: str = "") -> None:
        """Write the last change down; a reading thread that goes on for a moment says nothing more."""
        with self._lock:
            self._over = True
            self._say(Change(state, reason, message, time.time(), time.monotonic_ns()))

    def changed(self, change: Change) -> None:
        """The state of a live source has changed."""
        with self._lock:
            if change.state in ("ended", "failed") or self._over:
                return  # Said by `end`, when the last picture is through.
            last = self._ledger.journal.last()
            if change.state == "connecting" and last is not None and last.reason == "crashed":
                return
            if change.state == "reconnecting":
                self.on_lost()
            self._say(change)
        level = logging.INFO if change.state in ("connecting", "running") else logging.WARNING
        why = f": {change.message}" if change.message else ""
        log.log(level, "[%s] %s%s", self._source.name, change.state, why)

    def _say(self, change: Change) -> None:
        ledger = self._ledger
        epoch = ledger["epoch"]
        if isinstance(self._source, LiveSource):  # Its newest picture may be ahead of the books.
            epoch = self.first_epoch + self._source.epoch
        ledger["state"] = STATES.index(change.state)
        ledger.journal.write(
            SourceState(
                change.state,
                change.reason,
                change.message,
                change.at,
                change.at_ns,
                epoch,
                ledger["admitted"],
            )
        )
