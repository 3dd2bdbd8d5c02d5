"""A mailbox for one picture, filled by a reading thread: the newest wins."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable

from pipeline.errors import SourceError
from pipeline.sources.base import Picture, Source

__all__ = ["Newest"]

_JOIN_S = 0.3


class Newest:
    """Reads a live source in a thread of its own and keeps the newest picture that is wanted.

    Args:
        source: The opened source; only the thread reads it from now on.
        wake: Called from the thread when there is something new.
        judge: Called from the thread with each picture; the cause for which it is dropped, or None.
    """

    def __init__(
        self,
        source: Source,
        wake: Callable[[], None],
        *,
        judge: Callable[[Picture], str | None] = lambda _: None,
    ) -> None:
        self._source = source
        self._wake = wake
        self._judge = judge
        self._lock = threading.Lock()
        self._picture: Picture | None = None
        self._error: SourceError | None = None
        self._dropped: Counter[str] = Counter()
        self._stop = threading.Event()
        self.ended = False
        self._thread = threading.Thread(target=self._read, name=f"read-{source.name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> bool:
        """Whether a picture is there."""
        return self._picture is not None

    def take(self) -> Picture | None:
        """The newest picture, once."""
        with self._lock:
            picture, self._picture = self._picture, None
            return picture

    def forget(self) -> None:
        """Drop the picture that waits: its connection is lost, and it would come after that is told."""
        with self._lock:
            if self._picture is not None:
                self._picture = None
                self._dropped["stale"] += 1

    def dropped(self) -> tuple[int, dict[str, int]]:
        """(how many, by cause) of the pictures that were dropped since the last call."""
        with self._lock:
            taken, self._dropped = self._dropped, Counter()
            return taken.total(), dict(taken)

    def raise_error(self) -> None:
        """Raise what ended the source, if it was an error.

        Raises:
            SourceError: the source broke.
        """
        if self._error is not None:
            raise self._error

    def ask(self) -> None:
        """Ask the thread to end after the picture that it is reading."""
        self._stop.set()
        interrupt = getattr(self._source, "interrupt", None)
        if interrupt is not None:
            interrupt()

    def stop(self) -> bool:
        """Ask the thread to end; whether it has, within 0.3 s. If not, it still holds the source."""
        self.ask()
        self._thread.join(timeout=_JOIN_S)
        return not self._thread.is_alive()

    def _read(self) -> None:
        try:
            while not self._stop.is_set():
                picture = self._source.read()
                if picture is None:
                    return
                cause = self._judge(picture)
                with self._lock:
                    if cause is not None:
                        self._dropped[cause] += 1
                        continue
                    if self._picture is not None:
                        self._dropped["superseded"] += 1
                    self._picture = picture
                self._wake()
        except SourceError as error:
            self._error = error
        finally:
            self.ended = True
            self._wake()
