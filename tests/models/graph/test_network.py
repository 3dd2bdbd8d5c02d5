"""Reading and writing: whole or not at all, and never over what was read."""

from __future__ import annotations

from pathlib import Path

import msgspec
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from pipeline.errors import ModelError
from pipeline.models.graph.editing import Additions, rename, sort_nodes
from pipeline.models.graph.fuse import fuse
from pipeline.models.graph.network import bytes_in, check_target, read_network, write_network
from pipeline.models.graph.topk import keep_best
from tests.models.graph.tiny import CELLS, tiny


def saved(path: Path) -> Path:
    onnx.save(tiny("yolox", path).model, path)
    return path


def test_a_file_is_read_with_what_it_is(tmp_path: Path) -> None:
    network = read_network(str(saved(tmp_path / "a.onnx")))
    assert network.spec.family == "yolox"
    assert network.shapes == {"output": (1, sum(CELLS.values()), 8)}
    assert bytes_in(network) == 4 * bytes_in(fuse(network))


def test_weights_among_the_inputs_are_weights(tmp_path: Path) -> None:
    network = tiny("yolox", tmp_path / "a.onnx")
    for weight in network.model.graph.initializer:
        info = helper.make_tensor_value_info(weight.name, weight.data_type, list(weight.dims))
        network.model.graph.input.append(info)
    onnx.save(network.model, tmp_path / "a.onnx")
    read = read_network(str(tmp_path / "a.onnx"))
    assert [one.name for one in read.model.graph.input] == ["images"]


@pytest.mark.parametrize("layout", ["yolox", "yolov5", "yolov8", "nanodet", "plus"])
def test_a_written_file_reads_back_as_what_it_is(layout: str, tmp_path: Path) -> None:
    network = keep_best(fuse(tiny(layout, tmp_path / "a.onnx")), 20)
    read = read_network(str(write_network(network, tmp_path / "b.onnx")))
    given = {"name": "b", "sha256": read.spec.sha256, "provider": read.spec.provider}
    assert read.spec == msgspec.structs.replace(network.spec, **given)
    assert read.shapes == network.shapes


def test_the_file_that_was_read_is_never_written_over(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.onnx")
    before = path.read_bytes()
    (tmp_path / "link.onnx").symlink_to(path)
    for target in (path, tmp_path / "link.onnx"):
        with pytest.raises(ModelError, match="never written over") as caught:
            write_network(fuse(read_network(str(path))), target)
        assert "--out" in caught.value.hint
    assert path.read_bytes() == before


def test_a_graph_that_does_not_load_is_not_written(tmp_path: Path) -> None:
    network = fuse(read_network(str(saved(tmp_path / "a.onnx"))))
    network.model.graph.node[-1].input[0] = "nothing"
    target = tmp_path / "b.onnx"
    target.write_bytes(b"as it was")
    with pytest.raises(ModelError, match=r"b\.onnx was not written"):
        write_network(network, target)
    assert target.read_bytes() == b"as it was"
    assert {path.name for path in tmp_path.iterdir()} == {"a.onnx", "b.onnx"}


@pytest.mark.parametrize(("target", "words"), [("", "is a folder"), ("no/b.onnx", "no folder")])
def test_a_target_is_checked_before_the_work(target: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=words):
        check_target(tmp_path / target, saved(tmp_path / "a.onnx"))


@given(st.permutations(range(6)))
def test_nodes_are_put_in_the_order_of_their_data(order: list[int]) -> None:
    nodes = [helper.make_node("Identity", [f"t{index}"], [f"t{index + 1}"], str(index)) for index in range(6)]
    info = helper.make_tensor_value_info
    ends = [info(name, TensorProto.FLOAT, [1]) for name in ("t0", "t6")]
    graph = helper.make_graph([nodes[index] for index in order], "chain", ends[:1], ends[1:])
    sort_nodes(graph)
    assert [node.name for node in graph.node] == [str(index) for index in range(6)]


def test_a_circle_is_told() -> None:
    nodes = [helper.make_node("Identity", ["a"], ["b"]), helper.make_node("Identity", ["b"], ["a"])]
    graph = helper.make_graph(nodes, "circle", [], [])
    with pytest.raises(ModelError, match="circle"):
        sort_nodes(graph)


def test_names_are_free_ones(tmp_path: Path) -> None:
    graph = tiny("yolox", tmp_path / "a.onnx").model.graph
    additions = Additions(graph)
    assert additions.free("output") == "output_2"
    assert additions.free("output") == "output_3"
    rename(graph, "output", "output_2")
    assert "output_2" in graph.node[-1].output
