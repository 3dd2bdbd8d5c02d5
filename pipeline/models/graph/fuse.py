"""Preprocessing inside the graph: uint8 pixels (n, h, w, 3) go in, as they lie in a picture.

A quarter of the bytes travel to ``infer``, and the cast, the scaling and the transposition are done by the
runtime, where they cost next to nothing. The order of the channels stays the model's own: the letterbox
writes either for free.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from pipeline.errors import ModelError
from pipeline.models.graph.editing import Additions, rename
from pipeline.models.graph.network import Network, changed

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

    from pipeline.messages import ModelSpec

__all__ = ["fuse", "takes_pixels"]


def takes_pixels(spec: ModelSpec) -> bool:
    """Whether a model takes uint8 pixels (n, h, w, 3) already."""
    return (spec.input_dtype, spec.input_layout) == ("uint8", "nhwc")


def fuse(network: Network) -> Network:
    """Take uint8 pixels instead of scaled floats.

    The operations are those of `pipeline.vision.tensor.TensorFiller` in its order, in float32: the network
    proper sees the same bits. A free width or height becomes the one in the spec; a free batch stays free.

    Args:
        network: A model that takes ``float32`` or ``float16``, or ``uint8`` as (n, 3, h, w).

    Returns:
        A model that takes ``uint8`` (n, h, w, 3) under the same input name.

    Raises:
        ModelError: it takes such pixels already, or its picture input cannot be told.
    """
    import onnx

    spec = network.spec
    if takes_pixels(spec):
        raise ModelError(
            f"model {spec.name!r} takes uint8 pixels already: there is nothing to fuse",
            hint="leave it as it is; --top-k and --fp16 work on it too",
        )
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    graph = model.graph
    picture = _picture_of(model, spec)
    additions = Additions(graph)
    inner = additions.free(f"{picture.name}_scaled")
    rename(graph, picture.name, inner)
    _write(additions, picture.name, inner, spec, len(picture.type.tensor_type.shape.dim))
    additions.prepend()
    _declare_pixels(picture, spec)
    new = msgspec.structs.replace(
        spec, input_dtype="uint8", input_layout="nhwc", mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
    )
    return changed(network, model, new)


def _picture_of(model: ModelProto, spec: ModelSpec) -> ValueInfoProto:
    found: list[ValueInfoProto] = [
        one
        for one in model.graph.input
        if one.name not in spec.feeds and len(one.type.tensor_type.shape.dim) in (3, 4)
    ]
    if len(found) != 1:
        raise ModelError(
            f"model {spec.name!r} has {len(found)} inputs that could be the picture, not one",
            hint='give the values of the others in its card: {"feeds": {"NAME": [640, 640]}}',
        )
    return found[0]


def _write(additions: Additions, pixels: str, scaled: str, spec: ModelSpec, rank: int) -> None:
    from onnx import TensorProto

    steps: list[tuple[str, list[str], dict[str, object]]] = []
    channels_first = spec.input_layout == "nchw"
    if channels_first:
        # Bytes first: a quarter of what floats would move.
        steps.append(("Transpose", [], {"perm": [0, 3, 1, 2] if rank == 4 else [2, 0, 1]}))
    if spec.input_dtype != "uint8":
        shape = (3, 1, 1) if channels_first else (3,)
        steps.append(("Cast", [], {"to": TensorProto.FLOAT}))
        if any(spec.mean):
            steps.append(("Sub", [additions.constant(np.array(spec.mean, np.float32).reshape(shape))], {}))
        if spec.std != (1.0, 1.0, 1.0):
            steps.append(("Div", [additions.constant(np.array(spec.std, np.float32).reshape(shape))], {}))
        if spec.input_dtype == "float16":
            steps.append(("Cast", [], {"to": TensorProto.FLOAT16}))
    tensor = pixels
    for number, (operation, others, attributes) in enumerate(steps, start=1):
        output = scaled if number == len(steps) else ""
        tensor = additions.node(operation, [tensor, *others], output, **attributes)


def _declare_pixels(picture: ValueInfoProto, spec: ModelSpec) -> None:
    from onnx import TensorProto

    tensor = picture.type.tensor_type
    tensor.elem_type = TensorProto.UINT8
    sizes = (spec.input_height, spec.input_width, 3)
    for dimension, size in zip(list(tensor.shape.dim)[-3:], sizes, strict=True):
        dimension.Clear()
        dimension.dim_value = size
