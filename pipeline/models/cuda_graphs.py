"""CUDA graphs: one captured run of the network for each batch size, replayed on memory that stays in place.

A graph replays kernels with the addresses that they had, so inputs and outputs live on the GPU, one set for
each batch size; frames are copied in and results out. ONNX Runtime captures on a first run with the option
``gpu_graph_id`` and replays on the others; see "Using CUDA Graphs" in the documentation of its CUDA execution
provider.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.models.sessions import ORT_ERRORS, first_line

__all__ = ["CudaGraphs", "without_graph"]

_KEY = "gpu_graph_id"
#: Runs before a replay is compared: ONNX Runtime warms up, captures, and replays.
_CAPTURE_RUNS = 3
#: A replay differs from a plain run by rounding at most: kernels may be chosen anew.
_RELATIVE, _ABSOLUTE = 2e-2, 1e-2


@dataclass(frozen=True)
class _Set:
    """What one batch size is captured with."""

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]
    binding: Any
    options: Any


class CudaGraphs:
    """Captured runs of a session, by batch size.

    Args:
        session: An ``onnxruntime.InferenceSession`` with ``enable_cuda_graph``.
        device: Where its memory lies, as ONNX Runtime names it.
    """

    def __init__(self, session: Any, device: str = "cuda") -> None:
        self._session = session
        self._device = device
        self._sets: dict[int, _Set] = {}

    @property
    def counts(self) -> tuple[int, ...]:
        """Batch sizes that are captured."""
        return tuple(self._sets)

    def capture(
        self, count: int, inputs: Mapping[str, NDArray[Any]], targets: Mapping[str, NDArray[Any]]
    ) -> None:
        """Capture a batch size, and check that its replay gives what a plain run gives.

        Args:
            count: Pictures in the batch.
            inputs: Every input, filled with what the check shall run on.
            targets: An array of the shape and type of each output that is read; written.

        Raises:
            ModelError: the session cannot capture this graph, or the replay gives something else.
        """
        try:
            made = self._make(count, inputs, targets)
            plain = self._session.run(list(targets), dict(inputs), without_graph())
            zeros = {name: np.zeros_like(array) for name, array in inputs.items()}
            # Captured on other values, so that a graph with its inputs frozen in it shows.
            for values in (*[zeros] * _CAPTURE_RUNS, inputs):
                self._replay(made, values, targets)
        except ORT_ERRORS as error:
            raise ModelError(f"a batch of {count} cannot be captured: {first_line(error)}") from error
        for (name, array), expected in zip(targets.items(), plain, strict=True):
            if not _alike(array, expected):
                raise ModelError(f"a captured batch of {count} gives another {name!r} than a plain run")
        self._sets[count] = made

    def run(
        self, count: int, inputs: Mapping[str, NDArray[Any]], targets: Mapping[str, NDArray[Any]]
    ) -> None:
        """Replay a batch size of `counts`: inputs are copied to the GPU, outputs into ``targets``.

        Raises:
            KeyError: the size is not captured.
            Exception: one of `pipeline.models.sessions.ORT_ERRORS`.
        """
        self._replay(self._sets[count], inputs, targets)

    def close(self) -> None:
        """Free the memory on the GPU; before the session goes."""
        self._sets.clear()
        self._session = None

    def _make(
        self, count: int, inputs: Mapping[str, NDArray[Any]], targets: Mapping[str, NDArray[Any]]
    ) -> _Set:
        def on_device(arrays: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
            return {
                name: ort.OrtValue.ortvalue_from_shape_and_type(
                    list(array.shape), array.dtype, self._device, 0
                )
                for name, array in arrays.items()
            }

        made = _Set(on_device(inputs), on_device(targets), self._session.io_binding(), ort.RunOptions())
        made.options.add_run_config_entry(_KEY, str(count))
        for name, value in made.inputs.items():
            made.binding.bind_ortvalue_input(name, value)
        for name, value in made.outputs.items():
            made.binding.bind_ortvalue_output(name, value)
        return made

    def _replay(
        self, made: _Set, inputs: Mapping[str, NDArray[Any]], targets: Mapping[str, NDArray[Any]]
    ) -> None:
        for name, value in made.inputs.items():
            value.update_inplace(inputs[name])
        self._session.run_with_iobinding(made.binding, made.options)
        made.binding.synchronize_outputs()
        for name, value in made.outputs.items():
            targets[name][...] = value.numpy()


def without_graph() -> Any:
    """Options of a run that neither captures nor replays, of a session that could."""
    options = ort.RunOptions()
    options.add_run_config_entry(_KEY, "-1")
    return options


def _alike(array: NDArray[Any], expected: NDArray[Any]) -> bool:
    if array.shape != expected.shape:
        return False
    one, other = array.astype(np.float64), np.asarray(expected, np.float64)
    if not one.size:
        return True
    # Values of one output differ by orders of magnitude: what counts is the error against the largest.
    scale = max(float(np.abs(other).max()), 1e-6)
    return bool(np.allclose(one, other, rtol=_RELATIVE, atol=_ABSOLUTE * scale))
