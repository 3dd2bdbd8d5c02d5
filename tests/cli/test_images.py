"""classify, localize, detect and tag on pictures, folders and what moves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.cli import main
from pipeline.vision.palette import BACKGROUND, PALETTE

FAKE = ["--model", "fake"]
CLASSIFIER = ["--model", "fake?task=classify"]
RED = (40, 40, 240, 240)


def write(path: Path, *colours: int) -> Path:
    """A picture of 640x384 with a rectangle of each of these colours, the first the largest."""
    picture = np.full((384, 640, 3), BACKGROUND, np.uint8)
    x1, y1, x2, _ = RED
    for place, colour in enumerate(colours):
        edge = (x2 - x1) // (place + 1)
        picture[y1 : y1 + edge, x1 + 210 * place : x1 + 210 * place + edge] = PALETTE[colour]
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)
    return path


def cut_short(path: Path) -> Path:
    write(path, 0)
    path.write_bytes(path.read_bytes()[:-200])
    return path


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_tag_prints_exactly_the_tags_of_one_picture(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tag", str(write(tmp_path / "a.png", 0, 1)), *FAKE]) == 0
    captured = capsys.readouterr()
    assert captured.out == '{"tags": {"auto": {"red": 100, "green": 100}}}\n'
    assert captured.err == ""


def test_tag_of_several_pictures_names_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [str(write(tmp_path / name, colour)) for colour, name in enumerate(("b.png", "a.png"))]
    assert main(["tag", *paths, *FAKE]) == 0
    captured = capsys.readouterr()
    assert lines(captured.out) == [
        {"image": paths[0], "tags": {"auto": {"red": 100}}},
        {"image": paths[1], "tags": {"auto": {"green": 100}}},
    ]
    assert captured.err.startswith("2 pictures in ")
    assert captured.err.endswith("with fake on fake\n")


def test_tag_takes_a_classifier(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(write(tmp_path / "a.png", 0))
    assert main(["tag", path, *CLASSIFIER, "--confidence", "0.1"]) == 0
    assert json.loads(capsys.readouterr().out) == {"tags": {"auto": {"red": 16}}}


@pytest.mark.parametrize(
    ("argv", "key", "expected"),
    [
        (["detect", *FAKE], "detections", ["red", "green"]),
        (["detect", *FAKE, "--classes", "green, blue"], "detections", ["green"]),
        (["localize", *FAKE], "object", "red"),
        (["localize", *FAKE, "--classes", "blue"], "object", None),
        (["classify", *CLASSIFIER, "--top-k", "2"], "classes", ["red", "green"]),
        (["tag", *FAKE], "tags", {"auto": {"red": 100, "green": 100}}),
    ],
)
def test_json_of_a_picture(
    argv: list[str], key: str, expected: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(write(tmp_path / "a.png", 0, 1))
    assert main([*argv, path, "--json"]) == 0
    captured = capsys.readouterr()
    (record,) = lines(captured.out)
    assert captured.err == ""
    found = record.pop(key)
    assert record.pop("provider") == "fake"
    assert record.pop("model").startswith("fake")
    assert record == {"image": path, "status": "ok", "task": argv[0], "width": 640, "height": 384}
    if key == "object":
        assert (found and found["label"]) == expected
    else:
        assert (found if key == "tags" else [one["label"] for one in found]) == expected


def test_boxes_are_in_pixels_of_the_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", str(write(tmp_path / "a.png", 0)), *FAKE, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["detections"]
    np.testing.assert_allclose(found["box_xyxy"], RED, atol=3)
    scale = np.array([640, 384, 640, 384])
    np.testing.assert_allclose(found["box_normalized"], np.array(found["box_xyxy"]) / scale, atol=1e-5)


def test_text_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    some, none = write(tmp_path / "a\x1b.png", 0), write(tmp_path / "b.png")
    assert main(["detect", str(some), str(none), *FAKE, "-q"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines() == [
        f"{tmp_path}/a?.png  640x384",
        "  red  1.00  40,40 to 240,240",
        f"{tmp_path}/b.png  640x384",
        "  nothing found",
    ]
    assert captured.err == ""


@pytest.mark.parametrize("options", [["--json"], []])
@pytest.mark.parametrize("task", ["detect", "localize", "classify", "tag"])
def test_a_bad_picture_fails_by_itself(
    task: str, options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, good = cut_short(tmp_path / "a.jpg"), write(tmp_path / "b.jpg", 0)
    model = CLASSIFIER if task == "classify" else FAKE
    assert main([task, str(bad), str(good), *model, *options]) == 1
    captured = capsys.readouterr()
    errors = captured.err.splitlines()
    assert errors[0].startswith(f"error: {bad}: it is no whole image")
    assert errors[1].startswith("2 pictures, 1 failed in ")
    assert str(good) in captured.out
    if options or task == "tag":
        failed, fine = lines(captured.out)
        assert failed["status"] == "failed"
        assert failed["reason"]
        assert not {"detections", "object", "classes", "tags"} & set(failed)
        assert fine["image"] == str(good)
    else:
        assert str(bad) not in captured.out


def test_folders_subfolders_and_drawn_copies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for place in ("10.png", "9.jpg", "deep/9.jpg", ".hidden/1.png", "empty/.keep/1.png"):
        write(tmp_path / "in" / place, 0)
    out = tmp_path / "out"
    argv = ["detect", str(tmp_path / "in"), *FAKE, "--json", "--draw", str(out)]
    assert main([*argv, "--recursive"]) == 0
    names = [record["image"] for record in lines(capsys.readouterr().out)]
    assert names == [f"{tmp_path}/in/{name}" for name in ("9.jpg", "10.png", "deep/9.jpg")]
    drawn = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert drawn == ["10.png", "9.jpg", "deep/9.jpg"]
    before = cv2.imread(str(tmp_path / "in" / "10.png"))
    after = cv2.imread(str(out / "10.png"))
    assert before is not None
    assert after is not None
    assert before.shape == after.shape
    assert (before != after).any()


def test_two_pictures_of_one_name_are_drawn_side_by_side(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [str(write(tmp_path / folder / "a.png", 0)) for folder in "xy"]
    assert main(["classify", *paths, *CLASSIFIER, "--draw", str(tmp_path / "out"), "-q"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a-2.png", "a.png"]
    assert "red" in capsys.readouterr().out


def test_a_picture_is_known_without_its_suffix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "a.png", 1).rename(tmp_path / "upload")
    assert main(["tag", str(path), *FAKE]) == 0
    assert json.loads(capsys.readouterr().out) == {"tags": {"auto": {"green": 100}}}


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["detect", "missing.jpg", *FAKE], 3, "there is no missing.jpg"),
        (["detect", ".", "-r", *FAKE], 3, "no image in"),
        (["classify", "a.png", *FAKE], 2, "classify needs a classifier"),
        (["detect", "a.png", *CLASSIFIER], 2, "detect needs a detector"),
        (["detect", "a.png", *FAKE, "--classes", "gren"], 2, "did you mean green?"),
        (["detect", "a.png", "--model", "nothing"], 4, "there is no model 'nothing'"),
        (["tag", "a.png", *FAKE, "--confidence", "2"], 2, "--confidence"),
        (["tag"], 2, "SOURCE"),
    ],
)
def test_wrong_usage(
    argv: list[str],
    code: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if "a.png" in argv:
        write(tmp_path / "a.png", 0)
    assert main(argv) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err


def test_a_picture_that_cannot_be_drawn_ends_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").write_text("a file")
    argv = ["detect", str(write(tmp_path / "a.png", 0)), *FAKE, "--draw", str(tmp_path / "out")]
    assert main(argv) == 5
    assert "cannot write" in capsys.readouterr().err


@pytest.mark.e2e
def test_what_moves_goes_through_the_pipeline_after_the_pictures(tmp_path: Path, run_dir: Path) -> None:
    picture = write(tmp_path / "a.png", 0)
    target = tmp_path / "all.jsonl"
    target.write_text('{"image": "before"}\n')
    argv = ["localize", str(picture), "synthetic:?frames=12", *FAKE, "--json", "--quiet"]
    with target.open("a") as out:
        command = [sys.executable, "-m", "pipeline", *argv]
        subprocess.run(command, stdout=out, check=True, timeout=50)
    before, still, *frames = lines(target.read_text())
    assert before == {"image": "before"}
    assert still["object"]["label"] == "red"
    assert [frame["seq"] for frame in frames] == list(range(12))
    assert {frame["task"] for frame in frames} == {"localize"}
