"""Everything of CUDA graphs but the GPU: the memory lies on the CPU, which captures nothing."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from pipeline.errors import ModelError
from pipeline.models import onnx as onnx_module
from pipeline.models.cuda_graphs import CudaGraphs, without_graph
from pipeline.models.onnx import OnnxRunner
from pipeline.models.options import Wish
from pipeline.models.providers import DEVICES
from pipeline.models.sessions import Opened, open_session
from pipeline.models.store import ModelFile
from tests.models.graphs import save_graph

CELLS = 84
CARD = {"framewire.card": '{"family": "yolox"}'}


class Recording:
    """A session that runs, and notes what it was asked for.

    Args:
        session: The one that runs.
        frozen: Give with a binding what the first run of it gave, as a graph with its inputs in it would.
        broken: Fail on a run of this many pictures with a graph.
    """

    def __init__(self, session: Any, *, frozen: bool = False, broken: int = 0) -> None:
        self._session = session
        self._frozen, self._broken = frozen, broken
        self._given: dict[str, Any] = {}
        self.ids: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, names: Any, feeds: Any, options: Any = None) -> Any:
        self.ids.append(options.get_run_config_entry("gpu_graph_id") if options else "")
        return self._session.run(names, feeds, options)

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        graph = options.get_run_config_entry("gpu_graph_id") if options else ""
        self.ids.append(graph)
        if graph == str(self._broken):
            raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : capture broke off\nmore")
        self._session.run_with_iobinding(binding, options)
        if self._frozen and graph not in ("", "-1"):
            value = binding.get_outputs()[0]
            value.update_inplace(self._given.setdefault(graph, value.numpy().copy()))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_graph(
        tmp_path / "m.onnx", {"output": (CELLS, 85)}, input_shape=("n", 3, 64, 64), metadata=CARD
    )


def session_of(path: Path) -> Any:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def pictures(count: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(count).random((count, 3, 64, 64), np.float32)


def test_each_batch_size_has_its_own_memory_and_id(model: Path) -> None:
    session = Recording(session_of(model))
    graphs = CudaGraphs(session, "cpu")
    for count in (2, 1):
        target = np.zeros((count, CELLS, 85), np.float32)
        graphs.capture(count, {"images": pictures(count)}, {"output": target})
    assert graphs.counts == (2, 1)
    assert session.ids == ["-1", "2", "2", "2", "2", "-1", "1", "1", "1", "1"]
    for count in (1, 2, 1):
        target = np.full((count, CELLS, 85), np.nan, np.float32)
        tensors = pictures(count) * 3
        tensors.flags.writeable = False
        graphs.run(count, {"images": tensors}, {"output": target})
        np.testing.assert_allclose(target[:, 0, 0], tensors.mean(axis=(1, 2, 3)), rtol=1e-5)
    graphs.close()
    assert not graphs.counts


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"broken": 2}, "a batch of 2 cannot be captured: capture broke off$"),
        ({"frozen": True}, "captured batch of 2 gives another 'output' than a plain run"),
    ],
)
def test_what_cannot_be_captured_is_an_error(model: Path, fault: dict[str, Any], message: str) -> None:
    graphs = CudaGraphs(Recording(session_of(model), **fault), "cpu")
    with pytest.raises(ModelError, match=message):
        graphs.capture(2, {"images": pictures(2)}, {"output": np.zeros((2, CELLS, 85), np.float32)})
    assert graphs.counts == ()


def test_a_run_without_a_graph() -> None:
    assert without_graph().get_run_config_entry("gpu_graph_id") == "-1"


@pytest.mark.parametrize("fault", [{}, {"broken": 2}, {"frozen": True}])
def test_the_runner_captures_its_batches_or_runs_without(
    model: Path, fault: dict[str, Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    made: list[Recording] = []

    def opened(file: ModelFile, device: str, wish: Wish) -> Opened:
        made.append(Recording(session_of(file.path), **fault))
        return Opened(made[-1], DEVICES["cuda"], graphs=wish.graphs)

    monkeypatch.setattr(onnx_module, "open_session", opened)
    monkeypatch.setattr(onnx_module, "CudaGraphs", lambda session: CudaGraphs(session, "cpu"))
    runner = OnnxRunner(str(model), device="cuda", batch=2)
    runner.open()
    assert sorted(runner.service_ns) == [1, 2]
    target = np.full((2, CELLS, 85), np.nan, np.float32)
    made[-1].ids.clear()
    runner.forward(pictures(2), [target])
    np.testing.assert_allclose(target[:, 0, 0], pictures(2).mean(axis=(1, 2, 3)), rtol=1e-5)
    if fault:
        assert "m runs without CUDA graphs: a " in caplog.text
        assert len(made) == 2
        assert made[-1].ids == [""]
    else:
        assert len(made) == 1
        assert made[-1].ids == ["2"]
        # A size that was not warmed up runs without a graph.
        wide = np.full((3, CELLS, 85), np.nan, np.float32)
        runner.forward(pictures(3), [wide])
        assert made[-1].ids[-1] == "-1"
        assert np.isfinite(wide).all()
    runner.close()


def test_a_real_session_knows_the_device(model: Path) -> None:
    assert open_session(ModelFile("m", model, ""), "cpu").graphs is False
