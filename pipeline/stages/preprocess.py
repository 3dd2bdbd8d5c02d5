"""preprocess: planes of the decoder -> letterboxed model input, written in place into a leased slot."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import msgspec

from pipeline.messages import Frame, Message, ModelInput, ModelSpec
from pipeline.stages.base import MakePool, passed
from pipeline.transport.base import ViewArray
from pipeline.transport.shm import SlotPool
from pipeline.vision.tensor import TensorFiller

__all__ = ["PreprocessStage"]


class PreprocessStage:
    """Letterboxes each frame into the model's input.

    Args:
        make_pool: Makes the pool of input tensors.
    """

    name = "preprocess"

    def __init__(self, *, make_pool: MakePool) -> None:
        self._make_pool = make_pool
        self._pool: SlotPool | None = None
        self._filler: TensorFiller | None = None
        self._shape: tuple[int, ...] = ()
        self._dtype = ""

    def open(self) -> None:
        """Nothing is heavy here."""

    def begin(self, spec: ModelSpec) -> None:
        """Make the pool for inputs of this model."""
        size = (spec.input_height, spec.input_width)
        self._shape = (1, 3, *size) if spec.input_layout == "nchw" else (1, *size, 3)
        self._dtype = spec.input_dtype
        self._filler = TensorFiller(spec)
        itemsize = {"uint8": 1, "float16": 2, "float32": 4}[spec.input_dtype]
        self._pool = self._make_pool(3 * size[0] * size[1] * itemsize)

    def process(self, message: Message, view: ViewArray) -> Iterable[Message]:
        """``Frame`` -> ``ModelInput``; everything else passes."""
        if not isinstance(message, Frame):
            yield message
            return
        assert self._pool is not None
        assert self._filler is not None
        start_ns = time.monotonic_ns()
        planes = tuple(view(blob) for blob in message.pixels)
        with self._pool.writing() as slot:
            tensor = self._pool.array(slot, self._shape, self._dtype)
            letterbox = self._filler.fill(planes, message.pixel_format, tensor)
            blob = self._pool.blob(slot, self._shape, self._dtype)
        spans = passed(self.name, message.spans, message.header.captured_ns, start_ns)
        if not message.pixels[0].pool:  # They came inline; the frame itself stays where capture has it.
            message = msgspec.structs.replace(message, pixels=())
        yield ModelInput(message, spans, letterbox, blob)

    def tick(self) -> None:
        """Nothing to look for."""

    def summary(self) -> dict[str, Any]:
        """Nothing of its own."""
        return {}

    def close(self) -> None:
        """The pool goes with the process."""
