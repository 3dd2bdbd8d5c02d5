"""The few edits that all graph work is made of: names, constants, nodes, and where the decoder begins."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import ModelError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

__all__ = ["PREFIX", "Additions", "name_nodes", "opset_of", "rename", "sort_nodes", "tail_of"]

#: How the names of nodes and tensors that we add begin.
PREFIX = "framewire_"
#: Operations with weights of their own: the network proper.
_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "ConvInteger", "LSTM", "GRU")
_PRODUCTS = ("MatMul", "MatMulInteger")
#: A MatMul with a constant smaller than this decodes (bins of a distribution); a larger one is a layer.
_LAYER_WEIGHTS = 256


class Additions:
    """New nodes and constants of a graph, under names that are free.

    Args:
        graph: The graph that they will be part of.
    """

    def __init__(self, graph: GraphProto) -> None:
        self.nodes: list[NodeProto] = []
        self._graph = graph
        self._taken = set(_names_in(graph))

    def free(self, name: str) -> str:
        """A name like this one that nothing in the graph has; it is taken from now on."""
        found, count = name, 1
        while found in self._taken:
            count += 1
            found = f"{name}_{count}"
        self._taken.add(found)
        return found

    def constant(self, array: Any) -> str:
        """A constant; its name."""
        from onnx import numpy_helper

        name = self.free(PREFIX + "constant")
        self._graph.initializer.append(numpy_helper.from_array(np.array(array, order="C"), name))
        return name

    def node(self, operation: str, inputs: Iterable[str], output: str = "", **attributes: Any) -> str:
        """A node with one output; the output's name."""
        return self.nodes_of(
            operation, inputs, (output or self.free(PREFIX + operation.lower()),), **attributes
        )[0]

    def nodes_of(
        self, operation: str, inputs: Iterable[str], outputs: tuple[str, ...], **attributes: Any
    ) -> tuple[str, ...]:
        """A node with several outputs; their names, which the caller has chosen."""
        from onnx import helper

        name = self.free(f"{PREFIX}{operation}")
        self.nodes.append(helper.make_node(operation, list(inputs), list(outputs), name, **attributes))
        return outputs

    def prepend(self) -> None:
        """Put the nodes before all others."""
        rest = list(self._graph.node)
        del self._graph.node[:]
        self._graph.node.extend([*self.nodes, *rest])

    def append(self) -> None:
        """Put the nodes behind all others."""
        self._graph.node.extend(self.nodes)


def opset_of(model: ModelProto) -> int:
    """Version of the standard operations that a graph uses."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=1)


def rename(graph: GraphProto, old: str, new: str) -> None:
    """Give a tensor another name everywhere, bodies of loops and branches included.

    The graph's own inputs and outputs keep theirs: they are the caller's to replace.
    """
    for node in graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if name == old:
                    names[index] = new
        for body in _bodies(node):
            rename(body, old, new)
    for info in graph.value_info:
        if info.name == old:
            info.name = new


def tail_of(model: ModelProto) -> list[str]:
    """Names of the nodes behind the last weights: sigmoids, grids, distances to boxes.

    These are cheap, and their numbers (pixels beside probabilities) suffer most from few bits.

    Returns:
        Names in the order of the graph; every node of a graph is named by this.

    Raises:
        ModelError: no operation of the graph has weights, so it has no tail.
    """
    graph = model.graph
    name_nodes(graph)
    sizes = {weight.name: int(np.prod(weight.dims)) for weight in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            sizes[node.output[0]] = sum(int(np.prod(entry.t.dims)) for entry in node.attribute)
    users: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in _read_by(node):
            users.setdefault(name, []).append(node)
    leads_to_weights: dict[str, bool] = {}
    for node in reversed(graph.node):  # each node stands behind those that it reads from
        followers = [user for output in node.output for user in users.get(output, ())]
        leads_to_weights[node.name] = any(
            _has_weights(user, sizes) or leads_to_weights[user.name] for user in followers
        )
    layers = [node for node in graph.node if _has_weights(node, sizes)]
    if not layers:
        raise ModelError(
            "no operation of the graph has float weights",
            hint="name the float32 file; one that is quantised already stays as it is",
        )
    return [
        node.name
        for node in graph.node
        if not leads_to_weights[node.name] and not _has_weights(node, sizes) and node.op_type != "Constant"
    ]


def name_nodes(graph: GraphProto) -> None:
    """Name nodes that have no name, or one that another has: quantisation tells them apart by it.

    The names do not begin with `PREFIX`, for these nodes are the network's own.
    """
    seen: set[str] = set()
    for index, node in enumerate(graph.node):
        if not node.name or node.name in seen:
            node.name = f"node_{node.op_type}_at_{index}"
            while node.name in seen:
                node.name += "_"
        seen.add(node.name)


def sort_nodes(graph: GraphProto) -> None:
    """Put every node behind those that it reads from, as ONNX wants it; the order stays where it can."""
    nodes = list(graph.node)
    maker = {output: index for index, node in enumerate(nodes) for output in node.output if output}
    waiting: list[set[int]] = [{maker[name] for name in _read_by(node) if name in maker} for node in nodes]
    followers: dict[int, list[int]] = {}
    for index, needed in enumerate(waiting):
        for other in needed:
            followers.setdefault(other, []).append(index)
    ready = [index for index, needed in enumerate(waiting) if not needed]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for follower in followers.get(index, ()):
            waiting[follower].discard(index)
            if not waiting[follower]:
                heapq.heappush(ready, follower)
    if len(order) < len(nodes):
        raise ModelError("the nodes of the graph depend on each other in a circle", hint="export it again")
    if order != sorted(order):
        del graph.node[:]
        graph.node.extend(nodes[index] for index in order)


def _read_by(node: NodeProto) -> set[str]:
    return {*node.input, *(name for body in _bodies(node) for name in _names_in(body))}


def _has_weights(node: NodeProto, sizes: dict[str, int]) -> bool:
    if node.op_type in _WEIGHTED:
        return True
    largest = max((sizes.get(name, 0) for name in node.input), default=0)
    return node.op_type in _PRODUCTS and largest >= _LAYER_WEIGHTS


def _bodies(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _names_in(graph: GraphProto) -> Iterator[str]:
    for node in graph.node:
        yield node.name
        yield from node.input
        yield from node.output
        for body in _bodies(node):
            yield from _names_in(body)
    for named in (*graph.input, *graph.output, *graph.initializer):
        yield named.name
