from __future__ import annotations

import base64
import importlib.util
import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ModelError, ProviderError
from pipeline.models.base import build_runner, is_remote, prepare
from pipeline.models.oip import Address
from pipeline.models.onnx import OnnxRunner
from pipeline.models.remote import RemoteRunner
from tests.models.graphs import save_graph
from tests.servers.model_server import ModelServer, python_with_mlserver
from tests.servers.oip import CELLS, FakeGrpc, FakeHttp

needs_client = pytest.mark.skipif(
    importlib.util.find_spec("tritonclient") is None, reason="tritonclient is not installed (extra triton)"
)
needs_server = pytest.mark.skipif(
    not python_with_mlserver(), reason="FRAMEWIRE_MLSERVER names no Python that has mlserver"
)
SECRET = "hunter2hunter2"
Fake = FakeHttp | FakeGrpc
FAKES = [
    pytest.param(lambda: FakeHttp(binary=True), id="http-binary"),
    pytest.param(lambda: FakeHttp(binary=False), id="http-json"),
    pytest.param(lambda: FakeGrpc(raw=True), id="grpc-raw", marks=needs_client),
    pytest.param(lambda: FakeGrpc(raw=False), id="grpc-numbers", marks=needs_client),
]


@pytest.fixture
def card(tmp_path: Path) -> Path:
    path = tmp_path / "card.json"
    path.write_text(json.dumps({"family": "yolox"}))
    return path


def address(fake: Fake, card: Path, *, user: str = "", model: str = "served", options: str = "") -> str:
    scheme = "oip+http" if isinstance(fake, FakeHttp) else "oip"
    return f"{scheme}://{user}127.0.0.1:{fake.port}/{model}?card={card}&wait_s=5{options}"


def run(runner: RemoteRunner, count: int) -> np.ndarray[Any, Any]:
    """The output for pictures whose mean is their number from 1."""
    tensors = np.ones((count, 3, 64, 64), np.float32)
    tensors *= np.arange(1, count + 1, dtype=np.float32)[:, None, None, None]
    outputs = np.full((count, CELLS, 85), np.nan, np.float32)
    runner.forward(tensors, [outputs])
    return outputs


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("oip://gpu:8001/yolox", Address(False, False, "gpu", 8001, "yolox")),
        ("oips://gpu:8001/yolox", Address(False, True, "gpu", 8001, "yolox")),
        (
            "oip+http://[::1]:8000/a%20b?version=2&timeout_s=0.5&wait_s=9",
            Address(True, False, "::1", 8000, "a b", "2", timeout_s=0.5, wait_s=9),
        ),
        (
            "oip+https://me:p%40ss@h:1/m?card=/a/b.json",
            Address(
                True,
                True,
                "h",
                1,
                "m",
                authorization=f"Basic {base64.b64encode(b'me:p@ss').decode()}",
                card="/a/b.json",
            ),
        ),
        ("oip://tok%2Fen@h:1/m", Address(False, False, "h", 1, "m", authorization="Bearer tok/en")),
    ],
)
def test_addresses(text: str, expected: Address) -> None:
    assert is_remote(text)
    assert Address.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("oip://gpu/yolox", "names no port"),
        ("oip://:8001/yolox", "names no host"),
        ("oip://gpu:8001", "names no model"),
        ("oip://gpu:8001/models/yolox", "names no model"),
        ("oip://gpu:80010/yolox", "is no number from 1 to 65535"),
        ("oip://gpu:8001/yolox?verion=1", "unknown option 'verion'"),
        ("oip://gpu:8001/yolox?timeout_s=-1", "not seconds from 0 to 3600"),
        ("oip://gpu:8001/yolox?wait_s=nan", "not seconds from 0 to 3600"),
        ("oip+http://gpu:8001/yolox?card=/nowhere.json", "card /nowhere.json cannot be read"),
        ("http://gpu:8001/yolox", "no address of a model server"),
    ],
)
def test_wrong_addresses_are_refused_without_their_secrets(text: str, message: str) -> None:
    scheme, _, rest = text.partition("://")
    with pytest.raises(ModelError, match=message) as caught:
        RemoteRunner(f"{scheme}://user:{SECRET}@{rest}")
    assert SECRET not in str(caught.value)
    assert caught.value.hint or "card" in message


