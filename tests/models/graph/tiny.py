"""Small networks with real weights, in the layouts of the families, and where the real files lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pipeline.messages import ModelSpec
from pipeline.models.graph.network import Network
from pipeline.vision.tensor import TensorFiller

__all__ = ["MODELS", "SIZE", "frames", "network_of", "pictures_for", "real", "run", "tiny"]

MODELS = Path(__file__).resolve().parents[4] / "shared" / "assets" / "models"
#: Edge of the tiny networks' input: 64 + 16 + 4 cells at strides 8, 16 and 32.
SIZE = 64
CLASSES = 3
CELLS = {8: 64, 16: 16, 32: 4}


def real(name: str) -> str:
    """Path of a real model; the test is skipped where it is not."""
    path = MODELS / name
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    return str(path)


def frames(count: int, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Noise in blocks, BGR, of two sizes."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        rows, columns = (12, 16) if number % 2 else (9, 16)
        blocks = rng.integers(0, 256, (rows, columns, 3), np.uint8)
        found.append(np.kron(blocks, np.ones((10, 10, 1), np.uint8)))
    return found


def pictures_for(spec: ModelSpec, count: int = 4) -> list[NDArray[Any]]:
    """Those frames as a network takes them."""
    filler = TensorFiller(spec)
    found = []
    for frame in frames(count):
        tensor = np.zeros(filler.shape, spec.input_dtype)
        filler.fill((frame,), "bgr24", tensor)
        found.append(tensor)
    return found


def run(network: Network, tensor: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Outputs of a network by name, by onnxruntime itself."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        network.model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    picture = next(one.name for one in session.get_inputs() if one.name not in network.spec.feeds)
    feeds = {name: np.array([values], np.int64) for name, values in network.spec.feeds.items()}
    names = list(network.spec.output_names)
    return dict(zip(names, session.run(names, {picture: tensor, **feeds}), strict=True))


def network_of(model: onnx.ModelProto, path: Path, **fields: Any) -> Network:
    """A network of a graph in memory; its outputs' sizes are declared."""
    shapes = {
        info.name: (1, *(size.dim_value for size in info.type.tensor_type.shape.dim[1:]))
        for info in model.graph.output
    }
    spec = ModelSpec(
        name="tiny",
        sha256="",
        labels=("red", "green", "blue"),
        input_width=SIZE,
        input_height=SIZE,
        output_names=tuple(shapes),
        nms_iou=0.5,
        **fields,
    )
    onnx.checker.check_model(model)
    return Network(model, spec, shapes, path)


