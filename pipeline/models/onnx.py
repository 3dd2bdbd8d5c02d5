"""A network in an ONNX Runtime session: recognised, measured, warmed up, and run in place."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError, ProviderError
from pipeline.messages import ModelSpec
from pipeline.models.base import batch_sizes
from pipeline.models.cuda_graphs import CudaGraphs, without_graph
from pipeline.models.describe import card_of
from pipeline.models.layout import stand_ins
from pipeline.models.options import Wish
from pipeline.models.providers import check_precision
from pipeline.models.runner import GraphRunner
from pipeline.models.sessions import ORT_ERRORS, Opened, first_line, open_session, signature_of
from pipeline.models.store import ModelFile, resolve

__all__ = ["OnnxRunner"]

_log = logging.getLogger(__name__)


class OnnxRunner(GraphRunner):
    """A network in an ONNX Runtime session; a `pipeline.models.base.Runner`.

    Args:
        model: A name of `pipeline.models.store.KNOWN`, or a path.
        device: ``auto`` for the best that really works, or a name of `pipeline.models.providers.DEVICES`.
        threads: Threads of one inference on the CPU.
        input_size: Width and height in pixels, for a model whose input size is free.
        batch: Frames at once at most.
        precision: ``auto`` for that of the file, or ``fp32``, ``fp16``, ``bf16`` where the device can.

    Attributes:
        why: Why the model is taken for one of its family; set by `open`.
        refusals: What ``auto`` tried before and why it was not taken; set by `open`.
        signature: Inputs and outputs with their sizes; set by `open`.

    Raises:
        ProviderError: there is no such device or precision, or the one does not do the other.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        threads: int = 1,
        input_size: tuple[int, int] | None = None,
        batch: int = 1,
        precision: str = "auto",
    ) -> None:
        check_precision(precision, device)
        super().__init__(model, input_size=input_size, batch=batch)
        self.refusals: list[str] = []
        self._device = device
        self._wish = Wish(threads, precision, batch, input_size)
        self._session: Any = None
        self._binding: Any = None
        self._options: Any = None
        self._graphs: CudaGraphs | None = None

    def open(self) -> ModelSpec:
        """Load, recognise and warm up the model; see `Runner.open`."""
        file = resolve(self._name)
        card = card_of(file.path)
        opened = open_session(file, self._device, self._wish)
        try:
            self._take(opened)
            self.refusals = list(opened.refusals)
            self._recognise(
                signature_of(self._session),
                name=file.name,
                sha256=file.sha256,
                card=card,
                provider=opened.device.provider,
            )
            if self._wish.precision == "fp32" and self.spec.input_dtype == "float16":
                raise ProviderError(
                    f"precision 'fp32' was asked for, but {file.name} is a float16 file",
                    hint="take its float32 file, or precision: auto",
                )
            device, graphs = opened.device.name, opened.graphs
            del opened  # or a session that is given up below would stay on the GPU
            if graphs:
                self._capture(file, device)
            if self._batch > 1:
                self._warm_up()
        except ModelError:
            self.close()
            raise
        return self.spec

    def close(self) -> None:
        """Free the session."""
        if self._graphs is not None:
            self._graphs.close()
        self._graphs = None
        self._binding = None
        self._session = None

    def _take(self, opened: Opened) -> None:
        self._session = opened.session
        self._binding = opened.session.io_binding()
        self._options = without_graph() if opened.graphs else None

    def _capture(self, file: ModelFile, device: str) -> None:
        """Capture a CUDA graph for each batch size; without them where that does not work, which is logged.

        Raises:
            ModelError: the session could not be made again.
        """
        group = self._layout.group
        graphs = CudaGraphs(self._session)
        try:
            if self.spec.max_rows:
                raise ModelError("the sizes of its outputs depend on the picture")
            for count in (group,) if group else reversed(batch_sizes(self._batch)):
                self._capture_one(graphs, count)
        except ModelError as error:
            _log.info("%s runs without CUDA graphs: %s", file.name, error.message)
            graphs.close()
        else:
            self._graphs = graphs
            return
        # After a capture that broke off, the session's stream is in no known state.
        self._session = self._binding = None
        without = Wish(**{**vars(self._wish), "graphs": False})
        self._take(open_session(file, device, without))
        self._call(stand_ins(self.signature, self.spec.feeds))  # this session is cold

    def _capture_one(self, graphs: CudaGraphs, count: int) -> None:
        picture = stand_ins(self.signature, {})[self._layout.name]
        one = picture if picture.ndim == 4 else picture[None]
        tensors = np.ascontiguousarray(np.repeat(one[:1], count, axis=0))
        buffers = [
            np.zeros((count, *shape[1:]), dtype)
            for shape, dtype in zip(self.output_shapes, self.output_dtypes, strict=True)
        ]
        graphs.capture(count, self._layout.inputs(tensors), self._layout.targets(buffers))

    def _call(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        names = [output.name for output in self._session.get_outputs()]
        try:
            arrays = self._session.run(names, dict(inputs), self._options)
        except ORT_ERRORS as error:
            raise self._failed(error) from error
        # Sequences and maps are no arrays; no head reads one.
        found = zip(names, arrays, strict=True)
        return {name: np.asarray(array) for name, array in found if not isinstance(array, list | dict)}

    def _write(self, inputs: Mapping[str, NDArray[Any]], targets: Mapping[str, NDArray[Any]]) -> None:
        count = len(inputs[self._layout.name])
        try:
            if self._graphs is not None and count in self._graphs.counts:
                self._graphs.run(count, inputs, targets)
                return
            binding = self._binding
            for name, array in inputs.items():
                binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            for name, array in targets.items():
                binding.bind_output(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
            self._session.run_with_iobinding(binding, self._options)
            # Copies back from a device have ended only now; on the CPU there is nothing to wait for.
            binding.synchronize_outputs()
        except ORT_ERRORS as error:
            raise self._failed(error) from error

    def _failed(self, error: Exception) -> ModelError:
        name = self.spec.name if hasattr(self, "spec") else self._name
        return ModelError(f"model {name!r} failed: {first_line(error)}")
