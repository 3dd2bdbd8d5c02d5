"""Int8 on tiny networks, on one real one, and what is told of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from pipeline.errors import ModelError
from pipeline.messages import Detections
from pipeline.models.graph.compare import Agreement, Trial, agreement_of, milliseconds_of, tensors_of
from pipeline.models.graph.compare import _matched as matched
from pipeline.models.graph.fuse import fuse
from pipeline.models.graph.network import Network, read_network
from pipeline.models.graph.quantize import METHODS, Method, quantize
from tests.models.graph.tiny import frames, pictures_for, real, run, tiny


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return fuse(tiny("nanodet", tmp_path / "a.onnx", std=(255.0,) * 3))


@pytest.mark.parametrize("method", METHODS)
def test_a_tiny_network_survives(method: Method, network: Network) -> None:
    told: list[int] = []
    tensors = tensors_of(frames(6), network.spec)
    small = quantize(network, tensors, method=method, step=told.append)
    assert told == [1, 2, 3, 4, 5, 6]
    assert small.spec == network.spec
    weights = {weight.name: weight for weight in small.model.graph.initializer}
    kernels = [w for w in weights.values() if w.data_type == TensorProto.INT8 and len(w.dims) == 4]
    assert len(kernels) == 7, "one per convolution"
    for kernel in kernels:
        assert list(weights[kernel.name.replace("_quantized", "_scale")].dims) == [kernel.dims[0]]
    before, after = run(network, tensors[0]), run(small, tensors[0])
    for name, array in before.items():
        assert float(np.abs(after[name] - array).mean()) < 0.05


def test_the_tail_and_the_scaling_stay_in_float(network: Network) -> None:
    small = quantize(network, pictures_for(network.spec))
    made_by = {output: node for node in small.model.graph.node for output in node.output}
    quantised = [node.input[0] for node in small.model.graph.node if node.op_type == "QuantizeLinear"]
    assert {made_by[name].op_type for name in quantised} == {"Div", "AveragePool", "Conv"}
    metadata = {entry.key: entry.value for entry in small.model.metadata_props}
    assert metadata["framewire.precision"] == "int8 (QDQ, minmax over 4 frames)"
    assert "framewire.card" in metadata


def test_a_node_can_be_left_in_float(network: Network) -> None:
    first = next(node.name for node in network.model.graph.node if node.op_type == "Conv")
    counts = []
    for exclude in ((), (first,)):
        small = quantize(network, pictures_for(network.spec, 2), exclude=exclude)
        kernels = [
            w for w in small.model.graph.initializer if w.data_type == TensorProto.INT8 and len(w.dims) == 4
        ]
        counts.append(len(kernels))
    assert counts == [7, 6]


def test_what_cannot_be_quantised_is_refused(network: Network, tmp_path: Path) -> None:
    tensors = pictures_for(network.spec, 1)
    with pytest.raises(ModelError, match="no node 'Conv_99'") as caught:
        quantize(network, tensors, exclude=["Conv_99"])
    assert "Conv_" in caught.value.hint
    with pytest.raises(ModelError, match="no frame"):
        quantize(network, [])
    with pytest.raises(ModelError, match="quantised already"):
        quantize(quantize(network, tensors), tensors)
    half = fuse(tiny("nanodet", tmp_path / "b.onnx", kind=TensorProto.FLOAT16))
    with pytest.raises(ModelError, match="float16 weights"):
        quantize(half, tensors)


def test_agreement_counts_each_box_once() -> None:
    wanted = Detections([[0, 0, 10, 10], [1, 1, 11, 11], [50, 50, 60, 60]], [0.9, 0.8, 0.7], [0, 0, 1])
    found = Detections([[0, 0, 10, 10], [50, 50, 60, 60]], [0.9, 0.7], [0, 2])
    assert matched(wanted, found) == 1, "one box cannot stand for two, and the class must be the same"
    assert matched(wanted, wanted) == 3
    assert matched(wanted, Detections.empty()) == matched(Detections.empty(), found) == 0
    assert Agreement(1, 0, 0, 0).share == 1.0
    assert Agreement(1, 4, 3, 1).share == 0.75
    assert Agreement(1, 4, 3, 1).extra_share == 0.25


def test_a_network_agrees_with_itself(network: Network) -> None:
    trial = Trial(network)
    told: list[int] = []
    agreement = agreement_of(trial, trial, pictures_for(network.spec), told.append)
    assert told == [1, 2, 3, 4]
    assert agreement.expected > 0
    assert (agreement.again, agreement.extra) == (agreement.expected, 0)
    assert all(one > 0 for one in milliseconds_of((trial, trial), pictures_for(network.spec, 1)[0], 3))


def test_nanodet_m_survives() -> None:
    import cv2

    network = fuse(read_network(real("nanodet_m_416.onnx")))
    images = Path(real("nanodet_m_416.onnx")).parents[1] / "coco" / "val2017"
    pictures = sorted(images.glob("*.jpg"))[:20]
    if not pictures:
        pytest.skip(f"{images} is not here")
    tensors = tensors_of((np.asarray(cv2.imread(str(path)), np.uint8) for path in pictures), network.spec)
    small = quantize(network, tensors[:10])
    assert small.model.ByteSize() < 0.4 * network.model.ByteSize()
    agreement = agreement_of(Trial(network), Trial(small), tensors[10:])
    assert agreement.expected >= 15
    assert agreement.share >= 0.75


def test_nodes_without_names_are_quantised_too(network: Network) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    for node in model.graph.node:
        if not node.name.startswith("framewire_"):
            node.name = ""
    small = quantize(replace(network, model=model), pictures_for(network.spec, 4))
    assert any(weight.data_type == onnx.TensorProto.INT8 for weight in small.model.graph.initializer)


def test_no_room_for_temporary_files_is_told(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nothing"))
    with pytest.raises(ModelError, match=r"temporary file in .* cannot be written") as caught:
        quantize(network, pictures_for(network.spec, 1))
    assert "TMPDIR" in caught.value.hint
