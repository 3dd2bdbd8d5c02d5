from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pipeline.cli import main

CONFIG = """
sources: {gate: "rtsp://user:s3cret@h/s", yard: b.mp4}
stages: {infer: {replicas: 2, address: "tcp://127.0.0.1:5601"}, postprocess: {replicas: 2}}
publish: [{zmq: "tcp://127.0.0.1:5556"}]
run: {out: out/x}
"""


@pytest.fixture
def path(tmp_path: Path) -> str:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG, encoding="utf-8")
    return str(file)


def shown(argv: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["graph", *argv]) == 0
    text = capsys.readouterr().out
    assert "s3cret" not in text
    return text


def test_text(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(["-c", path], capsys)
    assert text.startswith("8 processes, 2 sources\n")
    boxes = re.findall(r"^\[(.*?)\]", text, re.MULTILINE)
    assert boxes == ["capture", "preprocess", "infer", "postprocess", "publish"]
    assert "reads gate: rtsp://user:***@h/s" in text
    assert "tcp://127.0.0.1:5601, tcp://127.0.0.1:5602, 2 credits a link, pixels inline" in text
    assert "ipc, 4 credits a link, pixels in shared memory; each source keeps to one replica" in text
    assert "->  zmq: tcp://127.0.0.1:5556" in text
    assert "->  folder: out/x" in text
    assert "Frames may be dropped: nowhere" in text


def test_realtime_drops_at_capture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "paced.yaml"
    file.write_text("run: {realtime: true}\n", encoding="utf-8")
    assert "Frames may be dropped: at capture only" in shown(["a.mp4", "-c", str(file)], capsys)


def test_sources_without_a_config(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(["front.mp4", "x/front.mp4"], capsys)
    assert "reads front: front.mp4" in text
    assert "reads front-2: x/front.mp4" in text


def test_given_sources_take_the_place_of_the_configs(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(shown(["-c", path, "other.mp4", "--json"], capsys))
    assert found["sources"] == {"other": "other.mp4"}


def test_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "grouped.yaml"
    file.write_text("groups: [[preprocess, infer], [postprocess, publish]]\nstages: {infer: {replicas: 2}}\n")
    text = shown(["a.mp4", "-c", str(file)], capsys)
    assert re.findall(r"^\[(.*?)\]( x \d)?", text, re.MULTILINE) == [
        ("capture", ""),
        ("preprocess + infer", " x 2"),
        ("postprocess + publish", ""),
    ]


def test_json(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(shown(["-c", path, "--json"], capsys))
    names = {process["name"] for process in found["processes"]}
    assert len(names) == 8
    assert {edge["producer"] for edge in found["edges"]} | {
        edge["consumer"] for edge in found["edges"]
    } == names
    assert found["sinks"][0] == {"kind": "zmq", "target": "tcp://127.0.0.1:5556"}


def test_dot_and_mermaid_have_every_edge(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    edges = json.loads(shown(["-c", path, "--json"], capsys))["edges"]
    dot = shown(["-c", path, "--dot"], capsys)
    assert dot.startswith("digraph")
    assert dot.rstrip().endswith("}")
    assert dot.count("credits") == len(edges)
    mermaid = shown(["-c", path, "--mermaid"], capsys)
    assert mermaid.startswith("flowchart LR")
    assert mermaid.count("credits") == len(edges)


def test_quotes_do_not_break_the_picture(capsys: pytest.CaptureFixture[str]) -> None:
    assert r"a\"b.mp4" in shown(['a"b.mp4', "--dot"], capsys)
    assert "a#quot;b.mp4" in shown(['a"b.mp4', "--mermaid"], capsys)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "there is no source to draw"),
        (["a.mp4", "--dot", "--mermaid"], "graph writes one form at a time"),
    ],
)
def test_wrong_usage(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["graph", *argv]) == 2
    assert message in capsys.readouterr().err
