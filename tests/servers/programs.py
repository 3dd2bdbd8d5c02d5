"""A server program as tests hold it: started on a free port, killed, started again where it was."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

__all__ = ["Program", "free_port", "need", "records"]

_LIMIT_S = 20.0


def free_port() -> int:
    """A port of loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def need(program: str, package: str) -> str:
    """Path of a program; skips the test where it is not installed."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{program} is not installed: scripts/test --services, or apt-get install {package}")
    return found


class Program:
    """A server on loopback; use as a context manager.

    Args:
        command: Given the port, the command line.
        folder: Where it writes what it prints.
        ready: Whether it serves, given the port; None for taking connections.
    """

    def __init__(
        self,
        command: Callable[[int], Sequence[str]],
        folder: Path,
        ready: Callable[[int], bool] | None = None,
    ) -> None:
        self.port = free_port()
        self._command, self._folder, self._ready = command, folder, ready
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it and wait until it serves."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / f"printed-{self.port}").open("ab") as printed:
            self._process = subprocess.Popen(self._command(self.port), stdout=printed, stderr=printed)
        deadline = time.monotonic() + _LIMIT_S
        while not self._serves():
            code = self._process.poll()
            if code is not None or time.monotonic() > deadline:
                said = (self._folder / f"printed-{self.port}").read_text(errors="replace")[-2000:]
                self.stop()
                raise AssertionError(f"the server does not start (exit {code}): {said}")
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it; harmless when it has ended."""
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_LIMIT_S)

    def kill(self) -> None:
        """``kill -9``."""
        self.stop(signal.SIGKILL)

    def _serves(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                pass
        except OSError:
            return False
        return self._ready is None or self._ready(self.port)


def records(first: int, count: int, **fields: Any) -> list[dict[str, Any]]:
    """Event records as a connector gets them."""
    return [
        {
            "schema": "framewire.update/1", "sequence": n, "id": f"run-{n}", "type": "update",
            "source": "gate", "at": "2026-01-31T09:30:00.250Z", "label": "car", "track_id": 3,
        } | fields
        for n in range(first, first + count)
    ]  # fmt: skip
