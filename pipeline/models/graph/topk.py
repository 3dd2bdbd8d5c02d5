"""The best rows only, picked inside the graph: a hundredth of the bytes leaves ``infer``.

A detector of the grid kind gives a row for each of thousands of places, nearly all of them empty. Here the
``k`` places with the best scores of any class are gathered before the output. NMS follows as before, so a
frame's detections are the same as long as no more than ``k`` places reach the confidence.

Heads that tell a row's place by its number are decoded on the way, for the rows that are left only:

- ``yolox`` becomes the layout of ``yolov5``, centres and sizes in pixels;
- ``nanodet`` and ``picodet`` with distances become NanoDet's layout of ``boxes`` and ``scores``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from pipeline.errors import ModelError
from pipeline.heads.base import grid_counts, grid_points
from pipeline.models.graph.editing import Additions, opset_of, rename
from pipeline.models.graph.network import Network, changed

if TYPE_CHECKING:
    from onnx import ModelProto

    from pipeline.messages import ModelSpec

__all__ = ["FAMILIES", "keep_best"]

_STRIDES = (8, 16, 32, 64)
#: GatherElements, and TopK with its count as an input.
_OLDEST_OPSET = 11


def keep_best(network: Network, k: int) -> Network:
    """Leave only the ``k`` rows with the best scores in the outputs.

    Args:
        network: A detector of one of `FAMILIES`.
        k: Rows to keep; where there are fewer, all are kept, best first.

    Returns:
        A network with outputs of ``k`` rows, by descending score; it may be of another family.

    Raises:
        ModelError: its family gives few rows already or has another layout, or the graph is too old.
    """
    import onnx

    spec = network.spec
    if k < 1:
        raise ModelError(f"a graph cannot keep {k} rows", hint="300 serves most scenes, 1000 crowds")
    write = FAMILIES.get(spec.family)
    if write is None:
        raise ModelError(
            f"model {spec.name!r} is of the family {spec.family}, which has no rows to pick in the graph",
            hint=f"leave --top-k out; it serves {', '.join(FAMILIES)}",
        )
    if opset_of(network.model) < _OLDEST_OPSET:
        raise ModelError(
            f"model {spec.name!r} uses opset {opset_of(network.model)}, picking rows needs {_OLDEST_OPSET}",
            hint="export it again with a newer opset",
        )
    model = onnx.ModelProto()
    model.CopyFrom(network.model)
    rows = _Rows(model, network, k)
    family, outputs = write(rows)
    rows.additions.append()
    _declare(model, outputs)
    names = tuple(one.name for one in outputs)
    options = spec.options if family == spec.family and names == spec.output_names else {}
    new = msgspec.structs.replace(spec, family=family, output_names=names, options=options)
    return changed(network, model, new, {one.name: (1, *one.shape[1:]) for one in outputs})


@dataclass(frozen=True)
class _Output:
    """An output of the new graph; the batch is 0 in its shape."""

    name: str
    shape: tuple[int, ...]
    kind: int


class _Rows:
    """Writes nodes that score, pick and gather rows of the outputs of one network."""

    def __init__(self, model: ModelProto, network: Network, k: int) -> None:
        self.additions = Additions(model.graph)
        self.spec = network.spec
        self.shapes = network.shapes
        self._model = model
        self._k = k
        self._kinds = {info.name: info.type.tensor_type.elem_type for info in model.graph.output}

    def take(self, name: str) -> tuple[str, int]:
        """What an output was, under a name that leaves the old one free; and its element type."""
        inner = self.additions.free(f"{name}_all")
        rename(self._model.graph, name, inner)
        return inner, self._kinds[name]

    def claim(self, name: str) -> str:
        """Make a name free for a new output, whatever had it inside the graph."""
        rename(self._model.graph, name, self.additions.free(f"{name}_inner"))
        return name

    def count(self, rows: int) -> int:
        """How many rows are kept of so many."""
        return min(self._k, rows)

    def cut(self, tensor: str, start: int, end: int, axis: int) -> str:
        """``tensor[..., start:end, ...]`` on one axis."""
        bounds = [self.additions.constant(np.array([value], np.int64)) for value in (start, end, axis)]
        return self.additions.node("Slice", [tensor, *bounds])

    def best_of(self, tensor: str, axis: int) -> str:
        """The largest value along an axis, which goes away."""
        if opset_of(self._model) >= 18:
            axes = self.additions.constant(np.array([axis], np.int64))
            return self.additions.node("ReduceMax", [tensor, axes], keepdims=0)
        return self.additions.node("ReduceMax", [tensor], axes=[axis], keepdims=0)

    def pick(self, scores: str, rows: int) -> str:
        """Numbers (n, k) of the best of ``scores`` (n, rows), best first."""
        count = self.additions.constant(np.array([self.count(rows)], np.int64))
        names = (self.additions.free("framewire_best"), self.additions.free("framewire_rows"))
        return self.additions.nodes_of("TopK", [scores, count], names, axis=1, largest=1, sorted=1)[1]

    def gather(self, tensor: str, rows: str, columns: int, axis: int, output: str = "") -> str:
        """Rows (n, k, columns) of (n, rows, columns) for ``axis`` 1, columns (n, columns, k) for 2."""
        shape = (0, -1, 1) if axis == 1 else (0, 1, -1)
        wide = (1, 1, columns) if axis == 1 else (1, columns, 1)
        numbers = self.additions.node("Reshape", [rows, self._shape(*shape)])
        numbers = self.additions.node("Expand", [numbers, self._shape(*wide)])
        return self.additions.node("GatherElements", [tensor, numbers], output, axis=axis)

    def constants_at(self, table: Any, rows: str) -> str:
        """Rows (n, k, columns) of a constant (rows, columns)."""
        return self.additions.node("Gather", [self.additions.constant(table), rows], axis=0)

    def reshape(self, tensor: str, *shape: int) -> str:
        """The same numbers in another shape; 0 keeps a size, -1 takes the rest."""
        return self.additions.node("Reshape", [tensor, self._shape(*shape)])

    def float32(self, tensor: str, kind: int) -> str:
        """The tensor as float32: pixels do not fit float16."""
        from onnx import TensorProto

        if kind == TensorProto.FLOAT:
            return tensor
        return self.additions.node("Cast", [tensor], to=TensorProto.FLOAT)

    def _shape(self, *sizes: int) -> str:
        return self.additions.constant(np.array(sizes, np.int64))


def _yolov5(rows: _Rows) -> tuple[str, list[_Output]]:
    """(n, rows, 5 + classes): score = objectness * best class."""
    name, count, columns = _only_output(rows)
    tensor, kind = rows.take(name)
    picked = rows.pick(_product_score(rows, tensor, columns), count)
    rows.gather(tensor, picked, columns, 1, name)
    return "yolov5", [_Output(name, (0, rows.count(count), columns), kind)]


def _yolox(rows: _Rows) -> tuple[str, list[_Output]]:
    """As yolov5, then centre = (xy + cell) * stride and size = exp(wh) * stride for what is left."""
    from onnx import TensorProto

    spec = rows.spec
    name, count, columns = _only_output(rows)
    points, sizes = grid_points(spec.input_width, spec.input_height, _STRIDES[:3], 0.0)
    if count != len(points):
        raise _unexpected(spec, f"{count} rows, not the {len(points)} cells of strides 8, 16 and 32")
    tensor, kind = rows.take(name)
    picked = rows.pick(_product_score(rows, tensor, columns), count)
    left = rows.float32(rows.gather(tensor, picked, columns, 1), kind)
    stride = rows.constants_at(sizes, picked)
    node = rows.additions.node
    centre = node("Mul", [rows.cut(left, 0, 2, 2), stride])
    centre = node("Add", [centre, rows.constants_at(points, picked)])
    size = node("Mul", [node("Exp", [rows.cut(left, 2, 4, 2)]), stride])
    node("Concat", [centre, size, rows.cut(left, 4, columns, 2)], name, axis=2)
    return "yolov5", [_Output(name, (0, rows.count(count), columns), TensorProto.FLOAT)]


def _yolov8(rows: _Rows) -> tuple[str, list[_Output]]:
    """(n, 4 + classes, rows): score = best class."""
    name = rows.spec.output_names[0]
    shape = rows.shapes[name]
    if len(rows.spec.output_names) != 1 or len(shape) != 3 or shape[1] >= shape[2]:
        raise _unexpected(rows.spec, f"outputs {dict(rows.shapes)}, not one (1, 4 + classes, rows)")
    columns, count = shape[1:]
    if rows.count(count) <= columns:
        raise ModelError(
            f"{rows.count(count)} rows of {columns} columns would look like their transposition",
            hint=f"keep more: --top-k {max(300, columns + 1)}",
        )
    tensor, kind = rows.take(name)
    picked = rows.pick(rows.best_of(rows.cut(tensor, 4, columns, 1), 1), count)
    rows.gather(tensor, picked, columns, 2, name)
    return "yolov8", [_Output(name, (0, columns, rows.count(count)), kind)]


def _decoded_nanodet(rows: _Rows) -> tuple[str, list[_Output]]:
    """``boxes`` and ``scores`` of the places with the best class."""
    count, classes = rows.shapes["scores"][1:]
    (boxes, box_kind), (scores, kind) = rows.take("boxes"), rows.take("scores")
    picked = rows.pick(rows.best_of(scores, 2), count)
    rows.gather(boxes, picked, 4, 1, "boxes")
    rows.gather(scores, picked, classes, 1, "scores")
    kept = rows.count(count)
    return "nanodet", [_Output("boxes", (0, kept, 4), box_kind), _Output("scores", (0, kept, classes), kind)]


def _nanodet(rows: _Rows) -> tuple[str, list[_Output]]:
    """NanoDet: decoded already, or scores and distances of three strides (four, and in one output: Plus)."""
    names, spec = rows.spec.output_names, rows.spec
    if set(names) == {"boxes", "scores"}:
        return _decoded_nanodet(rows)
    if len(names) > 1:
        return _distances(rows, spec.options.get("offset", 0.5))
    bins = spec.options.get("bins", 8)
    cells = sum(grid_counts(spec.input_width, spec.input_height, _STRIDES))
    count, columns = rows.shapes[names[0]][1:]
    if count != cells or columns <= 4 * bins:
        raise _unexpected(spec, f"outputs {dict(rows.shapes)}, not classes and distances of {cells} cells")
    tensor, kind = rows.take(names[0])
    scores = rows.cut(tensor, 0, columns - 4 * bins, 2)
    sides = rows.cut(tensor, columns - 4 * bins, columns, 2)
    return _decode_distances(rows, scores, sides, kind, bins, spec.options.get("offset", 0.0))


def _picodet(rows: _Rows) -> tuple[str, list[_Output]]:
    """Scores and distances of four strides."""
    return _distances(rows, 0.5)


def _distances(rows: _Rows, offset: float) -> tuple[str, list[_Output]]:
    """A pair of outputs per stride, all the scores first."""
    names, spec = rows.spec.output_names, rows.spec
    levels = len(names) // 2
    cells = grid_counts(spec.input_width, spec.input_height, _STRIDES[:levels])
    if levels < 3 or [rows.shapes[name][1] for name in names] != cells * 2:
        raise _unexpected(spec, f"outputs {dict(rows.shapes)}, not scores and distances of {cells} cells")
    taken = [rows.take(name) for name in names]
    scores = rows.additions.node("Concat", [tensor for tensor, _ in taken[:levels]], axis=1)
    sides = rows.additions.node("Concat", [tensor for tensor, _ in taken[levels:]], axis=1)
    return _decode_distances(rows, scores, sides, taken[0][1], rows.shapes[names[-1]][2] // 4, offset)


def _decode_distances(
    rows: _Rows, scores: str, sides: str, kind: int, bins: int, offset: float
) -> tuple[str, list[_Output]]:
    """Pick rows by ``scores``, then turn the distances of these into ``boxes``.

    ``sides`` (n, cells, 4 * bins) are logits; a distance is their mean bin, in strides, from a point of
    the cell.
    """
    from onnx import TensorProto

    spec, node = rows.spec, rows.additions.node
    names = spec.output_names
    levels = 4 if len(names) == 1 else len(names) // 2
    points, sizes = grid_points(spec.input_width, spec.input_height, _STRIDES[:levels], offset)
    picked = rows.pick(rows.best_of(scores, 2), len(points))
    left = rows.float32(rows.gather(sides, picked, 4 * bins, 1), kind)
    weights = rows.additions.constant(np.arange(bins, dtype=np.float32)[:, None])
    mean = node("MatMul", [node("Softmax", [rows.reshape(left, 0, -1, 4, bins)], axis=3), weights])
    # Left and top lie before the point, right and bottom behind it.
    steps = rows.constants_at(sizes * np.array([-1, -1, 1, 1], np.float32), picked)
    centres = rows.constants_at(np.hstack([points, points]), picked)
    rows.claim("boxes")
    rows.claim("scores")
    node("Add", [node("Mul", [rows.reshape(mean, 0, -1, 4), steps]), centres], "boxes")
    columns = rows.shapes[names[0]][2]
    classes = columns if len(names) > 1 else columns - 4 * bins
    rows.gather(scores, picked, classes, 1, "scores")
    kept = rows.count(len(points))
    boxes = _Output("boxes", (0, kept, 4), TensorProto.FLOAT)
    return "nanodet", [boxes, _Output("scores", (0, kept, classes), kind)]


def _product_score(rows: _Rows, tensor: str, columns: int) -> str:
    best = rows.best_of(rows.cut(tensor, 5, columns, 2), 2)
    objectness = rows.reshape(rows.cut(tensor, 4, 5, 2), 0, -1)
    return rows.additions.node("Mul", [best, objectness])


def _only_output(rows: _Rows) -> tuple[str, int, int]:
    """Name, rows and columns of the one output (1, rows, 5 + classes)."""
    names = rows.spec.output_names
    shape = rows.shapes[names[0]]
    if len(names) != 1 or len(shape) != 3 or shape[2] < 6:
        raise _unexpected(rows.spec, f"outputs {dict(rows.shapes)}, not one (1, rows, 5 + classes)")
    return names[0], shape[1], shape[2]


def _unexpected(spec: ModelSpec, what: str) -> ModelError:
    return ModelError(
        f"model {spec.name!r} has {what}: rows of this layout of {spec.family} cannot be picked in the graph",
        hint="leave --top-k out",
    )


def _declare(model: ModelProto, outputs: list[_Output]) -> None:
    """Replace the outputs of a graph; the batch axis keeps the name or size that the picture's has."""
    from onnx import helper

    graph = model.graph
    pictures = [one for one in graph.input if len(one.type.tensor_type.shape.dim) in (3, 4)]
    first = pictures[0].type.tensor_type.shape.dim
    batch = (first[0].dim_param or first[0].dim_value) if len(first) == 4 else 1
    del graph.output[:]
    for one in outputs:
        shape = [batch or "batch", *one.shape[1:]]
        graph.output.append(helper.make_tensor_value_info(one.name, one.kind, shape))


#: Families whose rows can be picked, and how.
FAMILIES: dict[str, Callable[[_Rows], tuple[str, list[_Output]]]] = {
    "yolox": _yolox,
    "yolov5": _yolov5,
    "yolov8": _yolov8,
    "nanodet": _nanodet,
    "picodet": _picodet,
}
