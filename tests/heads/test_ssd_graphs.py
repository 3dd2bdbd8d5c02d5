"""SSD with its NMS inside: graphs and the real file, through the runner to detections."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.messages import LetterboxMap
from pipeline.tasks.reading import Reader
from tests.heads import real
from tests.heads.test_ssd import BOXES, NAMES, PYTORCH, TFLITE, finished

REAL = "ssd_mobilenet_v1_coco_300_qdq.onnx"


def save(path: Path, names: tuple[str, ...], shape: tuple[Any, ...], count: int | None) -> Path:
    """A graph that always finds the same four rows, the first ``count`` of them objects."""
    onnx = pytest.importorskip("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    ids = [3, 1, 4, 2]
    arrays = finished(BOXES, ids, [0.5, 0.9, 0.3, 0.8], count, np.float32 if count else np.int64)
    nodes, outputs, constants = [helper.make_node("Shape", ["in"], ["unused"])], [], []
    for name, array in zip(names, arrays, strict=True):
        constants.append(onnx.numpy_helper.from_array(array, f"{name}_all"))
        nodes.append(helper.make_node("Identity", [f"{name}_all"], [name]))
        kind = kinds.INT64 if array.dtype == np.int64 else kinds.FLOAT
        sizes = ["b", *(f"{name}_{axis}" for axis in array.shape[1:])]
        outputs.append(helper.make_tensor_value_info(name, kind, sizes))
    picture = helper.make_tensor_value_info("in", kinds.UINT8 if count else kinds.FLOAT, list(shape))
    graph = helper.make_graph(nodes, "ssd", [picture], outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


@pytest.mark.parametrize(
    ("names", "shape", "count", "first"),
    [
        (NAMES, ("b", "h", "w", 3), 3, "person"),
        (TFLITE, ("b", 96, 128, 3), 3, "bicycle"),
        (PYTORCH, ("b", 3, 96, 128), None, "person"),
    ],
    ids=["tensorflow, all sizes free", "tflite", "pytorch"],
)
def test_a_graph_runs_from_file_to_detections(
    names: tuple[str, ...], shape: tuple[Any, ...], count: int | None, first: str, tmp_path: Path
) -> None:
    pytest.importorskip("onnxruntime")
    from pipeline.models.onnx import OnnxRunner

    runner = OnnxRunner(str(save(tmp_path / "ssd.onnx", names, shape, count)), device="cpu")
    spec = runner.open()
    try:
        assert spec.family == "ssd"
        buffers = [
            np.ones(size, dtype)
            for size, dtype in zip(runner.output_shapes, runner.output_dtypes, strict=True)
        ]
        sizes = (spec.input_height, spec.input_width)
        one = (*sizes, 3) if spec.input_layout == "nhwc" else (3, *sizes)
        runner.forward(np.zeros((1, *one), spec.input_dtype), buffers)
        # The frame is twice as wide and three times as high as the input.
        wide, high = sizes[1] * 2, sizes[0] * 3
        letterbox = LetterboxMap(0.5, 1 / 3, 0, 0, wide, high)
        found = Reader(spec, confidence=0.4).read(buffers, letterbox).detections
        np.testing.assert_allclose(found.scores, [0.9, 0.5] if count else [0.9, 0.8, 0.5])
        assert spec.labels[found.class_ids[0]] == first
        # Read as x1, y1, x2, y2 the same numbers are another box.
        x1, y1, x2, y2 = (0.2, 0.1, 0.4, 0.3) if count else (0.1, 0.2, 0.3, 0.4)
        want = [x1 * wide, y1 * high, x2 * wide, y2 * high]
        np.testing.assert_allclose(found.boxes_xyxy[-1], want, rtol=1e-4)
    finally:
        runner.close()


# The real file


PICTURES = (real.BEAR, real.SKIER, real.BUS)


@pytest.mark.parametrize("picture", PICTURES)
def test_the_real_file_agrees_with_a_plain_reading(picture: str) -> None:
    spec, outputs, letterbox = real.run(REAL, picture)
    assert (spec.family, spec.input_dtype, spec.channels) == ("ssd", "uint8", "rgb")
    assert len(spec.labels) == 90
    found = Reader(spec, confidence=0.3).read(outputs, letterbox).detections
    boxes, ids, scores, count = outputs
    want = []
    for row in range(int(count[0])):
        y1, x1, y2, x2 = (float(value) for value in boxes[0, row])
        if scores[0, row] >= 0.3:
            corners = np.array([x1, y1, x2, y2]) * ([letterbox.width, letterbox.height] * 2)
            clipped = np.clip(corners, 0, [letterbox.width, letterbox.height] * 2)
            want.append((float(scores[0, row]), int(ids[0, row]), clipped))
    want.sort(key=lambda one: -one[0])
    assert found.class_ids.tolist() == [one[1] for one in want]
    np.testing.assert_allclose(found.scores, [one[0] for one in want], atol=1e-6)
    np.testing.assert_allclose(found.boxes_xyxy, [one[2] for one in want], atol=0.01)


@pytest.mark.parametrize(
    ("picture", "label", "box"),
    [
        (real.BEAR, "bear", (0, 71, 578, 630)),
        (real.SKIER, "person", (279, 37, 495, 390)),
        (real.BUS, "bus", (103, 113, 568, 312)),
    ],
)
def test_the_real_file_sees_what_is_there(picture: str, label: str, box: tuple[float, ...]) -> None:
    spec, outputs, letterbox = real.run(REAL, picture)
    found = Reader(spec, confidence=0.5).read(outputs, letterbox).detections
    assert spec.labels[found.class_ids[0]] == label
    np.testing.assert_allclose(found.boxes_xyxy[0], box, atol=15)
