"""A model file as a graph that can be changed: read with its description, and written whole or not at all."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from pipeline.errors import ModelError
from pipeline.messages import ModelSpec
from pipeline.models.cards import CARD_FIELDS
from pipeline.models.graph.editing import sort_nodes
from pipeline.models.onnx import OnnxRunner
from pipeline.models.sessions import ORT_ERRORS, open_session
from pipeline.models.store import ModelFile, resolve

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = [
    "CARD_KEY",
    "Network",
    "bytes_in",
    "bytes_out",
    "changed",
    "check_target",
    "graph_errors",
    "read_network",
    "set_metadata",
    "temporary_folder",
    "write_network",
]

#: Metadata of a file that says what the file is; see `pipeline.models.cards`.
CARD_KEY = "framewire.card"
#: Protobuf's own limit for a file without external data.
_LARGEST = 2**31 - 1


@dataclass(frozen=True)
class Network:
    """A graph and what is known of it.

    Attributes:
        model: The graph; the functions of this package never change it in place.
        spec: What the stages around it must know.
        shapes: Shape of each output for one picture, leading 1 included, by name.
        path: Where it was read from.
    """

    model: ModelProto
    spec: ModelSpec
    shapes: Mapping[str, tuple[int, ...]]
    path: Path


def read_network(name_or_path: str) -> Network:
    """Read and recognise a model.

    Args:
        name_or_path: A name of ``framewire models list``, or a path.

    Raises:
        ModelError: there is no such file, it is of no family that we decode, or ``onnx`` is missing.
    """
    try:
        import onnx
    except ImportError as error:
        raise ModelError(
            "changing a model file needs the Python package onnx", hint="pip install 'framewire[models]'"
        ) from error
    file = resolve(name_or_path)
    runner = OnnxRunner(str(file.path), device="cpu")
    try:
        spec = runner.open()
    finally:
        runner.close()
    shapes = dict(zip(spec.output_names, runner.output_shapes, strict=True))
    model = onnx.load(file.path)
    _forget_weights_as_inputs(model)
    sort_nodes(model.graph)
    return Network(model, spec, shapes, file.path)


def changed(
    network: Network, model: ModelProto, spec: ModelSpec, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> Network:
    """The network with another graph and spec; the card within the graph says what the spec says.

    Args:
        network: What it was.
        model: The new graph; its metadata is changed in place.
        spec: The new spec.
        shapes: Where the outputs changed, their shapes.
    """
    plain = msgspec.to_builtins(spec)
    set_metadata(model, {CARD_KEY: json.dumps({field: plain[field] for field in CARD_FIELDS})})
    return replace(network, model=model, spec=spec, shapes=network.shapes if shapes is None else shapes)


def bytes_in(network: Network) -> int:
    """Bytes of one picture as the network takes it."""
    spec = network.spec
    return spec.input_width * spec.input_height * 3 * np.dtype(spec.input_dtype).itemsize


def bytes_out(network: Network) -> int:
    """Bytes that the network gives for one picture, in the outputs that the head reads."""
    from onnx import helper

    kinds = {info.name: info.type.tensor_type.elem_type for info in network.model.graph.output}
    return sum(
        int(np.prod(network.shapes[name])) * helper.tensor_dtype_to_np_dtype(kinds[name]).itemsize
        for name in network.spec.output_names
    )


def graph_errors() -> tuple[type[Exception], ...]:
    """All that ``onnx`` and the tools of onnxruntime raise; they share no base but Exception."""
    from onnx import checker, shape_inference, version_converter

    own: list[type[Exception]] = [
        checker.ValidationError,
        shape_inference.InferenceError,
        version_converter.ConvertError,
        AssertionError,
        KeyError,
        TypeError,
    ]
    return (*ORT_ERRORS, *own)


def set_metadata(model: ModelProto, entries: Mapping[str, str]) -> None:
    """Add entries to the metadata of a graph, or replace those of the same names."""
    kept = {entry.key: entry.value for entry in model.metadata_props}
    del model.metadata_props[:]
    for key, value in (kept | dict(entries)).items():
        model.metadata_props.add(key=key, value=value)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder for graphs on their way, gone at the end.

    Raises:
        ModelError: it cannot be made, or a file within cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="framewire-") as folder:
            yield Path(folder)
    except OSError as error:
        raise ModelError(
            f"a temporary file in {tempfile.gettempdir()} cannot be written: {error.strerror}",
            hint="make room there, or name another folder with TMPDIR",
        ) from error


def check_target(target: Path, source: Path) -> None:
    """Refuse to write over the file that is being read, or where nothing can be written.

    Raises:
        ModelError: see above.
    """
    if target.exists() and target.samefile(source):
        raise ModelError(
            f"{target} is the model that is read; it is never written over",
            hint=f"name another file: --out {target.with_name(target.stem + '_new.onnx')}",
        )
    if target.is_dir():
        raise ModelError(f"{target} is a folder", hint=f"name a file in it: --out {target / source.name}")
    if not target.parent.is_dir():
        raise ModelError(f"there is no folder {target.parent}", hint=f"mkdir -p {target.parent}")


def write_network(network: Network, target: Path) -> Path:
    """Write a network; the file appears whole, and only if onnxruntime loads it.

    Args:
        network: What to write.
        target: Where. A file of that name is replaced, unless it is the one that was read.

    Returns:
        The target.

    Raises:
        ModelError: it is the file that was read, it cannot be written, or the graph does not load.
    """
    import onnx

    check_target(target, network.path)
    if network.model.ByteSize() > _LARGEST:
        raise ModelError(f"{target} would be over 2 GB, more than one ONNX file holds")
    try:
        # Beside the target, so that the last step is a rename.
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".framewire-") as folder:
            built = Path(folder) / target.name
            onnx.save(network.model, built)
            _check_loads(built, target)
            built.replace(target)
    except OSError as error:
        raise ModelError(
            f"{target} cannot be written: {error.strerror}", hint="make room there, or name another --out"
        ) from error
    return target


def _check_loads(built: Path, target: Path) -> None:
    try:
        open_session(ModelFile(target.stem, built, ""), "cpu")
    except ModelError as error:
        reason = error.message.replace(str(built), "it")
        raise ModelError(
            f"{target} was not written: {reason}", hint="the graph has something that cannot be changed so"
        ) from error


def _forget_weights_as_inputs(model: ModelProto) -> None:
    """Old exports list every weight as an input that could be replaced, so nothing can be folded."""
    weights = {weight.name for weight in model.graph.initializer}
    inputs = [one for one in model.graph.input if one.name not in weights]
    if len(inputs) < len(model.graph.input):
        del model.graph.input[:]
        model.graph.input.extend(inputs)
        model.ir_version = max(model.ir_version, 4)  # before 4, weights had to be inputs
