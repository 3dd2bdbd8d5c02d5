"""Which graphs a head takes, by their signatures alone; the tables are real files' signatures."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ModelError
from pipeline.heads import HEADS, Signature, TensorInfo, load_head, recognise
from pipeline.messages import ModelSpec
from pipeline.vision.boxes import iou_matrix, xywh_to_xyxy
from pipeline.vision.letterbox import to_source
from pipeline.vision.nms import nms
from pipeline.vision.tensor import TensorFiller

BUS_PICTURE = "coco_train2017_000000000471.jpg"
ASSETS = Path(__file__).resolve().parents[2].parent / "shared" / "assets"
Shape = tuple[int | str | None, ...]


def signature(
    inputs: dict[str, Shape], outputs: dict[str, Shape], dtype: str = "float32", **meta: str
) -> Signature:
    return Signature(
        tuple(TensorInfo(name, dtype, shape) for name, shape in inputs.items()),
        tuple(
            TensorInfo(name, "float32" if dtype == "uint8" else dtype, shape)
            for name, shape in outputs.items()
        ),
        {key.replace("_", "."): value for key, value in meta.items()},
    )


NANODET_M = {
    f"{kind}_pred_stride_{stride}": (1, cells, columns)
    for kind, columns in (("cls", 80), ("dis", 32))
    for stride, cells in ((8, 2704), (16, 676), (32, 169))
}
PICODET = {
    f"save_infer_model/scale_{index}.tmp_1": (1, cells, columns)
    for index, (cells, columns) in enumerate(
        [(2704, 80), (676, 80), (169, 80), (49, 80), (2704, 32), (676, 32), (169, 32), (49, 32)]
    )
}
IMAGENET_BGR = ((103.53, 116.28, 123.675), (57.375, 57.12, 58.395))
PLAIN = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

KNOWN: dict[str, tuple[Signature, str, dict[str, Any]]] = {
    "yolox nano": (
        signature({"images": (1, 3, 416, 416)}, {"output": (1, 3549, 85)}),
        "yolox",
        {"letterbox": "topleft", "channels": "bgr", "mean": PLAIN[0], "input_width": 416, "pad_value": 114},
    ),
    "yolox dynamic batch": (
        signature({"images": ("N", 3, 416, 416)}, {"output": ("N", 3549, 85)}),
        "yolox",
        {"input_layout": "nchw", "output_names": ("output",)},
    ),
    "yolox float16": (
        signature({"images": (1, 3, 416, 416)}, {"output": (1, 3549, 85)}, "float16"),
        "yolox",
        {"input_dtype": "float16"},
    ),
    "yolox of one class, wide": (
        signature({"in": (1, 3, 384, 640)}, {"out": (1, 5040, 6)}),
        "yolox",
        {"input_width": 640, "input_height": 384},
    ),
    "default": (
        signature(
            {"images": ("batch", 416, 416, 3)},
            {"boxes": ("batch", 3549, 4), "scores": ("batch", 3549, 80)},
            "uint8",
        ),
        "nanodet",
        {"letterbox": "center", "input_layout": "nhwc", "input_dtype": "uint8", "mean": PLAIN[0]},
    ),
    "nanodet-m": (
        signature({"input.1": (1, 3, 416, 416)}, dict(NANODET_M)),
        "nanodet",
        {
            "letterbox": "center",
            "channels": "bgr",
            "mean": IMAGENET_BGR[0],
            "output_names": tuple(NANODET_M),
        },
    ),
    "nanodet-m, outputs in another order": (
        signature({"input.1": (1, 3, 416, 416)}, dict(reversed(NANODET_M.items()))),
        "nanodet",
        {"std": IMAGENET_BGR[1], "output_names": tuple(NANODET_M)},
    ),
    "picodet": (
        signature({"image": (1, 3, 416, 416)}, dict(PICODET)),
        "picodet",
        {"letterbox": "stretch", "channels": "rgb", "output_names": tuple(PICODET)},
    ),
    "picodet, distances first": (
        signature({"image": (1, 3, 416, 416)}, dict([*PICODET.items()][4:] + [*PICODET.items()][:4])),
        "picodet",
        {"mean": IMAGENET_BGR[0][::-1], "output_names": tuple(PICODET)},
    ),
    "fake": (
        signature({"images": (1, 3, 64, 64)}, {"rows": (1, 5, 6)}, framewire_family="fake"),
        "fake",
        {"input_width": 64, "output_names": ("rows",)},
    ),
}

REFUSED: dict[str, Signature] = {
    "yolox of another input size": signature({"images": (1, 3, 640, 640)}, {"output": (1, 3549, 85)}),
    "yolox of a free size": signature({"images": (1, 3, "h", "w")}, {"output": (1, 3549, 85)}),
    "ultraface": signature({"input": (1, 3, 240, 320)}, {"scores": (1, 4420, 2), "boxes": (1, 4420, 4)}),
    "picodet without a level": signature(
        {"image": (1, 3, 416, 416)}, dict([*PICODET.items()][:3] + [*PICODET.items()][4:])
    ),
    "fcos, one distance a side": signature(
        {"image": (1, 3, 416, 416)},
        {name: (*shape[:2], 4 if shape[2] == 32 else 80) for name, shape in NANODET_M.items()},
    ),
    "default with float input": signature(
        {"images": (1, 416, 416, 3)}, {"boxes": (1, 3549, 4), "scores": (1, 3549, 80)}
    ),
    "speech": signature({"audio": (1, 16000)}, {"text": (1, 100, 32)}),
    "no outputs": signature({"images": (1, 3, 416, 416)}, {}),
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_layouts(name: str) -> None:
    given, family, overrides = KNOWN[name]
    guesses = recognise(given)
    assert guesses[0].family == family
    # The lead that `describe` wants over a second family that has the same shapes.
    assert all(guess.confidence <= guesses[0].confidence - 0.2 for guess in guesses[1:])
    for field, value in overrides.items():
        assert guesses[0].overrides[field] == value, field
    assert 0.5 <= guesses[0].confidence <= 1
    assert guesses[0].why
    # The overrides are fields of ModelSpec, and make one that the filler takes.
    spec = ModelSpec("m", "", family, ("a",), **guesses[0].overrides)
    assert TensorFiller(spec).shape == tuple(
        1 if not isinstance(size, int) else size for size in given.inputs[0].shape
    )


@pytest.mark.parametrize("name", REFUSED)
def test_layouts_that_no_head_is_sure_of(name: str) -> None:
    assert [guess.family for guess in recognise(REFUSED[name]) if guess.confidence >= 0.5] == []


def test_a_less_usual_name_lowers_the_confidence() -> None:
    usual, unusual = (recognise(KNOWN[name][0])[0] for name in ("yolox nano", "yolox of one class, wide"))
    assert usual.confidence > unusual.confidence


def test_the_table_is_explicit() -> None:
    for target in HEADS.values():
        module, _, name = target.partition(":")
        assert name in importlib.import_module(module).__all__


REAL = {
    "yolox_nano_416.onnx": "yolox",
    "yolox-derived/yolox_nano_416_dynbatch.onnx": "yolox",
    "yolox-derived/yolox_nano_416_fp16.onnx": "yolox",
    "default/nanodet_g_416_int8.onnx": "nanodet",
    "nanodet_m_416.onnx": "nanodet",
    "picodet_s_416.onnx": "picodet",
    "yolox-derived/yolox_nano_640_v8style.onnx": "yolov8",
    "ssd_mobilenet_v1_coco_300_qdq.onnx": "ssd",
    "ultraface_RFB-320.onnx": None,
    "ultraface_RFB-320_rawoffsets.onnx": None,
    "reid/osnet_x0_25_msmt17.onnx": None,
    "reid/person-reidentification-retail-0288.onnx": None,
}
DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8"}


def open_model(name: str) -> Any:
    path = ASSETS / "models" / name
    if not path.is_file():
        pytest.skip(f"{path.name} is not on this machine")
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def signature_of(session: Any) -> Signature:
    def infos(args: Any) -> tuple[TensorInfo, ...]:
        return tuple(TensorInfo(arg.name, DTYPES.get(arg.type, arg.type), tuple(arg.shape)) for arg in args)

    metadata = session.get_modelmeta().custom_metadata_map
    return Signature(infos(session.get_inputs()), infos(session.get_outputs()), metadata)


@pytest.mark.parametrize("name", REAL)
def test_real_files(name: str) -> None:
    guesses = recognise(signature_of(open_model(name)))
    sure = [guess.family for guess in guesses if guess.confidence >= 0.5]
    assert sure == ([REAL[name]] if REAL[name] else [])


#: It names no `bus` by the id of COCO's 80 classes, and its boxes are read in `tests/heads/test_ssd.py`.
OTHER_CLASSES = "ssd_mobilenet_v1_coco_300_qdq.onnx"
#: Its pixels are YOLOX's, which no graph of this layout has; see `tests/heads/test_yolo_real.py`.
ODD_INPUT = "yolox-derived/yolox_nano_640_v8style.onnx"


@pytest.mark.parametrize(
    "name", [name for name, family in REAL.items() if family and name not in (ODD_INPUT, OTHER_CLASSES)]
)
def test_real_files_find_the_bus(name: str) -> None:
    cv2 = pytest.importorskip("cv2")
    session = open_model(name)
    picture = cv2.imread(str(ASSETS / "images" / BUS_PICTURE))
    if picture is None:
        pytest.skip("the picture is not on this machine")
    guess = recognise(signature_of(session))[0]
    spec = ModelSpec(name, "", guess.family, tuple(map(str, range(80))), **guess.overrides)
    filler = TensorFiller(spec)
    tensor = np.zeros(filler.shape, spec.input_dtype)
    letterbox = filler.fill((picture,), "bgr24", tensor)
    head = load_head(spec.family)
    outputs = session.run(list(spec.output_names), {session.get_inputs()[0].name: tensor})
    found = head.decode(outputs, spec, 0.4)
    assert spec.nms_iou is not None
    found = found.select(nms(found.boxes_xyxy, found.scores, found.class_ids, spec.nms_iou))
    boxes = to_source(found.boxes_xyxy, letterbox)
    bus = boxes[found.class_ids == 5]
    assert len(bus) == 1
    annotations = json.loads((ASSETS / "images" / "annotations.json").read_text())
    image_id = next(image["id"] for image in annotations["images"] if image["file_name"] == BUS_PICTURE)
    bus_id = next(row["id"] for row in annotations["categories"] if row["name"] == "bus")
    rows = [row for row in annotations["annotations"] if row["image_id"] == image_id]
    truth = np.array([row["bbox"] for row in rows if row["category_id"] == bus_id])
    assert np.max(iou_matrix(bus, xywh_to_xyxy(truth))) > 0.85


def test_decoded_boxes_in_the_shape_of_yolox_are_refused_when_they_come() -> None:
    """This file's shapes are those of YOLOX at 640; only its numbers tell."""
    session = open_model("yolox-derived/yolox_nano_640_v5style.onnx")
    guess = recognise(signature_of(session))[0]
    spec = ModelSpec("v5", "", guess.family, tuple(map(str, range(80))), **guess.overrides)
    cv2 = pytest.importorskip("cv2")
    picture = cv2.imread(str(ASSETS / "images" / BUS_PICTURE))
    filler = TensorFiller(spec)
    tensor = np.zeros(filler.shape, np.float32)
    filler.fill((picture,), "bgr24", tensor)
    outputs = session.run(None, {session.get_inputs()[0].name: tensor})
    with pytest.raises(ModelError, match="decoded already"):
        load_head(spec.family).decode(outputs, spec, 0.3)