def test_a_name_shows_no_credentials_and_no_options() -> None:
    parsed = Address.parse(f"oip+http://user:{SECRET}@Gpu:8000/m?version=3&card=x.json")
    assert parsed.name == "oip+http://gpu:8000/m?version=3"
    assert Address.parse("oip://[::1]:1/m").name == "oip://[::1]:1/m"


@pytest.mark.parametrize("wrong", [{"device": "cuda"}, {"device": "cpu"}, {"precision": "fp16"}])
def test_device_and_precision_are_the_servers(wrong: dict[str, str]) -> None:
    with pytest.raises(ProviderError, match="runs on a model server") as caught:
        build_runner(f"oip+http://{SECRET}@gpu:8000/m", **wrong)  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)


def test_grpc_without_its_client_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="client for it is not installed") as caught:
        prepare("oip://gpu:8001/m")
    assert "framewire[triton]" in caught.value.hint
    assert "oip+http://" in caught.value.hint
    prepare("oip+http://gpu:8001/m")  # asks nobody


@pytest.mark.parametrize("make", FAKES)
def test_a_served_model_is_recognised_and_run(make: Any, card: Path) -> None:
    with make() as fake:
        runner = build_runner(address(fake, card, user=f"user:{SECRET}@"), batch=3)
        spec = runner.open()
        assert (spec.family, spec.provider, spec.sha256) == ("yolox", "oip: fake 1.0", "")
        assert (
            spec.name
            == f"{'oip+http' if isinstance(fake, FakeHttp) else 'oip'}://127.0.0.1:{fake.port}/served"
        )
        assert (spec.input_width, spec.input_height, spec.input_dtype) == (64, 64, "float32")
        assert runner.output_shapes == ((1, CELLS, 85),)
        assert sorted(runner.service_ns) == [1, 2, 3]
        assert isinstance(runner, RemoteRunner)
        for count in (1, 3):
            np.testing.assert_allclose(run(runner, count)[:, 0, 0], np.arange(1, count + 1), rtol=1e-5)
        runner.close()
        runner.close()
        basic = f"Basic {base64.b64encode(f'user:{SECRET}'.encode()).decode()}"
        assert basic in fake.seen


@pytest.mark.parametrize("make", FAKES[::2])
@pytest.mark.parametrize(
    ("fault", "message", "hint"),
    [
        ("shape", "came as float32 (1, 83, 85), not as float32 (1, 84, 85)", ""),
        ("cut", "said of oip", ""),
        ("type", "not of the protocol", ""),
        ("other name", "leaves out the output 'output'", ""),
        ("500", "you shall not pass", ""),
        ("stall", "no answer within 0.3 s", "timeout_s"),
    ],
)
def test_faults_while_it_runs(make: Any, fault: str, message: str, hint: str, card: Path) -> None:
    with make() as fake:
        runner = RemoteRunner(address(fake, card, user=f"{SECRET}@", options="&timeout_s=0.3"))
        runner.open()
        fake.fault = fault
        with pytest.raises(ModelError) as caught:
            run(runner, 1)
        assert message in caught.value.message
        assert hint in caught.value.hint
        assert SECRET not in str(caught.value)
        if fault != "stall":
            fake.fault = ""
            np.testing.assert_allclose(run(runner, 1), 1, rtol=1e-5)
        runner.close()


@pytest.mark.parametrize("make", FAKES[::2])
@pytest.mark.parametrize(
    ("fault", "message", "hint"),
    [
        ("401", "refuses us: ", "TOKEN"),
        ("no outputs", "tells no inputs or outputs", "config.pbtxt"),
        ("never ready", "is not ready after 0.4 s", "wait_s"),
        ("stall", "no answer within 0.2 s", "timeout_s"),
    ],
)
def test_faults_when_it_opens(make: Any, fault: str, message: str, hint: str, card: Path) -> None:
    with make() as fake:
        fake.fault = fault
        text = address(fake, card, user=f"{SECRET}@", options="&wait_s=0.4&timeout_s=0.2")
        with pytest.raises(ModelError) as caught:
            RemoteRunner(text).open()
        assert message in caught.value.message
        assert hint in caught.value.hint
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("make", FAKES[::2])
def test_a_model_that_is_not_there(make: Any, card: Path) -> None:
    with make() as fake, pytest.raises(ModelError, match="has no model 'nothing' of version '4'") as caught:
        RemoteRunner(address(fake, card, model="nothing", options="&version=4&wait_s=0.3")).open()
    assert "folder or settings file" in caught.value.hint


