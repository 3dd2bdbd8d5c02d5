from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto

from pipeline.errors import ConfigError, ModelError, ProviderError
from pipeline.heads import load_head
from pipeline.models import providers
from pipeline.models.base import build_runner, prepare
from pipeline.models.labels import COCO_80
from pipeline.models.onnx import OnnxRunner
from pipeline.vision.nms import nms
from pipeline.vision.tensor import TensorFiller
from tests.models.runners import CELLS, YOLOX, outputs_of, save_graph

ASSETS = Path(__file__).resolve().parents[2].parent / "shared" / "assets"
needs_assets = pytest.mark.skipif(not ASSETS.is_dir(), reason="shared/assets is not beside the project")


def test_default_model_opens_and_describes_itself() -> None:
    runner = OnnxRunner("default")
    spec = runner.open()
    assert (spec.name, spec.family, spec.provider) == ("default", "nanodet", "CPUExecutionProvider")
    assert (spec.input_width, spec.input_height, spec.input_dtype, spec.input_layout) == (
        416,
        416,
        "uint8",
        "nhwc",
    )
    assert spec.labels == COCO_80
    assert runner.output_shapes == ((1, 3549, 4), (1, 3549, 80))
    assert runner.output_dtypes == ("float32", "float32")
    assert [text.partition(":")[0] for text in runner.refusals] == ["tensorrt", "cuda", "openvino"]
    runner.close()
    runner.close()


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("input_shape", [(1, 3, 64, 64), ("batch", 3, 64, 64)])
def test_outputs_are_written_into_the_buffers(tmp_path: Path, input_shape: Any, batch: int) -> None:
    """In place, with a free batch in one run and with a fixed one frame by frame."""
    declared = {"output": (input_shape[0], CELLS, 85)}
    runner = OnnxRunner(
        str(save_graph(tmp_path / "m.onnx", YOLOX, input_shape=input_shape, declared=declared))
    )
    runner.open()
    tensors = (
        np.ones((batch, 3, 64, 64), np.float32)
        * np.arange(1, batch + 1, dtype=np.float32)[:, None, None, None]
    )
    # A window into a larger buffer, as a slot of a pool is.
    slot = np.full((batch + 2, CELLS, 85), -1, np.float32)
    for _ in range(2):  # the second time with everything bound anew
        runner.forward(tensors, [slot[1:-1]])
        np.testing.assert_allclose(slot[1:-1], np.broadcast_to(tensors[:, :1, :1, 0], slot[1:-1].shape))
        assert (slot[[0, -1]] == -1).all()
    runner.close()


def test_read_only_input_of_shared_memory_will_do(tmp_path: Path) -> None:
    runner = OnnxRunner(str(save_graph(tmp_path / "m.onnx", YOLOX)))
    runner.open()
    tensors = np.full((1, 3, 64, 64), 5, np.float32)
    tensors.flags.writeable = False
    outputs = outputs_of(runner, 1)
    runner.forward(tensors, outputs)
    assert (outputs[0] == 5).all()
    runner.close()


@pytest.mark.parametrize(
    ("shape", "dtype", "rows"),
    [((1, 64, 64, 3), "float32", 1), ((1, 3, 64, 64), "uint8", 1), ((2, 3, 64, 64), "float32", 1)],
)
def test_buffers_that_do_not_fit_are_refused(tmp_path: Path, shape: Any, dtype: str, rows: int) -> None:
    runner = OnnxRunner(str(save_graph(tmp_path / "m.onnx", YOLOX)))
    runner.open()
    with pytest.raises(ModelError, match="takes and gives"):
        runner.forward(np.zeros(shape, dtype), outputs_of(runner, rows))
    with pytest.raises(ModelError, match="contiguous"):
        runner.forward(np.zeros((1, 3, 64, 128), np.float32)[..., ::2], outputs_of(runner, 1))
    runner.close()


def test_free_input_and_output_sizes_are_found_by_running(tmp_path: Path) -> None:
    path = save_graph(
        tmp_path / "free.onnx",
        YOLOX,
        input_shape=("n", 3, "h", "w"),
        declared={"output": ("n", "anchors", "columns")},
    )
    runner = OnnxRunner(str(path), input_size=(64, 64))
    spec = runner.open()
    assert (spec.input_width, spec.input_height) == (64, 64)
    assert runner.output_shapes == ((1, CELLS, 85),)
    assert "size is free, 64x64 taken" in runner.why
    runner.close()
    # At the default size 640 this graph's outputs are not those of any family.
    with pytest.raises(ModelError, match=r"images float32 \[n, 3, 640, 640\]"):
        OnnxRunner(str(path)).open()


