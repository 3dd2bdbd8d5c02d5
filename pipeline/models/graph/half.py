"""Float16 inside, as GPUs like it: half the file, the network proper in half the bits.

The decoder stays in float32, for a float16 tells pixels over 512 apart by halves only; so do inputs, outputs
and the scaling of the picture. On a CPU every operation is cast to float32 and back: the file is for GPUs.
"""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING

import msgspec

from pipeline.errors import ModelError
from pipeline.models.graph.editing import PREFIX, rename, sort_nodes, tail_of
from pipeline.models.graph.network import Network, changed, graph_errors, set_metadata
from pipeline.models.sessions import first_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx import GraphProto, NodeProto

__all__ = ["halve"]


def halve(network: Network) -> Network:
    """Compute in float16, take and give what the network did.

    Args:
        network: A model with float32 weights.

    Raises:
        ModelError: it is in float16 or quantised already, or an operation cannot be converted.
    """
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    spec = network.spec
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    kinds = {weight.data_type for weight in model.graph.initializer}
    operations = {node.op_type for node in model.graph.node}
    if onnx.TensorProto.FLOAT16 in kinds or any("QuantizeLinear" in operation for operation in operations):
        raise ModelError(
            f"model {spec.name!r} is in float16 or quantised already", hint="name the float32 file"
        )
    kept = [*tail_of(model), *(node.name for node in model.graph.node if node.name.startswith(PREFIX))]
    # Until opset 19 it gives float32 only: it scales pixels, as in the default model.
    blocked = [*DEFAULT_OP_BLOCK_LIST, "DequantizeLinear"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of weights too small for float16, which become 0
            logging.disable(logging.WARNING)
            half = convert_float_to_float16(
                model, keep_io_types=True, op_block_list=blocked, node_block_list=kept
            )
    except graph_errors() as error:
        raise ModelError(
            f"model {spec.name!r} cannot be converted to float16: {first_line(error)}",
            hint="leave --fp16 out: TensorRT and OpenVINO choose their own precision",
        ) from error
    finally:
        logging.disable(logging.NOTSET)
    _drop_round_trips(half.graph)
    sort_nodes(half.graph)  # the converter puts its casts last
    set_metadata(half, {"framewire.precision": "float16, decoder in float32"})
    return changed(network, half, msgspec.structs.replace(spec))


def _drop_round_trips(graph: GraphProto) -> None:
    """Take out casts to float16 and straight back.

    The converter surrounds each node that stays in float32 with casts of its own, two to a tensor where it
    is read twice; between two such nodes pixels would be rounded to float16 all the same.
    """
    from onnx import TensorProto

    def casts_to(kind: int) -> list[NodeProto]:
        return [n for n in graph.node if n.op_type == "Cast" and n.attribute[0].i == kind]

    whole = {node.output[0]: node.input[0] for node in casts_to(TensorProto.FLOAT16)}
    # By the name of what a cast gives: the float32 tensor that it came from.
    origin = {
        node.output[0]: whole[node.input[0]]
        for node in casts_to(TensorProto.FLOAT)
        if whole.get(node.input[0], "").endswith("_cast_to_fp16")
    }
    outputs = {info.name for info in graph.output}
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name in origin:
                node.input[index] = origin[name]
    given = {name for name in origin if name in outputs}
    _keep(graph, lambda node: node.op_type != "Cast" or node.output[0] not in origin)
    for name in given:
        rename(graph, origin[name], name)
    used = {name for node in graph.node for name in node.input} | outputs
    seen: set[str] = set()

    def first_and_used(node: NodeProto) -> bool:
        fresh = node.output[0] not in seen
        seen.add(node.output[0])
        return node.op_type != "Cast" or (fresh and node.output[0] in used)

    _keep(graph, first_and_used)


def _keep(graph: GraphProto, wanted: Callable[[NodeProto], bool]) -> None:
    kept = [node for node in graph.node if wanted(node)]
    del graph.node[:]
    graph.node.extend(kept)
