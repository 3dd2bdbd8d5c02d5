"""``framewire graph --frame``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.cli import main
from pipeline.vision.draw_scene import grid_margin

CONFIG = """
sources: {gate: "synthetic:", yard: "synthetic:"}
zones: {gate: {all: {polygon: [[0, 0], [1, 0], [1, 1], [0, 1]]}}}
lines: {yard: {exit: {from: [900, 10], to: [10, 10], coordinates: pixels}}}
"""


def read(path: Path) -> NDArray[Any]:
    picture = cv2.imread(str(path))
    assert picture is not None
    return picture


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return str(path)


def test_without_a_scene_there_is_the_ruler(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "where.png"
    assert main(["graph", "synthetic:", "--frame", str(file)]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{file}: synthetic, 640x360, at 0.00 s; nothing is drawn yet\n"
    assert captured.err == ""
    assert read(file).shape == grid_margin(np.zeros((360, 640, 3), np.uint8)).shape


def test_one_file_for_each_source(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["graph", "-c", config, "--frame", str(tmp_path / "out" / "where.png")]) == 0
    captured = capsys.readouterr()
    assert "where-gate.png: gate, 640x360, at 0.00 s; 1 zone\n" in captured.out
    assert "where-yard.png: yard, 640x360, at 0.00 s; 1 line\n" in captured.out
    assert captured.err == "lines.yard.exit has points outside of the picture, which is 640x360 pixels\n"
    pictures = [read(tmp_path / "out" / f"where-{name}.png") for name in ("gate", "yard")]
    reds = [np.median(picture[:, :, 2]) - np.median(picture[:, :, 0]) for picture in pictures]
    assert reds[0] > 30 > abs(reds[1]), "the zone is on the picture of its own source"


def test_one_source_at_a_time(config: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "where.jpg"
    assert main(["graph", "-c", config, "--frame", str(file), "--source", "gate", "--at", "0.5"]) == 0
    assert "gate, 640x360, at 0.5" in capsys.readouterr().out
    assert file.is_file()


def test_a_source_that_fails_keeps_no_other_from_its_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("sources: {lost: none.mp4, here: 'synthetic:', gone: nil.mp4}\n", encoding="utf-8")
    assert main(["graph", "-c", str(config), "--frame", str(tmp_path / "where.png")]) == 3
    assert (tmp_path / "where-here.png").is_file()
    error = capsys.readouterr().err
    assert "none.mp4" in error
    assert "nil.mp4" in error


def test_it_says_that_privacy_is_not_in_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("sources: {a: 'synthetic:'}\nprivacy: {labels: [person]}\n", encoding="utf-8")
    assert main(["graph", "-c", str(config), "--frame", str(tmp_path / "where.png")]) == 0
    assert "keep it to yourself" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (["--frame", "where.txt"], 2, "type: --frame where.png"),
        (["--frame", "where.png", "--source", "gat"], 2, "type: --source gate"),
        (["--frame", "where.png", "--source", "x"], 2, "the sources are gate, yard"),
        (["--frame", "where.png", "--dot"], 2, "--frame and --dot cannot go together"),
        (["--source", "gate"], 2, "add --frame where.png"),
        (["--frame", "where.png", "--at", "1e6"], 2, "before --at 1e+06"),
    ],
)
def test_wrong_usage(
    argv: list[str],
    code: int,
    message: str,
    config: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["graph", "-c", config, *argv]) == code
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "where.png").exists()


def test_a_live_source_is_asked_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = str(tmp_path / "where.png")
    assert main(["graph", "rtsp://127.0.0.1:1/x", "--frame", file]) == 3
    assert "refuses the connection" in capsys.readouterr().err
    assert main(["graph", f"push+ipc://{tmp_path}/p", "--frame", file, "--timeout", "0.2"]) == 3
    assert "gave no picture in 0.2 s" in capsys.readouterr().err


def test_the_graph_alone_loads_no_opencv(monkeypatch: pytest.MonkeyPatch, config: str) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("not without --frame")

    monkeypatch.delitem(sys.modules, "pipeline.cli.frame", raising=False)
    monkeypatch.setattr("pipeline.vision.draw_scene.grid_margin", refuse)
    assert main(["graph", "-c", config]) == 0
    assert "pipeline.cli.frame" not in sys.modules
