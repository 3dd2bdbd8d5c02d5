from __future__ import annotations

import dataclasses

import pytest

from pipeline.models import providers
from pipeline.models.providers import AUTO_ORDER, DEVICES, missing_for

ALL = [device.provider for device in DEVICES.values()]


def test_auto_tries_each_device_and_ends_with_the_cpu() -> None:
    assert sorted(AUTO_ORDER) == sorted(DEVICES)
    assert AUTO_ORDER[-1] == "cpu"
    assert all(device.install for name, device in DEVICES.items() if name != "cpu")


@pytest.mark.parametrize(
    ("name", "built_in", "gpus", "expected"),
    [
        ("cpu", ALL, 0, ""),
        ("cuda", ALL, 1, ""),
        ("cuda", ALL, 0, "no NVIDIA GPU"),
        ("cuda", ["CPUExecutionProvider"], 1, "has no CUDAExecutionProvider"),
        ("openvino", ["CPUExecutionProvider"], 0, "has no OpenVINOExecutionProvider"),
        ("openvino", ALL, 0, ""),
    ],
)
def test_missing_for(
    name: str, built_in: list[str], gpus: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "nvidia_devices", lambda: gpus)
    missing = missing_for(DEVICES[name], built_in)
    assert missing == "" if not expected else expected in missing


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(providers, "nvidia_devices", lambda: 1)
    device = dataclasses.replace(DEVICES["tensorrt"], shared_object="libnothing.so.1")
    assert "libnothing.so.1" in missing_for(device, ALL)
