"""Crops to vectors, with small graphs whose vectors can be told in advance."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from pipeline.errors import ConfigError, ModelError
from pipeline.messages import Detections
from pipeline.models.embedding import EmbeddingRunner
from pipeline.models.fake import FakeRunner
from pipeline.tasks.crops import crop_of
from pipeline.tasks.embedding import Embedder

#: BGR, and what the graphs say of a patch of it: the mean of each channel, red first.
RED, GREEN, BLUE = (0, 0, 200), (0, 150, 0), (250, 0, 0)
LEFT, MIDDLE, RIGHT = (10, 10, 30, 60), (40, 10, 60, 60), (70, 10, 90, 60)
#: Within the middle patch.
GREEN_BOX = (42, 20, 58, 50)
PLAIN: dict[str, Any] = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def graph(
    path: Path,
    *,
    shape: Sequence[int | str] = ("n", 3, 32, 16),
    kind: int = TensorProto.FLOAT,
    outputs: Sequence[str] = ("vector",),
    keepdims: int = 0,
    operation: str = "ReduceMean",
) -> Path:
    """A network that says the mean of each channel of each picture."""
    axes = [2, 3] if shape[1] == 3 else [1, 2]
    nodes = [helper.make_node("Cast", ["picture"], ["pixels"], to=TensorProto.FLOAT)]
    nodes += [
        helper.make_node(operation, ["pixels"], [name], axes=axes, keepdims=keepdims) for name in outputs
    ]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    picture = helper.make_tensor_value_info("picture", kind, list(shape))
    made = helper.make_model(
        helper.make_graph(nodes, "means", [picture], infos),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    onnx.save(made, path)
    return path


@contextmanager
def opened(path: Path, runner: dict[str, Any] | None = None, **options: Any) -> Iterator[Embedder]:
    made = Embedder(
        EmbeddingRunner(str(path), device="cpu", **(PLAIN if runner is None else runner)), **options
    )
    with closing(made):
        made.open()
        yield made


def frame(*patches: tuple[tuple[int, int, int, int], tuple[int, int, int]]) -> tuple[NDArray[np.uint8], ...]:
    bgr = np.full((80, 100, 3), 40, np.uint8)
    for (x1, y1, x2, y2), colour in patches:
        bgr[y1:y2, x1:x2] = colour
    return (bgr,)


COLOURS = frame((LEFT, RED), (MIDDLE, GREEN), (RIGHT, BLUE))


def objects(*boxes: tuple[float, float, float, float], scores: Sequence[float] | None = None) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4), scores or [0.9] * len(boxes), [0] * len(boxes)
    )


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize(
    "shape", [("n", 3, 32, 16), (1, 3, 32, 16), (2, 3, 32, 16), ("n", 32, 16, 3), ("n", 3, "h", "w")]
)
@pytest.mark.parametrize("batch", [1, 4])
def test_rows_of_length_1_in_the_order_of_the_objects(
    tmp_path: Path, shape: tuple[int | str, ...], keepdims: int, batch: int
) -> None:
    """Whatever the batch that the graph takes, and more objects than go into one."""
    path = graph(tmp_path / "reid.onnx", shape=shape, keepdims=keepdims)
    boxes = (LEFT, MIDDLE, RIGHT, RIGHT, LEFT, GREEN_BOX)
    with opened(path, PLAIN | {"batch": batch}) as embedder:
        found = embedder.look(COLOURS, "bgr24", objects(*boxes))
    assert found is not None
    assert found.dtype == np.float32
    red, green, blue = np.eye(3)
    np.testing.assert_allclose(found, [red, green, blue, blue, red, green], atol=1e-6)


def test_i420_frames(tmp_path: Path) -> None:
    packed = np.asarray(cv2.cvtColor(COLOURS[0], cv2.COLOR_BGR2YUV_I420), np.uint8)
    planes = packed[:80], packed[80:100].reshape(40, 50), packed[100:].reshape(40, 50)
    with opened(graph(tmp_path / "reid.onnx")) as embedder:
        found = embedder.look(planes, "i420", objects((11, 11, 29, 59), GREEN_BOX))
    assert found is not None
    np.testing.assert_allclose(found, [[1, 0, 0], [0, 1, 0]], atol=0.05)


def test_objects_that_are_weak_or_small_are_not_looked_at(tmp_path: Path) -> None:
    narrow = (10, 10, 17, 60)
    seen = objects(LEFT, LEFT, narrow, MIDDLE, scores=[0.29, 0.3, 0.9, 0.9])
    with opened(graph(tmp_path / "reid.onnx"), confidence=0.3, min_side=8) as embedder:
        found = embedder.look(COLOURS, "bgr24", seen)
        nobody = embedder.look(COLOURS, "bgr24", Detections.empty())
        gone = embedder.look((), "bgr24", seen)
    assert found is not None
    assert found.any(axis=1).tolist() == [False, True, False, True]
    assert nobody is not None
    assert nobody.shape == (0, 3)
    assert gone is None


def test_boxes_beyond_the_frame_and_black_crops(tmp_path: Path) -> None:
    """A vector of zeros has no direction: nothing is known of that object."""
    planes = frame(((80, 60, 100, 80), RED), ((0, 0, 20, 40), (0, 0, 0)))
    with opened(graph(tmp_path / "reid.onnx")) as embedder:
        found = embedder.look(planes, "bgr24", objects((80, 60, 140, 120), (-20, -20, 20, 40)))
    assert found is not None
    np.testing.assert_allclose(found, [[1, 0, 0], [0, 0, 0]], atol=1e-6)


def test_the_margin_shows_more(tmp_path: Path) -> None:
    with opened(graph(tmp_path / "reid.onnx"), margin=0.5) as embedder:
        found = embedder.look(COLOURS, "bgr24", objects(LEFT))
    assert found is not None
    assert found[0, 1] > 0.05


def test_by_default_pictures_are_rgb_and_normalised_as_for_imagenet(tmp_path: Path) -> None:
    with opened(graph(tmp_path / "reid.onnx"), {}) as embedder:
        found = embedder.look(COLOURS, "bgr24", objects(LEFT))
    expected = (np.array([200, 0, 0]) - (123.675, 116.28, 103.53)) / (58.395, 57.12, 57.375)
    assert found is not None
    np.testing.assert_allclose(found[0], expected / np.linalg.norm(expected), atol=1e-5)


def test_a_uint8_input_takes_plain_pixels(tmp_path: Path) -> None:
    path = graph(tmp_path / "reid.onnx", shape=("n", 32, 16, 3), kind=TensorProto.UINT8)
    with opened(path, {}) as embedder:
        found = embedder.look(COLOURS, "bgr24", objects(LEFT))
    assert found is not None
    np.testing.assert_allclose(found, [[1, 0, 0]], atol=1e-6)


def test_a_card_says_what_the_input_is_and_which_output_counts(tmp_path: Path) -> None:
    path = graph(tmp_path / "reid.onnx", shape=("n", 3, "h", "w"), outputs=("first", "second"))
    card = {"channels": "bgr", "mean": [0, 0, 0], "std": [255, 255, 255], "output_names": ["second"]}
    size = {"input_width": 8, "input_height": 24}
    path.with_name("reid.onnx.json").write_text(json.dumps(card | size), "utf-8")
    runner = EmbeddingRunner(str(path), device="cpu")
    with closing(Embedder(runner)) as embedder:
        embedder.open()
        found = embedder.look(COLOURS, "bgr24", objects(LEFT))
    assert (runner.spec.input_width, runner.spec.input_height) == (8, 24)
    assert runner.spec.output_names == ("second",)
    assert found is not None
    np.testing.assert_allclose(found, [[0, 0, 1]], atol=1e-6)


def test_sizes_that_the_graph_leaves_open(tmp_path: Path) -> None:
    path = str(graph(tmp_path / "reid.onnx", shape=("n", 3, "h", "w")))
    for asked, taken in ((None, (128, 256)), ((64, 64), (64, 64))):
        runner = EmbeddingRunner(path, device="cpu", input_size=asked)
        with closing(runner):
            spec = runner.open()
        assert (spec.input_width, spec.input_height, spec.letterbox) == (*taken, "stretch")
        assert (spec.family, runner.output_shapes) == ("embedding", ((1, 3),))
        assert set(runner.service_ns) == {1, 2, 4, 8}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": ("first", "second")}, r"several of its outputs are one vector .*\(first, second\)"),
        ({"shape": ("n", 1, 32, 16)}, "it takes no colour picture"),
        ({"operation": "Softmax"}, r"none of its outputs is one vector for each picture \(vector\)"),
    ],
)
def test_graphs_that_are_no_embedding_networks(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    if options.get("operation") == "Softmax":  # a feature map: as large as the picture
        path = tmp_path / "reid.onnx"
        infos = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 32, 16])
            for name in ("picture", "vector")
        ]
        nodes = [helper.make_node("Softmax", ["picture"], ["vector"])]
        made = helper.make_graph(nodes, "map", infos[:1], infos[1:])
        onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    else:
        path = graph(tmp_path / "reid.onnx", **options)
    with pytest.raises(ModelError, match=message) as raised, opened(path):
        pass
    assert raised.value.hint
    assert "input  picture" in raised.value.message


def test_a_card_that_names_another_output(tmp_path: Path) -> None:
    path = graph(tmp_path / "reid.onnx")
    path.with_name("reid.onnx.json").write_text('{"output_names": ["other"]}', "utf-8")
    with pytest.raises(ModelError, match="its output 'other' is no vector"), opened(path):
        pass


def test_a_detector_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="gives 2 outputs, an embedding network one") as raised:
        Embedder(TwoOutputs.from_name("fake")).open()
    assert raised.value.hint
    with pytest.raises(ModelError, match="there is no model file"), opened(tmp_path / "none.onnx"):
        pass


class TwoOutputs(FakeRunner):
    """A network with an output too many."""

    def open(self) -> Any:
        spec = super().open()
        self.output_shapes = self.output_shapes[:1] * 2
        return spec


def test_vectors_that_are_no_numbers(tmp_path: Path) -> None:
    """The test picture is noise; a black crop is what this network cannot take: the log of 0."""
    path = graph(tmp_path / "reid.onnx", operation="ReduceLogSum")
    planes = frame((LEFT, (0, 0, 0)))
    with (
        opened(path) as embedder,
        pytest.raises(ModelError, match="model 'reid' gave NaN or infinity") as raised,
    ):
        embedder.look(planes, "bgr24", objects(LEFT))
    assert raised.value.hint


@pytest.mark.parametrize("options", [{"confidence": 1.5}, {"min_side": -1}, {"margin": float("nan")}])
def test_numbers_out_of_range(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(ConfigError, match=rf"track\.reid\.{name} is"):
        Embedder(FakeRunner.from_name("fake"), **options)


@pytest.mark.parametrize(
    ("box", "margin", "size"),
    [
        ((10, 10, 30, 60), 0.0, (50, 20)),
        ((11, 11, 30, 60), 0.0, (50, 20)),  # left and top go back to even ones
        ((10, 10, 30, 60), 0.1, (61, 24)),  # top 5 goes back to 4
        ((-50, -50, 30, 60), 0.0, (60, 30)),
        ((98, 78, 300, 300), 0.0, (2, 2)),
        ((500, 500, 600, 600), 0.0, (2, 2)),  # outside: the last corner
        ((20, 20, 20, 20), 0.0, (1, 1)),
    ],
)
def test_crops_of_planes(box: tuple[int, ...], margin: float, size: tuple[int, int]) -> None:
    luma, chroma = np.zeros((80, 100), np.uint8), np.zeros((40, 50), np.uint8)
    y, u, v = crop_of((luma, chroma, chroma), np.array(box, np.float32), margin)
    assert y.shape == size
    assert u.shape == v.shape == ((size[0] + 1) // 2, (size[1] + 1) // 2)
    assert y.base is luma


def test_a_real_network_tells_people_apart(assets: Path) -> None:
    """Two true crops of one person are nearer than those of two people, in over 92 of 100 cases."""
    rows: dict[int, list[tuple[int, tuple[float, float, float, float]]]] = {}
    for line in (assets / "mot/MOT15-train/PETS09-S2L1/gt/gt.txt").read_text("utf-8").splitlines():
        number, track, x, y, w, h = map(float, line.split(",")[:6])
        rows.setdefault(int(number), []).append((int(track), (x, y, x + w, y + h)))
    ids, vectors = [], []
    video = cv2.VideoCapture(str(assets / "videos/vtest.avi"))
    with opened(assets / "models/reid/osnet_x0_25_msmt17.onnx", {}) as embedder:
        for number in range(1, 202):
            picture = np.asarray(video.read()[1], np.uint8)
            if number % 40 != 1:
                continue
            found = embedder.look((picture,), "bgr24", objects(*(box for _, box in rows[number])))
            assert found is not None
            vectors.append(found)
            ids += [(number, track) for track, _ in rows[number]]
    video.release()
    likeness = np.concatenate(vectors) @ np.concatenate(vectors).T
    pairs = [(a, b) for a in range(len(ids)) for b in range(a) if ids[a][0] != ids[b][0]]
    same = np.array([likeness[a, b] for a, b in pairs if ids[a][1] == ids[b][1]])
    other = np.array([likeness[a, b] for a, b in pairs if ids[a][1] != ids[b][1]])
    assert min(len(same), len(other)) > 40
    assert (same[:, None] > other[None]).mean() > 0.92
