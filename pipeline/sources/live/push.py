"""Pictures that a program of the user's own pushes, as a live source; ``docs/push.md`` is the protocol."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

from pipeline.errors import ConfigError, MessageError, SourceError, SourceLostError, TransportError
from pipeline.messages import Clock
from pipeline.sources.base import Picture, Pixels
from pipeline.sources.live.base import StreamFacts
from pipeline.sources.live.packed import planes_of_bytes
from pipeline.transport.push import Pushed, PushHeader, PushInlet, push_address

__all__ = ["PushConnection"]

_log = logging.getLogger(__name__)

_SLICE_S = 0.2
#: Messages taken in at a time in search of the newest; whoever keeps to the window never has so many here.
_DRAIN_MAX = 16
_BACK_NS = 1_000_000_000
_AHEAD_NS = 10 * 365 * 86_400 * 1_000_000_000
_GAP_MAX = 1_000_000


class PushConnection:
    """Listens for one program that pushes pictures; a `pipeline.sources.live.base.Connection`.

    Silence is no loss here, for there is nothing to connect to anew: `read` goes on waiting, and the address
    stays bound. Of several programs the first one has the place, until it is silent for ``read_timeout_s``;
    the others are told so.

    ``captured_at`` of a picture is its sender's, where it gave one (clock ``container``: a stamp that came
    with the picture), else the time of arrival. ``missed`` adds up the pictures that the sender counted and
    did not send.

    Args:
        name: Name of the source.
        url: ``push+tcp://HOST:PORT`` or ``push+ipc://PATH``.
        pixels: ``fast`` passes BGR and planar pictures on without a copy; ``exact`` makes all BGR.
        read_timeout_s: A program that is silent for so long gives its place to another.
        max_age_s: What has waited here for longer, because this process could not run, is left out; None to
            take it all the same.
        insecure: Listen where other hosts can reach it, in plain text and open to all.
        awake: Whether pictures are wanted now; others are not decoded, and counted in ``skipped``.

    Raises:
        ConfigError: the URL is wrong, or other hosts can reach it.
    """

    def __init__(
        self,
        name: str,
        url: str,
        *,
        pixels: Pixels = "fast",
        read_timeout_s: float = 2.0,
        max_age_s: float | None = 1.0,
        insecure: bool = False,
        awake: Callable[[], bool] = lambda: True,
    ) -> None:
        self.name = name
        self.heard_ns = 0
        self.skipped = self.decode_errors = self.missed = 0
        self.clock_offset_s: float | None = None
        self.drift_ppm: float | None = None
        self.bound_s = math.inf  # A program with nothing to say is no library that hangs.
        self._address = push_address(url, insecure=insecure)
        self._exact = pixels == "exact"
        self._hold_ns = int(read_timeout_s * 1e9)
        self._max_age_ns = None if max_age_s is None else int(max_age_s * 1e9)
        self._awake = awake
        self._now_ns = time.monotonic_ns
        self._inlet: PushInlet | None = None
        self._complained: set[str] = set()
        self._looked_ns = 0
        self._ended = False
        self._interrupted = threading.Event()
        self._holder = b""
        self._holder_ns = 0
        self._sequence: int | None = None
        self._index = 0
        self._epoch = 0
        self._size: tuple[int, int] | None = None
        self._stamped: bool | None = None
        self._zero_ns: int | None = None
        self._shift_ns = self._given_ns = self._pts_ns = 0

    @property
    def address(self) -> str:
        """Where it listens; where the port was ``*``, once open, the one that was given."""
        return self._address if self._inlet is None else self._inlet.address

    def open(self) -> StreamFacts:
        """Listen. See `Connection.open`.

        Raises:
            ConfigError: at the path there is something that is no socket.
            SourceError: the address is in use or cannot be bound; ``reason`` is ``network``.
        """
        try:
            self._inlet = PushInlet(self._address)
        except TransportError as error:
            raise SourceError(error.message, reason="network", hint=error.hint, source=self.name) from error
        except ConfigError as error:
            error.source = self.name
            raise
        self._looked_ns = self._now_ns()
        return StreamFacts("raw", 0, 0, None, transport=self._address.partition(":")[0])

    def read(self) -> Picture | None:
        """The newest picture, however long it takes; None when its sender said that it was the last.

        Raises:
            SourceLostError: it is not open.
        """
        while not self._ended and not self._interrupted.is_set():
            picture = self.poll(_SLICE_S)
            if picture is not None:
                return picture
        return None

    def poll(self, timeout_s: float) -> Picture | None:
        """The newest picture that is here or comes within ``timeout_s``; None when there is none.

        Raises:
            SourceLostError: it is not open.
        """
        deadline_ns = self._now_ns() + int(timeout_s * 1e9)
        while not self._ended:
            left_ns = deadline_ns - self._now_ns()
            pushed = self._take(max(0, left_ns) / 1e9)
            picture = None if pushed is None else self._accept(pushed)
            if picture is not None or left_ns <= 0:
                return picture
        return None

    def interrupt(self) -> None:
        """See `Connection.interrupt`."""
        self._interrupted.set()

    def close(self) -> None:
        """See `Connection.close`."""
        if self._inlet is not None:
            self._inlet.close()
            self._inlet = None

    # --- messages -------------------------------------------------------------------------------------

    def _receive(self, wait_s: float) -> Pushed | None:
        """The next message of whoever may push; None when nothing came, or nothing good."""
        if self._inlet is None:
            raise SourceLostError("the source is not open", reason="network", source=self.name)
        try:
            pushed = self._inlet.receive(wait_s)
        except MessageError as error:
            self.decode_errors += 1
            self._complain("message", error.message)
            return None
        if pushed is None:
            return None
        taken = self._holder not in (b"", pushed.sender)
        if taken and pushed.received_ns - self._holder_ns < self._hold_ns:
            self._inlet.answer(pushed, "another program pushes into this source")
            self._complain("holder", "a second program pushes into it; the first one has the place")
            return None
        return pushed

    def _take(self, wait_s: float) -> Pushed | None:
        """The newest picture that is here, or comes within ``wait_s``; older ones are let go."""
        before_ns = self._looked_ns
        pushed = self._receive(wait_s)
        self._looked_ns = self._now_ns()
        asleep_ns = self._looked_ns - before_ns - int(wait_s * 1e9)
        stale = self._max_age_ns is not None and asleep_ns > self._max_age_ns
        for _ in range(_DRAIN_MAX):
            if pushed is None or self._is_end(pushed):
                return None
            newer = self._receive(0)
            if newer is None or self._is_end(newer):
                break
            self._skip(pushed)
            pushed = newer
        assert pushed is not None
        if stale or not self._awake():
            self._skip(pushed)
            return None
        return pushed

    def _is_end(self, pushed: Pushed) -> bool:
        """Whether nothing more will come; what came before the end is still delivered."""
        if pushed.header.end and not self._ended:
            self._ended = True
            self._reply(pushed)
        return pushed.header.end

    def _skip(self, pushed: Pushed) -> None:
        self.skipped += 1
        self._heard(pushed)
        self._reply(pushed)

    def _accept(self, pushed: Pushed) -> Picture | None:
        header = pushed.header
        assert header.format is not None
        try:
            planes, pixel_format = planes_of_bytes(
                pushed.pixels, header.format, header.width, header.height, exact=self._exact
            )
        except MessageError as error:
            self.decode_errors += 1
            self._complain("picture", error.message)
            self._reply(pushed, error.message)
            return None
        self._heard(pushed)
        self._reply(pushed)
        height, width = planes[0].shape[:2]
        if self._size not in (None, (width, height)):
            self._epoch += 1
        self._size = (width, height)
        pts_ns = self._time(header, pushed.received_ns)
        stamp = header.utc()
        clock: Clock = "arrival" if stamp is None else "container"
        index, self._index = self._index, self._index + 1
        return Picture(
            planes, pixel_format, width, height, index, pts_ns, pushed.received_ns,
            time.time() if stamp is None else stamp, clock, self._epoch, owner=pushed.pixels,
        )  # fmt: skip

    def _reply(self, pushed: Pushed, error: str = "") -> None:
        assert self._inlet is not None
        self._inlet.answer(pushed, error)

    def _heard(self, pushed: Pushed) -> None:
        """Book a good message of its sender. What is refused is not heard: nonsense is as good as silence."""
        if self._holder != pushed.sender:
            if self._holder:
                self._epoch += 1
            self._holder, self._sequence, self._stamped = pushed.sender, None, None
        self.heard_ns = self._holder_ns = pushed.received_ns
        sequence = pushed.header.sequence
        if sequence is not None and self._sequence is not None:
            gap = sequence - self._sequence - 1
            self.missed += gap if 0 < gap < _GAP_MAX else 0
        self._sequence = sequence

    def _complain(self, kind: str, text: str) -> None:
        """Log what is wrong with what comes, once of each kind."""
        if kind not in self._complained:
            self._complained.add(kind)
            _log.warning("[%s] %s (more of this kind is not logged)", self.name, text)

    def _time(self, header: PushHeader, received_ns: int) -> int:
        """Presentation time: the sender's where it gives one, from 0; else of arrival. Never goes back."""
        stamped = header.pts_ns is not None
        given_ns = received_ns if header.pts_ns is None else header.pts_ns
        if self._zero_ns is None:
            self._zero_ns = received_ns
        elapsed_ns = received_ns - self._zero_ns
        if stamped == self._stamped:
            back = given_ns < self._given_ns - _BACK_NS
            # Ten years ahead of the clock is no time any more, and would not fit the books in the end.
            if back or given_ns + self._shift_ns > elapsed_ns + _AHEAD_NS:
                self._epoch += 1
                self._stamped = None
        if stamped != self._stamped:
            self._stamped = stamped
            self._shift_ns = max(elapsed_ns, self._pts_ns) - given_ns
        self._given_ns = given_ns
        self._pts_ns = max(self._pts_ns, given_ns + self._shift_ns)
        return self._pts_ns