def test_size_that_the_graph_does_not_have(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "m.onnx", YOLOX)
    with pytest.raises(ModelError, match="takes 64x64 pixels, not 96x64"):
        OnnxRunner(str(path), input_size=(96, 64)).open()


def test_labels_from_metadata(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "m.onnx", {"output": (CELLS, 7)}, metadata={"names": "{0: 'cat', 1: 'dog'}"})
    assert OnnxRunner(str(path)).open().labels == ("cat", "dog")


def test_card_beside_the_file_wins(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "m.onnx", {"output": (CELLS, 7)})
    card = {
        "family": "yolox",
        "labels": ["a", "b"],
        "channels": "rgb",
        "mean": [1, 2, 3],
        "letterbox": "center",
    }
    (tmp_path / "m.onnx.json").write_text(json.dumps(card))
    runner = OnnxRunner(str(path))
    spec = runner.open()
    assert (spec.labels, spec.channels, spec.mean, spec.letterbox) == (("a", "b"), "rgb", (1, 2, 3), "center")
    assert runner.why == "its card says so"


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "is not a JSON object"),
        ('{"familly": "yolox"}', "unknown field 'familly'"),
        ('{"family": "nanodet"}', "cannot be of the family 'nanodet' that its card names; fitting: .*yolox"),
        ('{"channels": "grey"}', 'has channels "grey"'),
        ('{"mean": [1, 2]}', "has mean"),
        ('{"output_names": ["boxes"]}', "names outputs that it lacks: boxes"),
    ],
)
def test_wrong_cards(tmp_path: Path, card: str, message: str) -> None:
    path = save_graph(tmp_path / "m.onnx", YOLOX)
    (tmp_path / "m.onnx.json").write_text(card)
    with pytest.raises(ModelError, match=message):
        OnnxRunner(str(path)).open()


def test_unknown_outputs_are_listed_with_the_families(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "m.onnx", {"embedding": (5, 6, 7, 8)})
    with pytest.raises(ModelError) as caught:
        OnnxRunner(str(path)).open()
    for part in ("nanodet, ", "yolox", "images float32 [1, 3, 64, 64]", "embedding float32 [1, 5, 6, 7, 8]"):
        assert part in caught.value.message
    assert "models list" in caught.value.hint


@pytest.mark.parametrize("content", [b"this is no model", b"\x08\x07\x12", bytes(1000)])
def test_damaged_file(tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(
        ModelError, match=r"bad\.onnx cannot be loaded as an ONNX model|is of no family"
    ) as caught:
        OnnxRunner(str(path)).open()
    assert caught.value.exit_code == 4
    assert "ONNXRuntimeError" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_truncated_real_model(tmp_path: Path) -> None:
    whole = save_graph(tmp_path / "m.onnx", YOLOX).read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="cannot be loaded"):
        OnnxRunner(str(tmp_path / "half.onnx")).open()


def test_device_names() -> None:
    with pytest.raises(ProviderError, match="no device 'gpu'") as caught:
        build_runner("default", device="gpu")
    assert "auto, cpu, cuda" in caught.value.hint
    assert not isinstance(caught.value, ConfigError)


def test_a_float16_file_is_not_run_as_float32(tmp_path: Path) -> None:
    path = save_graph(tmp_path / "m.onnx", YOLOX, kind=TensorProto.FLOAT16)
    assert build_runner(str(path), device="cpu").open().input_dtype == "float16"
    with pytest.raises(ProviderError, match="'fp32' was asked for, but m is a float16 file"):
        build_runner(str(path), device="cpu", precision="fp32").open()
    with pytest.raises(ProviderError, match="'fp16' was asked for, but device 'cpu' computes in") as caught:
        build_runner(str(path), device="cpu", precision="fp16")
    assert "device: tensorrt; a float16 file runs as it is with precision: auto" in caught.value.hint


