"""Devices that a session can run on: which provider each means, what it needs, and what is missing here.

A device computes as the file was saved (``precision: auto``), or as told where it can.

Nothing here imports onnxruntime: what its build offers is given.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ProviderError

__all__ = [
    "AUTO_ORDER",
    "DEVICES",
    "PRECISIONS",
    "Device",
    "check_precision",
    "missing_for",
    "nvidia_devices",
    "precision_hint",
    "precision_problem",
]

#: What `check_precision` knows.
PRECISIONS = ("auto", "fp32", "fp16", "bf16")


@dataclass(frozen=True)
class Device:
    """A device that can be asked for.

    Attributes:
        name: As it is asked for.
        provider: Execution provider that serves it.
        nvidia: It needs an NVIDIA GPU.
        shared_object: Shared library that must load, beside those of onnxruntime; empty for none.
        install: What to do when it is not there.
        precisions: Those of `PRECISIONS` that it can be told.
    """

    name: str
    provider: str
    nvidia: bool = False
    shared_object: str = ""
    install: str = ""
    precisions: tuple[str, ...] = ("auto", "fp32")


_CUDA_INSTALL = "pip install 'framewire[cuda]' on a machine with an NVIDIA GPU and a driver for CUDA 13"

#: Devices by name.
DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        Device("cpu", "CPUExecutionProvider"),
        Device("cuda", "CUDAExecutionProvider", nvidia=True, install=_CUDA_INSTALL),
        Device(
            "tensorrt",
            "TensorrtExecutionProvider",
            nvidia=True,
            shared_object="libnvinfer.so.10",
            install=f"{_CUDA_INSTALL}; then pip install 'tensorrt-cu13<11'",
            precisions=("auto", "fp32", "fp16"),
        ),
        Device(
            "openvino",
            "OpenVINOExecutionProvider",
            install="pip uninstall onnxruntime-gpu, then pip install onnxruntime-openvino",
            # Told fp16 on a CPU, it computes in bfloat16 without a word: so that is not offered.
            precisions=("auto", "fp32", "bf16"),
        ),
    )
}

#: What ``auto`` tries, best first.
AUTO_ORDER = ("tensorrt", "cuda", "openvino", "cpu")


def nvidia_devices() -> int:
    """How many NVIDIA GPUs are there: the driver's count, else 0.

    Asked through NVML, which needs no CUDA; neither the driver nor CUDA is started.
    """
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        # A container may have the device and CUDA without NVML.
        return len(list(Path("/dev").glob("nvidia[0-9]*")))
    if nvml.nvmlInit_v2() != 0:
        return 0
    count = ctypes.c_uint()
    found = nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0
    nvml.nvmlShutdown()
    return count.value if found else 0


def missing_for(device: Device, built_in: Iterable[str]) -> str:
    """What keeps a device from working, as far as can be told without a session; empty for nothing.

    Args:
        device: The device.
        built_in: Providers that this build of onnxruntime contains.
    """
    if device.provider not in built_in:
        return f"this build of onnxruntime has no {device.provider}"
    if device.nvidia and nvidia_devices() == 0:
        return "there is no NVIDIA GPU, or its driver does not answer"
    if device.shared_object:
        try:
            ctypes.CDLL(device.shared_object)
        except OSError as error:
            return str(error)
    return ""


def check_precision(precision: str, device: str) -> None:
    """Refuse what no session could be made for.

    Args:
        precision: One of `PRECISIONS`.
        device: ``auto`` or a name of `DEVICES`.

    Raises:
        ProviderError: there is no such device or precision, or the device does not compute in it.
    """
    if device != "auto" and device not in DEVICES:
        raise ProviderError(
            f"there is no device {device!r}", hint=f"use one of auto, {', '.join(sorted(DEVICES))}"
        )
    if precision not in PRECISIONS:
        raise ProviderError(
            f"there is no precision {precision!r}", hint=f"use one of {', '.join(PRECISIONS)}"
        )
    problem = "" if device == "auto" else precision_problem(DEVICES[device], precision)
    if problem:
        raise ProviderError(
            f"precision {precision!r} was asked for, but {problem}", hint=precision_hint(precision)
        )


def precision_problem(device: Device, precision: str) -> str:
    """What keeps a device from computing in a precision; empty for nothing."""
    if precision not in device.precisions:
        return f"device {device.name!r} computes in {' or '.join(device.precisions)} only"
    if precision == "bf16" and not _has_bfloat16():
        return "this processor has no bfloat16 instructions (avx512_bf16 or amx_bf16)"
    return ""


def precision_hint(precision: str) -> str:
    """Where a precision can be had."""
    able = [name for name in AUTO_ORDER if precision in DEVICES[name].precisions]
    other = "; a float16 file runs as it is with precision: auto" if precision == "fp16" else ""
    return f"precision: {precision} takes device: {' or '.join(able)}{other}"


def _has_bfloat16() -> bool:
    """Whether the processor says so; True where it cannot be asked."""
    try:
        words = set(Path("/proc/cpuinfo").read_text("ascii", "replace").split())
    except OSError:
        return True
    return not words.isdisjoint(("avx512_bf16", "amx_bf16", "bf16"))
