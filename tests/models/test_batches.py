from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from pipeline.errors import ModelError
from pipeline.models.base import batch_sizes, build_runner
from pipeline.models.onnx import OnnxRunner
from tests.models.runners import CELLS, YOLOX, outputs_of, save_graph


@pytest.mark.parametrize("batch", [1, 3, 4, 6])
def test_fixed_batch_of_several_is_padded(tmp_path: Path, batch: int) -> None:
    path = save_graph(
        tmp_path / "m.onnx", YOLOX, input_shape=(4, 3, 64, 64), declared={"output": (4, CELLS, 85)}
    )
    runner = OnnxRunner(str(path), device="cpu", batch=batch)
    runner.open()
    assert ("pictures, 3 of them for nothing" in runner.why) == (batch == 1)
    assert runner.output_shapes == ((1, CELLS, 85),)
    assert runner.signature.outputs[0].shape == (1, CELLS, 85)
    assert runner.signature.samples["output"].shape == (1, CELLS, 85)
    assert tuple(sorted(runner.service_ns)) == (batch_sizes(batch) if batch > 1 else ())
    for count in (batch, 1, 9):
        tensors = np.random.default_rng(count).random((count, 3, 64, 64), np.float32)
        outputs = outputs_of(runner, count)
        runner.forward(tensors, outputs)
        np.testing.assert_allclose(outputs[0][:, 0, 0], tensors.mean(axis=(1, 2, 3)), rtol=1e-5)
    runner.close()


@pytest.mark.parametrize(("batch", "sizes"), [(1, ()), (2, (1, 2)), (6, (1, 2, 4, 6)), (8, (1, 2, 4, 8))])
def test_every_batch_size_is_warmed_up_and_measured(
    tmp_path: Path, batch: int, sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_graph(tmp_path / "m.onnx", YOLOX, input_shape=("batch", 3, 64, 64))
    ran: list[int] = []
    run = OnnxRunner._run

    def counted(self: OnnxRunner, tensors: Any, outputs: Any) -> None:
        ran.append(len(tensors))
        run(self, tensors, outputs)

    monkeypatch.setattr(OnnxRunner, "_run", counted)
    runner = build_runner(str(path), device="cpu", batch=batch)
    runner.open()
    assert tuple(sorted(runner.service_ns)) == sizes
    assert all(0 < ns < 10**10 for ns in runner.service_ns.values())
    assert list(dict.fromkeys(ran)) == sorted(sizes, reverse=True), "the largest first"
    assert all(ran.count(size) > 1 for size in sizes)
    runner.close()


def test_a_batch_gives_what_its_frames_give_alone(tmp_path: Path) -> None:
    runner = OnnxRunner("default", device="cpu", batch=3)
    spec = runner.open()
    rng = np.random.default_rng(0)
    tensors = rng.integers(0, 256, (3, spec.input_height, spec.input_width, 3), dtype=np.uint8)
    together, alone = outputs_of(runner, 3), outputs_of(runner, 3)
    runner.forward(tensors, together)
    for row in range(3):
        runner.forward(tensors[row : row + 1], [buffer[row : row + 1] for buffer in alone])
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
    assert not np.allclose(together[1][0], together[1][1]), "they are different pictures"
    runner.close()


def test_a_model_that_takes_one_picture_at_a_time_is_refused_at_the_start(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "m.onnx", YOLOX, declared={"output": (1, CELLS, 85)})
    with pytest.raises(ModelError, match="'m' takes one picture at a time, not batches of 4") as caught:
        OnnxRunner(str(path), device="cpu", batch=4).open()
    assert "stages.infer.batch: 1" in caught.value.hint
    assert "dynamic" in caught.value.hint


def test_a_model_that_only_says_that_its_batch_is_free_is_refused_too(tmp_path: Path) -> None:
    """Its input is free, but a reshape inside it is made for one picture."""
    path = save_graph(tmp_path / "m.onnx", YOLOX, input_shape=("batch", 3, 64, 64))
    model = onnx.load(path)
    for constant in model.graph.initializer:
        if constant.name == "output_shape":
            constant.CopyFrom(numpy_helper.from_array(np.array([1, 1, 1], np.int64), constant.name))
    onnx.save(model, path)
    OnnxRunner(str(path), device="cpu").open()
    with pytest.raises(ModelError, match=r"'m' failed: .*, with a batch of 4 pictures") as caught:
        OnnxRunner(str(path), device="cpu", batch=4).open()
    assert "stages.infer.batch: 1" in caught.value.hint


@pytest.mark.parametrize(
    ("limit", "sizes"),
    [
        (1, (1,)),
        (2, (1, 2)),
        (3, (1, 2, 3)),
        (8, (1, 2, 4, 8)),
        (9, (1, 2, 4, 8, 9)),
        (64, (1, 2, 4, 8, 16, 32, 64)),
    ],
)
def test_batch_sizes(limit: int, sizes: tuple[int, ...]) -> None:
    assert batch_sizes(limit) == sizes
