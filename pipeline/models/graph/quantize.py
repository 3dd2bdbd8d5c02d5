"""Static int8 quantisation, calibrated on frames of the user's own.

QDQ layout: uint8 activations between the ranges seen on the frames, int8 weights per channel, as ONNX
Runtime's CPU and TensorRT take them. The decoder behind the last weights stays in float, for it holds pixels
beside probabilities; so does the scaling of the picture. Quick on CPUs with VNNI; whether a network survives
is for `pipeline.models.graph.compare` to say.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.models.graph.compare import Step, Trial
from pipeline.models.graph.editing import PREFIX, name_nodes, opset_of, tail_of
from pipeline.models.graph.network import Network, changed, graph_errors, set_metadata, temporary_folder
from pipeline.models.sessions import first_line

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["METHODS", "Method", "quantize"]

Method = Literal["minmax", "percentile", "entropy"]
#: How the range of an activation follows from what was seen.
METHODS: tuple[Method, ...] = ("minmax", "percentile", "entropy")
#: Weights per channel need it.
_OPSET = 13
#: Pictures whose activations are held in memory at once, some 130 MB for each; then they are only counted.
_MOST_AT_ONCE = 4


def quantize(
    network: Network,
    tensors: Sequence[NDArray[Any]],
    *,
    method: Method = "minmax",
    exclude: Sequence[str] = (),
    step: Step | None = None,
) -> Network:
    """Quantise a network to int8.

    Args:
        network: A model with float32 weights, best with its preprocessing fused.
        tensors: Calibration pictures (1, …), as the network takes them; 100 are enough.
        method: ``minmax`` takes the extremes, ``percentile`` the range of 99.999 %, ``entropy`` the range
            that loses the least information.
        exclude: Nodes of the graph to leave in float besides its tail, by name.
        step: Told after each picture.

    Returns:
        The int8 network, with the same inputs and outputs.

    Raises:
        ModelError: there is no such node or no picture, the model is not in float32, or onnxruntime cannot
            quantise it.
    """
    spec = network.spec
    _check(network, tensors, exclude)
    pictures = _Pictures(tensors, Trial(network), step)
    logging.disable(logging.WARNING)  # it advises what is done here already
    try:
        prepared = _prepared(network.model)
        kept = {*tail_of(prepared), *exclude}
        kept |= {node.name for node in prepared.graph.node if node.name.startswith(PREFIX)}
        model = _quantized(prepared, pictures, sorted(kept), method)
    except graph_errors() as error:
        raise ModelError(
            f"model {spec.name!r} cannot be quantised: {first_line(error)}",
            hint="export it with opset 13 or newer, or leave what it complains of in float with --exclude",
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    del model.graph.value_info[:]
    set_metadata(model, {entry.key: entry.value for entry in network.model.metadata_props})
    set_metadata(model, {"framewire.precision": f"int8 (QDQ, {method} over {len(tensors)} frames)"})
    return changed(network, model, spec)


def _check(network: Network, tensors: Sequence[NDArray[Any]], exclude: Sequence[str]) -> None:
    import onnx

    graph = network.model.graph
    if not tensors:
        raise ModelError("there is no frame to calibrate with", hint="name a video or a folder of pictures")
    operations = {node.op_type for node in graph.node}
    if any("QuantizeLinear" in operation or operation.endswith("Integer") for operation in operations):
        raise ModelError(f"model {network.spec.name!r} is quantised already", hint="name the float32 file")
    if any(weight.data_type == onnx.TensorProto.FLOAT16 for weight in graph.initializer):
        raise ModelError(f"model {network.spec.name!r} has float16 weights", hint="name the float32 file")
    names = [node.name for node in graph.node]
    for name in exclude:
        if name not in names:
            near = get_close_matches(name, names, n=3)
            raise ModelError(
                f"model {network.spec.name!r} has no node {name!r} to exclude",
                hint=f"did you mean {' or '.join(near)}?" if near else "netron.app shows the nodes of a file",
            )


def _prepared(model: ModelProto) -> ModelProto:
    """Shapes inferred, constants folded, BatchNorms merged into convolutions."""
    import onnx
    from onnx import version_converter
    from onnxruntime.quantization.shape_inference import quant_pre_process

    if opset_of(model) < _OPSET:
        model = version_converter.convert_version(model, _OPSET)
    with temporary_folder() as folder:
        source, path = folder / "source.onnx", folder / "prepared.onnx"
        onnx.save(model, source)  # a graph in memory would have its weights moved elsewhere
        # Symbolic shapes would need sympy, and only help where sizes are free.
        quant_pre_process(source, path, skip_symbolic_shape=True)
        prepared = onnx.load(path)
    name_nodes(prepared.graph)
    return prepared


def _quantized(prepared: ModelProto, pictures: _Pictures, kept: list[str], method: Method) -> ModelProto:
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    methods = {
        "minmax": CalibrationMethod.MinMax,
        "percentile": CalibrationMethod.Percentile,
        "entropy": CalibrationMethod.Entropy,
    }
    options = {
        "CalibStridedMinMax": pictures.at_once,  # for the other methods too, in spite of its name
        # One range on each side of zero: most activations are positive.
        "CalibTensorRangeSymmetric": False,
    }
    with temporary_folder() as folder:
        source, target = folder / "float.onnx", folder / "int8.onnx"
        onnx.save(prepared, source)
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it is about
            quantize_static(
                source,
                target,
                pictures,
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=kept,
                calibrate_method=methods[method],
                extra_options=options,
            )
        return onnx.load(target)


class _Pictures:
    """Calibration pictures, one at a time, as the quantiser asks for them.

    It is a ``onnxruntime.quantization.CalibrationDataReader`` by its methods.
    """

    def __init__(self, tensors: Sequence[NDArray[Any]], trial: Trial, step: Step | None) -> None:
        self._tensors = tensors
        self._trial = trial
        self._step = step
        self._next, self._end = 0, len(tensors)
        # The quantiser takes groups of one size only.
        self.at_once = max(size for size in range(1, _MOST_AT_ONCE + 1) if len(tensors) % size == 0)

    def __len__(self) -> int:
        return len(self._tensors)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Give these pictures next."""
        self._next, self._end = start_index, end_index

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        """What the network takes for the next picture; None at the end of the range."""
        if self._next >= self._end:
            return None
        self._next += 1
        if self._step is not None:
            self._step(self._next)
        return self._trial.feed(self._tensors[self._next - 1])
