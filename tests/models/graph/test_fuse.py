"""Pixels in: the fused graph gives what the unfused one gives for the tensor that preprocessing makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from pipeline.errors import ModelError
from pipeline.heads import Signature, TensorInfo
from pipeline.models.describe import describe
from pipeline.models.graph.compare import tensors_of
from pipeline.models.graph.fuse import fuse, takes_pixels
from pipeline.models.graph.network import CARD_KEY, Network, read_network
from tests.models.graph.tiny import SIZE, frames, network_of, pictures_for, real, run, tiny

_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def outputs_of(network: Network, count: int = 3) -> list[dict[str, Any]]:
    return [run(network, tensor) for tensor in tensors_of(frames(count), network.spec)]


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"mean": _MEAN, "std": _STD},
        {"mean": _MEAN, "std": _STD, "layout": "nhwc"},
        {"std": (255.0,) * 3, "opset": 18},
        {"batch": "n"},
        {"kind": TensorProto.FLOAT16},
        {"kind": TensorProto.FLOAT16, "std": (255.0,) * 3, "layout": "nhwc"},
    ],
    ids=str,
)
def test_same_bits_as_the_tensor_made_outside(fields: dict[str, Any], tmp_path: Path) -> None:
    network = tiny("yolox", tmp_path / "a.onnx", **fields)
    fused = fuse(network)
    assert takes_pixels(fused.spec)
    assert not takes_pixels(network.spec)
    picture = fused.model.graph.input[0]
    assert picture.name == "images"
    assert picture.type.tensor_type.elem_type == TensorProto.UINT8
    for before, after in zip(outputs_of(network), outputs_of(fused), strict=True):
        np.testing.assert_array_equal(after["output"], before["output"])


def test_a_free_batch_stays_free(tmp_path: Path) -> None:
    fused = fuse(tiny("yolox", tmp_path / "a.onnx", batch="n"))
    two = np.concatenate(pictures_for(fused.spec, 2))
    one = run(fused, two[1:])["output"]
    np.testing.assert_allclose(run(fused, two)["output"][1:], one, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(
    mean=st.tuples(*[st.floats(-255, 255, width=32)] * 3),
    std=st.tuples(*[st.floats(0.0625, 512, width=32)] * 3),
    dtype=st.sampled_from(["float32", "float16"]),
    layout=st.sampled_from(["nchw", "nhwc"]),
)
def test_any_scaling_is_the_fillers_own(
    mean: tuple[float, float, float], std: tuple[float, float, float], dtype: str, layout: Any
) -> None:
    kind = TensorProto.FLOAT if dtype == "float32" else TensorProto.FLOAT16
    shape = [1, 3, SIZE, SIZE] if layout == "nchw" else [1, SIZE, SIZE, 3]
    info = helper.make_tensor_value_info
    nodes = [helper.make_node("Identity", ["images"], ["out"])]
    graph = helper.make_graph(nodes, "same", [info("images", kind, shape)], [info("out", kind, shape)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    fields: dict[str, Any] = {"input_dtype": dtype, "input_layout": layout, "mean": mean, "std": std}
    network = network_of(model, Path("same.onnx"), family="fake", **fields)
    wanted = pictures_for(network.spec, 1)[0]
    fused = fuse(network)
    np.testing.assert_array_equal(run(fused, pictures_for(fused.spec, 1)[0])["out"], wanted)


def test_channels_first_bytes_are_only_transposed(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info
    shape = [1, 3, SIZE, SIZE]
    nodes = [helper.make_node("Identity", ["images"], ["out"])]
    infos = [info(name, TensorProto.UINT8, shape) for name in ("images", "out")]
    model = helper.make_model(
        helper.make_graph(nodes, "same", infos[:1], infos[1:]),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    fused = fuse(network_of(model, Path("same.onnx"), family="fake", input_dtype="uint8"))
    assert [node.op_type for node in fused.model.graph.node] == ["Transpose", "Identity"]


def test_the_input_of_a_branch_is_renamed_too() -> None:
    info = helper.make_tensor_value_info
    shape = [1, 3, SIZE, SIZE]
    arms = [
        helper.make_graph(
            [helper.make_node(operation, ["images"], [name])],
            name,
            [],
            [info(name, TensorProto.FLOAT, shape)],
        )
        for operation, name in (("Identity", "same"), ("Neg", "less"))
    ]
    nodes = [
        helper.make_node(
            "Constant", [], ["yes"], value=helper.make_tensor("t", TensorProto.BOOL, [], [True])
        ),
        helper.make_node("If", ["yes"], ["out"], then_branch=arms[0], else_branch=arms[1]),
    ]
    graph = helper.make_graph(
        nodes, "if", [info("images", TensorProto.FLOAT, shape)], [info("out", TensorProto.FLOAT, shape)]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    network = network_of(model, Path("if.onnx"), family="fake")
    fused = fuse(network)
    tensor = pictures_for(fused.spec, 1)[0]
    wanted = run(network, pictures_for(network.spec, 1)[0])["out"]
    np.testing.assert_array_equal(run(fused, tensor)["out"], wanted)


def test_what_takes_pixels_already_is_refused(tmp_path: Path) -> None:
    fused = fuse(tiny("yolox", tmp_path / "a.onnx"))
    with pytest.raises(ModelError, match="nothing to fuse"):
        fuse(fused)


def test_two_pictures_cannot_be_told_apart(tmp_path: Path) -> None:
    network = tiny("yolox", tmp_path / "a.onnx")
    other = network.model.graph.input.add()
    other.CopyFrom(network.model.graph.input[0])
    other.name = "depth"
    with pytest.raises(ModelError, match="2 inputs that could be the picture"):
        fuse(network)


def test_the_card_within_says_what_the_file_is(tmp_path: Path) -> None:
    network = tiny("yolox", tmp_path / "a.onnx", mean=_MEAN, std=_STD)
    fused = fuse(network)
    card = json.loads(next(entry.value for entry in fused.model.metadata_props if entry.key == CARD_KEY))
    assert card["family"] == "yolox"
    assert card["labels"] == ["red", "green", "blue"]
    assert (card["mean"], card["std"]) == ([0.0] * 3, [1.0] * 3)
    assert card["nms_iou"] == 0.5
    assert not network.model.metadata_props, "the network that was fused has been changed"
    # What a run reads back is the spec itself.
    signature = Signature(
        (TensorInfo("images", "uint8", (1, SIZE, SIZE, 3)),),
        (TensorInfo("output", "float32", (1, 84, 8)),),
        {CARD_KEY: json.dumps(card)},
    )
    spec, why = describe(signature, name="tiny", sha256="", card={}, provider="")
    assert spec == fused.spec
    assert "card" in why


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("yolox_nano_416.onnx", 0.0),
        ("yolox-derived/yolox_nano_416_fp16.onnx", 0.0),
        ("yolox-derived/yolox_nano_640_v8style.onnx", 0.0),
        ("nanodet_m_416.onnx", 0.0),
        ("picodet_s_416.onnx", 0.0),
        ("deimv2_atto_320.onnx", 1e-4),
        ("classifier/mobilenetv2_dynint8.onnx", 0.0),
    ],
)
def test_real_models_give_the_same(name: str, tolerance: float) -> None:
    network = read_network(real(name))
    for before, after in zip(outputs_of(network, 2), outputs_of(fuse(network), 2), strict=True):
        for output in network.spec.output_names:
            np.testing.assert_allclose(after[output], before[output], rtol=0, atol=tolerance)
