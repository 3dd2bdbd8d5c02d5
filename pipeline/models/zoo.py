"""The models that can be named: where each comes from, what it is, and what has to be known to use it.

Every download is pinned by size and SHA-256. The pins are those of the projects themselves: of the YOLOX
release, of the Git LFS pointers of `onnx/models` (whose files moved to huggingface.co/onnxmodelzoo in 2025)
and of `opencv/opencv_zoo`; those of the files at huggingface.co/onnx-community, conversions of the authors'
weights, stand alike in several independent public sources. Only weights under licences that allow any use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["ALIASES", "KNOWN", "KnownModel"]

_YOLOX = "https://github.com/Megvii-BaseDetection/YOLOX/releases/download/0.1.1rc0/"
_HUB = "https://huggingface.co/"
_OPENCV = "https://media.githubusercontent.com/media/opencv/opencv_zoo/main/models/"

_IMAGENET: dict[str, Any] = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375]}
_CLASSIFIER: dict[str, Any] = {
    "family": "classifier", "kind": "classifier", "channels": "rgb", "letterbox": "crop", "crop": 0.875,
} | _IMAGENET  # fmt: skip
_OF_255: dict[str, Any] = {"channels": "rgb", "mean": [0, 0, 0], "std": [255, 255, 255]}
_DETR = {"family": "detr", "letterbox": "stretch", "input_width": 640, "input_height": 640} | _OF_255
#: Sides that are free are those of a 16:9 picture, near to the 800 pixels that the authors recommend.
_RCNN: dict[str, Any] = {
    "family": "rcnn", "channels": "bgr", "mean": [102.9801, 115.9465, 122.7717], "std": [1, 1, 1],
    "letterbox": "topleft", "input_width": 1344, "input_height": 768,
}  # fmt: skip
_YOLOV3 = {"family": "yolov3", "pad_value": 128, "input_width": 416, "input_height": 416} | _OF_255


@dataclass(frozen=True)
class KnownModel:
    """A model that can be named.

    Attributes:
        name: Its name.
        file: Name of its file in the cache and on mirrors.
        origin: ``embedded`` in the package, an official ``download``, or built from an ``npm`` package.
        family: Head that decodes it.
        size: Width and height of its input in pixels; what is taken where the file leaves them free.
        bytes: Size of the file; of a built one, about.
        licence: SPDX name of the licence of the weights.
        note: What it is good for.
        url: Address of the download.
        also: Other addresses of the same file, asked when the first fails.
        sha256: Digest of the download, lower-case hex.
        task: ``detect`` or ``classify``.
        card: What a card would say, where the file leaves something open; see `pipeline.models.describe`.
    """

    name: str
    file: str
    origin: Literal["embedded", "download", "npm"]
    family: str
    size: tuple[int, int]
    bytes: int
    licence: str
    note: str
    url: str = ""
    also: tuple[str, ...] = ()
    sha256: str = ""
    task: Literal["detect", "classify"] = "detect"
    card: Mapping[str, Any] = field(default_factory=dict)


def _yolox(
    variant: str, size: int, count: int, sha256: str, note: str, also: tuple[str, ...] = ()
) -> KnownModel:
    file = f"yolox_{variant}.onnx"
    return KnownModel(
        f"yolox-{variant}", file, "download", "yolox", (size, size), count, "Apache-2.0", note,
        _YOLOX + file, also, sha256,
    )  # fmt: skip


def _zoo(
    name: str, stem: str, licence: str, count: int, sha256: str, note: str, card: Mapping[str, Any],
    size: tuple[int, int], also: tuple[str, ...] = (),
) -> KnownModel:  # fmt: skip
    """A file of the ONNX Model Zoo."""
    return KnownModel(
        name, f"{stem}.onnx", "download", card["family"], size, count, licence, note,
        f"{_HUB}onnxmodelzoo/{stem}/resolve/main/{stem}.onnx", also, sha256,
        "classify" if card["family"] == "classifier" else "detect", card,
    )  # fmt: skip


def _hub(
    name: str, repository: str, revision: str, count: int, sha256: str, note: str, card: Mapping[str, Any]
) -> KnownModel:
    """A file of huggingface.co/onnx-community."""
    return KnownModel(
        name, name.replace("-", "_") + ".onnx", "download", "detr",
        (card["input_width"], card["input_height"]), count, "Apache-2.0", note,
        f"{_HUB}onnx-community/{repository}-ONNX/resolve/{revision}/onnx/model.onnx", sha256=sha256,
        card=card,
    )  # fmt: skip


_TABLE = (
    KnownModel("nanodet-g-int8", "nanodet_g_416_int8.onnx", "embedded", "nanodet", (416, 416), 4_010_954,
               "Apache-2.0", "int8, for CPUs with VNNI"),
    KnownModel("nanodet-g", "nanodet_g_416.onnx", "npm", "nanodet", (416, 416), 15_269_140, "Apache-2.0",
               "the default in float32, for GPUs and older CPUs; built from npm"),
    _yolox("nano", 416, 3_659_407, "c789161ed43c8269fcd4e67c67eeeb4e80c622da2eb296a20bc6007bd18a0b7d",
           "COCO AP 25.8"),
    _yolox("tiny", 416, 20_219_662, "427cc366d34e27ff7a03e2899b5e3671425c262ea2291f88bb942bc1cc70b0f7",
           "COCO AP 32.8"),
    _yolox("s", 640, 35_858_002, "c5c2d13e59ae883e6af3b45daea64af4833a4951c92d116ec270d9ddbe998063",
           "COCO AP 40.5", (_OPENCV + "object_detection_yolox/object_detection_yolox_2022nov.onnx",)),
    _yolox("m", 640, 101_259_744, "21ff6cfdeb53b013bac2249599e55f00bff3cfdfdab37ed7a4620818c1d15b3f",
           "COCO AP 47.2; wants a GPU"),
    _yolox("l", 640, 216_746_733, "7860ae79de6c89a3c1eb72ae9a2756c0ccfbe04b7791bb5880afabd97855a411",
           "COCO AP 50.1; wants a GPU"),
    _yolox("x", 640, 396_142_663, "c892d7aaf1c4746d8a4d675bec669a4db4f434b4ee1efb654bc9b353379c7c55",
           "COCO AP 51.5; wants a GPU"),
    _hub("dfine-n", "dfine_n_coco", "380d2839c327efaf65dd0fe0c2c10ab7fadd5473", 15_258_358,
         "0f684f409618ee8a822410e754a29caa817d1aa16283ce89cad936d0a48e2f35", "COCO AP 42.8", _DETR),
    _hub("dfine-s", "dfine_s_coco", "a3cf03147a9b86c78475139115c8ac142577352d", 41_535_197,
         "cd8a49a945feda6d28c6304ae8ae85c2759ba1d78a5a83a22c5ce8db82ef7238",
         "COCO AP 48.5; wants a GPU", _DETR),
    _hub("dfine-m", "dfine_m_coco", "489756db2825cb068a588fe930af239a656d1fe1", 78_624_257,
         "70aaa837978a06ba44ad17398c7079ae5a1a7b1a9032b5d7053981e1ada02d6b",
         "COCO AP 52.3; wants a GPU", _DETR),
    _hub("rtdetrv2-r18", "rtdetr_v2_r18vd", "936f90b6a476c6da4dfe053fc521af55285976ba", 81_057_510,
         "583a236ac21c95a7fd94f284fc21485e42355bfef82c27011ba78fbc09ee87e2",
         "COCO AP about 48; wants a GPU", _DETR),
    _hub("rfdetr-nano", "rfdetr_nano", "eae21cee0687a91bcf9fa071605c48d7705d2d91", 108_074_865,
         "9cbac6b11ce34a03034e4d5a24cfac5f18632fd6761d1311dd640232088d7fee", "COCO AP about 48; wants a GPU",
         _DETR | _IMAGENET | {"input_width": 384, "input_height": 384}),
    _zoo("ssd-mobilenet-v1", "ssd_mobilenet_v1_12", "MIT", 29_461_455,
         "b8fba5e404077d4048d27fcd1667e85e27e192eb9bf51e696c46a3acd7d21058", "COCO AP 23.0",
         {"family": "ssd", "channels": "rgb", "letterbox": "stretch", "input_width": 300,
          "input_height": 300}, (300, 300)),
    _zoo("ssd-resnet34", "ssd-12", "Apache-2.0", 80_366_315,
         "5ec1e058e666ef980a6213ac40088877865aafb2b6676b9af204b3828e4bb9d5", "COCO AP 19.0; wants a GPU",
         {"family": "ssd", "channels": "rgb", "letterbox": "stretch"} | _IMAGENET, (1200, 1200)),
    _zoo("yolov3", "yolov3-12", "MIT", 247_942_267,
         "d97d7d5c1bbab2ec1ea197f0b689eb121231d62985ad223fb8aa833f8ef79836", "COCO AP 28.7; wants a GPU",
         _YOLOV3, (416, 416)),
    _zoo("tiny-yolov3", "tiny-yolov3-11", "MIT", 35_511_756,
         "f715cc2d99740d22d312777e20d9de2b2ecdc250155be8fd3752ce7e8b823521", "COCO AP50 33.1", _YOLOV3,
         (416, 416)),
    _zoo("faster-rcnn", "FasterRCNN-12", "MIT", 176_713_194,
         "789104f5a47f008450a37e02da8a8d3642766ed10d91238312b1532fe72789a6", "COCO AP 34.4; wants a GPU",
         _RCNN, (1344, 768)),
    _zoo("mask-rcnn", "MaskRCNN-12", "MIT", 177_970_010,
         "5bf940c124d9117f6fae350c4e0d46df180cbb01981832b35fdbed148078b946",
         "COCO AP 33.7, its masks are left out; wants a GPU", _RCNN, (1344, 768)),
    _zoo("mobilenetv2", "mobilenetv2-12", "Apache-2.0", 13_964_571,
         "c0c3f76d93fa3fd6580652a45618618a220fced18babf65774ed169de0432ad5", "ImageNet top-1 69.5",
         _CLASSIFIER, (224, 224),
         (_OPENCV + "image_classification_mobilenet/image_classification_mobilenetv2_2022apr.onnx",)),
    _zoo("resnet50", "resnet50-v1-12", "Apache-2.0", 102_576_593,
         "3f03fdef724b22947eed826f1eef1dc5c34151bb4c37d634f1db89dfa2dd1526", "ImageNet top-1 75.0",
         _CLASSIFIER, (224, 224)),
    _zoo("efficientnet-lite4", "efficientnet-lite4-11", "MIT", 51_946_641,
         "d111689907c06eea7c82e4833ddef758da6453b9d4cf60b7e99ca05c7cbd9c12", "ImageNet top-1 80.4",
         _CLASSIFIER | {"mean": [127, 127, 127], "std": [128, 128, 128]}, (224, 224)),
    KnownModel("pp-resnet50", "image_classification_ppresnet50_2022jan.onnx", "download", "classifier",
               (224, 224), 102_567_035, "Apache-2.0", "ImageNet top-1 82.3",
               _OPENCV + "image_classification_ppresnet/image_classification_ppresnet50_2022jan.onnx",
               sha256="ad5486b0de6c2171ea4d28c734c2fb7c5f64fcdbd97180a0ef515cf4b766a405", task="classify",
               card=_CLASSIFIER),
)  # fmt: skip

#: Models by name, in the order in which they are listed.
KNOWN: dict[str, KnownModel] = {model.name: model for model in _TABLE}
#: Second names.
ALIASES: dict[str, str] = {"default": "nanodet-g-int8", "default-classifier": "mobilenetv2"}
