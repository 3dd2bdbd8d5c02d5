"""ONNX Runtime sessions; the only module that imports onnxruntime.

A session runs on one thread that does not spin, unless told otherwise: stages run beside each other, and
throughput comes from several sessions rather than from several threads. The provider in force is read back
from the session, for onnxruntime itself falls back to the CPU without a word.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from pipeline.errors import ModelError, ProviderError
from pipeline.heads import Signature, TensorInfo
from pipeline.messages import ModelSpec
from pipeline.models.base import batch_sizes
from pipeline.models.describe import card_of, describe
from pipeline.models.providers import AUTO_ORDER, DEVICES, Device, missing_for
from pipeline.models.store import ModelFile, cache_dir, resolve

__all__ = ["DEFAULT_SIZE", "OnnxRunner"]

_log = logging.getLogger(__name__)

#: Edge in pixels of a free input when nobody names one.
DEFAULT_SIZE = 640

#: The first one tunes, the quickest of the others counts.
_WARM_RUNS = 3
_FATAL = 4
_ERROR = 3
_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(bool)": "bool",
}
#: All that onnxruntime raises; its classes share no base but Exception.
_ORT_ERRORS: tuple[type[Exception], ...] = (
    ort_errors.EPFail,
    ort_errors.EngineError,
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.ModelLoaded,
    ort_errors.NoModel,
    ort_errors.NoSuchFile,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    RuntimeError,
    ValueError,
)


class OnnxRunner:
    """A network in an ONNX Runtime session; a `pipeline.models.base.Runner`.

    Args:
        model: A name of `pipeline.models.store.KNOWN`, or a path.
        device: ``auto`` for the best that really works, or a name of `DEVICES`.
        threads: Threads of one inference on the CPU.
        input_size: Width and height in pixels, for a model whose input size is free.
        batch: Frames at once at most.

    Attributes:
        why: Why the model is taken for one of its family; set by `open`.
        refusals: What ``auto`` tried before and why it was not taken; set by `open`.
        signature: Inputs and outputs with their sizes; set by `open`.

    Raises:
        ProviderError: there is no such device.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        threads: int = 1,
        input_size: tuple[int, int] | None = None,
        batch: int = 1,
    ) -> None:
        if device != "auto" and device not in DEVICES:
            raise ProviderError(
                f"there is no device {device!r}", hint=f"use one of auto, {', '.join(sorted(DEVICES))}"
            )
        self.spec: ModelSpec
        self.output_shapes: tuple[tuple[int, ...], ...] = ()
        self.output_dtypes: tuple[str, ...] = ()
        self.service_ns: dict[int, int] = {}
        self.why = ""
        self.refusals: list[str] = []
        self.signature = Signature((), ())
        self._model = model
        self._device = device
        self._threads = threads
        self._input_size = input_size
        self._batch = batch
        self._session: Any = None
        self._binding: Any = None

    def open(self) -> ModelSpec:
        """Load, recognise and warm up the model; see `Runner.open`."""
        file = resolve(self._model)
        card = card_of(file.path)
        provider = self._load(file)
        try:
            self._recognise(file, card, provider)
            self._binding = self._session.io_binding()
            if self._batch > 1:
                self._warm_up()
        except ModelError:
            self.close()
            raise
        return self.spec

    def forward(self, tensors: NDArray[Any], outputs: Sequence[NDArray[Any]]) -> None:
        """Run n frames, outputs written straight into the buffers; see `Runner.forward`."""
        self._check(tensors, outputs)
        if len(tensors) > 1 and isinstance(self.signature.inputs[0].shape[0], int):
            for index in range(len(tensors)):
                part = slice(index, index + 1)
                self._run(tensors[part], [buffer[part] for buffer in outputs])
            return
        self._run(tensors, outputs)

    def close(self) -> None:
        """Free the session."""
        self._binding = None
        self._session = None

    def _recognise(self, file: ModelFile, card: dict[str, Any], provider: str) -> None:
        declared = _signature_of(self._session)
        sized = _with_size(declared, self._input_size or _size_on(card))
        measured = self._measure(sized)
        self.signature = sized if measured is None else _with_outputs(sized, measured)
        self.spec, self.why = describe(
            self.signature, name=file.name, sha256=file.sha256, card=card, provider=provider
        )
        if sized.inputs != declared.inputs:
            self.why += f"; its input size is free, {self.spec.input_width}x{self.spec.input_height} taken"
        by_name = {info.name: info for info in self.signature.outputs}
        outputs = [by_name[name] for name in self.spec.output_names]
        self.output_shapes = tuple((1, *_sizes(info.shape[1:])) for info in outputs)
        self.output_dtypes = tuple(info.dtype for info in outputs)

    def _warm_up(self) -> None:
        """Run a batch of each size: shapes are tuned before the first frame, and times are known.

        Raises:
            ModelError: the model takes one picture at a time.
        """
        info = self.signature.inputs[0]
        hint = "set stages.infer.batch: 1, or export the model with a free (dynamic) batch axis"
        if isinstance(info.shape[0], int):
            raise ModelError(
                f"model {self.spec.name!r} takes one picture at a time, not batches of {self._batch}",
                hint=hint,
            )
        sizes = batch_sizes(self._batch)
        tensors = np.zeros((sizes[-1], *_sizes(info.shape[1:])), info.dtype)
        outputs = [
            np.empty((sizes[-1], *shape[1:]), dtype)
            for shape, dtype in zip(self.output_shapes, self.output_dtypes, strict=True)
        ]
        # The largest first: TensorRT builds anew for a shape outside of those that it knows, 1 among them.
        for size in reversed(sizes):
            times = []
            for _ in range(_WARM_RUNS):
                start_ns = time.monotonic_ns()
                try:
                    self._run(tensors[:size], [buffer[:size] for buffer in outputs])
                except ModelError as error:
                    raise ModelError(
                        f"{error.message}, with a batch of {size} pictures", hint=hint
                    ) from error
                times.append(time.monotonic_ns() - start_ns)
            self.service_ns[size] = min(times[1:])

    def _run(self, tensors: NDArray[Any], outputs: Sequence[NDArray[Any]]) -> None:
        binding = self._binding
        binding.bind_input(
            self.signature.inputs[0].name, "cpu", 0, tensors.dtype, tensors.shape, tensors.ctypes.data
        )
        for name, buffer in zip(self.spec.output_names, outputs, strict=True):
            binding.bind_output(name, "cpu", 0, buffer.dtype, buffer.shape, buffer.ctypes.data)
        try:
            self._session.run_with_iobinding(binding)
            # Copies back from a device have ended only now; on the CPU there is nothing to wait for.
            binding.synchronize_outputs()
        except _ORT_ERRORS as error:
            raise ModelError(f"model {self.spec.name!r} failed: {_first_line(error)}") from error

    def _check(self, tensors: NDArray[Any], outputs: Sequence[NDArray[Any]]) -> None:
        """Refuse what the bound pointers would misread.

        Raises:
            ModelError: see `forward`.
        """
        spec = self.spec
        size = (spec.input_height, spec.input_width)
        wanted: list[tuple[tuple[int, ...], str]] = [
            ((3, *size) if spec.input_layout == "nchw" else (*size, 3), spec.input_dtype)
        ]
        wanted += [
            (shape[1:], dtype) for shape, dtype in zip(self.output_shapes, self.output_dtypes, strict=True)
        ]
        got = [(array.shape[1:], array.dtype.name) for array in (tensors, *outputs)]
        counts = {len(array) for array in (tensors, *outputs)}
        if got != wanted or len(counts) != 1 or not all(a.flags.c_contiguous for a in (tensors, *outputs)):
            raise ModelError(f"model {spec.name!r} takes and gives {wanted} per frame, contiguous; got {got}")

    def _load(self, file: ModelFile) -> str:
        """Make the session; the provider in force."""
        built_in = ort.get_available_providers()
        for name in AUTO_ORDER if self._device == "auto" else (self._device,):
            device = DEVICES[name]
            missing = missing_for(device, built_in)
            if not missing:
                session = self._session_on(file, device)
                if session.get_providers()[0] == device.provider:
                    self._session = session
                    for refusal in self.refusals:
                        _log.info("not taken: %s", refusal)
                    return device.provider
                missing = _why_not_loaded(device)
            if self._device != "auto":
                raise ProviderError(
                    f"device {name!r} was asked for, but {missing}",
                    hint=f"{device.install}; or use device: auto",
                )
            self.refusals.append(f"{name}: {missing}")
        raise ProviderError(
            "onnxruntime runs on no device here", hint="pip install --force-reinstall onnxruntime"
        )

    def _session_on(self, file: ModelFile, device: Device) -> Any:
        options = ort.SessionOptions()
        options.log_severity_level = _ERROR  # old exports list their weights as inputs: a warning for each
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        providers: list[Any] = [(device.provider, _provider_options(device))]
        if device.name != "cpu":
            # Operations that the device lacks run on the CPU.
            providers.append("CPUExecutionProvider")
        # A provider that does not load is our error to tell, in one line: not onnxruntime's in ten.
        ort.set_default_logger_severity(_FATAL)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                if device.nvidia:
                    ort.preload_dlls()
                return ort.InferenceSession(str(file.path), options, providers=providers, enable_fallback=0)
        except _ORT_ERRORS as error:
            raise ModelError(
                f"{file.path} cannot be loaded as an ONNX model: {_first_line(error)}",
                hint="it is damaged, is not ONNX, or needs a newer onnxruntime; fetch or export it again",
            ) from error
        finally:
            ort.set_default_logger_severity(_ERROR)

    def _measure(self, signature: Signature) -> list[NDArray[Any]] | None:
        """Run one blank picture: warms the session up, and tells the sizes that the graph leaves open.

        None when the model does not take one picture, which the heads will say better.
        """
        if len(signature.inputs) != 1:
            return None
        info = signature.inputs[0]
        if len(info.shape) != 4 or len(_sizes(info.shape[1:])) != 3 or info.dtype not in _DTYPES.values():
            return None
        if isinstance(info.shape[0], int) and info.shape[0] != 1:
            raise ModelError(
                f"model {self._model!r} takes batches of exactly {info.shape[0]} pictures",
                hint="export it with a batch of 1, or with a free one",
            )
        blank = np.zeros((1, *_sizes(info.shape[1:])), info.dtype)
        try:
            outputs = self._session.run(None, {info.name: blank})
        except _ORT_ERRORS as error:
            raise ModelError(
                f"model {self._model!r} fails on a blank picture: {_first_line(error)}"
            ) from error
        return [np.asarray(output) for output in outputs]


