"""Float16 inside: the same interface, the same detections within a tolerance."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from pipeline.errors import ModelError
from pipeline.models.graph.compare import Trial, agreement_of, tensors_of
from pipeline.models.graph.editing import tail_of
from pipeline.models.graph.fuse import fuse
from pipeline.models.graph.half import halve
from pipeline.models.graph.network import read_network
from pipeline.models.graph.topk import keep_best
from tests.models.graph.tiny import pictures_for, real, run, tiny


@pytest.mark.parametrize("layout", ["yolox", "yolov8", "nanodet", "decoded"])
def test_outputs_stay_close_and_float32(layout: str, tmp_path: Path) -> None:
    network = fuse(tiny(layout, tmp_path / "a.onnx", std=(255.0,) * 3))
    half = halve(network)
    onnx.checker.check_model(half.model, full_check=True)
    kinds = {weight.data_type for weight in half.model.graph.initializer if len(weight.dims) == 4}
    assert kinds == {TensorProto.FLOAT16}
    tensor = pictures_for(network.spec, 1)[0]
    before, after = run(network, tensor), run(half, tensor)
    for name, array in before.items():
        assert after[name].dtype == np.float32
        np.testing.assert_allclose(after[name], array, atol=0.02)
        assert not np.array_equal(after[name], array), "nothing was computed in float16"


def test_the_tail_is_not_rounded_between_its_nodes(tmp_path: Path) -> None:
    half = halve(keep_best(fuse(tiny("yolox", tmp_path / "a.onnx")), 20))
    casts = Counter(node.attribute[0].i for node in half.model.graph.node if node.op_type == "Cast")
    # Into the network once, out of it once per stride; the scaling casts from uint8.
    assert casts == {TensorProto.FLOAT16: 1, TensorProto.FLOAT: 1 + 3}
    names = [node.name for node in half.model.graph.node]
    assert len(set(names)) == len(names)


def test_pixels_over_512_keep_their_fractions(tmp_path: Path) -> None:
    """The boxes of a raw head are decoded in float32: float16 knows 600.5 and 601, nothing between."""
    network = keep_best(fuse(tiny("yolox", tmp_path / "a.onnx", std=(255.0,) * 3)), 84)
    tensor = pictures_for(network.spec, 1)[0]
    boxes = run(halve(network), tensor)["output"][0, :, :4]
    assert not np.array_equal(boxes, boxes.astype(np.float16).astype(np.float32))


def test_what_is_not_float32_is_refused(tmp_path: Path) -> None:
    network = tiny("yolox", tmp_path / "a.onnx", kind=TensorProto.FLOAT16)
    with pytest.raises(ModelError, match="float16 or quantised already"):
        halve(network)
    with pytest.raises(ModelError, match="quantised already"):
        halve(read_network(real("default/nanodet_g_416_int8.onnx")))


def test_the_tail_starts_behind_the_last_weights(tmp_path: Path) -> None:
    network = tiny("nanodet", tmp_path / "a.onnx")
    tail = set(tail_of(network.model))
    kinds = {node.op_type for node in network.model.graph.node if node.name in tail}
    assert kinds == {"Reshape", "Transpose", "Mul", "Sigmoid", "Identity"}


@pytest.mark.parametrize("name", ["yolox_nano_416.onnx", "nanodet_m_416.onnx", "picodet_s_416.onnx"])
def test_real_models_find_the_same_objects(name: str) -> None:
    import cv2

    network = fuse(read_network(real(name)))
    images = Path(real(name)).parents[1] / "coco" / "val2017"
    pictures = sorted(images.glob("*.jpg"))[:8]
    if not pictures:
        pytest.skip(f"{images} is not here")
    half = halve(network)
    assert half.model.ByteSize() < 0.72 * network.model.ByteSize()
    tensors = tensors_of((np.asarray(cv2.imread(str(path)), np.uint8) for path in pictures), network.spec)
    agreement = agreement_of(Trial(network), Trial(half), tensors)
    assert agreement.expected >= 20
    assert agreement.share >= 0.97
    assert agreement.extra_share <= 0.05


@pytest.mark.parametrize("name", ["", "same"])
def test_nodes_without_names_of_their_own_are_halved_too(name: str, tmp_path: Path) -> None:
    network = tiny("yolox", tmp_path / "a.onnx", std=(255.0,) * 3)
    for node in network.model.graph.node:
        node.name = name
    half = halve(network)
    kinds = {weight.data_type for weight in half.model.graph.initializer if len(weight.dims) == 4}
    assert kinds == {TensorProto.FLOAT16}


def test_pixels_scaled_by_dequantizing_stay_in_float32(tmp_path: Path) -> None:
    """As in the default model; until opset 19 it gives nothing else."""
    network = fuse(tiny("yolox", tmp_path / "a.onnx", opset=13))
    graph = network.model.graph
    cast = next(node for node in graph.node if node.op_type == "Cast")
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(1 / 255, np.float32), "scale"))
    graph.initializer.append(onnx.numpy_helper.from_array(np.array(0, np.uint8), "zero"))
    scaling = onnx.helper.make_node("DequantizeLinear", [*cast.input, "scale", "zero"], cast.output, "own")
    cast.CopyFrom(scaling)
    half = halve(network)
    kinds = {weight.data_type for weight in half.model.graph.initializer if len(weight.dims) == 4}
    assert kinds == {TensorProto.FLOAT16}
    tensor = pictures_for(network.spec, 1)[0]
    np.testing.assert_allclose(run(half, tensor)["output"], run(network, tensor)["output"], atol=0.02)
