"""Rows picked in the graph: the same detections, in a few per cent of the bytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from onnx import TensorProto

from pipeline.errors import ModelError
from pipeline.heads import load_head
from pipeline.heads.base import TOP_K, grid_points
from pipeline.messages import Detections
from pipeline.models.graph.compare import Trial
from pipeline.models.graph.editing import opset_of
from pipeline.models.graph.fuse import fuse
from pipeline.models.graph.network import Network, bytes_out, read_network
from pipeline.models.graph.topk import FAMILIES, keep_best
from pipeline.vision.tensor import TensorFiller
from tests.models.graph.tiny import SIZE, pictures_for, real, run, tiny

LAYOUTS = ("yolox", "yolov5", "yolov8", "nanodet", "plus", "decoded")
_YOLOX_INPUT: dict[str, Any] = {
    "channels": "bgr",
    "mean": (0.0, 0.0, 0.0),
    "std": (1.0, 1.0, 1.0),
    "letterbox": "topleft",
    "pad_value": 114,
}
IMAGES = Path(__file__).resolve().parents[4] / "shared" / "assets" / "coco" / "val2017"


def same_detections(trials: Sequence[Trial], tensor: Any, confidence: float) -> int:
    """Assert that both find the same, before NMS and after it; how many there are after it."""
    raw = [load_head(one.spec.family).decode(one.run(tensor), one.spec, confidence) for one in trials]
    last = raw[0].scores.min(initial=1.0) if len(raw[0]) == TOP_K else 0.0
    assert_same(*(one.select(one.scores > last) for one in raw))  # the limit cuts between equal scores
    kept = [one.detect(tensor, confidence) for one in trials]
    # Of equal scores, which an int8 network gives by the dozen, NMS takes whichever comes first.
    if len(set(raw[0].scores.tolist())) == len(raw[0]):
        assert_same(*kept)
    return len(kept[0])


def assert_same(wanted: Detections, found: Detections) -> None:
    np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-6)
    wanted, found = (
        one.select(np.lexsort((*one.boxes_xyxy.round(1).T, one.class_ids, -one.scores.round(5))))
        for one in (wanted, found)
    )
    np.testing.assert_array_equal(found.class_ids, wanted.class_ids)
    np.testing.assert_allclose(found.boxes_xyxy, wanted.boxes_xyxy, atol=2e-3)


@pytest.mark.parametrize("opset", [11, 18])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_same_detections_as_all_rows(layout: str, opset: int, tmp_path: Path) -> None:
    network = tiny(layout, tmp_path / "a.onnx", opset=opset, std=(255.0,) * 3)
    # More rows than there are: nothing may be lost.
    picked = keep_best(network, 100)
    assert opset_of(picked.model) == opset
    trials = (Trial(network), Trial(picked))
    found = [same_detections(trials, tensor, 0.2) for tensor in pictures_for(network.spec)]
    assert min(found) > 0


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16], ids=["float32", "float16"])
def test_yolox_rows_are_the_best_and_decoded(kind: int, tmp_path: Path) -> None:
    network = tiny("yolox", tmp_path / "a.onnx", kind=kind, std=(255.0,) * 3)
    picked = keep_best(network, 10)
    assert picked.spec.family == "yolov5"
    assert picked.shapes == {"output": (1, 10, 8)}
    tensor = pictures_for(network.spec, 1)[0]
    rows, got = run(network, tensor)["output"][0].astype(np.float32), run(picked, tensor)["output"][0]
    scores = rows[:, 4] * rows[:, 5:].max(axis=1)
    order = np.argsort(-scores, kind="stable")[:10]
    points, strides = grid_points(SIZE, SIZE, (8, 16, 32), 0.0)
    boxes = [rows[order, :2] * strides[order] + points[order], np.exp(rows[order, 2:4]) * strides[order]]
    assert got.dtype == np.float32, "pixels do not fit float16"
    if kind == TensorProto.FLOAT:
        np.testing.assert_allclose(got, np.hstack([*boxes, rows[order, 4:]]), rtol=1e-5, atol=1e-5)
    else:
        # Equal float16 scores may come in another order.
        np.testing.assert_allclose(
            np.sort(got[:, 4] * got[:, 5:].max(axis=1))[::-1], scores[order], atol=2e-3
        )


def test_rows_of_a_batch_are_picked_per_picture(tmp_path: Path) -> None:
    for layout in LAYOUTS:
        network = tiny(layout, tmp_path / "a.onnx", batch="n", std=(255.0,) * 3)
        picked = keep_best(fuse(network), 12)
        both = np.concatenate(pictures_for(picked.spec, 2))
        together = run(picked, both)
        for index in range(2):
            alone = run(picked, both[index : index + 1])
            for name, array in alone.items():
                np.testing.assert_allclose(together[name][index], array[0], atol=1e-4)


def test_outputs_keep_their_names_where_the_layout_stays(tmp_path: Path) -> None:
    network = tiny("yolov8", tmp_path / "a.onnx")
    picked = keep_best(network, 20)
    assert picked.spec.output_names == network.spec.output_names
    assert picked.shapes == {"output0": (1, 7, 20)}
    assert bytes_out(picked) * 84 == bytes_out(network) * 20
    assert not any("framewire" in node.name for node in network.model.graph.node), "the source was changed"


def test_options_of_a_layout_that_is_gone_go_with_it(tmp_path: Path) -> None:
    network = tiny("plus", tmp_path / "a.onnx")
    assert keep_best(network, 20).spec.options == {}


@pytest.mark.parametrize(
    ("family", "k", "words"),
    [("detr", 300, "has no rows to pick"), ("yolox", 0, "cannot keep 0 rows")],
)
def test_what_cannot_be_picked_is_refused(family: str, k: int, words: str, tmp_path: Path) -> None:
    network = tiny("yolox", tmp_path / "a.onnx")
    network = Network(
        network.model, msgspec.structs.replace(network.spec, family=family), network.shapes, network.path
    )
    with pytest.raises(ModelError, match=words) as caught:
        keep_best(network, k)
    assert caught.value.hint


def test_few_rows_of_many_columns_would_look_transposed(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="transposition") as caught:
        keep_best(tiny("yolov8", tmp_path / "a.onnx"), 7)
    assert "--top-k" in caught.value.hint


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_another_layout_of_a_family_is_refused(family: str, tmp_path: Path) -> None:
    network = tiny("decoded", tmp_path / "a.onnx")
    spec = msgspec.structs.replace(network.spec, family=family, output_names=("boxes",))
    with pytest.raises(ModelError, match="cannot be picked in the graph"):
        keep_best(Network(network.model, spec, network.shapes, network.path), 20)


@pytest.mark.parametrize(
    "name",
    [
        "yolox_nano_416.onnx",
        "yolox-derived/yolox_nano_640_v5style.onnx",
        "yolox-derived/yolox_nano_640_v8style.onnx",
        "nanodet_m_416.onnx",
        "picodet_s_416.onnx",
        "default/nanodet_g_416_int8.onnx",
    ],
)
def test_real_models_find_the_same(name: str) -> None:
    network = read_network(real(name))
    if "style" in name:
        # Derived from YOLOX: layouts of the others, inputs of its own.
        spec = msgspec.structs.replace(network.spec, **_YOLOX_INPUT)
        network = Network(network.model, spec, network.shapes, network.path)
    pictures = sorted(IMAGES.glob("*.jpg"))[:3]
    if not pictures:
        pytest.skip(f"{IMAGES} is not here")
    import cv2

    # A head hands on its best 1000 detections, which come from no more than 1000 rows.
    picked = keep_best(network, 1000)
    assert bytes_out(picked) < 0.3 * bytes_out(network)
    filler = TensorFiller(network.spec)
    tensor = np.zeros(filler.shape, network.spec.input_dtype)
    trials = (Trial(network), Trial(picked))
    count = 0
    for path in pictures:
        filler.fill((np.asarray(cv2.imread(str(path)), np.uint8),), "bgr24", tensor)
        count += same_detections(trials, tensor, 0.05)
    assert count > 20
