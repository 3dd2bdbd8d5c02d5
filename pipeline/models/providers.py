"""Devices that a session can run on: which provider each means, what it needs, and what is missing here.

Nothing here imports onnxruntime: what its build offers is given.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["AUTO_ORDER", "DEVICES", "Device", "missing_for", "nvidia_devices"]


@dataclass(frozen=True)
class Device:
    """A device that can be asked for.

    Attributes:
        name: As it is asked for.
        provider: Execution provider that serves it.
        nvidia: It needs an NVIDIA GPU.
        shared_object: Shared library that must load, beside those of onnxruntime; empty for none.
        install: What to do when it is not there.
    """

    name: str
    provider: str
    nvidia: bool = False
    shared_object: str = ""
    install: str = ""


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
        ),
        Device(
            "openvino",
            "OpenVINOExecutionProvider",
            install="pip uninstall onnxruntime-gpu, then pip install onnxruntime-openvino",
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
