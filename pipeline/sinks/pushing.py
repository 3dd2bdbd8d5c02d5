"""Push pictures to a server: a slot of one, a thread, and back-off for ever."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.sinks._push_child import TICKS
from pipeline.sinks.links import Encoding, Link, LinkLost
from pipeline.sinks.targets import Target

__all__ = ["Pusher", "Shot"]

log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
#: A connection that held so long was a good one: the next attempt comes soon again.
_GOOD_S = 10.0
#: Without a new picture, the last one is sent again so often.
_REPEAT_S = 1.0
#: How long a finished stream may take to say goodbye before it is killed.
_GOODBYE_S = 2.5
#: How long the end waits for a server that has still to answer.
_HELLO_S = 0.5
_MS = TICKS // 1000  # FLV counts in milliseconds, and two pictures must not have the same time


class Shot(NamedTuple):
    """A picture to be sent.

    Attributes:
        at_ns: When it was taken, on the monotonic clock.
        paint: Makes its pixels, uint8 (h, w, 3) BGR with even sides.
    """

    at_ns: int
    paint: Callable[[], NDArray[np.uint8]]


class Pusher:
    """One stream. All methods return at once but `join`.

    While the server is away, pictures are not even copied. While no picture comes (the camera is lost), the
    last one goes out once a second with a line that says how old it is: servers and players take silence for
    the end of the stream, and a still picture without a word would pass for a live one.

    Args:
        name: What the stream is called in the log.
        target: Where it goes.
        encoding: How it is encoded.
    """

    def __init__(self, name: str, target: Target, encoding: Encoding) -> None:
        self.sent = self.repeated = self.replaced = self.reconnects = 0
        self.connected = False
        self._name, self._target, self._encoding = name, target, encoding
        self._change = threading.Condition()
        self._slot: Shot | None = None
        self._finish = self._stopping = False
        self._due_ns: float = 0.0
        self._retry_at = 0.0
        self._pause_s = _FIRST_PAUSE_S
        self._opened_at = 0.0
        self._opened = 0
        self._said = ""
        self._link: Link | None = None
        self._base_ns = self._ticks = self._key_ticks = 0
        self._last: tuple[NDArray[np.uint8], int, float] | None = None
        self._thread = threading.Thread(target=self._run, name=f"push-{name}", daemon=True)

    def start(self) -> None:
        """Begin to wait for pictures."""
        self._thread.start()

    def wants(self, at_ns: int) -> bool:
        """Tell whether a picture of this time would be sent, so that others need not be copied."""
        if time.monotonic() < self._retry_at:
            return False
        step = 1e9 / self._encoding.max_fps
        if at_ns < self._due_ns - 2 * step:  # time began again
            self._due_ns = at_ns
        # A quarter of a step early is in time: cameras are not that even.
        return at_ns >= self._due_ns - step / 4

    def offer(self, shot: Shot) -> None:
        """Leave a picture in the slot; one that is still there is replaced."""
        step = 1e9 / self._encoding.max_fps
        self._due_ns = max(self._due_ns + step, shot.at_ns + step / 2)
        with self._change:
            self.replaced += self._slot is not None
            self._slot, self._finish = shot, False
            self._change.notify()

    def finish(self) -> None:
        """The source has ended: send what is there, then end the stream until a picture comes again."""
        with self._change:
            self._finish = True
            self._change.notify()

    def stop(self) -> None:
        """End the stream for good."""
        with self._change:
            self._stopping = True
            self._change.notify()

    def join(self, deadline: float) -> None:
        """Wait for the end until a time of the monotonic clock; what hangs then is killed."""
        now = time.monotonic()
        if not self.connected and self._target.playlist is None:
            deadline = min(deadline, now + _HELLO_S)
        self._thread.join(max(0.0, deadline - now))
        give_up = max(deadline, time.monotonic()) + 1.0
        while self._thread.is_alive() and time.monotonic() < give_up:
            if (link := self._link) is not None:
                link.kill()
            self._thread.join(0.05)
        if self._thread.is_alive():
            log.warning("stream %s: left behind, for its thread does not end", self._name)

    @property
    def broken(self) -> bool:
        """Whether its thread has ended by a fault of ours, which Python has written to standard error."""
        return self._thread.ident is not None and not self._thread.is_alive() and not self._stopping

    def _run(self) -> None:
        try:
            self._work()
        finally:
            self._end_link()

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(
                    lambda: self._slot is not None or self._finish or self._stopping,
                    _REPEAT_S if self._link is not None else None,
                )
                shot, self._slot = self._slot, None
                # A picture that came before the end is still sent.
                over = shot is None and (self._finish or self._stopping)
                self._finish = self._finish and shot is not None
                if shot is not None and time.monotonic() < self._retry_at:
                    self.replaced += 1  # It came while a connection was tried in vain.
                    shot = None
                if self._stopping and self._link is None and shot is None:
                    return
            if over:
                self._end_link()
                self._last = None
                if self._stopping:
                    return
                continue
            try:
                self._send(shot) if shot is not None else self._repeat()
            except LinkLost as reason:
                self._lost(str(reason), shot is not None)

    def _send(self, shot: Shot) -> None:
        bgr = shot.paint()
        self._push(bgr, shot.at_ns)
        self._last = (bgr, shot.at_ns, time.monotonic())
        self.sent += 1

    def _repeat(self) -> None:
        if self._last is None or self._link is None:
            return
        bgr, at_ns, sent_at = self._last
        age_s = time.monotonic() - sent_at
        if age_s >= _REPEAT_S:
            self._push(_with_age(bgr, age_s), at_ns + round(age_s * 1e9))
            self.repeated += 1

    def _push(self, bgr: NDArray[np.uint8], at_ns: int) -> None:
        height, width = bgr.shape[:2]
        if self._link is not None and self._link.size != (width, height):
            self._end_link()
        if self._link is None:
            self._connect(width, height, at_ns)
        assert self._link is not None
        ticks = max(round((at_ns - self._base_ns) * TICKS / 1e9), self._ticks + _MS)
        key = ticks >= self._key_ticks
        if key:
            # A little early rather than one picture late, or each GOP would be longer than asked for.
            self._key_ticks = ticks + round((self._encoding.gop_s - 0.5 / self._encoding.max_fps) * TICKS)
        self._ticks = ticks
        self._link.push(ticks, key, np.ascontiguousarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420), np.uint8))

    def _connect(self, width: int, height: int, at_ns: int) -> None:
        self._base_ns, self._ticks, self._key_ticks = at_ns, -_MS, 0
        try:
            self._target.clear()
            self._link = Link(self._encoding.settings(self._target, width, height))
        except OSError as error:
            raise LinkLost(error.strerror or str(error)) from None
        self._link.open()
        self.connected, self._opened_at = True, time.monotonic()
        self.reconnects += self._opened > 0
        self._opened += 1
        self._said = ""
        log.info("stream %s -> %s: connected, %d x %d", self._name, self._target.shown, width, height)

    def _lost(self, reason: str, had_picture: bool) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.kill()
            link.end(0.0)
        now = time.monotonic()
        if self.connected and now - self._opened_at > _GOOD_S:
            self._pause_s = _FIRST_PAUSE_S
        self.connected = False
        self.replaced += had_picture
        self._last = None
        if not self._stopping and reason != self._said:
            log.warning(
                "stream %s -> %s: %s; it is tried again for ever, in %g s first",
                self._name, self._target.shown, reason, self._pause_s,
            )  # fmt: skip
            self._said = reason
        self._retry_at = now + self._pause_s
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _end_link(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.end(_GOODBYE_S)
        self.connected = False


def _with_age(bgr: NDArray[np.uint8], age_s: float) -> NDArray[np.uint8]:
    """A copy of a picture with a line at its foot: how long there has been no other."""
    picture = bgr.copy()
    height, width = picture.shape[:2]
    text = f"no new picture for {age_s:.0f} s"
    scale = max(0.4, min(height / 600, width / 500))
    (_, tall), base = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    cv2.rectangle(picture, (0, height - tall - 3 * base), (width, height), (24, 24, 24), -1)
    foot = (2 * base, height - base - base // 2)
    cv2.putText(picture, text, foot, cv2.FONT_HERSHEY_SIMPLEX, scale, (255, 255, 255), 1, cv2.LINE_AA)
    return picture
