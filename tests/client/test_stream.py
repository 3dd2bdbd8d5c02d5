"""The client library, and the example in JavaScript, against the real event log and its server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from pipeline.client import Subscriber
from pipeline.transport.keyring import Keyring

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 20.0


class Process:
    """A Python or Node.js process with pipes."""

    def __init__(self, *command: str, env: dict[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def say(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def kill(self) -> None:
        with self._process:
            self._process.kill()


class Pipeline:
    """The publisher; ``start`` after ``kill`` is the same log again."""

    def __init__(self, folder: Path) -> None:
        self.address = f"ipc://{folder}/pub"
        self.log = folder / "events.db"
        self.runs = 0
        self.process: Process | None = None

    def start(self, log: Path | None = None, keys: Path | None = None) -> None:
        self.runs += 1
        self.process = Process(
            sys.executable,
            "-m",
            "tests.client.publisher",
            str(log or self.log),
            self.address,
            f"run{self.runs}",
            str(keys or ""),
        )
        assert self.process.hear() == "ready"

    def publish(self, count: int) -> int:
        assert self.process is not None
        self.process.say(str(count))
        return int(self.process.hear())

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process = None


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    made = Pipeline(tmp_path)
    yield made
    made.kill()


def numbers(events: Subscriber, until: int) -> list[int | None]:
    got = []
    for item in events:
        got.append(item.sequence)
        if item.sequence == until - 1:
            break
    return got


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.005)


def test_a_publisher_that_comes_late_is_killed_and_comes_again(pipeline: Pipeline, tmp_path: Path) -> None:
    with Subscriber(pipeline.address, types=["start"], timeout_s=LIMIT_S) as events:
        assert events.receive(0.01) is None
        pipeline.start()
        assert numbers(events, pipeline.publish(50)) == list(range(50))
        assert pipeline.process is not None
        pipeline.process.say("100000")  # in the midst of which it is killed
        assert next(events).sequence == 50
        pipeline.kill()
        pipeline.start()
        end = pipeline.publish(1)
        assert numbers(events, end) == list(range(51, end))
        assert (events.lost, events.resets, events.malformed) == (0, 0, 0)
        pipeline.kill()
        pipeline.start(tmp_path / "another.db")
        pipeline.publish(3)
        assert [next(events).sequence for _ in range(3)] == [0, 1, 2]
        assert events.resets == 1


def test_a_slow_subscriber(pipeline: Pipeline) -> None:
    pipeline.start()
    with Subscriber(pipeline.address, types=["start"], timeout_s=LIMIT_S, queue_limit=10) as events:
        assert numbers(events, pipeline.publish(1)) == [0]
        end = pipeline.publish(4000)  # while nobody reads; its queue holds 1,000 and the pipe some more
        assert numbers(events, end) == list(range(1, end))
        assert events.refilled > 0
        assert events.lost == 0


@pytest.mark.parametrize("how", ["cursor", "output"])
def test_a_subscriber_that_is_killed_goes_on(pipeline: Pipeline, tmp_path: Path, how: str) -> None:
    out = tmp_path / "out.txt"
    out.touch()
    pipeline.start()
    kills = 2

    def got() -> list[int]:
        return [int(row.split()[1]) for row in out.read_text().splitlines()]

    for attempt in range(kills + 1):
        end = pipeline.publish(300)
        consumer = Process(sys.executable, "-m", "tests.client.consumer", pipeline.address, str(out), how)
        try:
            wanted = end if attempt == kills else end - 150  # killed in the midst of them
            wait_for(lambda wanted=wanted: len(set(got())) >= wanted)  # type: ignore[misc]
        finally:
            consumer.kill()
    assert sorted(set(got())) == list(range(end)), "none is missing"
    assert len(got()) - end <= (kills if how == "cursor" else 0)
    assert got() == sorted(got())


def test_with_keys(pipeline: Pipeline, tmp_path: Path) -> None:
    keyring = Keyring(tmp_path / "keys")
    keyring.new("one").write(tmp_path / "one.json")
    Keyring(tmp_path / "others").new("two").write(tmp_path / "two.json")
    pipeline.start(keys=keyring.folder)
    pipeline.publish(3)
    with (
        Subscriber(
            pipeline.address, timeout_s=LIMIT_S, since=0, follow=False, keys=tmp_path / "one.json"
        ) as friend,
        Subscriber(pipeline.address, since=0, keys=tmp_path / "two.json") as stranger,
        Subscriber(pipeline.address, since=0) as plain,
    ):
        assert [item.sequence for item in friend] == [0, 1, 2]
        assert stranger.receive(0.2) is None
        assert plain.receive(0.2) is None


@contextmanager
def node(address: str, out: Path) -> Iterator[None]:
    modules = Path(os.environ.get("FRAMEWIRE_NODE_MODULES") or ROOT / ".venv" / "node" / "node_modules")
    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    if not (modules / "zeromq").is_dir() or not (modules / "@msgpack" / "msgpack").is_dir():
        pytest.skip(f"npm packages zeromq and @msgpack/msgpack are not in {modules}")
    with ExitStack() as stack:
        # Modules are looked for from where a script really is.
        script = out.parent / "subscribe.mjs"
        shutil.copy(ROOT / "docs" / "examples" / "subscribe.mjs", script)
        link = out.parent / "node_modules"
        if not link.exists():
            link.symlink_to(modules)
        process = Process("node", str(script), address, str(out))
        stack.callback(process.kill)
        yield


def test_the_example_in_javascript(pipeline: Pipeline, tmp_path: Path) -> None:
    out = tmp_path / "node.jsonl"
    out.touch()

    def count() -> int:
        return out.read_bytes().count(b"\n")

    pipeline.start()
    pipeline.publish(700)
    with node(pipeline.address, out):
        wait_for(lambda: count() >= 400)
    with out.open("ab") as file:
        file.write(b'{"log": "cut o')
    pipeline.publish(700)
    with node(pipeline.address, out):
        wait_for(lambda: count() >= 1400)
        pipeline.publish(5)
        wait_for(lambda: count() >= 1405)
        pipeline.kill()
        pipeline.start()
        end = pipeline.publish(5)
        wait_for(lambda: count() >= end)
    assert [json.loads(row)["sequence"] for row in out.read_text().splitlines()] == list(range(1410))
