"""`framewire eval mot` at the terminal."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.cli import main
from tests.tasks.test_mot import WALK, sequence

pytest.importorskip("trackers.eval")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("A", "B"):
        sequence(tmp_path / "gt", WALK, name=name)
        det = tmp_path / "gt" / name / "det"
        det.mkdir()
        (det / "det.txt").write_text(WALK)
    return tmp_path / "gt"


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "mot", "--gt", str(folder), "--det", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"HOTA", "DetA", "AssA", "MOTA", "IDF1", "IDSW", "per_sequence"} <= set(document)
    assert set(document["per_sequence"]) == {"A", "B"}
    assert document["IDSW"] == 0
    assert document["FN"] == 4, "an object has to be seen twice"


def test_several_trackers_results_and_a_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder.parent
    given = [
        "--tracker",
        "sort",
        "--tracker",
        "botsort",
        "--write",
        str(out / "w"),
        "--out",
        str(out / "r.html"),
    ]
    assert main(["eval", "mot", "--gt", str(folder), "--det", str(folder), *given]) == 0
    shown = capsys.readouterr().out
    assert "COMBINED" in shown
    assert shown.index("sort") < shown.index("botsort")
    assert (out / "r.html").stat().st_size > 10_000
    assert main(["eval", "mot", "--gt", str(folder), "--results", str(out / "w" / "sort"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["IDSW"] == 0


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ([], 2, "give one of --det"),
        (["--det", ".", "--results", "."], 2, "give one of --det"),
        (["--det", ".", "--tracker", "bytetrak"], 2, "did you mean bytetrack?"),
        (["--results", "."], 3, "there is no file"),
        (["--results", ".", "--tracker", "sort"], 2, "tracked already"),
        (["--det", "nowhere"], 3, "there are no detections of A"),
        (["--video", "x.mp4"], 2, "is of one"),
    ],
)
def test_what_cannot_be(
    folder: Path, args: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "mot", "--gt", str(folder), *args]) == code
    assert said in capsys.readouterr().err
