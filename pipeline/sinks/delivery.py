"""Deliver events from the event log to one server: in order, at least once, whatever the server does."""

from __future__ import annotations

import contextlib
import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from pipeline.eventlog.cursors import Cursors
from pipeline.eventlog.reader import LogReader, Match, Page
from pipeline.messages import ModelSpec
from pipeline.sinks.base import LogView, Publication, Resume
from pipeline.sinks.connector import Connector, Listening, RefusedError, Session, UnreachableError

__all__ = ["Delivery"]

log = logging.getLogger(__name__)

_BATCH = 200
_FIRST_WAIT_S = 0.5
#: Without a word that there is something new, the log is looked at so often.
_LOOK_S = 1.0
#: A connector that does not come back for so long after the end is left behind.
_GRACE_S = 15.0


class Delivery:
    """One connector, its place in the event log, and a thread in which both move on.

    The place is written down after the server has acknowledged, so what is sent when the process is killed
    is sent again. An event that the server refuses ``attempts`` times becomes a dead letter, and the next one
    has its turn; as long as the server is not there, nothing is given up. Events that are forgotten by the
    log before the server had them are counted as ``missed``.

    Args:
        connector: The client of the server.
        name: What the sink is called: in metrics, in the log, and as the owner of its place.
        known_sources: Gives the names of the run's sources.
        control: Gives a command to the run.
        folder: Folder that paths in records start from; None when there is none.
        types: Only events of these types; empty for all, here and below.
        sources: Only of these sources.
        labels: Only of objects with these labels.
        zones: Only in or at these zones.
        attempts: Attempts at an event that is refused.
        retry_max_s: Longest wait between two attempts, seconds.
        drain_s: How long `close` lets the thread go on with what is left, seconds.
        chance: Gives a number from 0 to 1, so that sinks of one server do not come back in step.
    """

    def __init__(
        self,
        connector: Connector,
        *,
        name: str,
        known_sources: Callable[[], Sequence[str]] = lambda: (),
        control: Callable[[dict[str, Any]], dict[str, Any]] = lambda _: {},
        folder: str | None = None,
        types: Sequence[str] = (),
        sources: Sequence[str] = (),
        labels: Sequence[str] = (),
        zones: Sequence[str] = (),
        attempts: int = 5,
        retry_max_s: float = 60.0,
        drain_s: float = 5.0,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name = name
        self._connector = connector
        self._known_sources, self._control, self._folder = known_sources, control, folder
        self._match = Match(tuple(sources), tuple(types), tuple(labels), tuple(zones))
        self._attempts, self._retry_max_s, self._drain_s, self._chance = (
            attempts,
            retry_max_s,
            drain_s,
            chance,
        )
        self._log: LogView | None = None
        self._session: Session | None = None
        self._thread: threading.Thread | None = None
        self._wake = threading.Event()
        self._deadline: float | None = None
        self._next = 0
        self._connected = False
        self._trouble = ""
        self._failures = 0
        self._refusals = 0
        self._counts = {"delivered": 0, "retries": 0, "dead_letters": 0, "missed": 0}

    def attach(self, log: LogView) -> None:
        """Deliver from that log."""
        self._log = log

    def open(self, spec: ModelSpec) -> Resume:
        """Start; the server need not be there.

        Raises:
            SinkError: the place in the log cannot be kept.
        """
        assert self._log is not None, "attach comes first"
        self._session = Session(
            self._log.run_id, self._log.log_id, spec, self._known_sources, self._control, self._folder
        )
        cursors = Cursors(self._log.path)
        with contextlib.closing(LogReader(self._log.path)) as reader:
            self._next = self._start(cursors, reader)
        self._thread = threading.Thread(
            target=self._run, args=(cursors,), name=f"deliver-{self.name}", daemon=True
        )
        self._thread.start()
        return Resume()

    def write(self, item: Publication) -> None:
        """There is something new in the log; never waits."""
        if item.events:
            self._wake.set()

    def tick(self) -> None:
        """The thread looks for itself."""

    def stats(self) -> dict[str, int]:
        """Numbers for metrics; ``behind`` is how many events of the log are still to be looked at."""
        behind = max(0, self._log.next - self._next) if self._log is not None else 0
        return {**self._counts, "behind": behind, "connected": int(self._connected)}

    def close(self) -> list[str]:
        """Deliver what is left, for a bounded time; the rest waits for the next run. No files."""
        if self._thread is None:
            return []
        self._deadline = time.monotonic() + self._drain_s
        self._wake.set()
        self._thread.join(self._drain_s + _GRACE_S)
        if self._thread.is_alive():
            log.warning("%s: the client of the server does not come back, and is left behind", self.name)
        elif (behind := self.stats()["behind"]) and self._trouble:
            log.warning("%s: %d events wait in the event log for the next run", self.name, behind)
        self._thread = None
        return []

    def _start(self, cursors: Cursors, reader: LogReader) -> int:
        """Where to go on; a sink that is new begins with the run."""
        assert self._log is not None
        place = cursors.get(self.name)
        if place is None:
            cursors.put(self.name, self._log.log_id, self._log.first)
            return self._log.first
        return reader.resolve(*place)[0]

    def _run(self, cursors: Cursors) -> None:
        assert self._log is not None
        reader = LogReader(self._log.path)
        try:
            while not self._over():
                self._wake.clear()
                # Asked before the log is looked at: what comes in between has one more look.
                ending = self._deadline is not None
                page = self._page(reader)
                if page is not None and page.records:
                    self._deliver(page, cursors)
                elif page is None or page.end >= page.next:
                    if ending:
                        return
                    self._idle()
        finally:
            reader.close()
            cursors.close()
            self._quietly(self._connector.close)

    def _idle(self) -> None:
        """Nothing to send: wait for something, or mind the connection of one who also listens."""
        if not isinstance(self._connector, Listening):
            self._wake.wait(_LOOK_S)
            return
        try:
            if self._connected:
                self._connector.check()
            else:
                assert self._session is not None
                self._connector.connect(self._session)
                self._connected = True
        except UnreachableError as error:
            self._failed(error.message)
            return
        self._well()
        self._wake.wait(_LOOK_S)

    def _well(self) -> None:
        if self._trouble:
            log.warning("%s: connected again", self.name)
        self._trouble, self._failures = "", 0

    def _over(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline

    def _page(self, reader: LogReader) -> Page | None:
        try:
            page = reader.page(self._next, limit=_BATCH, match=self._match)
        except sqlite3.Error as error:
            self._note(f"the event log cannot be read: {error}")
            return None
        if page.first > self._next:
            self._counts["missed"] += page.first - self._next
            log.error(
                "%s: %d events were forgotten by the event log before they could be delivered",
                self.name, page.first - self._next,
            )  # fmt: skip
        self._next = page.first if page.records else page.end
        return page

    def _deliver(self, page: Page, cursors: Cursors) -> None:
        records = [msgspec.msgpack.decode(record) for _, record in page.records]
        try:
            if not self._connected:
                assert self._session is not None
                self._connector.connect(self._session)
                self._connected = True
            self._connector.send(records)
        except UnreachableError as error:
            self._arrived(records[: error.done], cursors)
            self._failed(error.message)
        except RefusedError as error:
            self._arrived(records[: error.done], cursors)
            self._refused(records[error.done], error.message, cursors)
        except Exception as error:  # noqa: BLE001  (somebody else's client must not stop the run)
            self._failed(f"{type(error).__name__}: {error}")
        else:
            self._arrived(records, cursors)
            self._next = page.end
            self._well()

    def _arrived(self, records: Sequence[dict[str, Any]], cursors: Cursors) -> None:
        if not records:
            return
        self._counts["delivered"] += len(records)
        self._refusals = self._failures = 0
        self._go_on(records[-1]["sequence"] + 1, cursors)

    def _go_on(self, following: int, cursors: Cursors) -> None:
        assert self._log is not None
        self._next = following
        try:
            cursors.put(self.name, self._log.log_id, following)
        except sqlite3.Error as error:
            log.warning("%s: its place in the event log is not written down: %s", self.name, error)

    def _failed(self, message: str) -> None:
        """The server is not there: hang up and wait."""
        if self._connected:
            self._connected = False
            self._quietly(self._connector.close)
        self._note(message)
        self._wait()

    def _refused(self, record: dict[str, Any], message: str, cursors: Cursors) -> None:
        self._refusals += 1
        if self._refusals < self._attempts:
            self._note(f"event {record['sequence']} is refused: {message}")
            self._wait()
            return
        assert self._log is not None
        log.error("%s: event %d is set aside: %s", self.name, record["sequence"], message)
        with contextlib.suppress(sqlite3.Error):
            cursors.bury(self.name, self._log.log_id, record, message)
        self._counts["dead_letters"] += 1
        self._refusals = self._failures = 0
        self._go_on(record["sequence"] + 1, cursors)

    def _note(self, message: str) -> None:
        """Say what is wrong, once."""
        if message != self._trouble:
            log.warning("%s: %s; it is tried again", self.name, message)
        self._trouble = message

    def _wait(self) -> None:
        """Wait longer each time, a fifth of it left to chance; the end of the run wakes us."""
        self._counts["retries"] += 1
        wait_s = min(_FIRST_WAIT_S * 2 ** min(self._failures, 20), self._retry_max_s)
        self._failures += 1
        until = time.monotonic() + wait_s * (0.8 + 0.2 * self._chance())
        while (left_s := until - time.monotonic()) > 0:
            if self._deadline is not None:
                # A moment is all there is left, so it is used.
                left_s = min(left_s, _FIRST_WAIT_S)
                until = min(until, time.monotonic() + left_s)
            self._wake.clear()
            self._wake.wait(left_s)

    def _quietly(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # noqa: BLE001  (as above)
            log.debug("%s: %s", self.name, error)
