from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.cli.models import app
from pipeline.errors import ConfigError, ModelError
from pipeline.models import store
from pipeline.models.store import EMBEDDED_PATH, KNOWN

BODY = b"small" * 99
runner = CliRunner()


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMEWIRE_CACHE", str(tmp_path / "cache"))
    small = replace(KNOWN["yolox-nano"], bytes=len(BODY), sha256=hashlib.sha256(BODY).hexdigest())
    monkeypatch.setitem(store.KNOWN, "yolox-nano", small)


def test_list_shows_every_model() -> None:
    result = runner.invoke(app, ["list"])
    assert result.exit_code == 0
    for name in KNOWN:
        assert name in result.stdout
    assert "embedded" in result.stdout
    assert "cache:" in result.stderr


def test_list_as_json(tmp_path: Path) -> None:
    (tmp_path / "usb").write_bytes(BODY)
    assert runner.invoke(app, ["pull", "yolox-nano", "--from", str(tmp_path / "usb")]).exit_code == 0
    rows = {row["name"]: row for row in json.loads(runner.invoke(app, ["list", "--json"]).stdout)}
    assert list(rows) == list(KNOWN)
    assert rows["nanodet-g-int8"]["aliases"] == ["default"]
    assert rows["nanodet-g-int8"]["path"] == str(EMBEDDED_PATH)
    assert rows["yolox-nano"]["state"] == "cached"
    assert rows["yolox-s"]["state"] == "-"
    assert len(rows["yolox-s"]["sha256"]) == 64


def test_pull_from_a_file_and_again_without(tmp_path: Path) -> None:
    (tmp_path / "usb").write_bytes(BODY)
    result = runner.invoke(app, ["pull", "yolox-nano", "--from", str(tmp_path / "usb")])
    path = tmp_path / "cache" / "models" / "yolox_nano.onnx"
    assert result.stdout == f"yolox-nano: {path}\n"
    assert path.read_bytes() == BODY
    assert runner.invoke(app, ["pull", "yolox-nano", "default"]).stdout.splitlines() == [
        f"yolox-nano: {path}",
        f"default: {EMBEDDED_PATH}",
    ]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["pull", "yolox-huge"], ModelError, "no model 'yolox-huge'"),
        (["pull", "yolox-s", "yolox-m", "--from", "x"], ConfigError, "takes one name"),
        (["pull", "yolox-nano", "--from", "/nowhere"], ModelError, "/nowhere cannot be read"),
        (["inspect", "nothing.onnx"], ModelError, "no model file"),
        (["inspect", "fake"], ModelError, "has no file"),
        (["inspect", "default", "--device", "abacus"], ModelError, "no device 'abacus'"),
    ],
)
def test_errors_are_ours(arguments: list[str], error: type[Exception], message: str) -> None:
    result = runner.invoke(app, arguments)
    assert isinstance(result.exception, error)
    assert message in str(result.exception)
    assert result.stdout == ""


def test_inspect() -> None:
    result = runner.invoke(app, ["inspect", "default", "--device", "cpu"])
    assert result.exit_code == 0
    for part in (
        "nanodet",
        "uint8",
        "416",
        "bgr",
        "80: person, bicycle",
        "CPUExecutionProvider",
        "Apache-2.0",
    ):
        assert part in result.stdout


def test_inspect_as_json() -> None:
    report = json.loads(
        runner.invoke(app, ["inspect", str(EMBEDDED_PATH), "--device", "cpu", "--json"]).stdout
    )
    assert report["name"] == "nanodet_g_416_int8"
    assert report["family"] == "nanodet"
    assert report["sha256"] == hashlib.sha256(EMBEDDED_PATH.read_bytes()).hexdigest()
    assert report["inputs"] == ["images uint8 [batch, 416, 416, 3]"]
    assert report["outputs"] == ["boxes float32 [batch, 3549, 4]", "scores float32 [batch, 3549, 80]"]
    assert len(report["labels"]) == 80
    assert report["metadata"]["framewire.family"] == "nanodet"


def test_help_has_an_example() -> None:
    for command in ("list", "pull", "inspect"):
        assert "Example: framewire models" in runner.invoke(app, [command, "--help"]).stdout
