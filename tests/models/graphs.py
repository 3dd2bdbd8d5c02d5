"""Small ONNX graphs that stand for models of a family: the outputs are constants plus the input's mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["save_graph"]

Shape = Sequence[int | str]


def save_graph(
    path: Path,
    outputs: Mapping[str, Sequence[int]],
    *,
    input_shape: Shape = (1, 3, 64, 64),
    kind: int = TensorProto.FLOAT,
    declared: Mapping[str, Shape] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a graph with one picture ``images`` in and, per output, its mean in every element.

    Args:
        path: Where.
        outputs: Shape of each output for one picture, without the batch.
        input_shape: Declared input shape; names where it is free.
        kind: Element type of the input.
        declared: Output shapes as the file declares them; by default ``batch`` and the true ones.
        metadata: Key-value metadata.
    """
    axes = list(range(1, len(input_shape)))
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=axes, keepdims=0),
    ]
    constants, infos = [], []
    for name, shape in outputs.items():
        constants += [
            numpy_helper.from_array(np.zeros((1, *shape), np.float32), f"{name}_zeros"),
            numpy_helper.from_array(np.array([-1] + [1] * len(shape), np.int64), f"{name}_shape"),
        ]
        nodes += [
            helper.make_node("Reshape", ["mean", f"{name}_shape"], [f"{name}_mean"]),
            helper.make_node("Add", [f"{name}_mean", f"{name}_zeros"], [name]),
        ]
        said = (declared or {}).get(name, ("batch", *shape))
        infos.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(said)))
    picture = helper.make_tensor_value_info("images", kind, list(input_shape))
    graph = helper.make_graph(nodes, "small", [picture], infos, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
