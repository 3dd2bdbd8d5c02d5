"""infer: the network. Reads tensors in place, writes raw outputs in place."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from pipeline.errors import ModelError
from pipeline.messages import Message, ModelInput, ModelOutput, ModelSpec
from pipeline.models.base import Runner
from pipeline.stages.base import MakePool, passed
from pipeline.transport.base import ViewArray
from pipeline.transport.shm import SlotPool

__all__ = ["InferStage"]

_ALIGN = 64


class InferStage:
    """Runs the model on each input.

    Args:
        runner: The model, not yet opened.
        make_pool: Makes the pool of raw outputs.
    """

    name = "infer"

    def __init__(self, *, runner: Runner, make_pool: MakePool) -> None:
        self._runner = runner
        self._make_pool = make_pool
        self._pool: SlotPool | None = None
        self._outputs: list[tuple[tuple[int, ...], str, int]] = []
        self._input_shape: tuple[int, ...] = ()

    def open(self) -> ModelSpec:
        """Load the model and warm it up; what it is."""
        spec = self._runner.open()
        size = (spec.input_height, spec.input_width)
        self._input_shape = (1, 3, *size) if spec.input_layout == "nchw" else (1, *size, 3)
        offset = 0
        for shape, dtype in zip(self._runner.output_shapes, self._runner.output_dtypes, strict=True):
            self._outputs.append((shape, dtype, offset))
            size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
            offset += -(-size_bytes // _ALIGN) * _ALIGN
        self._pool = self._make_pool(offset)
        return spec

    def begin(self, spec: ModelSpec) -> None:
        """It is our own model."""

    def process(self, message: Message, view: ViewArray) -> Iterable[Message]:
        """``ModelInput`` -> ``ModelOutput``; everything else passes.

        Raises:
            ModelError: the network refused this input.
        """
        if not isinstance(message, ModelInput):
            yield message
            return
        assert self._pool is not None
        start_ns = time.monotonic_ns()
        tensor = view(message.tensor)
        if tensor.shape != self._input_shape:
            raise ModelError(f"an input has shape {tensor.shape}, the model takes {self._input_shape}")
        with self._pool.writing() as slot:
            arrays = [self._pool.array(slot, *output) for output in self._outputs]
            self._runner.forward(tensor, arrays)
            blobs = tuple(self._pool.blob(slot, *output) for output in self._outputs)
        spans = passed(self.name, message.spans, message.frame.header.captured_ns, start_ns)
        yield ModelOutput(message.frame, spans, message.letterbox, blobs)

    def summary(self) -> dict[str, Any]:
        """Nothing of its own."""
        return {}

    def close(self) -> None:
        """Free the model."""
        self._runner.close()