def _signature_of(session: Any) -> Signature:
    def infos(arguments: Sequence[Any]) -> tuple[TensorInfo, ...]:
        return tuple(
            TensorInfo(one.name, _DTYPES.get(one.type, one.type), tuple(one.shape)) for one in arguments
        )

    metadata = dict(session.get_modelmeta().custom_metadata_map)
    return Signature(infos(session.get_inputs()), infos(session.get_outputs()), metadata)


def _with_size(signature: Signature, size: tuple[int, int] | None) -> Signature:
    """The signature with a free input width or height filled in.

    Raises:
        ModelError: the size asked for is not the one that the graph fixes.
    """
    if len(signature.inputs) != 1 or len(signature.inputs[0].shape) != 4:
        return signature
    info = signature.inputs[0]
    where = slice(1, 3) if info.shape[3] == 3 else slice(2, 4)
    width, height = size or (DEFAULT_SIZE, DEFAULT_SIZE)
    shape = list(info.shape)
    filled = [
        have if isinstance(have, int) else want
        for have, want in zip(shape[where], (height, width), strict=True)
    ]
    if size and filled != [height, width]:
        raise ModelError(
            f"the model takes {filled[1]}x{filled[0]} pixels, not {width}x{height}",
            hint="leave the input size out, or export the model for it",
        )
    shape[where] = filled
    return Signature(
        (TensorInfo(info.name, info.dtype, tuple(shape)),), signature.outputs, signature.metadata
    )


