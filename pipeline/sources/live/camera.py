"""A live source over all its connections: connects, reads, and comes back for ever when it is lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from pipeline.errors import ConfigError, SourceError
from pipeline.sources.base import Picture
from pipeline.sources.live.base import Connect, Connection, StreamFacts
from pipeline.sources.live.states import Backoff, Change, StateMachine

__all__ = ["LiveSource"]

T = TypeVar("T")

_log = logging.getLogger(__name__)

#: A stream that has held for so long starts again with the shortest wait.
_HELD_NS = 10_000_000_000
_GRACE_NS = 2_000_000_000
_STEP_NS = 1_000_000


class LiveSource:
    """A camera or stream; a `pipeline.sources.base.Source` whose `open` always succeeds.

    Nothing that the network does ends it: `read` waits, connects anew and goes on. Each connection is an
    epoch of its own; presentation times go on over the gap by this host's clock. `read` belongs to one
    thread, which also closes what it opened; `check`, `interrupt` and `stuck` are for others.

    Args:
        name: Name of the source.
        connect: Makes a connection.
        on_change: Told each change of state, in whichever thread notices it; may be replaced before `open`.
        backoff: How long to wait before the next try.
        now_ns: Monotonic clock, nanoseconds.
        now: Wall clock, UTC seconds.

    Attributes:
        facts: What the stream of the last connection is; None before the first.
    """

    live = True
    expected_frames: int | None = None

    def __init__(
        self,
        name: str,
        connect: Connect,
        *,
        on_change: Callable[[Change], None] = lambda _: None,
        backoff: Backoff | None = None,
        now_ns: Callable[[], int] = time.monotonic_ns,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.facts: StreamFacts | None = None
        self.on_change = on_change
        self._connect = connect
        self._backoff = backoff or Backoff()
        self._now_ns = now_ns
        self._states = StateMachine(self._notice, now_ns=now_ns, now=now)
        self._interrupted = threading.Event()
        self._connection: Connection | None = None
        self._busy: tuple[int, float] | None = None
        self._wait_s = 0.0
        self._held_since_ns = 0
        self._past_errors = self._past_skipped = 0
        self._index = 0
        self._epoch = 0
        self._first_epoch = 0
        self._offset_ns: int | None = None
        self._zero_ns: int | None = None
        self._last_pts_ns: int | None = None

    @property
    def frame_rate(self) -> float | None:
        """Pictures per second as the stream declares it; None when it does not."""
        return self.facts.frame_rate if self.facts is not None else None

    @property
    def decode_errors(self) -> int:
        """Pictures that could not be decoded whole, over all connections."""
        connection = self._connection
        return self._past_errors + (connection.decode_errors if connection is not None else 0)

    @property
    def epoch(self) -> int:
        """Epoch of the newest picture."""
        return self._epoch

    @property
    def skipped(self) -> int:
        """Coded pictures that were not decoded on purpose, over all connections."""
        connection = self._connection
        return self._past_skipped + (connection.skipped if connection is not None else 0)

    @property
    def heard_ns(self) -> int:
        """Monotonic time at which data last came; 0 when nothing came over the present connection."""
        connection = self._connection
        return connection.heard_ns if connection is not None else 0

    @property
    def clock(self) -> tuple[float, float | None] | None:
        """Offset of the camera's clock to ours in seconds and its drift in ppm; None when it gives none."""
        connection = self._connection
        if connection is None or connection.clock_offset_s is None:
            return None
        return connection.clock_offset_s, connection.drift_ppm

    def open(self, *, skip: int = 0, after_pts_ns: int | None = None) -> None:
        """Get ready; the connection is made by the first `read`. See `Source.open`."""
        self._index = skip
        self._last_pts_ns = after_pts_ns
        self._states.begin()

    def read(self) -> Picture | None:
        """The next picture, over as many connections as that takes; None at its own end or when interrupted.

        Raises:
            SourceError: it can never be read as it is configured.
        """
        while not self._interrupted.wait(self._wait_s):
            self._wait_s = 0.0
            try:
                connection = self._connection or self._open()
                picture = self._bounded(connection, connection.read)
            except ConfigError as error:
                self._states.end("failed", "config", error.message)
                raise SourceError(
                    error.message, hint=error.hint, reason="not_found", source=self.name
                ) from error
            except SourceError as error:
                if self._interrupted.is_set():
                    break  # It was our own doing.
                self._lose(error)
                continue
            if picture is None:
                break
            picture = self._rebased(picture)
            self._states.picture()
            return picture
        self._drop()
        return None

    def check(self) -> None:
        """Notice a silence; to be called a few times a second by another thread than the reading one."""
        if not self._interrupted.is_set():
            self._states.check(self.heard_ns)

    def interrupt(self) -> None:
        """Ask `read` to return None as soon as it can: at once while it waits to connect again."""
        self._interrupted.set()
        connection = self._connection
        if connection is not None:
            connection.interrupt()

    def stuck(self) -> bool:
        """Whether a library or driver holds the reading thread far beyond the bounds that were set for it.

        While data comes that is not wanted, a call may last; so the bound counts from when data came last.
        """
        busy = self._busy
        return busy is not None and self._now_ns() - max(busy[0], self.heard_ns) > busy[1] * 1e9 + _GRACE_NS

    def close(self) -> None:
        """See `Source.close`; for the reading thread, or when that has ended."""
        self._interrupted.set()
        self._drop()

    def _notice(self, change: Change) -> None:
        self.on_change(change)

    def _bounded(self, connection: Connection, call: Callable[[], T]) -> T:
        """Make a call that must return within the connection's bound; `stuck` watches."""
        self._busy = (self._now_ns(), connection.bound_s)
        try:
            return call()
        finally:
            self._busy = None

    def _open(self) -> Connection:
        connection = self._connect()
        self._connection = connection
        if self._interrupted.is_set():  # Asked just before there was one to pass it on to.
            connection.interrupt()
        self.facts = self._bounded(connection, connection.open)
        self._states.connected(self.facts.frame_rate)
        self._held_since_ns = 0
        self._offset_ns = None
        _log.info(
            "[%s] connected: %s %dx%d, decoder %s%s",
            self.name, self.facts.codec, self.facts.width, self.facts.height, self.facts.decoder,
            "".join(f"; {why}" for why in self.facts.refusals),
        )  # fmt: skip
        return connection

    def _lose(self, error: SourceError) -> None:
        if self._held_since_ns and self._now_ns() - self._held_since_ns > _HELD_NS:
            self._backoff.reset()
        self._held_since_ns = 0
        self._drop()
        self._wait_s = self._backoff.next(error.reason)
        self._states.lost(error)
        _log.info("[%s] trying again in %.1f s: %s", self.name, self._wait_s, error.message)

    def _drop(self) -> None:
        connection = self._connection
        if connection is None:
            return
        self._bounded(connection, connection.close)
        self._past_errors += connection.decode_errors
        self._past_skipped += connection.skipped
        self._connection = None

    def _rebased(self, picture: Picture) -> Picture:
        """The picture with number, epoch and time of the source instead of the connection."""
        if self._offset_ns is None:
            self._first_epoch = self._epoch + 1 if self._zero_ns is not None else 0
            self._offset_ns = self._offset(picture)
            self._held_since_ns = picture.captured_ns
        pts_ns = max(picture.pts_ns + self._offset_ns, self._last_pts_ns or 0)
        self._last_pts_ns = pts_ns
        self._epoch = self._first_epoch + picture.epoch
        index, self._index = self._index, self._index + 1
        return replace(picture, index=index, pts_ns=pts_ns, epoch=self._epoch)

    def _offset(self, picture: Picture) -> int:
        """What to add to the times of this connection so that they go on where the last one ended."""
        if self._zero_ns is None:
            start_ns = 0 if self._last_pts_ns is None else self._last_pts_ns + _STEP_NS
            self._zero_ns = picture.captured_ns - start_ns
            return start_ns - picture.pts_ns
        elapsed_ns = picture.captured_ns - self._zero_ns
        return max(elapsed_ns, (self._last_pts_ns or 0) + _STEP_NS) - picture.pts_ns
