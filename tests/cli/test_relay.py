"""Lines of another process on our own standard output."""

from __future__ import annotations

import subprocess
import sys

import pytest

CODE = """
import signal, sys
from pipeline.cli.relay import Relay
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
sys.stdout.write("first\\n")
with Relay() as relay:
    for number in range(int(sys.argv[1])):
        if number % 1000 == 0:  # as a sink does that is started again
            out = open(relay.path, "r+b", buffering=0)
        out.write(b"%d\\n" % number)
folder = relay.path.parent.exists()  # although the writer's end was left open
print(len(stopped), folder, file=sys.stderr)
"""


@pytest.mark.parametrize("count", [0, 3, 20_000])
def test_all_lines_in_order(count: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(count)], capture_output=True, text=True, check=True, timeout=50
    )
    assert done.stdout.split() == ["first", *map(str, range(count))]
    assert done.stderr == "0 False\n"


def test_a_reader_that_has_had_enough() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CODE, "50000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "first\n"
        process.stdout.close()
        assert process.stderr.read() == "1 False\n"
        assert process.wait(30) == 0
