"""A real model server for tests: MLServer with one ONNX file, in a Python of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import onnxruntime as ort

__all__ = ["ModelServer", "python_with_mlserver"]

_START_S = 60.0
#: What MLServer runs; it lies in the folder of the model, and imports nothing of framewire.
_SERVED = """
import numpy as np
import onnxruntime as ort
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class OnnxModel(MLModel):
    async def load(self):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = ort.InferenceSession(
            self.settings.parameters.uri, options, providers=["CPUExecutionProvider"]
        )
        return True

    async def predict(self, payload):
        feeds = {one.name: NumpyCodec.decode_input(one) for one in payload.inputs}
        names = [one.name for one in payload.outputs or self._session.get_outputs()]
        found = self._session.run(names, feeds)
        outputs = [NumpyCodec.encode_output(name, array) for name, array in zip(names, found)]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
"""
_DATATYPES = {
    "tensor(float)": "FP32",
    "tensor(float16)": "FP16",
    "tensor(uint8)": "UINT8",
    "tensor(int64)": "INT64",
}


def python_with_mlserver() -> str:
    """The Python named by ``FRAMEWIRE_MLSERVER``; empty where it is not set."""
    return os.environ.get("FRAMEWIRE_MLSERVER", "")


class ModelServer:
    """MLServer on loopback; a context manager that waits until it is ready and stops it.

    Args:
        python: A Python that has ``mlserver`` and ``onnxruntime``.
        model: The ONNX file to serve.
        folder: Where its settings and log may lie.
        name: Name under which it is served.
        ports: HTTP, gRPC and metrics; free ones are taken by default.

    Attributes:
        http_port: Port of HTTP.
        grpc_port: Port of gRPC.
    """

    def __init__(
        self,
        python: str,
        model: Path,
        folder: Path,
        *,
        name: str = "served",
        ports: tuple[int, int, int] | None = None,
    ) -> None:
        self.http_port, self.grpc_port, self._metrics_port = ports or _free_ports()
        self._python = python
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._tick = threading.Event()
        where = folder / name
        where.mkdir(parents=True, exist_ok=True)
        (where / "served.py").write_text(_SERVED, "utf-8")
        session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        settings = {
            "name": name,
            "implementation": "served.OnnxModel",
            "parameters": {"uri": str(model.resolve())},
            "inputs": _tensors(session.get_inputs()),
            "outputs": _tensors(session.get_outputs()),
        }
        (where / "model-settings.json").write_text(json.dumps(settings), "utf-8")
        server = {
            "host": "127.0.0.1",
            "http_port": self.http_port,
            "grpc_port": self.grpc_port,
            "metrics_port": self._metrics_port,
            "parallel_workers": 0,
            "grpc_max_message_length": 64 << 20,
            "debug": False,
        }
        (folder / "settings.json").write_text(json.dumps(server), "utf-8")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start it, and wait until it is ready.

        Raises:
            RuntimeError: it ends before that, or takes too long.
        """
        log = self._folder / "server.log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [self._python, "-c", "from mlserver.cli import main; main()", "start", str(self._folder)],
                stdout=out,
                stderr=out,
                cwd=self._folder,
                start_new_session=True,
            )
        until = time.monotonic() + _START_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.stop()
                raise RuntimeError(f"mlserver did not start:\n{log.read_text('utf-8', 'replace')[-2000:]}")
            self._tick.wait(0.1)

    def stop(self) -> None:
        """End it, with all that it started."""
        if self._process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
                break
        self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.http_port}/v2/health/ready", timeout=1
            ) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False


def _tensors(arguments: list[Any]) -> list[dict[str, Any]]:
    return [
        {
            "name": one.name,
            "datatype": _DATATYPES[one.type],
            "shape": [size if isinstance(size, int) else -1 for size in one.shape],
        }
        for one in arguments
    ]


def _free_ports() -> tuple[int, int, int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        first, second, third = (int(one.getsockname()[1]) for one in sockets)
    return first, second, third
