from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from pipeline.heads import TensorInfo
from pipeline.models.options import Wish, profile_shapes, provider_options
from pipeline.models.providers import DEVICES

FOLDER = Path("/cache/x")
FREE = TensorInfo("images", "float32", ("n", 3, "h", "w"))


def told(device: str, inputs: tuple[TensorInfo, ...] = (), **wish: Any) -> dict[str, str]:
    return provider_options(DEVICES[device], Wish(**wish), FOLDER, inputs)


@pytest.mark.parametrize(
    ("device", "wish", "expected"),
    [
        ("cuda", {}, {"enable_cuda_graph": "1", "use_tf32": "1", "cudnn_conv_algo_search": "EXHAUSTIVE"}),
        ("cuda", {"precision": "fp32", "graphs": False}, {"enable_cuda_graph": "0", "use_tf32": "0"}),
        ("tensorrt", {}, {"trt_fp16_enable": "0", "trt_engine_cache_enable": "1"}),
        (
            "tensorrt",
            {"precision": "fp16"},
            {
                "trt_fp16_enable": "1",
                "trt_engine_cache_path": "/cache/x",
                "trt_timing_cache_path": "/cache/x",
            },
        ),
        ("openvino", {}, {"device_type": "CPU", "cache_dir": "/cache/x"}),
    ],
)
def test_options(device: str, wish: dict[str, Any], expected: dict[str, str]) -> None:
    assert expected.items() <= told(device, **wish).items()
    assert all(isinstance(value, str) for value in told(device, **wish).values())


def test_the_cpu_is_told_nothing() -> None:
    assert told("cpu", threads=4) == {}


@pytest.mark.parametrize(("precision", "hint"), [("auto", "f32"), ("fp32", "f32"), ("bf16", "bf16")])
def test_openvino_takes_bfloat16_only_when_asked(precision: str, hint: str) -> None:
    config = json.loads(told("openvino", precision=precision, threads=3)["load_config"])["CPU"]
    assert config == {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": 3, "NUM_STREAMS": 1}


@pytest.mark.parametrize(
    ("inputs", "batch", "size", "least", "most"),
    [
        ([FREE], 4, (640, 384), "images:1x3x384x640", "images:4x3x384x640"),
        ([FREE], 1, None, "", ""),
        ([TensorInfo("images", "float32", (1, 3, 64, 64))], 4, None, "", ""),
        ([TensorInfo("x", "uint8", (None, 64, 64, 3))], 2, None, "x:1x64x64x3", "x:2x64x64x3"),
        ([TensorInfo("x", "uint8", (1, "h", "w", 3))], 1, (320, 192), "x:1x192x320x3", "x:1x192x320x3"),
        (
            [TensorInfo("x", "float32", ("n", 3, 64, 64)), TensorInfo("sizes", "int64", ("m", 2))],
            8,
            None,
            "x:1x3x64x64,sizes:1x2",
            "x:8x3x64x64,sizes:8x2",
        ),
        ([FREE, TensorInfo("other", "float32", ("n", "k"))], 8, (64, 64), "", ""),
    ],
)
def test_profiles_span_the_batches_that_are_warmed_up(
    inputs: list[TensorInfo], batch: int, size: tuple[int, int] | None, least: str, most: str
) -> None:
    shapes = profile_shapes(inputs, batch, size)
    assert shapes.get("trt_profile_min_shapes", "") == least
    assert shapes.get("trt_profile_opt_shapes", "") == shapes.get("trt_profile_max_shapes", "") == most
    assert shapes.items() <= told("tensorrt", tuple(inputs), batch=batch, input_size=size).items()


@pytest.mark.parametrize("device", ["cuda", "tensorrt", "openvino"])
def test_the_library_knows_these_names(device: str) -> None:
    """As far as can be told without its device: each name stands in the provider's library."""
    short = DEVICES[device].provider.removesuffix("ExecutionProvider").lower()
    library = Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{short}.so"
    if not library.is_file():
        pytest.skip(f"this onnxruntime has no {library.name}")
    names = told(device, (FREE,), batch=2, input_size=(64, 64))
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        assert names
        assert [name for name in names if content.find(name.encode()) < 0] == []
        assert content.find(b"trt_no_such_option") < 0
