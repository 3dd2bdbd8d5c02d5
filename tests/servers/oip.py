"""Model servers inside the test's process, with faults on demand: over HTTP, and over gRPC with tritonclient.

Both serve one model: a picture float32 (n, 3, 64, 64) in, its mean in every element of (n, 84, 85) out.
"""

from __future__ import annotations

import http.server
import importlib
import json
import socket
import threading
from collections.abc import Mapping
from concurrent import futures
from types import TracebackType
from typing import Any, Self

import numpy as np

__all__ = ["CELLS", "FakeGrpc", "FakeHttp"]

CELLS = 84
_LENGTH = "Inference-Header-Content-Length"
_INPUT = {"name": "images", "datatype": "FP32", "shape": [-1, 3, 64, 64]}
_OUTPUT = {"name": "output", "datatype": "FP32", "shape": [-1, CELLS, 85]}


class _Fake:
    """What both share.

    Attributes:
        fault: What goes wrong; empty for nothing.
        unready: How often the model is still to answer that it is not ready.
        seen: Credentials that requests came with.
        port: Where it listens, on loopback.
    """

    def __init__(self) -> None:
        self.fault = ""
        self.unready = 0
        self.seen: list[str] = []
        self.port = 0
        self._over = threading.Event()

    def stall(self) -> None:
        """Answer nothing until the server ends."""
        self._over.wait(30)

    def output(self, pictures: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        means = pictures.mean(axis=(1, 2, 3), dtype=np.float32)
        rows = 83 if self.fault == "shape" else CELLS
        return np.ascontiguousarray(np.broadcast_to(means[:, None, None], (len(pictures), rows, 85)))

    def not_ready(self) -> bool:
        self.unready -= 1
        return self.unready >= 0 or self.fault == "never ready"


class FakeHttp(_Fake):
    """A server of HTTP; a context manager.

    Args:
        binary: Whether it has the extension for binary tensors.
    """

    def __init__(self, *, binary: bool = True) -> None:
        super().__init__()
        self.binary = binary
        self.drops = 0
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                fake.answer(self, b"")

            def do_POST(self) -> None:
                fake.answer(self, self.rfile.read(int(self.headers["Content-Length"])))

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Nothing: the tests say what they saw."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, request: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        self.seen.append(request.headers.get("Authorization", ""))
        if self.fault == "stall":
            self.stall()
            request.close_connection = True
            return
        if self.fault == "drop" or self.drops > 0:
            self.drops -= 1
            request.connection.shutdown(socket.SHUT_RDWR)
            request.close_connection = True
            return
        if self.fault in ("401", "500") and (self.fault == "401" or body):
            self._send(request, int(self.fault), {"error": "you shall not pass"})
        elif request.path == "/v2":
            extensions = ["binary_tensor_data"] if self.binary else []
            self._send(request, 200, {"name": "fake", "version": "1.0", "extensions": extensions})
        elif request.path == "/v2/health/ready":
            self._send(request, 200, {})
        elif not request.path.startswith("/v2/models/served"):
            self._send(request, 404, {"error": "Request for unknown model"})
        elif request.path.endswith("/ready"):
            self._send(request, 503 if self.not_ready() else 200, {})
        elif body:
            self._infer(request, body)
        elif self.fault == "html":
            self._send(request, 200, b"<html>")
        else:
            said = {"inputs": [_INPUT], "outputs": [] if self.fault == "no outputs" else [_OUTPUT]}
            self._send(request, 200, {"name": "served", **said})

    def _infer(self, request: http.server.BaseHTTPRequestHandler, body: bytes) -> None:
        length = int(request.headers.get(_LENGTH, len(body)))
        told = json.loads(body[:length])["inputs"][0]
        raw = body[length:]
        pictures = np.frombuffer(raw, np.float32) if self.binary else np.asarray(told["data"], np.float32)
        array = self.output(pictures.reshape(told["shape"]))
        output: dict[str, Any] = {"name": "output", "datatype": "FP32", "shape": list(array.shape)}
        if self.fault == "cut":
            output["shape"][0] += 1
        if self.fault == "type":
            output["datatype"] = "WORDS"
        if self.fault == "other name":
            output["name"] = "result"
        if not self.binary:
            self._send(request, 200, {"outputs": [output | {"data": array.reshape(-1).tolist()}]})
            return
        output["parameters"] = {"binary_data_size": array.nbytes}
        head = json.dumps({"outputs": [output]}).encode()
        self._send(request, 200, head + array.tobytes(), {_LENGTH: str(len(head))})

    def _send(
        self,
        request: http.server.BaseHTTPRequestHandler,
        status: int,
        body: Mapping[str, Any] | bytes,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request.send_response(status)
        for name, value in (headers or {}).items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(data)


class FakeGrpc(_Fake):
    """A server of gRPC; a context manager. Needs ``tritonclient[grpc]``.

    Args:
        raw: Whether it answers with raw bytes; else with numbers.
    """

    def __init__(self, *, raw: bool = True) -> None:
        super().__init__()
        self._grpc: Any = importlib.import_module("grpc")
        self._messages: Any = importlib.import_module("tritonclient.grpc.service_pb2")
        services: Any = importlib.import_module("tritonclient.grpc.service_pb2_grpc")
        self._raw = raw
        self._server = self._grpc.server(futures.ThreadPoolExecutor(4))
        services.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._server.stop(0).wait()

    def __getattr__(self, name: str) -> Any:
        if name[0].isupper():  # what of the service this fake does not do
            return None
        raise AttributeError(name)

    def _enter(self, context: Any) -> None:
        self.seen.append(dict(context.invocation_metadata()).get("authorization", ""))
        if self.fault == "stall":
            self.stall()
        if self.fault == "401":
            context.abort(self._grpc.StatusCode.UNAUTHENTICATED, "you shall not pass")

    def ServerMetadata(self, request: Any, context: Any) -> Any:
        self._enter(context)
        return self._messages.ServerMetadataResponse(name="fake", version="1.0")

    def ServerReady(self, request: Any, context: Any) -> Any:
        return self._messages.ServerReadyResponse(ready=True)

    def ModelReady(self, request: Any, context: Any) -> Any:
        ready = request.name == "served" and not self.not_ready()
        return self._messages.ModelReadyResponse(ready=ready)

    def ModelMetadata(self, request: Any, context: Any) -> Any:
        if request.name != "served":
            context.abort(self._grpc.StatusCode.NOT_FOUND, f"Request for unknown model: {request.name}")
        said = self._messages.ModelMetadataResponse
        outputs = [] if self.fault == "no outputs" else [said.TensorMetadata(**_OUTPUT)]
        return said(name="served", inputs=[said.TensorMetadata(**_INPUT)], outputs=outputs)

    def ModelInfer(self, request: Any, context: Any) -> Any:
        self._enter(context)
        if self.fault == "500":
            context.abort(self._grpc.StatusCode.INTERNAL, "you shall not pass")
        told = request.inputs[0]
        pictures = np.frombuffer(request.raw_input_contents[0], np.float32).reshape(tuple(told.shape))
        array = self.output(pictures)
        answer = self._messages.ModelInferResponse(model_name="served")
        output = answer.outputs.add()
        output.name = "result" if self.fault == "other name" else "output"
        output.datatype = "WORDS" if self.fault == "type" else "FP32"
        output.shape.extend([array.shape[0] + (self.fault == "cut"), *array.shape[1:]])
        if self._raw:
            answer.raw_output_contents.append(array.tobytes())
        else:
            output.contents.fp32_contents.extend(array.reshape(-1).tolist())
        return answer
