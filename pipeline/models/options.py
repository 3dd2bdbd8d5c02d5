"""What each execution provider is told: caches, precision, threads, and the shapes that it must be fast for.

Pure: nothing here loads a library. The names are those of ONNX Runtime's documentation of its execution
providers (``onnxruntime.ai/docs/execution-providers``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.heads import TensorInfo
from pipeline.models.providers import Device

__all__ = ["Wish", "profile_shapes", "provider_options"]


@dataclass(frozen=True)
class Wish:
    """How a session shall run.

    Attributes:
        threads: Threads of one inference on the CPU.
        precision: One of ``pipeline.models.providers.PRECISIONS``.
        batch: Frames at once at most.
        input_size: Width and height in pixels for an input whose size is free; None where nobody named one.
        graphs: Capture CUDA graphs where the device can.
    """

    threads: int = 1
    precision: str = "auto"
    batch: int = 1
    input_size: tuple[int, int] | None = None
    graphs: bool = True


def provider_options(
    device: Device, wish: Wish, folder: Path, inputs: Sequence[TensorInfo] = ()
) -> dict[str, str]:
    """The options of the provider of a device.

    Args:
        device: The device.
        wish: How the session shall run.
        folder: Where the provider may keep what it built for this one model file.
        inputs: Inputs of the graph, for TensorRT's profile.
    """
    if device.name == "cuda":
        return {
            # Each shape is met again and again, so the search for the quickest algorithm pays.
            "cudnn_conv_algo_search": "EXHAUSTIVE",
            # Doubling would claim memory that other processes on the same GPU need.
            "arena_extend_strategy": "kSameAsRequested",
            "use_tf32": "0" if wish.precision == "fp32" else "1",
            "enable_cuda_graph": "1" if wish.graphs else "0",
        }
    if device.name == "tensorrt":
        return {
            # Engines take minutes to build; they are kept, and so are the timings of their kernels.
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(folder),
            "trt_fp16_enable": "1" if wish.precision == "fp16" else "0",
            **profile_shapes(inputs, wish.batch, wish.input_size),
        }
    if device.name == "openvino":
        hints = {
            "INFERENCE_PRECISION_HINT": "bf16" if wish.precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": wish.threads,
            "NUM_STREAMS": 1,
        }
        return {"device_type": "CPU", "cache_dir": str(folder), "load_config": json.dumps({"CPU": hints})}
    return {}


def profile_shapes(
    inputs: Sequence[TensorInfo], batch: int, size: tuple[int, int] | None = None
) -> dict[str, str]:
    """TensorRT's profile for batches of 1 to ``batch``: one engine serves all, and none is built in a run.

    Args:
        inputs: Inputs of the graph as declared. A free first axis counts pictures; of an input of four axes
            with 3 channels the free height and width are ``size``.
        batch: Frames at once at most; the engine is quickest at it.
        size: Width and height in pixels.

    Returns:
        ``trt_profile_min_shapes``, ``…_opt_shapes`` and ``…_max_shapes``; empty where every size is fixed, or
        one is free that nothing here tells.
    """
    least, most = [], []
    for info in inputs:
        shape = list(info.shape)
        if len(shape) == 4 and 3 in (shape[1], shape[3]) and size is not None:
            where = slice(2, 4) if shape[1] == 3 else slice(1, 3)
            shape[where] = [
                have if isinstance(have, int) else want
                for have, want in zip(shape[where], size[::-1], strict=True)
            ]
        rest = shape[1:]
        if not all(isinstance(one, int) for one in rest):
            return {}
        if shape and not isinstance(shape[0], int):
            least.append(_written(info.name, [1, *rest]))
            most.append(_written(info.name, [batch, *rest]))
        elif tuple(shape) != info.shape:
            least.append(_written(info.name, shape))
            most.append(_written(info.name, shape))
    if not least:
        return {}
    return {
        "trt_profile_min_shapes": ",".join(least),
        "trt_profile_opt_shapes": ",".join(most),
        "trt_profile_max_shapes": ",".join(most),
    }


def _written(name: str, shape: Sequence[object]) -> str:
    return f"{name}:{'x'.join(str(one) for one in shape)}"
