"""Reports and commands: round trips, refusals, and errors across a process edge."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import errors
from pipeline.errors import BY_NAME, ConfigError, FramewireError, MessageError, SourceError
from pipeline.runtime.control import (
    Beat,
    Begin,
    Command,
    Fault,
    Finished,
    Go,
    Opened,
    PeerDied,
    Ready,
    Report,
    Said,
    Stop,
    decode_command,
    decode_report,
    encode,
    error_of,
    fault_of,
)
from pipeline.stages.latency import Latencies
from tests.helpers import SPEC

REPORTS: list[Report] = [
    Opened(42, SPEC, ("a note",)), Opened(42), Ready(), Beat(1.5, {"stale": 3}), Said(30, "careful"),
    Fault("ModelError", "no such file", "look again", "infer", "", True), Finished({"files": ["a", "b"]}),
]  # fmt: skip
COMMANDS: list[Command] = [Begin(SPEC), Go(), Stop("interrupted"), PeerDied("infer-0", "infer_died")]


@pytest.mark.parametrize("report", REPORTS, ids=lambda r: type(r).__name__)
def test_reports_come_back(report: Report) -> None:
    assert decode_report(encode(report)) == report
    with pytest.raises(MessageError, match="not a command"):
        decode_command(encode(report))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: type(c).__name__)
def test_commands_come_back(command: Command) -> None:
    assert decode_command(encode(command)) == command
    with pytest.raises(MessageError, match="not a report"):
        decode_report(encode(command))


@given(st.binary(max_size=60))
@settings(deadline=None, max_examples=100)
def test_random_bytes(body: bytes) -> None:
    for decode in (decode_report, decode_command):
        with pytest.raises(MessageError):
            decode(b"\xc1" + body)
        try:
            decode(body)
        except MessageError:
            continue


def test_a_summary_with_histograms_survives_a_beat() -> None:
    latencies = Latencies()
    latencies.add("infer.service", 20_000_000)
    beat = decode_report(encode(Beat(0.0, {"latency": latencies.counts()})))
    assert isinstance(beat, Beat)
    merged = Latencies()
    merged.merge(beat.summary["latency"])
    assert merged.counts() == latencies.counts()


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_every_error_crosses_a_process_edge(name: str) -> None:
    error = BY_NAME[name]("it broke", hint="mend it", stage="infer", source="gate")
    again = error_of(fault_of(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.exit_code == error.exit_code


def test_all_errors_are_known_by_name() -> None:
    classes = {name: value for name, value in vars(errors).items() if isinstance(value, type)}
    assert set(BY_NAME) == {name for name, value in classes.items() if issubclass(value, FramewireError)}


def test_the_stage_is_filled_in_and_an_unknown_error_is_still_ours() -> None:
    assert fault_of(ConfigError("wrong"), stage="publish").stage == "publish"
    assert fault_of(ConfigError("wrong", stage="infer"), stage="publish").stage == "infer"
    assert not fault_of(SourceError("gone"), fatal=False).fatal
    assert type(error_of(Fault("NewError", "what", "", "", "", True))) is FramewireError


def test_why_a_source_broke_is_kept() -> None:
    error = error_of(fault_of(SourceError("401", reason="auth", source="gate")))
    assert isinstance(error, SourceError)
    assert error.reason == "auth"
