from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from pipeline.errors import ModelError
from pipeline.models.added import add_model, remove_model
from pipeline.models.base import build_runner
from pipeline.models.inspection import inspect_model
from pipeline.models.store import EMBEDDED_PATH, added, added_dir, resolve
from tests.models.graphs import save_graph

YOLOX = {"output": (84, 8)}
#: The graphs give the mean of their input: with pixels / 255 that is a probability.
CARD: dict[str, Any] = {"family": "yolox", "std": [255, 255, 255]}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMEWIRE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A graph of three classes that YOLOX reads."""
    return save_graph(tmp_path / "best.onnx", YOLOX)


def left() -> list[str]:
    return sorted(path.name for path in added_dir().glob("*")) if added_dir().exists() else []


def test_an_added_model_works_by_its_name(file: Path) -> None:
    spec = add_model(str(file), "helmets", CARD | {"labels": ["helmet", "head", "person"], "channels": "rgb"})
    assert (spec.family, spec.channels, spec.labels) == ("yolox", "rgb", ("helmet", "head", "person"))
    assert left() == ["helmets.onnx", "helmets.onnx.json"]
    file.unlink()
    runner = build_runner("helmets", device="cpu")
    opened = runner.open()
    runner.close()
    assert (opened.name, opened.family, opened.channels) == ("helmets", "yolox", "rgb")
    assert (opened.labels, opened.std) == (spec.labels, spec.std)
    assert remove_model("helmets") == added_dir() / "helmets.onnx"
    assert (added(), left()) == ({}, [])


def test_its_card_holds_what_was_seen_and_what_was_said(file: Path) -> None:
    file.with_name("best.onnx.json").write_text(json.dumps(CARD | {"channels": "rgb", "pad_value": 7}))
    add_model(str(file), "m", {"pad_value": 9})
    card = json.loads((added_dir() / "m.onnx.json").read_text())
    assert card == {
        "channels": "rgb",
        "pad_value": 9,
        **CARD,
        "kind": "detector",
        "input_width": 64,
        "input_height": 64,
    }
    report = inspect_model("m", "cpu").report
    assert report["certainty"] == {"confidence": 1.0, "word": "certain", "source": "card"}
    assert report["from"] == dict.fromkeys(card, "card")
    assert report["assumed"] == ["mean", "letterbox"]


def test_a_link_stays_one(file: Path) -> None:
    add_model(str(file), "m", CARD, link=True)
    path = added_dir() / "m.onnx"
    assert path.is_symlink()
    assert path.readlink() == file
    assert resolve("m").path == path
    remove_model("m")
    assert file.exists()


def test_a_taken_name_is_kept_unless_it_is_to_be_replaced(file: Path) -> None:
    add_model(str(file), "m", CARD | {"channels": "rgb"})
    with pytest.raises(ModelError, match="the name 'm' is taken") as caught:
        add_model(str(file), "m", CARD)
    assert "--replace" in caught.value.hint
    assert add_model(str(file), "m", CARD, replace=True).channels == "bgr"


@pytest.mark.parametrize(
    "name",
    ["", "default", "yolox-s", "fake", "a/b", "../up", ".hidden", "m.onnx", "a b", "x" * 65, "oip://a"],
)
def test_names_that_are_none(name: str, file: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be called|is taken: it comes with framewire"):
        add_model(str(file), name, {})
    assert left() == []


@pytest.mark.parametrize(
    ("outputs", "card", "message"),
    [
        (YOLOX, {"family": "nanodet"}, "fitting: yolox"),
        (YOLOX, {"family": "yoloz"}, "which we do not decode"),
        (YOLOX, {"std": [0, 0, 0]}, "has std"),
        (YOLOX, {"family": "yolox", "labels": ["one"]}, "names 1 labels, the graph tells 3 classes apart"),
        (YOLOX, {"input_width": 320, "input_height": 320}, "takes 64x64 pixels"),
        ({"odd": (5, 5, 5, 5)}, {}, "is of no family that we decode"),
    ],
)
def test_what_does_not_work_is_not_added(
    outputs: dict[str, tuple[int, ...]], card: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = save_graph(tmp_path / "odd.onnx", outputs)
    with pytest.raises(ModelError, match=message):
        add_model(str(path), "m", card)
    assert left() == []


def test_a_graph_whose_numbers_its_family_cannot_have_is_not_added(tmp_path: Path) -> None:
    # The mean of a picture of 0 to 255 is no objectness.
    path = save_graph(tmp_path / "odd.onnx", YOLOX)
    with pytest.raises(ModelError, match="not 0 to 1"):
        add_model(str(path), "m", {"family": "yolox", "std": [1, 1, 1]})
    assert left() == []


def test_files_that_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("not a graph")
    with pytest.raises(ModelError, match="cannot be loaded as an ONNX model"):
        add_model(str(tmp_path / "text.onnx"), "m", {})
    with pytest.raises(ModelError, match="there is no model file"):
        add_model(str(tmp_path / "none.onnx"), "m", {})
    assert left() == []


def test_a_folder_that_cannot_be_written(tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plain").write_text("")
    monkeypatch.setenv("FRAMEWIRE_CACHE", str(tmp_path / "plain"))
    with pytest.raises(ModelError, match="cannot be written"):
        add_model(str(file), "m", {})


@pytest.mark.parametrize(("name", "message"), [("default", "comes with framewire"), ("zzz", "was not added")])
def test_what_cannot_be_removed(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        remove_model(name)
    assert EMBEDDED_PATH.exists()


def test_inspection_of_what_fits_nothing(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "odd.onnx", {"odd": (5, 5, 5, 5)})
    found = inspect_model(str(path), "cpu")
    assert found.problem is not None
    assert "no family" in found.problem.message
    report = found.report
    assert (report["family"], report["candidates"], report["cards"]) == (None, [], [])
    assert report["certainty"] == {"confidence": 0.0, "word": "unsure", "source": None}
    assert report["inputs"] == ["images float32 [1, 3, 64, 64]"]
    low, high = report["ranges"]["odd"]
    assert low == high == pytest.approx(0.5, abs=0.02)  # the mean of noise from 0 to 1


def test_inspection_of_what_a_card_gets_wrong(file: Path) -> None:
    file.with_name("best.onnx.json").write_text('{"family": "nanodet"}')
    found = inspect_model(str(file), "cpu")
    assert found.problem is not None
    assert "yolox" in [one["family"] for one in found.report["candidates"]]
    assert 'best.onnx.json: {"family": "yolox"}' in found.report["cards"]
    assert found.report["certainty"]["word"] == "unsure"


@pytest.mark.parametrize("link", [False, True])
def test_weights_in_another_file_are_told_by_the_name_of_the_users_own(tmp_path: Path, link: bool) -> None:
    weights = onnx.numpy_helper.from_array(np.ones((3, 3, 32, 32), np.float32), "w")
    picture, output = (
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in ("images", "output")
    )
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Conv", ["images", "w"], ["output"])], "g", [picture], [output], [weights]
    )
    path = tmp_path / "big.onnx"
    onnx.save_model(
        onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 13)]),
        path, save_as_external_data=True, location="big.bin", size_threshold=0,
    )  # fmt: skip
    with pytest.raises(ModelError, match="keeps its weights in other files") as caught:
        add_model(str(path), "big", CARD, link=link)
    assert caught.value.message.startswith(str(path))
    assert left() == []
