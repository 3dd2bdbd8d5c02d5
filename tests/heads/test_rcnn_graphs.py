"""Finished boxes in pixels: graphs of each layout, from a file to detections through the runner."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.tasks.reading import Reader
from pipeline.vision.tensor import TensorFiller

#: In pixels of the input, 96 x 64.
FOUND = np.array([[8, 4, 40, 30], [50, 10, 90, 60], [0, 0, 20, 20], [30, 30, 60, 60]], np.float32)
FOUND_SCORES = np.array([0.9, 0.7, 0.55, 0.35], np.float32)


def save(path: Path, layout: str, shape: Sequence[Any], names: Sequence[str], batch: Any = 1) -> Path:
    """A graph whose objects are those of `FOUND` that score more than the picture is bright."""
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper, kinds = onnx.helper, onnx.numpy_helper, onnx.TensorProto
    ids = np.array([1, 3, 18, 44], np.int64)
    arrays: dict[str, list[NDArray[Any]]] = {
        "lists": [FOUND, ids, FOUND_SCORES],
        "detections": [np.hstack([FOUND, FOUND_SCORES[:, None]]), ids],
        "rows": [np.hstack([ids[:, None], FOUND_SCORES[:, None], FOUND]).astype(np.float32)],
    }
    constants = [numpy_helper.from_array(FOUND_SCORES, "all_scores")]
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["bright"], keepdims=0),
        helper.make_node("Greater", ["all_scores", "bright"], ["kept"]),
    ]
    outputs = []
    for name, array in zip(names, arrays[layout], strict=False):
        constants.append(numpy_helper.from_array(array, f"{name}_all"))
        last = f"{name}_kept" if layout != "lists" else name
        nodes.append(helper.make_node("Compress", [f"{name}_all", "kept"], [last], axis=0))
        shape_out: list[Any] = [f"{name}_rows", *array.shape[1:]]
        if layout == "detections":
            constants.append(numpy_helper.from_array(np.array([0], np.int64), f"{name}_axis"))
            nodes.append(helper.make_node("Unsqueeze", [last, f"{name}_axis"], [name]))
            shape_out = [batch, *shape_out]
        kind = kinds.INT64 if array.dtype == np.int64 else kinds.FLOAT
        outputs.append(helper.make_tensor_value_info(name, kind, shape_out))
    inputs = [helper.make_tensor_value_info("image", kinds.FLOAT, list(shape))]
    if layout == "rows":
        # As PaddleDetection does: boxes over the scale factor, clipped to the size; and their count.
        inputs += [
            helper.make_tensor_value_info(one, kinds.FLOAT, [batch, 2])
            for one in ("im_shape", "scale_factor")
        ]
        constants.append(numpy_helper.from_array(np.array([1, 0, 1, 0], np.int64), "xyxy"))
        rows, (kept, count) = names[0], (f"{names[0]}_kept", names[1])
        nodes += [
            helper.make_node("Split", [kept, "parts"], ["head", "corners"], axis=1),
            helper.make_node("Gather", ["scale_factor", "xyxy"], ["scale"], axis=1),
            helper.make_node("Gather", ["im_shape", "xyxy"], ["sides"], axis=1),
            helper.make_node("Div", ["corners", "scale"], ["scaled"]),
            helper.make_node("Min", ["scaled", "sides"], ["clipped"]),
            helper.make_node("Concat", ["head", "clipped"], [rows], axis=1),
            helper.make_node("Shape", [kept], ["size"]),
            helper.make_node("Gather", ["size", "first"], ["rows_long"]),
            helper.make_node("Cast", ["rows_long"], [count], to=kinds.INT32),
        ]
        constants += [
            numpy_helper.from_array(np.array([2, 4], np.int64), "parts"),
            numpy_helper.from_array(np.array([0], np.int64), "first"),
        ]
        outputs.append(helper.make_tensor_value_info(count, kinds.INT32, [None]))
    graph = helper.make_graph(nodes, "rcnn", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, path)
    return path


#: Layout, shape of the picture, names of the outputs, batch axis of the others.
GRAPHS: dict[str, tuple[str, tuple[Any, ...], tuple[str, ...], Any]] = {
    "torchvision": ("lists", (1, 3, 64, 96), ("boxes", "labels", "scores"), 1),
    "torchvision, no batch axis": ("lists", (3, 64, 96), ("boxes", "labels", "scores"), 1),
    "torchvision, free batch": ("lists", ("n", 3, 64, 96), ("boxes", "labels", "scores"), 1),
    "the zoo": ("lists", (3, 64, 96), ("6379", "6381", "6383"), 1),
    "mmdetection": ("detections", ("batch", 3, 64, 96), ("dets", "labels"), "batch"),
    "paddle": ("rows", ("batch", 3, 640, 960), ("rows", "count"), "batch"),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_runs_from_file_to_detections(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    from pipeline.models.onnx import OnnxRunner

    layout, shape, names, batch = GRAPHS[name]
    path = save(tmp_path / "model.onnx", layout, shape, names, batch)
    runner = OnnxRunner(str(path), device="cpu")
    spec = runner.open()
    try:
        assert (spec.family, spec.max_rows) == ("rcnn", 300)
        picture = np.zeros((shape[-2], shape[-1], 3), np.uint8)
        filler = TensorFiller(spec)
        tensor = np.zeros(filler.shape, spec.input_dtype)
        buffers = [
            np.ones(size, dtype)
            for size, dtype in zip(runner.output_shapes, runner.output_dtypes, strict=True)
        ]
        for brightness, count in ((0.6, 2), (0.0, 4), (0.95, 0)):
            letterbox = filler.fill((picture,), "bgr24", tensor)
            tensor[...] = brightness
            runner.forward(tensor, buffers)
            found = Reader(spec, confidence=0.0).read(buffers, letterbox).detections
            np.testing.assert_allclose(found.boxes_xyxy, FOUND[:count])
            np.testing.assert_allclose(found.scores, FOUND_SCORES[:count])
            assert found.class_ids.tolist() == [1, 3, 18, 44][:count]
    finally:
        runner.close()
