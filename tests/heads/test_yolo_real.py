"""YOLO layouts through the runner that users have: real weights on a real picture, and small made graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.heads import load_head
from pipeline.messages import ModelSpec
from pipeline.vision.boxes import iou_matrix
from pipeline.vision.nms import nms
from pipeline.vision.tensor import TensorFiller
from tests.heads.real import ASSETS, BUS, runner_of

DERIVED = "yolox-derived/"
#: File, and the family that it is taken for; the same network in all of them.
FILES = {
    "raw": ("yolox_nano_416.onnx", "yolox"),
    "fp16": (DERIVED + "yolox_nano_416_fp16.onnx", "yolox"),
    "dynbatch": (DERIVED + "yolox_nano_416_dynbatch.onnx", "yolox"),
    "v5style": (DERIVED + "yolox_nano_640_v5style.onnx", "yolov5"),
    "v8style": (DERIVED + "yolox_nano_640_v8style.onnx", "yolov8"),
}
BUS_ID = 5
Boxes = NDArray[Any]


def outputs_of(name: str) -> tuple[ModelSpec, list[NDArray[Any]]]:
    cv2 = pytest.importorskip("cv2")
    runner = runner_of(name)
    spec = runner.spec
    # All five files are YOLOX within; a graph of YOLOv8's layout is fed otherwise, so its card would say so.
    fed = msgspec.structs.replace(spec, channels="bgr", std=(1.0,) * 3, letterbox="topleft", pad_value=114)
    picture = cv2.imread(str(ASSETS / "images" / BUS))
    if picture is None:
        pytest.skip(f"{BUS} is not on this machine")
    filler = TensorFiller(fed)
    tensor = np.zeros(filler.shape, spec.input_dtype)
    filler.fill((picture,), "bgr24", tensor)
    outputs = [
        np.zeros(shape, dtype)
        for shape, dtype in zip(runner.output_shapes, runner.output_dtypes, strict=True)
    ]
    runner.forward(tensor, outputs)
    return spec, outputs


def plainly(family: str, table: NDArray[Any], size: int, confidence: float) -> list[list[float]]:
    """x1, y1, x2, y2, score, class of each place, one place after the other, by descending score."""
    rows = table[0].astype(np.float64)
    rows = rows.T if family == "yolov8" else rows
    cells = [(x, y, s) for s in (8, 16, 32) for y in range(size // s) for x in range(size // s)]
    found = []
    for row, (column, line, stride) in zip(rows, cells, strict=True):
        scores = row[4:] if family == "yolov8" else row[5:] * row[4]
        best = int(np.argmax(scores))
        if scores[best] < confidence:
            continue
        x, y, w, h = row[:4]
        if family == "yolox":
            x, y, w, h = (x + column) * stride, (y + line) * stride, np.exp(w) * stride, np.exp(h) * stride
        found.append([x - w / 2, y - h / 2, x + w / 2, y + h / 2, scores[best], best])
    return sorted(found, key=lambda one: -one[4])


@pytest.mark.parametrize("name", FILES)
def test_a_real_file_decodes_as_a_plain_loop_does(name: str) -> None:
    file, family = FILES[name]
    spec, outputs = outputs_of(file)
    assert spec.family == family
    assert len(spec.labels) == 80
    found = load_head(family).decode(outputs, spec, 0.1)
    expected = np.array(plainly(family, outputs[0], spec.input_width, 0.1))
    assert len(found) == len(expected) > 10
    # Half precision makes scores equal, of which either may come first.
    atol = 0.05 if name == "fp16" else 1e-3
    np.testing.assert_allclose(found.scores, expected[:, 4], atol=1e-4)
    nearest = iou_matrix(found.boxes_xyxy, expected[:, :4])
    nearest[found.class_ids[:, None] != expected[None, :, 5]] = 0
    assert (nearest.max(axis=1) > 1 - atol).all()
    bus = found.select(nms(found.boxes_xyxy, found.scores, found.class_ids, spec.nms_iou or 0.5))
    assert int((bus.class_ids[bus.scores > 0.4] == BUS_ID).sum()) == 1


def test_v5style_and_v8style_of_the_same_weights_agree() -> None:
    spec5, five = outputs_of(FILES["v5style"][0])
    spec8, eight = outputs_of(FILES["v8style"][0])
    left, right = load_head("yolov5").decode(five, spec5, 0.3), load_head("yolov8").decode(eight, spec8, 0.3)
    assert len(left) == len(right) > 5
    np.testing.assert_allclose(left.boxes_xyxy, right.boxes_xyxy, atol=1e-2)
    np.testing.assert_array_equal(left.class_ids, right.class_ids)


def test_decoded_yolox_is_told_by_its_values_and_fed_as_yolox() -> None:
    runner = runner_of(FILES["v5style"][0])
    assert "test picture" in runner.why
    assert runner.spec.channels == "bgr"
    assert runner.spec.std == (1.0, 1.0, 1.0)
    assert runner.spec.letterbox == "topleft"
    assert runner.spec.nms_iou == 0.65


def made(
    tmp_path: Path, nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], *weights: Any
) -> str:
    onnx = pytest.importorskip("onnx")
    make = onnx.helper.make_tensor_value_info
    kind = {"f": onnx.TensorProto.FLOAT, "i": onnx.TensorProto.INT64}
    graph = onnx.helper.make_graph(
        nodes,
        "made",
        [make(name, onnx.TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [make(name, kind[dtype], shape) for name, (dtype, shape) in outputs.items()],
        [onnx.numpy_helper.from_array(array, name) for name, array in weights],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    path = tmp_path / "made.onnx"
    path.write_bytes(model.SerializeToString())
    return str(path)


def run(path: str, picture: NDArray[Any]) -> tuple[ModelSpec, list[NDArray[Any]]]:
    pytest.importorskip("onnxruntime")
    from pipeline.models.onnx import OnnxRunner

    runner = OnnxRunner(path, device="cpu")
    spec = runner.open()
    outputs = [
        np.full(shape, 7, dtype)
        for shape, dtype in zip(runner.output_shapes, runner.output_dtypes, strict=True)
    ]
    runner.forward(picture, outputs)
    runner.close()
    return spec, outputs


def test_rows_of_yolov7_end_to_end_as_many_as_the_picture_gives(tmp_path: Path) -> None:
    """Rows whose score is over a threshold that the picture sets: their number is free."""
    node = pytest.importorskip("onnx").helper.make_node
    rows = np.array(
        [[0, 10, 20, 30, 40, 3, 0.9], [0, 15, 25, 35, 45, 1, 0.8], [0, 1, 2, 3, 4, 2, 0.2]], np.float32
    )
    nodes = [
        node("ReduceMean", ["images"], ["mean"], keepdims=0),
        node("Greater", ["scores", "mean"], ["kept"]),
        node("Compress", ["rows", "kept"], ["output"], axis=0),
    ]
    path = made(
        tmp_path, nodes, {"images": (1, 3, 64, 64)}, {"output": ("f", ("n", 7))},
        ("rows", rows), ("scores", rows[:, 6].copy()),
    )  # fmt: skip
    for level, count in ((0.95, 0), (0.5, 2), (0.1, 3)):
        spec, outputs = run(path, np.full((1, 3, 64, 64), level, np.float32))
        assert (spec.family, spec.nms_iou, outputs[0].shape) == ("yolov5", None, (1, 1000, 7))
        found = load_head("yolov5").decode(outputs, spec, 0.0)
        assert len(found) == count
        np.testing.assert_allclose(found.boxes_xyxy, rows[:count, 1:5])
        assert found.class_ids.tolist() == rows[:count, 5].tolist()


def test_the_zoos_yolov3_is_fed_its_own_size_and_its_nms_is_not_read(tmp_path: Path) -> None:
    node = pytest.importorskip("onnx").helper.make_node
    shares = np.array([[[0.1, 0.2, 0.5, 0.6], [0.3, 0.3, 0.9, 0.8]]], np.float32)  # y1, x1, y2, x2
    scores = np.zeros((1, 80, 2), np.float32)
    scores[0, 7, 0], scores[0, 2, 1] = 0.9, 0.6
    names = ["yolonms_layer_1/ExpandDims_1:0", "yolonms_layer_1/ExpandDims_3:0", "yolonms_layer_1/concat_2:0"]
    nodes = [
        node("Concat", ["image_shape", "image_shape"], ["size"], axis=1),
        node("Mul", ["shares", "size"], [names[0]]),
        node("ReduceMean", ["input_1"], ["mean"], keepdims=0),
        node("Mul", ["mean", "zero"], ["nothing"]),
        node("Add", ["scores", "nothing"], [names[1]]),
        node("NonMaxSuppression", [names[0], names[1], "most"], [names[2]]),
    ]
    path = made(
        tmp_path, nodes, {"input_1": (1, 3, 96, 64), "image_shape": (1, 2)},
        {names[0]: ("f", (1, "n", 4)), names[1]: ("f", (1, 80, "n")), names[2]: ("i", ("k", 3))},
        ("shares", shares), ("scores", scores), ("zero", np.float32(0).reshape(())), ("most", np.array([20])),
    )  # fmt: skip
    spec, outputs = run(path, np.zeros((1, 3, 96, 64), np.float32))
    assert (spec.family, spec.output_names, spec.max_rows) == ("yolov3", tuple(names[:2]), 0)
    assert spec.feeds == {"image_shape": (96.0, 64.0)}
    found = load_head("yolov3").decode(outputs, spec, 0.5)
    assert found.class_ids.tolist() == [7, 2]
    expected = [[0.2 * 64, 0.1 * 96, 0.6 * 64, 0.5 * 96], [0.3 * 64, 0.3 * 96, 0.8 * 64, 0.9 * 96]]
    np.testing.assert_allclose(found.boxes_xyxy, expected, rtol=1e-5)
