from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest

from pipeline.cli.listen import line
from pipeline.client import Received
from pipeline.sinks.records import topic
from pipeline.transport.pub import Publisher
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


def publish_until_done(publisher: Publisher, process: subprocess.Popen[str]) -> tuple[str, str]:
    row = make_event_row(5)
    while True:
        publisher.send(topic("gate", "start", "car"), msgspec.msgpack.encode(row))
        try:
            return process.communicate(timeout=0.05)
        except subprocess.TimeoutExpired:
            continue


def test_json_to_another_process() -> None:
    with (
        Publisher("tcp://127.0.0.1:*") as publisher,
        listening(
            publisher.address, "--json", "--count", "2", "--type", "start", "--label", "car"
        ) as process,
    ):
        out, err = publish_until_done(publisher, process)
    assert process.returncode == 0
    assert err == ""
    assert [json.loads(text) for text in out.splitlines()] == [make_event_row(5)] * 2


def test_readable_lines() -> None:
    with (
        Publisher("tcp://127.0.0.1:*") as publisher,
        listening(publisher.address, "--count", "1", "--source", "gate") as process,
    ):
        out, _ = publish_until_done(publisher, process)
    assert out == "09:40:00.250  start  gate  car #3 0.87 at 16,24,64,72 for 0.0 s\n"


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
        ("frame", FRAME, "09:40:00.250  frame  gate  #12  1 car, 1 person  (30 ms)"),
        ("frame", FRAME | {"detections": []}, "no objects"),
        ("frame", FRAME | {"status": "failed", "reason": "infer died"}, "failed: infer died"),
        ("start", make_event_row(), "start  gate  car #3 0.87 at 16,24,64,72"),
        ("end", make_event_row(type="end", duration_s=6.44, reason="lost"), "for 6.4 s (lost)"),
        ("source", {"source": "gate", "state": "ended", "reason": "stopped"}, "source gate  ended (stopped)"),
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
        ("zone_entered", {"source": "gate", "new": 1}, "zone_enteredgate"),
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
