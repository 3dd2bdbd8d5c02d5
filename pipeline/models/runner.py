"""What all runners of graphs share: recognised by a test picture, warmed up, run in groups of fixed size."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads import Signature, TensorInfo
from pipeline.messages import ModelSpec
from pipeline.models.base import batch_sizes
from pipeline.models.describe import describe
from pipeline.models.layout import DTYPES, Layout, picture_of, sizes, stand_ins, with_outputs, with_size

__all__ = ["GraphRunner"]

_log = logging.getLogger(__name__)

#: The first one tunes, the quickest of the others counts.
_WARM_RUNS = 3
_BATCH_HINT = "set stages.infer.batch: 1, or export the model with a free (dynamic) batch axis"


class GraphRunner(ABC):
    """A graph somewhere; a `pipeline.models.base.Runner` but for `open` and `close`.

    A subclass says how to run it (`_call`, `_write`), and calls `_recognise` and `_warm_up` when it opens.

    Args:
        model: Its name, for errors.
        input_size: Width and height in pixels, for a graph whose input size is free.
        batch: Frames at once at most.
        in_place: Whether `_write` can write into given buffers; else `_call` runs and its arrays are copied.

    Attributes:
        why: Why the model is taken for one of its family; set by `_recognise`.
        signature: Inputs and outputs with their sizes; set by `_recognise`.
    """

    def __init__(
        self, model: str, *, input_size: tuple[int, int] | None, batch: int, in_place: bool = True
    ) -> None:
        self.spec: ModelSpec
        self.output_shapes: tuple[tuple[int, ...], ...] = ()
        self.output_dtypes: tuple[str, ...] = ()
        self.service_ns: dict[int, int] = {}
        self.why = ""
        self.signature = Signature((), ())
        self._name = model
        self._input_size = input_size
        self._batch = batch
        self._in_place = in_place
        self._outputs: tuple[TensorInfo, ...] = ()
        self._layout: Layout
        self._group_input: NDArray[Any] = np.empty(0)
        self._group_outputs: list[NDArray[Any]] = []

    def forward(self, tensors: NDArray[Any], outputs: Sequence[NDArray[Any]]) -> None:
        """Run n frames, in groups where the graph takes so many at a time; see `Runner.forward`."""
        self._layout.check(tensors, outputs)
        group = self._layout.group
        if not group:
            self._run(tensors, outputs)
            return
        for start in range(0, len(tensors), group):
            part = slice(start, start + group)
            if len(tensors[part]) == group:
                self._run(tensors[part], [buffer[part] for buffer in outputs])
            else:
                self._run_padded(tensors[part], [buffer[part] for buffer in outputs])

    @abstractmethod
    def _call(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """One run; every output in an array of its own.

        Raises:
            ModelError: it failed.
        """

    def _write(self, inputs: Mapping[str, NDArray[Any]], targets: Mapping[str, NDArray[Any]]) -> None:
        """One run, outputs written into the buffers of `Layout.targets`; for those that run in place.

        Raises:
            ModelError: it failed, or its outputs are not of these shapes.
        """
        raise NotImplementedError(f"{type(self).__name__} does not run in place")

    def _run(self, tensors: NDArray[Any], outputs: Sequence[NDArray[Any]]) -> None:
        """Run as many pictures as the graph takes at once."""
        inputs = self._layout.inputs(tensors)
        if self.spec.max_rows or not self._in_place:
            self._layout.copy(self._call(inputs), outputs)
        else:
            self._write(inputs, self._layout.targets(outputs))

    def _run_padded(self, tensors: NDArray[Any], outputs: Sequence[NDArray[Any]]) -> None:
        """Run fewer pictures than the graph takes: what pads them is what lay there before."""
        count, group = len(tensors), self._layout.group
        if not self._group_outputs:
            self._group_input = np.zeros((group, *tensors.shape[1:]), tensors.dtype)
            self._group_outputs = [np.empty((group, *one.shape[1:]), one.dtype) for one in outputs]
        self._group_input[:count] = tensors
        self._run(self._group_input, self._group_outputs)
        for buffer, result in zip(outputs, self._group_outputs, strict=True):
            buffer[...] = result[:count]

    def _recognise(
        self, declared: Signature, *, name: str, sha256: str, card: Mapping[str, Any], provider: str
    ) -> None:
        """Find out what the graph is, with one test picture, which also warms it up.

        Args:
            declared: What it says of itself.
            name: Name for the spec.
            sha256: Digest of its file; empty where there is none.
            card: What a card says of it.
            provider: What runs it.

        Raises:
            ModelError: it is of no family, or fails on the test picture.
        """
        self._outputs = declared.outputs
        sized = with_size(declared, self._input_size or _size_on(card))
        feeds = card.get("feeds")
        measured = self._measure(sized, feeds if isinstance(feeds, dict) else {})
        self.signature = sized if measured is None else with_outputs(sized, measured)
        self.spec, self.why = describe(self.signature, name=name, sha256=sha256, card=card, provider=provider)
        if sized.inputs != declared.inputs:
            self.why += f"; its input size is free, {self.spec.input_width}x{self.spec.input_height} taken"
        self._layout = Layout(declared, self.signature, self.spec)
        self.output_shapes, self.output_dtypes = self._layout.output_shapes, self._layout.output_dtypes
        group = self._layout.group
        if group > max(self._batch, 1):
            self.why += f"; it always runs {group} pictures, {group - self._batch} of them for nothing"
            _log.info("model %s takes %d pictures a run: set stages.infer.batch to it", name, group)

    def _measure(self, signature: Signature, feeds: Mapping[str, Any]) -> dict[str, NDArray[Any]] | None:
        """What the outputs hold for a test picture: sizes and ranges that the graph leaves open.

        None when the graph takes no picture, which the heads will say better.
        """
        info = picture_of(signature)
        if info is None or len(sizes(info.shape[-3:])) != 3:
            return None
        if any(one.dtype not in DTYPES for one in signature.inputs):
            return None
        if any(one.dtype.startswith(("seq(", "map(", "optional(")) for one in signature.outputs):
            return None
        try:
            return self._call(stand_ins(signature, feeds))
        except ModelError as error:
            raise ModelError(f"{error.message}, on a test picture", hint=error.hint) from error

    def _warm_up(self) -> None:
        """Run a batch of each size: shapes are tuned before the first frame, and times are known.

        Raises:
            ModelError: the model takes one picture at a time.
        """
        if self._layout.group == 1:
            raise ModelError(
                f"model {self.spec.name!r} takes one picture at a time, not batches of {self._batch}",
                hint=_BATCH_HINT,
            )
        counts = batch_sizes(self._batch)
        spec = self.spec
        pixels = (spec.input_height, spec.input_width)
        shape = (3, *pixels) if spec.input_layout == "nchw" else (*pixels, 3)
        tensors = np.zeros((counts[-1], *shape), spec.input_dtype)
        outputs = [
            np.empty((counts[-1], *one[1:]), dtype)
            for one, dtype in zip(self.output_shapes, self.output_dtypes, strict=True)
        ]
        # The largest first: TensorRT builds anew for a shape outside of those that it knows, 1 among them.
        for count in reversed(counts):
            times = []
            for _ in range(_WARM_RUNS):
                start_ns = time.monotonic_ns()
                try:
                    self.forward(tensors[:count], [buffer[:count] for buffer in outputs])
                except ModelError as error:
                    raise ModelError(
                        f"{error.message}, with a batch of {count} pictures", hint=error.hint or _BATCH_HINT
                    ) from error
                times.append(time.monotonic_ns() - start_ns)
            self.service_ns[count] = min(times[1:])


def _size_on(card: Mapping[str, Any]) -> tuple[int, int] | None:
    width, height = card.get("input_width"), card.get("input_height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None
