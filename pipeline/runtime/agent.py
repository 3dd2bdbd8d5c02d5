"""The worker's second thread: speaks with the supervisor while the first one works.

Beats go out even when the main thread is deep in a network or a decoder, commands come in at once, and
the end of the supervisor (its end of our stdin closes, whatever killed it) is noticed within a beat.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from pipeline.errors import MessageError
from pipeline.runtime.control import (
    Beat,
    Command,
    Report,
    Said,
    Stop,
    decode_command,
    encode,
)
from pipeline.transport.control import ControlClient, Waiter

__all__ = ["ORPHANED", "Agent", "AgentLog"]

#: Reason of the `Stop` that an agent makes up when the supervisor is gone.
ORPHANED = "the supervisor is gone"

_BEAT_S = 0.5
_ORPHAN_GRACE_S = 5.0


class Agent:
    """Owns the control socket.

    Args:
        connect: Makes the control socket; called in the agent's thread.
        lifeline: File descriptor that the supervisor holds the other end of; -1 for none.
        beat_s: Time between two beats.

    Attributes:
        busy_since: Monotonic time since which the main thread has worked on one message; None when idle.
        summary: What the next beat says; replaced by the main thread, never changed in place.
    """

    def __init__(
        self, connect: Callable[[], ControlClient], *, lifeline: int = -1, beat_s: float = _BEAT_S
    ) -> None:
        self._connect = connect
        self._lifeline = lifeline
        self._beat_s = beat_s
        self._commands: deque[Command] = deque()
        self._reports: deque[Report] = deque()
        self._to_main = os.pipe()
        self._to_agent = os.pipe()
        for fd in (*self._to_main, *self._to_agent, *([lifeline] if lifeline >= 0 else [])):
            os.set_blocking(fd, False)
        self._closing = threading.Event()
        self.busy_since: float | None = None
        self.summary: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._run, name="agent", daemon=True)
        self._thread.start()

    @property
    def wake_fd(self) -> int:
        """Readable when a command has come, or when `wake` was called."""
        return self._to_main[0]

    def wake(self) -> None:
        """Wake the main thread; any thread may call it."""
        self._poke(self._to_main[1])

    def commands(self) -> list[Command]:
        """Commands that have come since the last call."""
        self._clear(self._to_main[0])
        taken: list[Command] = []
        while self._commands:
            taken.append(self._commands.popleft())
        return taken

    def report(self, report: Report) -> None:
        """Tell the supervisor something; any thread may call it."""
        self._reports.append(report)
        self._poke(self._to_agent[1])

    def close(self) -> None:
        """Say what is left to say and end the thread."""
        self._closing.set()
        self._poke(self._to_agent[1])
        self._thread.join(timeout=5.0)
        for fd in (*self._to_main, *self._to_agent):
            os.close(fd)

    def _run(self) -> None:
        client = self._connect()
        waiter = Waiter()
        waiter.add(client.socket)
        waiter.add(self._to_agent[0])
        watching = self._lifeline >= 0
        if watching:
            waiter.add(self._lifeline)
        next_beat = 0.0
        try:
            while not self._closing.is_set():
                waiter.wait(min(self._beat_s, max(0.0, next_beat - time.monotonic())))
                self._clear(self._to_agent[0])
                self._say(client)
                if time.monotonic() >= next_beat:
                    since = self.busy_since
                    busy_s = 0.0 if since is None else time.monotonic() - since
                    client.send(encode(Beat(busy_s, self.summary)))
                    next_beat = time.monotonic() + self._beat_s
                self._hear(client)
                if watching and self._is_cut():
                    watching = False
                    waiter = Waiter()
                    waiter.add(client.socket)
                    waiter.add(self._to_agent[0])
                    self._orphaned()
            self._say(client)
        finally:
            client.close()

    def _say(self, client: ControlClient) -> None:
        while self._reports:
            client.send(encode(self._reports.popleft()))

    def _hear(self, client: ControlClient) -> None:
        while (body := client.receive()) is not None:
            try:
                self._commands.append(decode_command(body))
            except MessageError as error:
                self._reports.append(Said(logging.WARNING, str(error)))
            self.wake()

    def _is_cut(self) -> bool:
        try:
            return os.read(self._lifeline, 64) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _orphaned(self) -> None:
        """End in order if that works, and for certain if it does not."""
        self._commands.append(Stop(ORPHANED))
        self.wake()
        timer = threading.Timer(_ORPHAN_GRACE_S, os._exit, args=(1,))
        timer.daemon = True
        timer.start()

    @staticmethod
    def _poke(fd: int) -> None:
        try:
            os.write(fd, b"\0")
        except (BlockingIOError, OSError):
            return  # Full means that it is awake already; closed means that it has ended.

    @staticmethod
    def _clear(fd: int) -> None:
        try:
            while os.read(fd, 4096):
                pass
        except BlockingIOError:
            return


class AgentLog(logging.Handler):
    """Sends log records to the supervisor, which owns the terminal."""

    def __init__(self, agent: Agent, worker: str) -> None:
        super().__init__()
        self._agent = agent
        self._worker = worker

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        self._agent.report(Said(record.levelno, f"{self._worker}: {self.format(record)}"))
