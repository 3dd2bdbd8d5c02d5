from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

from pipeline.errors import ModelError, ProviderError
from pipeline.models import providers, sessions
from pipeline.models.options import Wish
from pipeline.models.providers import DEVICES
from pipeline.models.sessions import open_session, signature_of
from pipeline.models.store import ModelFile
from tests.models.graphs import save_graph

ALL = [device.provider for device in DEVICES.values()]


class FakeSession:
    """A session that says which providers are in force, and how many operations each took."""

    def __init__(self, in_force: list[str], taken: dict[str, int]) -> None:
        self._in_force = in_force
        self._taken = taken

    def get_providers(self) -> list[str]:
        return self._in_force

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return [FakePart(name, count) for name, count in self._taken.items()]


class FakePart:
    def __init__(self, name: str, count: int) -> None:
        self.ep_name = name
        self._count = count

    def get_nodes(self) -> list[int]:
        return list(range(self._count))


@pytest.fixture
def file(tmp_path: Path) -> ModelFile:
    path = save_graph(tmp_path / "m.onnx", {"output": (84, 85)}, input_shape=("n", 3, "h", "w"))
    return ModelFile("m", path, "ab" * 32)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[list[Any]]]:
    """A machine where everything is installed, and sessions are what a function makes of their providers."""
    monkeypatch.setenv("FRAMEWIRE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(ort, "get_available_providers", lambda: ALL)
    monkeypatch.setattr(sessions, "missing_for", lambda device, built_in: "")
    real = sessions._load

    def install(make: Callable[[str, dict[str, str]], Any]) -> list[list[Any]]:
        asked: list[list[Any]] = []

        def load(file: ModelFile, options: Any, told: list[Any], *, nvidia: bool = False) -> Any:
            if isinstance(told[0], str):
                return real(file, options, told)
            asked.append(told)
            return make(*told[0])

        monkeypatch.setattr(sessions, "_load", load)
        return asked

    return install


def all_on(provider: str, options: dict[str, str]) -> FakeSession:
    return FakeSession([provider, "CPUExecutionProvider"], {provider: 10})


@pytest.mark.parametrize("device", ["cuda", "tensorrt", "openvino", "cpu"])
def test_a_device_in_force_is_taken(
    device: str, file: ModelFile, machine: Callable[..., list[list[Any]]]
) -> None:
    asked = machine(all_on)
    opened = open_session(file, device)
    assert (opened.device.name, opened.refusals, opened.graphs) == (device, (), device == "cuda")
    assert [told[1:] for told in asked] == [[] if device == "cpu" else ["CPUExecutionProvider"]]


def test_a_provider_that_takes_no_operation_is_not_in_force(
    file: ModelFile, machine: Callable[..., list[list[Any]]]
) -> None:
    machine(lambda provider, options: FakeSession([provider], {"CPUExecutionProvider": 7}))
    with pytest.raises(ProviderError, match="runs none of the 7 operations") as caught:
        open_session(file, "cuda")
    assert "device: auto" in caught.value.hint
    opened = open_session(file, "auto")
    assert opened.device.name == "cpu"
    assert [text.partition(":")[0] for text in opened.refusals] == ["tensorrt", "cuda", "openvino"]


def test_operations_left_to_the_cpu_are_logged(
    file: ModelFile, machine: Callable[..., list[list[Any]]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    machine(lambda provider, options: FakeSession([provider], {provider: 5, "CPUExecutionProvider": 2}))
    assert open_session(file, "openvino").elsewhere == (2, 7)
    assert "m on openvino: 2 of 7 operations run on the CPU" in caplog.text


def test_auto_goes_on_where_a_device_cannot_load_the_model(
    file: ModelFile, machine: Callable[..., list[list[Any]]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def make(provider: str, options: dict[str, str]) -> FakeSession:
        if provider == DEVICES["tensorrt"].provider:
            raise ModelError("no kernel for Resize")
        return all_on(provider, options)

    machine(make)
    opened = open_session(file)
    assert (opened.device.name, opened.refusals) == ("cuda", ("tensorrt: no kernel for Resize",))
    assert "not taken: tensorrt: no kernel" in caplog.text
    with pytest.raises(ModelError, match="no kernel"):
        open_session(file, "tensorrt")


def test_a_graph_that_cannot_be_captured_runs_without(
    file: ModelFile, machine: Callable[..., list[list[Any]]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def make(provider: str, options: dict[str, str]) -> FakeSession:
        if options["enable_cuda_graph"] == "1":
            raise ModelError("not all operations are on the device")
        return all_on(provider, options)

    asked = machine(make)
    assert open_session(file, "cuda").graphs is False
    assert "m runs without CUDA graphs: not all operations" in caplog.text
    assert [told[0][1]["enable_cuda_graph"] for told in asked] == ["1", "0"]
    assert open_session(file, "cuda", Wish(graphs=False)).graphs is False


def test_tensorrt_gets_the_shapes_of_the_graph_and_a_folder_of_its_own(
    file: ModelFile, machine: Callable[..., list[list[Any]]], tmp_path: Path
) -> None:
    asked = machine(all_on)
    open_session(file, "tensorrt", Wish(batch=4, input_size=(64, 32)))
    open_session(file, "tensorrt", Wish(precision="fp16"))
    first, second = (told[0][1] for told in asked)
    assert first["trt_profile_max_shapes"] == "images:4x3x32x64"
    assert "trt_profile_max_shapes" not in second, "its free size is not known"
    folders = [Path(options["trt_engine_cache_path"]) for options in (first, second)]
    assert [folder.name for folder in folders] == ["abababababababab-auto", "abababababababab-fp16"]
    assert all(folder.is_dir() and folder.is_relative_to(tmp_path / "cache") for folder in folders)


@pytest.mark.parametrize(
    ("precision", "device", "bfloat", "expected"),
    [
        ("fp16", "auto", True, "tensorrt"),
        ("bf16", "auto", True, "openvino"),
        ("fp32", "auto", True, "tensorrt"),
        ("bf16", "auto", False, "no device here computes in precision 'bf16'"),
        ("bf16", "openvino", False, "no bfloat16 instructions"),
        ("fp16", "openvino", True, "computes in auto or fp32 or bf16 only"),
        ("fp16", "cpu", True, "device 'cpu' computes in auto or fp32 only"),
        ("bf16", "cuda", True, "device 'cuda' computes in auto or fp32 only"),
        ("int8", "cpu", True, "there is no precision 'int8'"),
    ],
)
def test_precisions(
    precision: str,
    device: str,
    bfloat: bool,
    expected: str,
    file: ModelFile,
    machine: Callable[..., list[list[Any]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(providers, "_has_bfloat16", lambda: bfloat)
    machine(all_on)
    if expected in DEVICES:
        assert open_session(file, device, Wish(precision=precision)).device.name == expected
    else:
        with pytest.raises(ProviderError, match=expected) as caught:
            open_session(file, device, Wish(precision=precision))
        assert "precision" in caught.value.hint or "use one of auto, fp32" in caught.value.hint


def test_signature_of_a_session(file: ModelFile) -> None:
    signature = signature_of(open_session(file, "cpu").session)
    assert [(info.name, info.dtype, info.shape) for info in signature.inputs] == [
        ("images", "float32", ("n", 3, "h", "w"))
    ]


def test_a_folder_that_cannot_be_made_is_told(
    file: ModelFile, machine: Callable[..., list[list[Any]]], tmp_path: Path
) -> None:
    machine(all_on)
    (tmp_path / "cache").write_bytes(b"a file")
    with pytest.raises(ModelError, match="keeps what it built, cannot be made") as caught:
        open_session(file, "openvino")
    assert "FRAMEWIRE_CACHE" in caught.value.hint
    assert open_session(file, "auto").device.name == "cuda"
