"""Graphs with several inputs, pictures without a batch axis, and rows that the picture decides."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.errors import ModelError
from pipeline.heads import Guess, Signature, TensorInfo
from pipeline.models import describe
from pipeline.models.layout import stand_ins, with_outputs
from pipeline.models.onnx import OnnxRunner

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64


def save(
    path: Path, nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, Any]
) -> str:
    """Write a graph of these parts; tensors of constants by name."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(*one) for one in inputs],
        [helper.make_tensor_value_info(*one) for one in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return str(path)


@pytest.fixture
def anything(monkeypatch: pytest.MonkeyPatch) -> None:
    """A family that takes every graph with a picture; its card says the rest."""

    def recognise(signature: Signature) -> list[Guess]:
        fields = {"input_width": 8, "input_height": 8}
        return [Guess("yolox", fields, 1.0, "it is a test", classes=1)]

    monkeypatch.setattr(describe, "recognise", recognise)


def opened(path: str, card: dict[str, Any] | None = None, **options: Any) -> OnnxRunner:
    Path(f"{path}.json").write_text(json.dumps(card or {}))
    runner = OnnxRunner(path, device="cpu", **options)
    runner.open()
    return runner


def buffers(runner: OnnxRunner, count: int) -> list[np.ndarray[Any, Any]]:
    return [
        np.full((count, *shape[1:]), 99, dtype)
        for shape, dtype in zip(runner.output_shapes, runner.output_dtypes, strict=True)
    ]


def scaled(path: Path, picture: list[Any], sizes: list[Any]) -> str:
    """Output: the sizes that were fed, and the mean of the picture."""
    return save(
        path,
        [
            helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Unsqueeze", ["mean", "one"], ["column"]),
            helper.make_node("Cast", ["sizes"], ["floats"], to=FLOAT),
            helper.make_node("Add", ["column", "floats"], ["output"]),
        ],
        [("images", FLOAT, picture), ("sizes", INT, sizes)],
        [("output", FLOAT, ["n", 2])],
        {"one": np.array([1], np.int64)},
    )


@pytest.mark.usefixtures("anything")
@pytest.mark.parametrize(
    ("picture", "sizes", "batch"),
    [
        (["n", 3, 8, 8], ["m", 2], 3),
        (["n", 3, 8, 8], [2], 3),
        (["n", 3, 8, 8], [1, 2], 3),
        ([1, 3, 8, 8], [1, 2], 1),
        ([2, 3, 8, 8], [2, 2], 3),
    ],
)
def test_constant_inputs_are_fed_to_every_frame(
    picture: list[Any], sizes: list[Any], batch: int, tmp_path: Path
) -> None:
    path = scaled(tmp_path / "m.onnx", picture, sizes)
    runner = opened(path, {"feeds": {"sizes": [10, 20]}}, batch=batch)
    assert (runner.signature.samples["output"] > 10).all(), "the test picture is fed what the card says"
    for count in (1, 3, 2):
        tensors = np.random.default_rng(0).random((count, 3, 8, 8), np.float32)
        found = buffers(runner, count)
        runner.forward(tensors, found)
        expected = tensors.mean(axis=(1, 2, 3))[:, None] + [[10, 20]]
        np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    runner.close()


@pytest.mark.usefixtures("anything")
@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({}, "inputs that nothing feeds: sizes"),
        ({"feeds": {"sizes": [1, 2, 3]}}, "input 'sizes' of model 'm' takes 2 values, its card feeds 3"),
    ],
)
def test_feeds_that_are_missing_or_wrong(card: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = scaled(tmp_path / "m.onnx", ["n", 3, 8, 8], ["m", 2])
    with pytest.raises(ModelError, match=message):
        opened(path, card)


@pytest.mark.usefixtures("anything")
@pytest.mark.parametrize(("shape", "rows"), [([3, 8, 8], 4), ([3, 8, 8], 1)])
def test_a_picture_without_a_batch_axis(shape: list[int], rows: int, tmp_path: Path) -> None:
    """Its outputs have none either: buffers have one all the same."""
    path = save(
        tmp_path / "m.onnx",
        [
            helper.make_node("ReduceMean", ["images"], ["mean"], keepdims=0),
            helper.make_node("Add", ["mean", "zeros"], ["output"]),
        ],
        [("images", FLOAT, shape)],
        [("output", FLOAT, [rows, 5])],
        {"zeros": np.zeros((rows, 5), np.float32)},
    )
    runner = opened(path)
    tensors = np.random.default_rng(0).random((3, 3, 8, 8), np.float32)
    # One row alone cannot be told from a batch axis, and need not be: the numbers are the same.
    assert runner.output_shapes == (((1, 5) if rows == 1 else (1, rows, 5)),)
    found = buffers(runner, 3)
    runner.forward(tensors, found)
    expected = tensors.mean(axis=(1, 2, 3)).reshape(3, *[1] * (found[0].ndim - 1))
    np.testing.assert_allclose(found[0], np.broadcast_to(expected, found[0].shape), rtol=1e-5)
    runner.close()
    with pytest.raises(ModelError, match="one picture at a time, not batches of 2"):
        opened(path, batch=2)


def bright(path: Path, *, batched: bool, rank: int = 4) -> str:
    """Outputs: (x, value) and x of each pixel over 0.5 in the first line of channel 0, and their number."""
    head = ["images"] if rank == 3 else ["images", "first"]
    nodes = [helper.make_node("Identity" if rank == 3 else "Squeeze", head, ["picture"])]
    nodes += [
        helper.make_node("Gather", ["picture", "zero"], ["channel"], axis=0),
        helper.make_node("Gather", ["channel", "zero"], ["line"], axis=0),
        helper.make_node("Greater", ["line", "half"], ["over"]),
        helper.make_node("NonZero", ["over"], ["found"]),
        helper.make_node("Squeeze", ["found", "first"], ["flat"]),
        helper.make_node("Cast", ["flat"], ["x"], to=FLOAT),
        helper.make_node("Gather", ["line", "flat"], ["value"], axis=0),
        helper.make_node("Unsqueeze", ["x", "second"], ["xs"]),
        helper.make_node("Unsqueeze", ["value", "second"], ["values"]),
        helper.make_node("Concat", ["xs", "values"], ["pairs"], axis=1),
        helper.make_node("Shape", ["flat"], ["number"]),
    ]
    if batched:
        nodes += [
            helper.make_node("Unsqueeze", ["pairs", "first"], ["rows"]),
            helper.make_node("Unsqueeze", ["flat", "first"], ["ids"]),
        ]
    else:
        nodes += [
            helper.make_node("Identity", ["pairs"], ["rows"]),
            helper.make_node("Identity", ["flat"], ["ids"]),
        ]
    lead = [1] if batched else []
    return save(
        path,
        nodes,
        [("images", FLOAT, [3, 8, 8] if rank == 3 else [1, 3, 8, 8])],
        [("rows", FLOAT, [*lead, "k", 2]), ("ids", INT, [*lead, "k"]), ("number", INT, [1])],
        {
            "zero": np.array(0, np.int64),
            "first": np.array([0], np.int64),
            "second": np.array([1], np.int64),
            "half": np.array(0.5, np.float32),
        },
    )


@pytest.mark.usefixtures("anything")
@pytest.mark.parametrize(("batched", "rank"), [(True, 4), (False, 4), (False, 3)])
def test_rows_that_the_picture_decides_are_padded(batched: bool, rank: int, tmp_path: Path) -> None:
    runner = opened(bright(tmp_path / "m.onnx", batched=batched, rank=rank), {"max_rows": 6})
    assert runner.output_shapes == ((1, 6, 2), (1, 6), (1,))
    assert runner.output_dtypes == ("float32", "int64", "int64")
    tensors = np.zeros((3, 3, 8, 8), np.float32)
    tensors[0, 0, 0, [1, 4]] = (0.6, 0.9)
    tensors[2, 0, 0, :6] = 0.7
    for _ in range(2):  # what an earlier frame left in the buffers does not shine through
        rows, ids, number = found = buffers(runner, 3)
        runner.forward(tensors, found)
        assert number.tolist() == [2, 0, 6]
        assert ids.tolist() == [[1, 4, 0, 0, 0, 0], [0] * 6, [0, 1, 2, 3, 4, 5]]
        np.testing.assert_allclose(rows[0][:2], [[1, 0.6], [4, 0.9]], rtol=1e-6)
        assert not rows[0][2:].any()
        assert not rows[1].any()
    tensors[1, 0, 0] = 1
    with pytest.raises(
        ModelError, match="'rows' of model 'm' gives 8 rows, over its max_rows of 6"
    ) as caught:
        runner.forward(tensors, buffers(runner, 3))
    assert '{"max_rows": 16}' in caught.value.hint
    runner.close()
    with pytest.raises(ModelError, match="one picture at a time"):
        opened(bright(tmp_path / "m.onnx", batched=batched, rank=rank), {"max_rows": 6}, batch=2)


@pytest.mark.parametrize(
    ("info", "feeds", "expected"),
    [
        (TensorInfo("orig_target_sizes", "int64", ("n", 2)), {}, [[20, 30]]),
        (TensorInfo("im_shape", "float32", (1, 2)), {}, [[20, 30]]),
        (TensorInfo("scale_factor", "float32", (1, 2)), {}, [[1, 1]]),
        (TensorInfo("scale_factor", "float32", (1, 2)), {"scale_factor": [3, 4]}, [[3, 4]]),
        (TensorInfo("threshold", "float32", ()), {}, 1),
    ],
)
def test_other_inputs_of_the_test_picture(info: TensorInfo, feeds: dict[str, Any], expected: Any) -> None:
    picture = TensorInfo("images", "uint8", ("n", 3, 20, 30))
    arrays = stand_ins(Signature((info, picture), ()), feeds)
    assert arrays[info.name].tolist() == expected
    assert arrays[info.name].dtype == info.dtype
    assert arrays["images"].shape == (1, 3, 20, 30)
    assert arrays["images"].max() > 200


def test_samples_of_a_fixed_batch_are_of_one_picture() -> None:
    signature = Signature(
        (TensorInfo("images", "float32", (4, 3, 8, 8)),),
        (TensorInfo("a", "float32", (4, None)), TensorInfo("b", "float32", (7, 2))),
    )
    measured = {"a": np.zeros((4, 5), np.float32), "b": np.zeros((7, 2), np.float32)}
    known = with_outputs(signature, measured)
    assert [info.shape for info in known.outputs] == [(1, 5), (7, 2)]
    assert [array.shape for array in known.samples.values()] == [(1, 5), (7, 2)]


@pytest.mark.usefixtures("anything")
def test_an_output_that_is_one_number_is_written(tmp_path: Path) -> None:
    path = save(
        tmp_path / "m.onnx",
        [helper.make_node("ReduceMean", ["images"], ["output"], keepdims=0)],
        [("images", FLOAT, [1, 3, 8, 8])],
        [("output", FLOAT, [])],
        {},
    )
    runner = opened(path)
    found = buffers(runner, 1)
    runner.forward(np.full((1, 3, 8, 8), 0.5, np.float32), found)
    assert found[0].tolist() == [0.5]
    runner.close()


def test_a_sequence_is_no_output_of_a_detector(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("SequenceConstruct", ["images", "images"], ["parts"])],
        "small",
        [helper.make_tensor_value_info("images", FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_sequence_value_info("parts", FLOAT, None)],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    with pytest.raises(ModelError, match=r"of no family") as caught:
        opened(str(path))
    assert "seq(tensor(float))" in str(caught.value)