def _with_outputs(signature: Signature, measured: Sequence[NDArray[Any]]) -> Signature:
    """The signature with the output sizes that a run had; the batch stays as declared."""
    outputs = tuple(
        TensorInfo(info.name, array.dtype.name, (*info.shape[:1], *array.shape[1:]))
        for info, array in zip(signature.outputs, measured, strict=True)
    )
    return Signature(signature.inputs, outputs, signature.metadata)


def _size_on(card: dict[str, Any]) -> tuple[int, int] | None:
    width, height = card.get("input_width"), card.get("input_height")
    return (width, height) if isinstance(width, int) and isinstance(height, int) else None


def _sizes(shape: Sequence[int | str | None]) -> tuple[int, ...]:
    return tuple(size for size in shape if isinstance(size, int))


def _provider_options(device: Device) -> dict[str, str]:
    if device.name == "tensorrt":
        # Engines take minutes to build; they are kept.
        folder = cache_dir() / "tensorrt"
        folder.mkdir(parents=True, exist_ok=True)
        return {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}
    return {}


def _why_not_loaded(device: Device) -> str:
    """Which library a provider misses; onnxruntime only logs it."""
    short = device.provider.removesuffix("ExecutionProvider").lower()
    library = Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{short}.so"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return f"{device.provider} did not start"


def _first_line(error: Exception) -> str:
    """The message without onnxruntime's prefix ``[ONNXRuntimeError] : 7 : INVALID_PROTOBUF :``."""
    line, _, _ = str(error).strip().partition("\n")
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", line)
