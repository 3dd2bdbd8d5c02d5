"""Commands to a run that goes on: a socket in its folder, which only its own user can open.

One request, one reply, both msgpack maps: ``{"do": "list" | "add" | "remove" | "reload", …}`` is answered
with ``{"ok": true, …}`` or ``{"ok": false, "error", "hint"}``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from pipeline.errors import ConfigError, FramewireError, TransportError
from pipeline.runtime.rundir import running_runs
from pipeline.transport.control import Asker, Replier
from pipeline.transport.link import make_context

__all__ = ["AdminServer", "ask", "find_run"]

_SOCKET = "admin"


class AdminServer:
    """The run's end.

    Args:
        run_dir: Folder of the run.
        handle: Obeys a request; what it returns is added to the reply, a `FramewireError` becomes one.
    """

    def __init__(self, run_dir: str, handle: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
        self._context = make_context()
        self._replier = Replier(self._context, f"ipc://{run_dir}/{_SOCKET}")
        self._handle = handle

    def serve(self) -> None:
        """Answer what has come; never waits."""
        while (body := self._replier.receive()) is not None:
            self._replier.reply(msgspec.msgpack.encode(self._answer(body)))

    def close(self) -> None:
        """Close the socket."""
        self._replier.close()
        self._context.term()

    def _answer(self, body: bytes) -> dict[str, Any]:
        try:
            request = msgspec.msgpack.decode(body, type=dict[str, Any])
            return {"ok": True, **self._handle(request)}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return {"ok": False, "error": f"not a request: {error}", "hint": ""}
        except FramewireError as error:
            return {"ok": False, "error": error.message, "hint": error.hint}


def find_run(run_id: str = "") -> Path:
    """Folder of a run that goes on.

    Args:
        run_id: Its id, or the beginning of it; empty for the only one.

    Raises:
        ConfigError: there is none, or more than one.
    """
    runs = [path for path in running_runs() if path.name.startswith(run_id)]
    if len(runs) == 1:
        return runs[0]
    if not runs:
        which = f" whose id begins with {run_id}" if run_id else ""
        raise ConfigError(f"no run of this user{which} is going on", hint="start one: framewire run …")
    ids = ", ".join(path.name for path in runs)
    raise ConfigError(f"{len(runs)} runs are going on: {ids}", hint=f"say which: --run {runs[0].name}")


def ask(run: Path, request: dict[str, Any], *, timeout_s: float = 10.0) -> dict[str, Any]:
    """Send a request to a run and wait for its reply.

    Raises:
        TransportError: it does not answer in time.
        ConfigError: it refuses; the message is its own.
    """
    context = make_context()
    asker = Asker(context, f"ipc://{run}/{_SOCKET}")
    try:
        body = asker.ask(msgspec.msgpack.encode(request), timeout_s)
    finally:
        asker.close()
        context.term()
    if body is None:
        raise TransportError(
            f"the run {run.name} does not answer", hint="is it stopping, or stopped (SIGSTOP)?"
        )
    reply = msgspec.msgpack.decode(body, type=dict[str, Any])
    if not reply.get("ok"):
        raise ConfigError(str(reply.get("error", "")), hint=str(reply.get("hint", "")))
    return reply
