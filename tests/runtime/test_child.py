"""How a child starts and how it must end."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pipeline.runtime.child import read_plan, write_plan
from pipeline.runtime.plan import Settings, SourcePlan, WorkerPlan

PLAN = WorkerPlan(
    run_id="r", run_dir="/nowhere", name="capture-gate", stages=("capture",), settings=Settings("fake"),
    sources=(SourcePlan("gate", "gate.mp4"),),
)  # fmt: skip


def pipe_with(data: bytes) -> int:
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    return reading


def test_the_plan_comes_over_stdin_and_leaves_the_rest_unread() -> None:
    fd = pipe_with(write_plan(PLAN) + b"lifeline")
    assert read_plan(fd) == PLAN
    assert os.read(fd, 100) == b"lifeline"
    os.close(fd)


@pytest.mark.parametrize("length", [0, 3, 40])
def test_a_plan_that_ends_early(length: int) -> None:
    fd = pipe_with(write_plan(PLAN)[:length])
    with pytest.raises(EOFError, match="no plan"):
        read_plan(fd)
    os.close(fd)


def test_a_thread_that_dies_takes_the_process_with_it() -> None:
    """Otherwise a worker whose agent has died works on, unheard and beyond command."""
    code = (
        "import threading, time; from pipeline.runtime import child; "
        "threading.excepthook = child._fatal_in_thread; "
        "threading.Thread(target=lambda: 1 / 0).start(); threading.Event().wait(30)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
