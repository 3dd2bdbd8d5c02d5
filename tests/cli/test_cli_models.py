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
from tests.models.graphs import save_graph

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
    assert rows["mobilenetv2"]["aliases"] == ["default-classifier"]
    assert {row["task"] for row in rows.values()} == {"detect", "classify"}
    assert rows["yolox-s"]["input"] == [640, 640]
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
        (["inspect", "oip://server:8001/m"], ModelError, "a model on a server has no file"),
        (["add", "oip://server:8001/m", "--name", "m"], ModelError, "a model at a oip:// address"),
        (["add", "nothing.onnx", "--name", "m"], ModelError, "no model file"),
        (["add", "x", "--name", "m", "--mean", "a"], ConfigError, "--mean a is no number"),
        (["add", "x", "--name", "m", "--input-size", "640"], ConfigError, "--input-size 640 is no size"),
        (["add", "x", "--name", "m", "--option", "scores"], ConfigError, "--option scores is not key=value"),
        (["add", "x", "--name", "m", "--labels", "no.txt"], ConfigError, "--labels no.txt cannot be read"),
        (["add", "x", "--name", "m", "--nms-iou", "half"], ConfigError, "--nms-iou half is no number"),
        (["remove", "default"], ModelError, "comes with framewire"),
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
    assert report["certainty"]["word"] == "certain"
    assert report["candidates"][0]["family"] == "nanodet"
    assert report["assumed"] == []
    low, high = report["ranges"]["scores"]
    assert 0 <= low < high <= 1


def test_inspect_of_what_no_family_reads(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "odd.onnx", {"odd": (5, 5, 5, 5)}, metadata={"author": "[me]"})
    result = runner.invoke(app, ["inspect", str(path), "--device", "cpu"])
    assert isinstance(result.exception, ModelError)
    assert result.exception.exit_code == 4
    for part in ("unsure", "odd float32 [1, 5, 5, 5, 5]: 0.", "no family", "author [me]"):
        assert part in result.stdout
    result = runner.invoke(app, ["inspect", str(path), "--device", "cpu", "--json"])
    assert json.loads(result.stdout)["family"] is None


def test_add_then_use_then_remove(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "best.onnx", {"output": (84, 8)})
    (tmp_path / "names.txt").write_text("helmet\n head \n\nperson\n")
    arguments = ["add", str(path), "--name", "helmets", "--family", "yolox", "--labels",
                 str(tmp_path / "names.txt"), "--channels", "rgb", "--mean", "0", "--std", "255,255,255",
                 "--letterbox", "stretch", "--pad-value", "0", "--nms-iou", "0.6", "--input-size", "64x64",
                 "--option", "a=1", "--option", "b=text"]  # fmt: skip
    result = runner.invoke(app, arguments)
    assert result.stdout == "helmets: yolox, 64x64, 3 classes; use it as --model helmets\n"
    report = json.loads(runner.invoke(app, ["inspect", "helmets", "--device", "cpu", "--json"]).stdout)
    assert (report["name"], report["family"], report["kind"]) == ("helmets", "yolox", "detector")
    assert report["labels"] == ["helmet", "head", "person"]
    assert report["scaling"] == {"mean": [0.0, 0.0, 0.0], "std": [255.0, 255.0, 255.0]}
    assert report["letterbox"] == {"mode": "stretch", "pad_value": 0}
    assert (report["nms_iou"], report["options"]) == (0.6, {"a": 1, "b": "text"})
    assert report["certainty"]["source"] == "card"
    rows = {row["name"]: row for row in json.loads(runner.invoke(app, ["list", "--json"]).stdout)}
    assert (rows["helmets"]["state"], rows["helmets"]["task"]) == ("added", "detect")
    assert rows["helmets"]["input"] == [64, 64]
    assert "helmets" in runner.invoke(app, ["list"]).stdout
    result = runner.invoke(app, ["remove", "helmets"])
    assert result.stdout == f"removed {tmp_path}/cache/models/added/helmets.onnx\n"
    assert "helmets" not in runner.invoke(app, ["list"]).stdout


def test_a_link_that_leads_nowhere_is_listed(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "best.onnx", {"output": (84, 8)})
    arguments = ["add", str(path), "--name", "m", "--family", "yolox", "--std", "255", "--nms-iou", "none"]
    result = runner.invoke(app, [*arguments, "--link"])
    assert result.exit_code == 0
    assert "assumed: --channels bgr --mean 0,0,0 --letterbox topleft\n" in result.stderr
    rows = {row["name"]: row for row in json.loads(runner.invoke(app, ["list", "--json"]).stdout)}
    assert (rows["m"]["state"], rows["m"]["note"]) == ("linked", f"link to {path}")
    path.unlink()
    rows = {row["name"]: row for row in json.loads(runner.invoke(app, ["list", "--json"]).stdout)}
    assert rows["m"]["state"] == "gone"
    assert runner.invoke(app, ["remove", "m"]).exit_code == 0


def test_help_has_an_example() -> None:
    for command in ("list", "pull", "inspect", "add", "remove", "fuse", "half", "quantize"):
        assert "Example: framewire models" in runner.invoke(app, [command, "--help"]).stdout


def test_a_broken_card_hides_no_other_model(tmp_path: Path) -> None:
    file = save_graph(tmp_path / "best.onnx", {"output": (84, 8)})
    for name in ("one", "two"):
        given = ["--family", "yolox", "--std", "255"]
        assert runner.invoke(app, ["add", str(file), "--name", name, *given]).exit_code == 0
    (store.added_dir() / "one.onnx.json").write_text('{"family')
    rows = {row["name"]: row for row in json.loads(runner.invoke(app, ["list", "--json"]).stdout)}
    assert "cannot be read as JSON" in rows["one"]["note"]
    assert rows["two"]["family"] == "yolox"
    assert runner.invoke(app, ["remove", "one"]).exit_code == 0


def test_long_metadata_are_cut_in_the_table(tmp_path: Path) -> None:
    card = {"framewire.card": '{"family": "yolox"}', "junk": "x" * 100_000}
    file = save_graph(tmp_path / "m.onnx", {"output": (84, 8)}, metadata=card)
    result = runner.invoke(app, ["inspect", str(file), "--device", "cpu"])
    assert "100000 characters" in result.stdout
    assert len(result.stdout) < 10_000