@pytest.mark.parametrize("make", FAKES[::2])
def test_a_model_that_gets_ready_is_waited_for(make: Any, card: Path) -> None:
    with make() as fake:
        fake.unready = 2
        runner = RemoteRunner(address(fake, card))
        assert runner.open().family == "yolox"
        assert fake.unready == -1
        runner.close()


def test_an_answer_that_is_no_json(card: Path) -> None:
    with FakeHttp() as fake:
        fake.fault = "html"
        with pytest.raises(ModelError, match="is answered by b'<html>'"):
            RemoteRunner(address(fake, card)).open()


def test_a_connection_that_broke_is_made_again_once(card: Path) -> None:
    with FakeHttp() as fake:
        runner = RemoteRunner(address(fake, card))
        runner.open()
        fake.drops = 1
        np.testing.assert_allclose(run(runner, 1), 1)
        fake.fault = "drop"
        with pytest.raises(ModelError, match=r"no model server answers at 127\.0\.0\.1"):
            run(runner, 1)
        runner.close()
        with pytest.raises(ModelError, match="is not open"):
            run(runner, 1)


@pytest.mark.parametrize("scheme", ["oip+http", pytest.param("oip", marks=needs_client)])
def test_nobody_there(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ModelError, match=f"no model server answers at 127.0.0.1:{port}") as caught:
        RemoteRunner(f"{scheme}://{SECRET}@127.0.0.1:{port}/m?wait_s=0.3").open()
    assert "8001 on Triton" in caught.value.hint
    assert SECRET not in str(caught.value)


@needs_client
def test_the_wrong_port_is_called_so(card: Path) -> None:
    with FakeHttp() as fake, pytest.raises(ModelError, match=r"it speaks HTTP, not gRPC"):
        RemoteRunner(f"oip://127.0.0.1:{fake.port}/m").open()
    with FakeGrpc() as other, pytest.raises(ModelError, match="nothing that is HTTP"):
        RemoteRunner(f"oip+http://127.0.0.1:{other.port}/m").open()


@needs_server
@pytest.mark.timeout(120)
@pytest.mark.parametrize("scheme", ["oip+http", pytest.param("oip", marks=needs_client)])
def test_mlserver_gives_what_the_file_gives(scheme: str, tmp_path: Path, card: Path) -> None:
    model = save_graph(
        tmp_path / "m.onnx",
        {"output": (CELLS, 85)},
        input_shape=("n", 3, 64, 64),
        metadata={"framewire.card": card.read_text("utf-8")},
    )
    local = OnnxRunner(str(model), device="cpu", batch=2)
    local.open()
    with ModelServer(python_with_mlserver(), model, tmp_path / "server") as server:
        port = server.http_port if scheme == "oip+http" else server.grpc_port
        runner = RemoteRunner(f"{scheme}://127.0.0.1:{port}/served?card={card}", batch=2)
        spec = runner.open()
        assert spec.provider.startswith("oip: mlserver 1.")
        tensors = np.random.default_rng(0).random((2, 3, 64, 64), np.float32)
        far, near = (
            [np.full((2, *shape[1:]), np.nan, np.float32) for shape in one.output_shapes]
            for one in (runner, local)
        )
        runner.forward(tensors, far)
        local.forward(tensors, near)
        for one, other in zip(far, near, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6)
        with pytest.raises(ModelError, match="has no model 'other'"):
            RemoteRunner(f"{scheme}://127.0.0.1:{port}/other?wait_s=0.3").open()
        server.stop()
        with pytest.raises(ModelError, match="no model server answers"):
            runner.forward(tensors, far)
        server.start()
        runner.forward(tensors, far)
        runner.close()
    local.close()


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (f"oip+http://{SECRET}%0a@gpu:8000/m", "a character that no header can hold"),
        (f"oip+http://{SECRET}%C3%A4@gpu:8000/m", "a character that no header can hold"),
        (f"oip+http://{SECRET}@[gpu:8000/m", "no valid host"),
        (f"oip+http://{SECRET}@{'g' * 64}.example:8000/m", "no valid host"),
    ],
)
def test_addresses_that_no_request_could_be_made_of(address: str, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        RemoteRunner(address)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
