"""What runs a network, and the one place that picks it by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from pipeline.messages import ModelSpec
from pipeline.models.download import Progress

__all__ = ["Runner", "batch_sizes", "build_runner", "is_fake", "is_remote", "prepare"]


class Runner(Protocol):
    """A loaded network.

    Attributes:
        spec: What it is; set by `open`, with the execution provider in force.
        output_shapes: Shape of each output for one frame, leading 1 included, in the order of
            ``spec.output_names``; set by `open`.
        output_dtypes: numpy dtype name of each output; set by `open`.
        service_ns: Batch sizes that are warmed up, and what `forward` takes for each, in nanoseconds; set by
            `open`. Other sizes are to be padded to the next of these. May be empty with a batch limit of 1.
    """

    spec: ModelSpec
    output_shapes: tuple[tuple[int, ...], ...]
    output_dtypes: tuple[str, ...]
    service_ns: dict[int, int]

    def open(self) -> ModelSpec:
        """Load the model and warm it up. Heavy: runs in the process that will use it.

        Raises:
            ModelError: the file is missing, damaged, or of no family that we decode.
            ProviderError: the accelerator asked for is not there.
        """

    def forward(self, tensors: NDArray[Any], outputs: Sequence[NDArray[Any]]) -> None:
        """Run n frames.

        Args:
            tensors: Inputs (n, …) in the layout and dtype of ``spec``, contiguous.
            outputs: One contiguous buffer (n, …) per output, of `output_shapes` and `output_dtypes`; all
                of each is written.

        Raises:
            ModelError: shapes or dtypes differ, or the network failed.
        """

    def close(self) -> None:
        """Free the model; may be called twice, or without `open`."""


def batch_sizes(limit: int) -> tuple[int, ...]:
    """The batch sizes to warm up: powers of two, and the limit itself.

    An accelerator tunes its kernels for each shape that it meets, which takes from a tenth of a second to
    minutes; so there are few of them, and what lies between is padded.
    """
    powers = (1 << bit for bit in range(limit.bit_length()))
    return (*(size for size in powers if size < limit), limit)


def is_fake(model: str) -> bool:
    """Whether a model name means the fake one (``fake`` or ``fake?ms=50``)."""
    return model.partition("?")[0] == "fake"


def is_remote(model: str) -> bool:
    """Whether a model name means one on a model server (``oip://host:8001/name``)."""
    return model.partition("://")[0].lower() in ("oip", "oips", "oip+http", "oip+https")


def prepare(model: str, *, progress: Progress | None = None) -> None:
    """Make sure that the file of a model is here, so that `build_runner` need not fetch it.

    Args:
        model: As for `build_runner`.
        progress: Told how far a transfer is.

    Raises:
        ModelError: there is no such model, or it cannot be fetched.
    """
    if is_fake(model):
        build_runner(model)  # its options may be wrong
        return
    if is_remote(model):
        build_runner(model)  # its address may be; the server is asked when the model is opened
        return
    from pipeline.models.store import resolve

    resolve(model, progress=progress)


def build_runner(
    model: str,
    *,
    device: str = "auto",
    threads: int = 1,
    input_size: tuple[int, int] | None = None,
    batch: int = 1,
    precision: str = "auto",
) -> Runner:
    """The runner of a model, not yet opened; nothing heavy is imported for the fake one.

    Args:
        model: A name of ``framewire models list``, a path to an ONNX file, the address of a model on a model
            server (see `pipeline.models.remote`), or ``fake`` with options (see `pipeline.models.fake`).
        device: ``auto``, ``cpu``, ``cuda``, ``tensorrt`` or ``openvino``.
        threads: Threads of one inference on the CPU.
        input_size: Width and height in pixels, for a model whose input size is free.
        batch: Frames at once at most; every size of `batch_sizes` is warmed up by `Runner.open`.
        precision: ``auto`` for that of the file, or ``fp32``, ``fp16``, ``bf16`` where the device can.

    Raises:
        ModelError: the options of the fake model, or the address of a model server, are wrong.
        ProviderError: there is no such device or precision, the one does not do the other, or a model server
            is told either.
    """
    if is_fake(model):
        from pipeline.models.fake import FakeRunner

        return FakeRunner.from_name(model, batch=batch)
    if is_remote(model):
        from pipeline.models.remote import RemoteRunner

        return RemoteRunner(model, device=device, input_size=input_size, batch=batch, precision=precision)
    from pipeline.models.onnx import OnnxRunner

    return OnnxRunner(
        model, device=device, threads=threads, input_size=input_size, batch=batch, precision=precision
    )
