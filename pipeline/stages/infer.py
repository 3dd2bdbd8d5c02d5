"""infer: the network. Reads tensors in place, writes raw outputs in place."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.messages import Blob, Message, ModelInput, ModelOutput, ModelSpec
from pipeline.models.base import Runner
from pipeline.stages.base import MakePool, passed
from pipeline.transport.base import ViewArray
from pipeline.transport.shm import SlotPool

__all__ = ["InferStage"]

_ALIGN = 64


class InferStage:
    """Runs the model on each input, or on several at once.

    Args:
        runner: The model, not yet opened.
        make_pool: Makes the pool of raw outputs: as many slots as outputs may be under way, and ``batch``.
        batch: Frames at once at most.

    Attributes:
        batch: The same.
        service_ns: What a batch takes, by size, in nanoseconds; set by `open`. Empty if ``batch`` is 1.
    """

    name = "infer"

    def __init__(self, *, runner: Runner, make_pool: MakePool, batch: int = 1) -> None:
        self.batch = batch
        self.service_ns: dict[int, int] = {}
        self._runner = runner
        self._make_pool = make_pool
        self._pool: SlotPool | None = None
        self._outputs: list[tuple[tuple[int, ...], str, int]] = []
        self._input_shape: tuple[int, ...] = ()
        self._input_dtype = ""
        self._inputs: NDArray[Any] = np.empty(0)
        self._results: list[NDArray[Any]] = []

    def open(self) -> ModelSpec:
        """Load the model and warm it up; what it is."""
        spec = self._runner.open()
        size = (spec.input_height, spec.input_width)
        self._input_shape = (1, 3, *size) if spec.input_layout == "nchw" else (1, *size, 3)
        self._input_dtype = spec.input_dtype
        offset = 0
        for shape, dtype in zip(self._runner.output_shapes, self._runner.output_dtypes, strict=True):
            self._outputs.append((shape, dtype, offset))
            size_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
            offset += -(-size_bytes // _ALIGN) * _ALIGN
        self._pool = self._make_pool(offset)
        if self.batch > 1:
            self.service_ns = self._runner.service_ns
            self._inputs = np.zeros((self.batch, *self._input_shape[1:]), spec.input_dtype)
            self._results = [np.empty((self.batch, *shape[1:]), dtype) for shape, dtype, _ in self._outputs]
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
        tensor = self._tensor(message, view)
        with self._pool.writing() as slot:
            arrays = [self._pool.array(slot, *output) for output in self._outputs]
            self._runner.forward(tensor, arrays)
            blobs = tuple(self._pool.blob(slot, *output) for output in self._outputs)
        spans = passed(self.name, message.spans, message.frame.header.captured_ns, start_ns)
        yield ModelOutput(message.frame, spans, message.letterbox, blobs)

    def process_batch(self, inputs: Sequence[tuple[ModelInput, ViewArray]]) -> list[ModelOutput]:
        """Several ``ModelInput`` in one run of the network, one ``ModelOutput`` for each, in their order.

        The tensors are gathered, and the outputs copied to a slot for each frame. All frames of a batch have
        waited until it starts, and the service time of each is that of the whole batch.

        Args:
            inputs: 1 to ``batch`` messages, each with the view that reads its tensor.

        Raises:
            ModelError: the network refused the batch, or one input does not fit; none is done.
            StaleSlotError: the slot of one was recycled; none is done.
        """
        assert self._pool is not None
        start_ns = time.monotonic_ns()
        for row, (message, view) in enumerate(inputs):
            self._inputs[row] = self._tensor(message, view)[0]
        # What pads the batch is what lay there before: its outputs go nowhere.
        size = min(size for size in self.service_ns if size >= len(inputs))
        self._runner.forward(self._inputs[:size], [result[:size] for result in self._results])
        made: list[tuple[Blob, ...]] = []
        with contextlib.ExitStack() as slots:
            for row in range(len(inputs)):
                slot = slots.enter_context(self._pool.writing())
                for output, result in zip(self._outputs, self._results, strict=True):
                    self._pool.array(slot, *output)[0] = result[row]
                made.append(tuple(self._pool.blob(slot, *output) for output in self._outputs))
        return [
            ModelOutput(
                message.frame,
                passed(self.name, message.spans, message.frame.header.captured_ns, start_ns),
                message.letterbox,
                blobs,
            )
            for (message, _), blobs in zip(inputs, made, strict=True)
        ]

    def _tensor(self, message: ModelInput, view: ViewArray) -> NDArray[Any]:
        tensor = view(message.tensor)
        if tensor.shape != self._input_shape:
            raise ModelError(f"an input has shape {tensor.shape}, the model takes {self._input_shape}")
        if tensor.dtype != self._input_dtype:
            raise ModelError(f"an input is of {tensor.dtype}, the model takes {self._input_dtype}")
        return tensor

    def tick(self) -> None:
        """Nothing to look for."""

    def summary(self) -> dict[str, Any]:
        """Nothing of its own."""
        return {}

    def close(self) -> None:
        """Free the model."""
        self._runner.close()