@pytest.mark.parametrize("device", ["cuda", "tensorrt", "openvino"])
def test_device_that_is_not_there_fails_and_says_what_to_install(
    device: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(providers, "nvidia_devices", lambda: 0)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ProviderError, match=f"'{device}' was asked for") as caught:
        OnnxRunner("default", device=device).open()
    assert "pip" in caught.value.hint
    assert "auto" in caught.value.hint
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(
    providers.nvidia_devices() > 0 or "CUDAExecutionProvider" not in ort.get_available_providers(),
    reason="needs the GPU build of onnxruntime on a machine without a GPU",
)
@pytest.mark.parametrize("device", ["cuda", "auto"])
def test_silent_fall_back_is_noticed(
    device: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """With a GPU that seems to be there but does not start, onnxruntime itself would run on the CPU."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(providers, "nvidia_devices", lambda: 1)
    runner = OnnxRunner(str(save_graph(tmp_path / "m.onnx", YOLOX)), device=device)
    if device == "auto":
        assert runner.open().provider == "CPUExecutionProvider"
        assert any(refusal.startswith("cuda: lib") for refusal in runner.refusals)
        assert "not taken: cuda: lib" in caplog.text
        runner.close()
    else:
        with pytest.raises(ProviderError, match="'cuda' was asked for, but lib"):
            runner.open()
    assert capfd.readouterr().out == ""


def test_network_that_fails_at_run_time(tmp_path: Path) -> None:
    """A fixed output that a frame does not keep to is an error, not a torn buffer."""
    runner = OnnxRunner(str(save_graph(tmp_path / "m.onnx", YOLOX, input_shape=("n", 3, 64, 64))))
    runner.open()
    inputs = runner._layout.inputs(np.zeros((1, 3, 64, 64), np.float32))
    with pytest.raises(ModelError, match="'m' failed"):
        runner._write(inputs, {"output": np.zeros((1, CELLS - 1, 85), np.float32)})
    runner.close()


def test_uint8_input(tmp_path: Path) -> None:
    outputs = {"boxes": (CELLS, 4), "scores": (CELLS, 3)}
    path = save_graph(tmp_path / "m.onnx", outputs, input_shape=("n", 64, 64, 3), kind=TensorProto.UINT8)
    runner = OnnxRunner(str(path))
    spec = runner.open()
    assert (spec.family, spec.input_dtype, spec.labels) == (
        "nanodet",
        "uint8",
        ("class_0", "class_1", "class_2"),
    )
    buffers = outputs_of(runner, 2)
    runner.forward(np.full((2, 64, 64, 3), 9, np.uint8), buffers)
    assert all((buffer == 9).all() for buffer in buffers)
    runner.close()


def test_prepare_finds_files() -> None:
    prepare("default")
    with pytest.raises(ModelError, match="no model 'defalt'"):
        prepare("defalt")


@needs_assets
@pytest.mark.parametrize(
    ("file", "family"),
    [
        ("yolox_nano_416.onnx", "yolox"),
        ("yolox-derived/yolox_nano_416_dynbatch.onnx", "yolox"),
        ("yolox-derived/yolox_nano_416_fp16.onnx", "yolox"),
        ("nanodet_m_416.onnx", "nanodet"),
        ("picodet_s_416.onnx", "picodet"),
        ("deimv2_atto_320.onnx", "detr"),
    ],
)
def test_real_models_are_recognised(file: str, family: str) -> None:
    spec = OnnxRunner(str(ASSETS / "models" / file), device="cpu").open()
    assert (spec.family, spec.labels) == (family, COCO_80)


@needs_assets
def test_a_model_of_no_family_is_refused() -> None:
    with pytest.raises(ModelError, match=r"of no family|not clear of which family"):
        OnnxRunner(str(ASSETS / "models" / "reid" / "osnet_x0_25_msmt17.onnx"), device="cpu").open()


@needs_assets
def test_default_model_finds_the_bus_and_its_person() -> None:
    runner = OnnxRunner("default", device="cpu")
    spec = runner.open()
    filler = TensorFiller(spec)
    tensor = np.zeros(filler.shape, np.uint8)
    picture = cv2.imread(str(ASSETS / "images" / "coco_train2017_000000000471.jpg"))
    filler.fill((np.asarray(picture, np.uint8),), "bgr24", tensor)
    outputs = outputs_of(runner, 1)
    runner.forward(tensor, outputs)
    found = load_head(spec.family).decode(outputs, spec, 0.4)
    found = found.select(nms(found.boxes_xyxy, found.scores, found.class_ids, 0.5))
    assert spec.labels[found.class_ids[0]] == "bus"
    assert found.scores[0] > 0.6
    runner.close()
