"""What another process writes, line by line, onto our own standard output."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Relay"]

_CHUNK = 65_536


class Relay:
    """A pipe with a name, whose content goes to standard output as it comes.

    A file sink cannot be given ``/dev/stdout`` itself: where that is a file, it would be cut to nothing.
    When the reader of standard output has gone, this process is told to stop as by SIGTERM, and the rest is
    read and dropped, so that no writer waits for ever.

    Attributes:
        path: Where to write.
    """

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="framewire-")
        self.path = Path(self._folder.name) / "lines"
        self._thread = threading.Thread(target=self._copy, name="relay", daemon=True)
        self._reading = self._writing = -1
        self._over = (-1, -1)
        self._gone = False

    def __enter__(self) -> Self:
        os.mkfifo(self.path, 0o600)
        self._reading = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        # Our own write end keeps the pipe open while its writer is started again.
        self._writing = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC)
        self._over = os.pipe()
        sys.stdout.flush()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._over[1])  # not the pipe's own end: a writer may have left it open
        self._thread.join()
        for descriptor in (self._reading, self._writing, self._over[0]):
            os.close(descriptor)
        self._folder.cleanup()

    def _copy(self) -> None:
        waiting = select.poll()
        waiting.register(self._reading, select.POLLIN)
        waiting.register(self._over[0], select.POLLIN)
        over = False
        while not over:
            over = self._over[0] in dict(waiting.poll())
            # After that it is emptied once more: what was written before the end is there by now.
            with contextlib.suppress(BlockingIOError):
                while data := os.read(self._reading, _CHUNK):
                    self._write(data)

    def _write(self, data: bytes) -> None:
        try:
            while data and not self._gone:
                data = data[os.write(sys.stdout.fileno(), data) :]
        except BrokenPipeError:
            self._gone = True
            signal.raise_signal(signal.SIGTERM)
