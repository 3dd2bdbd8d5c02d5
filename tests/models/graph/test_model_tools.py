"""``framewire models fuse``, ``half`` and ``quantize``, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import onnx
import pytest
import typer
from typer.testing import CliRunner, Result

from pipeline.cli import model_tools
from pipeline.errors import ConfigError, FramewireError, ModelError, SourceNotFoundError
from tests.models.graph.tiny import frames, tiny


@pytest.fixture
def model(tmp_path: Path) -> Path:
    onnx.save(tiny("nanodet", tmp_path / "a.onnx").model, tmp_path / "a.onnx")
    return tmp_path / "a.onnx"


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    folder = tmp_path / "scene"
    folder.mkdir()
    for number, frame in enumerate(frames(8)):
        cv2.imwrite(str(folder / f"{number}.png"), frame)
    return folder


def call(*arguments: object) -> Result:
    app = typer.Typer()
    for command in (model_tools.fuse, model_tools.half, model_tools.quantize):
        app.command(command.__name__)(command)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, FramewireError):
        raise result.exception
    return result


def report_of(*arguments: object) -> dict[str, Any]:
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def test_fuse_tells_what_has_become_of_the_bytes(model: Path) -> None:
    out = model.with_name("b.onnx")
    report = report_of("fuse", model, "--out", out, "--top-k", 20)
    assert report["bytes_in"] == {"before": 4 * 64 * 64 * 3, "after": 64 * 64 * 3}
    assert report["bytes_out"] == {"before": 84 * 35 * 4, "after": 20 * 7 * 4}
    assert report["bytes"]["after"] == out.stat().st_size
    assert report["family"] == "nanodet"


def test_the_table_of_fuse_is_for_people(model: Path) -> None:
    result = call("fuse", model, "--out", model.with_name("b.onnx"), "--fp16")
    assert "input, kB" in result.stdout
    assert "wrote" in result.stdout


def test_half_leaves_the_input_as_it_is(model: Path) -> None:
    report = report_of("half", model, "--out", model.with_name("b.onnx"))
    assert report["bytes_in"]["before"] == report["bytes_in"]["after"]


def test_quantize_says_what_it_lost(model: Path, scene: Path) -> None:
    out = model.with_name("small.onnx")
    report = report_of(
        "quantize", model, "--frames", scene, "--out", out, "--count", 6, "--method", "percentile"
    )
    assert report["calibrated_on"] == 6
    assert report["agreement"]["frames"] == 2
    assert report["bytes"]["after"] == out.stat().st_size
    assert report["method"] == "percentile"
    assert report["ratio"] > 0
    assert report["coco"] is None
    assert report["survives"] in (True, False, None)


def test_quantize_measures_precision_where_there_is_truth(model: Path, scene: Path) -> None:
    annotations = model.with_name("truth.json")
    boxes = [
        {"id": n + 1, "image_id": n, "category_id": 7, "bbox": [5, 5, 40, 40], "area": 1600, "iscrowd": 0}
        for n in range(2)
    ]
    pictures = [{"id": n, "file_name": f"{n}.png", "width": 160, "height": (90, 120)[n]} for n in range(2)]
    truth = {"images": pictures, "annotations": boxes, "categories": [{"id": 7, "name": "person"}]}
    annotations.write_text(json.dumps(truth))
    card = {"labels": ["person", "green", "blue"]}
    model.with_name("a.onnx.json").write_text(json.dumps(card))
    out = model.with_name("small.onnx")
    report = report_of(
        "quantize", model, "--frames", scene, "--out", out, "--count", 4, "--coco", scene, annotations
    )
    assert report["coco"]["pictures"] == 2
    assert 0 <= report["coco"]["after"]["AP"] <= report["coco"]["after"]["AP50"] <= 1
    assert call("quantize", model, "--frames", scene, "--out", out, "--count", 4).exit_code == 0


def test_a_network_that_dies_is_told_loudly(capsys: pytest.CaptureFixture[str]) -> None:
    agreement = {"frames": 9, "expected": 80, "found_again": 0.3, "extra": 0.1}
    report = {"model": "yolox", "method": "minmax", "agreement": agreement, "survives": False, "ratio": 1.5}
    model_tools._warn(report, held=True)
    told = capsys.readouterr().err
    assert "does not survive int8" in told
    assert "30%" in told
    assert "--method percentile" in told
    model_tools._warn(report | {"survives": None}, held=False)
    told = capsys.readouterr().err
    assert "only 80 objects" in told
    assert "calibrated with" in told
    model_tools._warn(report | {"survives": True}, held=True)
    assert not capsys.readouterr().err
    slower = {"ratio": 0.5, "ms": {"before": 3.0, "after": 6.0}}
    model_tools._warn(report | {"survives": True} | slower, held=True)
    assert "int8 is slower here: 6.0 ms, not 3.0 ms" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("expected", "again", "extra", "survives"),
    [
        (100, 95, 3, True),
        (100, 60, 3, False),
        (100, 95, 40, False),
        (4, 4, 0, None),
        (4, 0, 0, None),
        (0, 0, 30, False),
    ],
)
def test_when_a_network_survives(expected: int, again: int, extra: int, survives: bool | None) -> None:
    from pipeline.models.graph.compare import Agreement

    assert model_tools._survives(Agreement(10, expected, again, extra)) is survives


def test_frames_come_from_all_over_a_folder(scene: Path) -> None:
    assert len(list(model_tools._frames_of(str(scene), 4))) == 4
    assert len(list(model_tools._frames_of(str(scene), 100))) == 8
    every = [frame.tobytes() for frame in model_tools._frames_of(str(scene), 8)]
    assert [every.index(frame.tobytes()) for frame in model_tools._frames_of(str(scene), 2)] == [0, 4]


def test_wrong_arguments_are_told(model: Path, scene: Path) -> None:
    before = model.read_bytes()
    with pytest.raises(ModelError, match="never written over"):
        call("fuse", model, "--out", model)
    with pytest.raises(ModelError, match="never written over"):
        call("quantize", model, "--frames", scene, "--out", model)
    with pytest.raises(SourceNotFoundError, match="there is no"):
        call("quantize", model, "--frames", scene / "no.mp4", "--out", model.with_name("b.onnx"))
    with pytest.raises(ConfigError, match="reads recordings") as caught:
        call("quantize", model, "--frames", "rtsp://u:secret@host/x", "--out", model.with_name("b.onnx"))
    assert "secret" not in str(caught.value)
    truth = model.with_name("t.json")
    truth.write_text("{}")
    with pytest.raises(ConfigError, match="not in COCO's format"):
        call("quantize", model, "--frames", scene, "--out", model.with_name("b.onnx"), "--coco", scene, truth)
    assert model.read_bytes() == before
    assert not model.with_name("b.onnx").exists()
