"""The real model files, each with its reference implementation and the card that framewire needs for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.oracles.common import Oracle
from tests.oracles.distances import DistanceOracle, FinishedNanodetOracle
from tests.oracles.finished import DeimOracle, SsdOracle
from tests.oracles.ultraface import UltrafaceOracle
from tests.oracles.yolox import YoloxOracle

__all__ = ["ASSETS", "CLASSIFIER", "COCO_CASES", "FACE_CASES", "NANODET_G", "Case", "coco_labels"]

ASSETS = Path(__file__).resolve().parents[2].parent / "shared" / "assets"

#: What nothing in the rearranged YOLOX files says: they take what YOLOX takes.
_AS_YOLOX: dict[str, Any] = {
    "channels": "bgr",
    "mean": [0, 0, 0],
    "std": [1, 1, 1],
    "letterbox": "topleft",
    "pad_value": 114,
}


@dataclass(frozen=True)
class Case:
    """A model file.

    Attributes:
        file: Path under ``models/`` of the assets.
        family: Head that is to decode it.
        oracle: Makes its reference implementation from the file, class names and keywords.
        card: What framewire must be told and cannot see.
        nms_iou: IoU of the suppression on both sides; None where the graph has done it.
        confidence: Lowest score that counts, as the published evaluation has it.
        labels: File of class names under ``models/labels``.
        weights: ``real``, or ``derived`` where the graph was rearranged to have this layout.
    """

    file: str
    family: str
    oracle: Callable[..., Oracle]
    card: Mapping[str, Any] = field(default_factory=dict)
    nms_iou: float | None = None
    confidence: float = 0.01
    labels: str = "coco80.txt"
    weights: str = "real"

    @property
    def name(self) -> str:
        """Name of the file."""
        return Path(self.file).name

    def path(self, assets: Path = ASSETS) -> Path:
        """Where the file lies."""
        return assets / "models" / self.file

    def make(self, assets: Path = ASSETS, *, model: Path | None = None, **options: Any) -> Oracle:
        """Its reference implementation."""
        options = {"confidence": self.confidence} | options
        if self.nms_iou is not None:
            options = {"nms_iou": self.nms_iou} | options
        return self.oracle(model or self.path(assets), coco_labels(assets, self.labels), **options)


def coco_labels(assets: Path = ASSETS, file: str = "coco80.txt") -> Sequence[str]:
    """Class names, one a line."""
    return (assets / "models" / "labels" / file).read_text("utf-8").splitlines()


def _v5(model: Path, labels: Sequence[str], **options: Any) -> Oracle:
    return YoloxOracle(model, labels, layout="v5", **options)


def _v8(model: Path, labels: Sequence[str], **options: Any) -> Oracle:
    return YoloxOracle(model, labels, layout="v8", **options)


def _nanodet(model: Path, labels: Sequence[str], **options: Any) -> Oracle:
    placement: str = options.pop("placement", "center")
    return DistanceOracle(model, labels, placement=placement, **options)


def _picodet(model: Path, labels: Sequence[str], **options: Any) -> Oracle:
    placement: str = options.pop("placement", "stretch")
    return DistanceOracle(model, labels, placement=placement, rgb=True, **options)


def _face(model: Path, _labels: Sequence[str], **options: Any) -> Oracle:
    return UltrafaceOracle(model, **options)


def _raw_face(model: Path, _labels: Sequence[str], **options: Any) -> Oracle:
    return UltrafaceOracle(model, raw=True, **options)


#: Measured with average precision on COCO pictures.
COCO_CASES: tuple[Case, ...] = (
    Case("yolox_nano_416.onnx", "yolox", YoloxOracle, nms_iou=0.65),
    Case("yolox-derived/yolox_nano_416_dynbatch.onnx", "yolox", YoloxOracle, nms_iou=0.65),
    Case("yolox-derived/yolox_nano_416_fp16.onnx", "yolox", YoloxOracle, nms_iou=0.65),
    Case(
        "yolox-derived/yolox_nano_640_v5style.onnx", "yolov5", _v5, {"family": "yolov5", **_AS_YOLOX}, 0.65,
        weights="derived",
    ),
    Case(
        "yolox-derived/yolox_nano_640_v8style.onnx", "yolov8", _v8, {"family": "yolov8", **_AS_YOLOX}, 0.65,
        weights="derived",
    ),
    Case("nanodet_m_416.onnx", "nanodet", _nanodet, nms_iou=0.6, confidence=0.05),
    Case("default/nanodet_g_416_int8.onnx", "nanodet", FinishedNanodetOracle, nms_iou=0.6, confidence=0.05),
    Case("picodet_s_416.onnx", "picodet", _picodet, nms_iou=0.6, confidence=0.05),
    Case(
        "ssd_mobilenet_v1_coco_300_qdq.onnx", "ssd", SsdOracle, labels="ssd_coco90_zero_based.txt",
    ),
    Case("deimv2_atto_320.onnx", "detr", DeimOracle),
)  # fmt: skip

#: The default model in float32; built from npm, so it may not be there.
NANODET_G = Case("nanodet_g_416.onnx", "nanodet", FinishedNanodetOracle, nms_iou=0.6, confidence=0.05)

#: Compared object by object on pictures with people: COCO has no faces.
FACE_CASES: tuple[Case, ...] = (
    Case("ultraface_RFB-320.onnx", "ssd_raw", _face, nms_iou=0.3, confidence=0.7),
    Case("ultraface_RFB-320_rawoffsets.onnx", "ssd_raw", _raw_face, nms_iou=0.3, confidence=0.7),
)

#: Compared by its best classes: there is no annotated set of ImageNet.
CLASSIFIER = "classifier/mobilenetv2_dynint8.onnx"
