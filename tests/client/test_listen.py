from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.cli.listen import line, moment
from pipeline.client import Received
from pipeline.errors import ConfigError
from tests.client.stub import StubPublisher
from tests.sinks.builders import SPEC, make_event_row, make_header, make_item

RUN = "import typer; from pipeline.cli.listen import listen; typer.run(listen)"


@contextmanager
def listening(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            assert process.stderr is not None
            assert "listening at" in process.stderr.readline()
            yield process
        finally:
            process.kill()


@pytest.fixture
def stub() -> Iterator[StubPublisher]:
    with StubPublisher() as made:
        yield made


ROW = make_event_row(5)


def commit(stub: StubPublisher, count: int = 1) -> list[dict[str, Any]]:
    """The same event again and again, but for its number."""
    return [stub.publish(**ROW | {"sequence": stub.log.next}) for _ in range(count)]


def test_json_to_another_process(stub: StubPublisher) -> None:
    commit(stub)
    arguments = ("--json", "--count", "2", "--type", "start", "--label", "car")
    with listening(stub.address, *arguments) as process:
        rows = commit(stub, 3)[:2]
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert err == ""
    assert [json.loads(text) for text in out.splitlines()] == rows


def test_readable_lines(stub: StubPublisher) -> None:
    with listening(stub.address, "--count", "1", "--source", "gate") as process:
        commit(stub)
        out, _ = process.communicate(timeout=20)
    assert out == "09:40:00.250  start     gate  car #3         0.87 at 16,24,64,72 for 0.0 s\n"


def test_the_log_is_read_to_its_end_and_losses_are_told(stub: StubPublisher, tmp_path: Path) -> None:
    commit(stub, 5)
    stub.log.forget(2)
    cursor = str(tmp_path / "cursor")
    arguments = ("--no-follow", "--json", "--cursor", cursor)
    for options, expected, words in (
        (("--from", "1", "--count", "2"), [2, 3], "1 events are gone"),
        ((), [4], ""),
        (("--since", "1h"), [], ""),
    ):
        with listening(stub.address, *arguments, *options) as process:
            out, err = process.communicate(timeout=20)
        assert process.returncode == 0, err
        assert [json.loads(text)["sequence"] for text in out.splitlines()] == expected
        assert words in err
        assert bool(words) == bool(err)


def test_less_in_the_log_than_asked_for_is_exit_code_1(stub: StubPublisher) -> None:
    commit(stub)
    with listening(stub.address, "--no-follow", "--count", "2") as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "only 1 of 2 records are in the log" in err


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", 999_910.0), ("10m", 999_400.0), ("1.5h", 994_600.0), ("1d", 913_600.0), ("999d", 0.0),
        ("1700000000", "1700000000"), ("2026-01-31T09:30Z", "2026-01-31T09:30Z"),
        ("2026-01-31T09:30+02:00", "2026-01-31T09:30+02:00"),
    ],
)  # fmt: skip
def test_moments(text: str, expected: float | str) -> None:
    assert moment(text, 1e6) == expected


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("yesterday", "--since 10m, 2h or 1d"),
        ("10 minutes", "--since 10m"),
        ("10", None),
        ("2026-01-31", "--since 2026-01-31T00:00Z"),
        ("2026-01-31 09:30", "--since 2026-01-31T09:30Z for UTC"),
    ],
)
def test_moments_that_are_none_say_what_to_type(text: str, hint: str | None) -> None:
    if hint is None:
        assert moment(text) == text
        return
    with pytest.raises(ConfigError) as raised:
        moment(text)
    assert hint in raised.value.hint


@pytest.mark.parametrize("arguments", [(), ("--count", "3")])
def test_silence_is_exit_code_1_with_words(arguments: tuple[str, ...]) -> None:
    with listening("tcp://127.0.0.1:9", "--timeout", "0.05", *arguments) as process:
        out, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert out == ""
    assert "nothing came from tcp://127.0.0.1:9 within 0.05 s" in err
    assert "is the pipeline running" in err


def test_ctrl_c_is_exit_code_0() -> None:
    with listening("tcp://127.0.0.1:9") as process:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert err == ""


FRAME: dict[str, Any] = make_item(make_header(12)).frame or {}


@pytest.mark.parametrize(
    ("kind", "record", "words"),
    [
        ("frame", FRAME, "09:40:00.250  frame     gate  #12  1 car, 1 person  (30 ms)"),
        ("frame", FRAME | {"detections": []}, "no objects"),
        ("frame", FRAME | {"status": "failed", "reason": "infer died"}, "failed: infer died"),
        ("start", make_event_row(), "start     gate  car #3         0.87 at 16,24,64,72"),
        ("end", make_event_row(type="end", duration_s=6.44, reason="lost"), "for 6.4 s (lost)"),
        (
            "source",
            {"source": "gate", "state": "ended", "reason": "stopped"},
            "source    gate  ended (stopped)",
        ),
        (
            "source",
            {
                "source": "gate",
                "state": "reconnecting",
                "reason": "auth",
                "message": "it refuses the password",
            },
            "reconnecting (auth) it refuses the password",
        ),
        ("zone_entered", {"source": "gate", "new": 1}, "zone_entered gate"),
    ],
)
def test_lines(kind: str, record: dict[str, Any], words: str) -> None:
    assert words in line(Received("t", kind, record)).plain


def test_names_cannot_command_the_terminal() -> None:
    record = make_event_row(source="a\x1b[2J\nb", label="\x9b31m")
    assert "\x1b" not in line(Received("t", "start", record)).plain
    assert "\x9b" not in line(Received("t", "start", record)).plain
    assert "\n" not in line(Received("t", "start", record)).plain


def test_the_builders_speak_for_a_real_model() -> None:
    assert SPEC.labels[2] == "car"
