"""Commands to a run that goes on, over its real socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from pipeline.errors import ConfigError, TransportError
from pipeline.runtime.admin import AdminServer, ask, find_run
from pipeline.runtime.rundir import RunDir
from pipeline.transport.control import Asker
from pipeline.transport.link import make_context


def handle(request: dict[str, Any]) -> dict[str, Any]:
    if request["do"] == "fail":
        raise ConfigError("there is no source yard", hint="the sources are gate")
    return {"echo": request}


@contextmanager
def served(run: RunDir) -> Iterator[AdminServer]:
    """A server that another thread keeps answering, as the supervisor's does between its turns."""
    server = AdminServer(str(run.path), handle)
    over = threading.Event()

    def turns() -> None:
        while not over.wait(0.01):
            server.serve()

    thread = threading.Thread(target=turns)
    thread.start()
    try:
        yield server
    finally:
        over.set()
        thread.join()
        server.close()


def test_a_request_is_answered() -> None:
    with RunDir() as run, served(run):
        assert find_run() == run.path
        assert find_run(run.run_id[:3]) == run.path
        assert ask(find_run(), {"do": "list"}) == {"ok": True, "echo": {"do": "list"}}


def test_a_refusal_is_an_error_with_its_hint() -> None:
    with RunDir() as run, served(run):
        with pytest.raises(ConfigError) as caught:
            ask(run.path, {"do": "fail"})
        assert (caught.value.message, caught.value.hint) == (
            "there is no source yard", "the sources are gate",
        )  # fmt: skip


@pytest.mark.parametrize("body", [b"", b"\xc1", b"not msgpack", msgspec.msgpack.encode([1, 2])])
def test_what_is_no_request_is_answered_and_does_no_harm(body: bytes) -> None:
    with RunDir() as run, served(run):
        context = make_context()
        asker = Asker(context, f"ipc://{run.path}/admin")
        answer = asker.ask(body, 5.0)
        asker.close()
        context.term()
        assert answer is not None
        reply = msgspec.msgpack.decode(answer)
        assert reply["ok"] is False
        assert reply["error"].startswith("not a request")
        assert ask(run.path, {"do": "list"})["ok"] is True


def test_a_run_that_does_not_answer() -> None:
    with RunDir() as run:
        server = AdminServer(str(run.path), handle)
        with pytest.raises(TransportError, match="does not answer"):
            ask(run.path, {"do": "list"}, timeout_s=0.05)
        server.close()


def test_which_run() -> None:
    with pytest.raises(ConfigError, match="no run of this user is going on"):
        find_run()
    with RunDir() as one, RunDir() as two:
        with pytest.raises(ConfigError, match="2 runs are going on") as caught:
            find_run()
        assert "--run" in caught.value.hint
        assert find_run(two.run_id) == two.path
        with pytest.raises(ConfigError, match="whose id begins with zz"):
            find_run("zz")
        assert one.path.exists()
