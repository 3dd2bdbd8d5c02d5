from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.cli import main

ROOT = Path(__file__).resolve().parents[2]
SECRET = """
sources: {gate: "rtsp://user:s3cret@10.0.0.7/stream1?token=t0ken"}
publish: [{jsonl: events.jsonl}]
groups: [[preprocess, infer]]
"""


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "secret.yaml"
    path.write_text(SECRET, encoding="utf-8")
    return path


def rows(text: str) -> dict[str, str]:
    lines = [line.split(maxsplit=1) for line in text.splitlines()[1:]]
    return {line[0]: line[1].strip() for line in lines if len(line) == 2}


def test_good(secret: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", "-c", str(secret)]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{secret}: OK\n")
    found = rows(text)
    assert found["sources.gate.url"] == "rtsp://user:***@10.0.0.7/stream1?token=***"
    assert found["model.confidence"] == "0.4"
    assert found["model.classes"] == "-"
    assert found["groups[0]"] == "preprocess, infer"
    assert found["publish[0].jsonl"] == "events.jsonl"
    assert found["run.realtime"] == "false"
    assert "\x1b" not in text, "no colours off a terminal"


def test_json(secret: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(secret), "--json"]) == 0
    text = capsys.readouterr().out
    assert "s3cret" not in text
    assert "t0ken" not in text
    found = json.loads(text)
    assert found["ok"] is True
    (sink,) = found["config"]["publish"]
    assert sink.items() >= {"jsonl": "events.jsonl", "what": "events"}.items()


def test_without_sources(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "no-sources.yaml"
    path.write_text("model: {device: cpu}\n", encoding="utf-8")
    assert main(["validate", str(path)]) == 0
    assert "No sources: give them to `framewire run`" in capsys.readouterr().out


def test_bad(capsys: pytest.CaptureFixture[str]) -> None:
    path = ROOT / "tests" / "config" / "invalid" / "unknown_key.yaml"
    assert main(["validate", str(path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"error: {path}:3: model has no key `confidnce`\n  -> write `confidence`\n"


def test_bad_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("model: {device: gpu}\nrun: {slots: 0}\n", encoding="utf-8")
    assert main(["validate", str(path), "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is False
    assert [(error["where"], error["key"]) for error in found["errors"]] == [
        (f"{path}:1", "model.device"),
        (f"{path}:2", "run.slots"),
    ]


@pytest.mark.parametrize("argv", [[], ["a.yaml", "-c", "b.yaml"]])
def test_one_file(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", *argv]) == 2
    assert "validate takes one config file" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_missing_file(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(tmp_path / "none.yaml"), *flags]) == 2
    captured = capsys.readouterr()
    assert "there is no config file" in captured.out + captured.err


def test_a_polygon_is_one_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "zones.yaml"
    zones = "zones: {gate: {yard: {polygon: [[0, 0.5], [1, 0.5], [1, 1]]}}}"
    path.write_text(f"sources: {{gate: a.mp4}}\n{zones}\n")
    assert main(["validate", str(path)]) == 0
    assert rows(capsys.readouterr().out)["zones.gate.yard.polygon"] == "(0, 0.5) (1, 0.5) (1, 1)"