def tiny(
    family: str,
    path: Path,
    *,
    kind: int = TensorProto.FLOAT,
    layout: str = "nchw",
    opset: int = 11,
    batch: str | int = 1,
    mean: Sequence[float] = (0.0, 0.0, 0.0),
    std: Sequence[float] = (1.0, 1.0, 1.0),
) -> Network:
    """A network of convolutions with the outputs of a family.

    Args:
        family: ``yolox``, ``yolov5``, ``yolov8``, ``nanodet`` (raw), ``plus``, ``decoded``.
        path: What to say it was read from.
        kind: Element type throughout.
        layout: ``nchw`` or ``nhwc``.
        opset: Version of the operations.
        batch: First axis.
        mean: As in the spec.
        std: As in the spec.
    """
    graph = _Graph(kind, opset, 0.02 if any(mean) is False and std[0] == 1.0 else 1.0)
    dtype = "float16" if kind == TensorProto.FLOAT16 else "float32"
    picture = "images"
    if layout == "nhwc":
        picture = graph.node("Transpose", [picture], perm=[0, 3, 1, 2])
    outputs = getattr(graph, family)(graph.node("Relu", [graph.conv(picture, 3, 8, 3)]))
    size = [batch, SIZE, SIZE, 3] if layout == "nhwc" else [batch, 3, SIZE, SIZE]
    info = helper.make_tensor_value_info
    proto = helper.make_graph(
        graph.nodes,
        "tiny",
        [info("images", kind, size)],
        [info(name, kind, [batch, *shape]) for name, shape in outputs.items()],
        graph.constants,
    )
    model = helper.make_model(proto, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    head = {"plus": "nanodet", "decoded": "nanodet"}.get(family, family)
    return network_of(
        model, path, family=head, input_dtype=dtype, input_layout=layout, mean=tuple(mean), std=tuple(std)
    )


class _Graph:
    def __init__(self, kind: int, opset: int, scale: float) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._dtype = helper.tensor_dtype_to_np_dtype(kind)
        self._opset = opset
        self._scale = scale
        self._rng = np.random.default_rng(1)

    def constant(self, array: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def node(self, operation: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        output = output or f"v{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(operation, inputs, [output], f"{operation}_{len(self.nodes)}", **attributes)
        )
        return output

    def conv(self, tensor: str, inputs: int, outputs: int, size: int) -> str:
        weights = self._rng.normal(0, 1 / size, (outputs, inputs, size, size)) * self._scale
        bias = self._rng.normal(0, 0.1, outputs)
        self._scale = 0.3
        names = [self.constant(array.astype(self._dtype)) for array in (weights, bias)]
        return self.node("Conv", [tensor, *names], pads=[size // 2] * 4)

    def rows(self, tensor: str, columns: int, stride: int) -> str:
        """(n, cells, columns) of one stride."""
        pooled = self.node("AveragePool", [tensor], kernel_shape=[stride, stride], strides=[stride, stride])
        flat = self.node(
            "Reshape", [self.conv(pooled, 8, columns, 1), self.constant(np.array([0, columns, -1]))]
        )
        return self.node("Transpose", [flat], perm=[0, 2, 1])

    def part(self, tensor: str, start: int, end: int, axis: int = 2) -> str:
        return self.node("Slice", [tensor, *(self.constant(np.array([v])) for v in (start, end, axis))])

    def scores(self, tensor: str) -> str:
        return self.node("Sigmoid", [self.node("Mul", [tensor, self.constant(np.array(4, self._dtype))])])

    def yolox(self, tensor: str, output: str = "output") -> dict[str, list[int]]:
        whole = self.node("Concat", [self.rows(tensor, 5 + CLASSES, stride) for stride in CELLS], axis=1)
        box = self.part(whole, 0, 4)
        self.node("Concat", [box, self.scores(self.part(whole, 4, 5 + CLASSES))], output, axis=2)
        return {output: [sum(CELLS.values()), 5 + CLASSES]}

    def yolov5(self, tensor: str) -> dict[str, list[int]]:
        self.yolox(tensor, "raw")
        factors = np.r_[20.0, 20.0, 10.0, 10.0, np.ones(1 + CLASSES)].astype(self._dtype)
        self.node("Abs", [self.node("Mul", ["raw", self.constant(factors)])], "output")
        return {"output": [sum(CELLS.values()), 5 + CLASSES]}

    def yolov8(self, tensor: str) -> dict[str, list[int]]:
        whole = self.node("Concat", [self.rows(tensor, 4 + CLASSES, stride) for stride in CELLS], axis=1)
        box = self.node("Abs", [self.part(whole, 0, 4)])
        joined = self.node("Concat", [box, self.scores(self.part(whole, 4, 4 + CLASSES))], axis=2)
        self.node("Transpose", [joined], "output0", perm=[0, 2, 1])
        return {"output0": [4 + CLASSES, sum(CELLS.values())]}

    def nanodet(self, tensor: str) -> dict[str, list[int]]:
        for stride in CELLS:
            self.node("Identity", [self.scores(self.rows(tensor, CLASSES, stride))], f"cls_{stride}")
        for stride in CELLS:
            self.node("Identity", [self.rows(tensor, 32, stride)], f"dis_{stride}")
        classes = {f"cls_{stride}": [cells, CLASSES] for stride, cells in CELLS.items()}
        return classes | {f"dis_{stride}": [cells, 32] for stride, cells in CELLS.items()}

    def plus(self, tensor: str) -> dict[str, list[int]]:
        strides = (*CELLS, 64)
        scores = [self.scores(self.rows(tensor, CLASSES, stride)) for stride in strides]
        sides = [self.rows(tensor, 32, stride) for stride in strides]
        joined = [self.node("Concat", parts, axis=1) for parts in (scores, sides)]
        self.node("Concat", joined, "output", axis=2)
        return {"output": [sum(CELLS.values()) + 1, CLASSES + 32]}

    def decoded(self, tensor: str) -> dict[str, list[int]]:
        boxes = [self.rows(tensor, 4, stride) for stride in CELLS]
        scores = [self.scores(self.rows(tensor, CLASSES, stride)) for stride in CELLS]
        self.node("Concat", boxes, "boxes", axis=1)
        self.node("Concat", scores, "scores", axis=1)
        cells = sum(CELLS.values())
        return {"boxes": [cells, 4], "scores": [cells, CLASSES]}
