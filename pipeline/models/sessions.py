"""Sessions of ONNX Runtime: made on the device asked for, or not at all.

A session runs on one thread that does not spin, unless told otherwise: stages run beside each other, and
throughput comes from several sessions rather than from several threads. The provider in force is read back
from the session, and so is how many operations it took, for onnxruntime itself falls back to the CPU without
a word.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from pipeline.errors import ModelError, ProviderError
from pipeline.heads import Signature, TensorInfo
from pipeline.models.options import Wish, provider_options
from pipeline.models.providers import (
    AUTO_ORDER,
    DEVICES,
    Device,
    check_precision,
    missing_for,
    precision_hint,
    precision_problem,
)
from pipeline.models.store import ModelFile, cache_dir

__all__ = ["ORT_ERRORS", "Opened", "first_line", "open_session", "signature_of"]

_log = logging.getLogger(__name__)

_FATAL = 4
_ERROR = 3
#: All that onnxruntime raises; its classes share no base but Exception.
ORT_ERRORS: tuple[type[Exception], ...] = (
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


@dataclass(frozen=True)
class Opened:
    """A session that runs.

    Attributes:
        session: The ``onnxruntime.InferenceSession``.
        device: Where it runs.
        refusals: What ``auto`` tried before, and why it was not taken.
        graphs: Whether it can capture CUDA graphs.
        elsewhere: Operations that the device left to the CPU, and all; (0, 0) where that is not told.
    """

    session: Any
    device: Device
    refusals: tuple[str, ...] = ()
    graphs: bool = False
    elsewhere: tuple[int, int] = (0, 0)


def open_session(file: ModelFile, device: str = "auto", wish: Wish | None = None) -> Opened:
    """Load a model file.

    Args:
        file: The model.
        device: ``auto`` for the best that really works, or a name of `pipeline.models.providers.DEVICES`.
        wish: How it shall run; None for the defaults of `Wish`.

    Raises:
        ModelError: the file cannot be loaded.
        ProviderError: the device is not there, does not compute in the precision asked for, or runs no
            operation of this model.
    """
    wish = wish or Wish()
    check_precision(wish.precision, device)
    built_in = ort.get_available_providers()
    refusals: list[str] = []
    for name in AUTO_ORDER if device == "auto" else (device,):
        candidate = DEVICES[name]
        missing = missing_for(candidate, built_in) or precision_problem(candidate, wish.precision)
        if not missing:
            try:
                opened = _opened(file, candidate, wish)
            except ModelError as error:
                if device != "auto" or name == AUTO_ORDER[-1]:
                    raise
                refusals.append(f"{name}: {error.message}")
                continue
            missing = _not_in_force(opened)
            if not missing:
                for refusal in refusals:
                    _log.info("not taken: %s", refusal)
                return replace(opened, refusals=tuple(refusals))
        if device != "auto":
            raise ProviderError(
                f"device {name!r} was asked for, but {missing}",
                hint="; or ".join(filter(None, [candidate.install, "use device: auto"])),
            )
        refusals.append(f"{name}: {missing}")
    if wish.precision != "auto":
        raise ProviderError(
            f"no device here computes in precision {wish.precision!r} ({'; '.join(refusals)})",
            hint=f"{precision_hint(wish.precision)}; or use precision: auto",
        )
    raise ProviderError(
        "onnxruntime runs on no device here", hint="pip install --force-reinstall onnxruntime"
    )


def signature_of(session: Any) -> Signature:
    """What a session says of its graph."""
    return Signature(
        _infos(session.get_inputs()),
        _infos(session.get_outputs()),
        dict(session.get_modelmeta().custom_metadata_map),
    )


def _infos(arguments: Sequence[Any]) -> tuple[TensorInfo, ...]:
    return tuple(TensorInfo(one.name, _DTYPES.get(one.type, one.type), tuple(one.shape)) for one in arguments)


def _opened(file: ModelFile, device: Device, wish: Wish) -> Opened:
    """A session on a device, with CUDA graphs where it can capture them."""
    graphs = device.name == "cuda" and wish.graphs
    try:
        session = _session_on(file, device, replace(wish, graphs=graphs))
    except ModelError as error:
        if not graphs:
            raise
        # A graph with operations on the CPU is refused as a whole.
        _log.info("%s runs without CUDA graphs: %s", file.name, error.message)
        graphs = False
        session = _session_on(file, device, replace(wish, graphs=False))
    elsewhere = (0, 0) if device.name == "cpu" else _elsewhere(session, device)
    if 0 < elsewhere[0] < elsewhere[1]:
        _log.info(
            "%s on %s: %d of %d operations run on the CPU", file.name, device.name, elsewhere[0], elsewhere[1]
        )
    return Opened(session, device, graphs=graphs, elsewhere=elsewhere)


def _not_in_force(opened: Opened) -> str:
    """Why a session does not run where it was meant to; empty if it does."""
    device = opened.device
    if opened.session.get_providers()[0] != device.provider:
        return _why_not_loaded(device)
    left, total = opened.elsewhere
    if total and left == total:
        return f"it runs none of the {total} operations of this model: all would run on the CPU"
    return ""


def _elsewhere(session: Any, device: Device) -> tuple[int, int]:
    """Operations that other providers run, and all."""
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return (0, 0)
    parts = [(part.ep_name, len(part.get_nodes())) for part in session.get_provider_graph_assignment_info()]
    total = sum(count for _, count in parts)
    return (total - sum(count for name, count in parts if name == device.provider), total)


def _session_on(file: ModelFile, device: Device, wish: Wish) -> Any:
    options = _session_options(wish.threads)
    inputs: tuple[TensorInfo, ...] = ()
    if device.name != "cpu":
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if device.name == "tensorrt":
        # Its options name the inputs, which only a session tells.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        inputs = signature_of(_load(file, options, ["CPUExecutionProvider"])).inputs
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    providers: list[Any] = [
        (device.provider, provider_options(device, wish, _folder(file, device, wish), inputs))
    ]
    if device.name != "cpu":
        # Operations that the device lacks run on the CPU.
        providers.append("CPUExecutionProvider")
    return _load(file, options, providers, nvidia=device.nvidia)


def _session_options(threads: int) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = _ERROR  # old exports list their weights as inputs: a warning for each
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _load(file: ModelFile, options: Any, providers: list[Any], *, nvidia: bool = False) -> Any:
    # A provider that does not load is our error to tell, in one line: not onnxruntime's in ten.
    ort.set_default_logger_severity(_FATAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            if nvidia:
                ort.preload_dlls()
            return ort.InferenceSession(str(file.path), options, providers=providers, enable_fallback=0)
    except ORT_ERRORS as error:
        if "xternal data" in str(error):
            raise ModelError(
                f"{file.path} keeps its weights in other files, which have to lie beside it",
                hint="keep them together, or make one file in Python: onnx.save(onnx.load(IN), OUT)",
            ) from error
        raise ModelError(
            f"{file.path} cannot be loaded as an ONNX model: {first_line(error)}",
            hint="it is damaged, is not ONNX, or needs a newer onnxruntime; fetch or export it again",
        ) from error
    finally:
        ort.set_default_logger_severity(_ERROR)


def _folder(file: ModelFile, device: Device, wish: Wish) -> Path:
    """Where a provider keeps what it built for one file in one precision."""
    folder = cache_dir() / device.name / f"{file.sha256[:16] or file.name}-{wish.precision}"
    if device.name in ("tensorrt", "openvino"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelError(
                f"{folder}, where {device.name} keeps what it built, cannot be made: {error.strerror}",
                hint="make room there, or name another folder with FRAMEWIRE_CACHE",
            ) from error
    return folder


def _why_not_loaded(device: Device) -> str:
    """Which library a provider misses; onnxruntime only logs it."""
    short = device.provider.removesuffix("ExecutionProvider").lower()
    library = Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{short}.so"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return f"{device.provider} did not start"


def first_line(error: Exception) -> str:
    """The message without onnxruntime's prefix ``[ONNXRuntimeError] : 7 : INVALID_PROTOBUF :``."""
    line, _, _ = str(error).strip().partition("\n")
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", line)
