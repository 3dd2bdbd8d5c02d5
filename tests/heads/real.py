"""Real model files on real pictures, through the runner that users have; skips where they are not here."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.messages import LetterboxMap, ModelSpec
from pipeline.vision.tensor import TensorFiller

ASSETS = Path(__file__).resolve().parents[2].parent / "shared" / "assets"
BEAR = "coco_val2017_000000000285.jpg"
SKIER = "coco_val2017_000000000785.jpg"
BUS = "coco_train2017_000000000471.jpg"
Run = tuple[ModelSpec, list[NDArray[Any]], LetterboxMap]


@lru_cache(maxsize=4)
def runner_of(model: str) -> Any:
    """The opened runner of a file below ``assets/models``."""
    path = ASSETS / "models" / model
    if not path.is_file():
        pytest.skip(f"{path.name} is not on this machine")
    pytest.importorskip("onnxruntime")
    from pipeline.models.onnx import OnnxRunner

    runner = OnnxRunner(str(path), device="cpu")
    runner.open()
    return runner


def run(model: str, picture: str) -> Run:
    """The spec of a model, its outputs for a picture, and how the picture was placed."""
    cv2 = pytest.importorskip("cv2")
    runner = runner_of(model)
    pixels = cv2.imread(str(ASSETS / "images" / picture))
    if pixels is None:
        pytest.skip(f"{picture} is not on this machine")
    filler = TensorFiller(runner.spec)
    tensor = np.zeros(filler.shape, runner.spec.input_dtype)
    letterbox = filler.fill((pixels,), "bgr24", tensor)
    outputs = [
        np.zeros(shape, dtype)
        for shape, dtype in zip(runner.output_shapes, runner.output_dtypes, strict=True)
    ]
    runner.forward(tensor, outputs)
    return runner.spec, outputs, letterbox
