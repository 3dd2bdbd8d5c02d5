"""The Open Inference Protocol over HTTP, with the standard library alone.

Tensors travel in binary where the server has that extension (Triton, OpenVINO Model Server), else as JSON
numbers (MLServer), which takes several times as long as the same over gRPC.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from pipeline.heads import TensorInfo
from pipeline.models.oip import DATATYPES, Address, Said, ServerError, tensor_info

__all__ = ["HttpServer"]

_NAMES = {dtype: name for name, dtype in DATATYPES.items()}
_LENGTH = "Inference-Header-Content-Length"


class HttpServer:
    """One model on a server that speaks HTTP; a `pipeline.models.oip.ModelServer`.

    Args:
        address: Where it is.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._model = f"/v2/models/{quote(address.model, safe='')}"
        if address.version:
            self._model += f"/versions/{quote(address.version, safe='')}"
        self._connection: http.client.HTTPConnection | None = None
        self._binary = False

    def about(self) -> Said:
        """What the server says of itself."""
        body = self._json("GET", "/v2")
        extensions = body.get("extensions")
        self._binary = isinstance(extensions, list) and "binary_tensor_data" in extensions
        return Said(f"{body.get('name', 'unnamed')} {body.get('version', '')}".strip(), self._binary)

    def ready(self) -> bool:
        """Whether the model is; a server that is starting answers 4xx or 503."""
        status, _, body = self._ask("GET", f"{self._model}/ready")
        if status == 200:
            return True
        if status in (400, 503) or (status == 404 and not self._server_ready()):
            return False
        raise _said(status, body)

    def metadata(self) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
        """Inputs and outputs of the model."""
        body = self._json("GET", self._model)
        return _infos(body.get("inputs")), _infos(body.get("outputs"))

    def infer(self, inputs: Mapping[str, NDArray[Any]], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """One run: the outputs of these names."""
        head: dict[str, Any] = {"inputs": [], "outputs": [{"name": name} for name in names]}
        raw: list[bytes] = []
        for name, array in inputs.items():
            told: dict[str, Any] = {
                "name": name,
                "shape": list(array.shape),
                "datatype": _NAMES[array.dtype.name],
            }
            if self._binary:
                raw.append(np.ascontiguousarray(array).tobytes())
                told["parameters"] = {"binary_data_size": len(raw[-1])}
            else:
                told["data"] = array.reshape(-1).tolist()
            head["inputs"].append(told)
        if self._binary:
            for output in head["outputs"]:
                output["parameters"] = {"binary_data": True}
        text = json.dumps(head).encode()
        headers = {"Content-Type": "application/octet-stream" if self._binary else "application/json"}
        if self._binary:
            headers[_LENGTH] = str(len(text))
        status, answer, body = self._ask("POST", f"{self._model}/infer", b"".join([text, *raw]), headers)
        if status != 200:
            raise _said(status, body)
        try:
            return _outputs(
                body, next((text for name, text in answer.items() if name.lower() == _LENGTH.lower()), None)
            )
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise ServerError("said", f"an answer that is not of the protocol: {error!r}") from error

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _server_ready(self) -> bool:
        return self._ask("GET", "/v2/health/ready")[0] == 200

    def _json(self, method: str, path: str) -> dict[str, Any]:
        status, _, body = self._ask(method, path)
        if status != 200:
            raise _said(status, body)
        try:
            parsed = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise ServerError("said", f"{path} is answered by {body[:80]!r}") from error
        if not isinstance(parsed, dict):
            raise ServerError("said", f"{path} is answered by {body[:80]!r}")
        return parsed

    def _ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        address = self._address
        if self._connection is None:
            if address.tls:
                self._connection = http.client.HTTPSConnection(
                    address.host,
                    address.port,
                    timeout=address.timeout_s,
                    context=ssl.create_default_context(),
                )
            else:
                self._connection = http.client.HTTPConnection(
                    address.host, address.port, timeout=address.timeout_s
                )
        given = dict(headers or {})
        if address.authorization:
            given["Authorization"] = address.authorization
        try:
            self._connection.request(method, path, body, given)
            response = self._connection.getresponse()
            return response.status, dict(response.headers), response.read()
        except TimeoutError as error:
            self.close()
            raise ServerError("timeout", f"no answer within {address.timeout_s:g} s") from error
        except OSError as error:
            self.close()
            raise ServerError("unreachable", error.strerror or str(error) or type(error).__name__) from error
        except http.client.HTTPException as error:
            self.close()
            raise ServerError(
                "said", f"nothing that is HTTP ({type(error).__name__}); is this its gRPC port?"
            ) from error


def _infos(listed: Any) -> tuple[TensorInfo, ...]:
    try:
        return tuple(tensor_info(one["name"], one["datatype"], one["shape"]) for one in listed or ())
    except (KeyError, TypeError) as error:
        raise ServerError("said", f"metadata that is not of the protocol: {error!r}") from error


def _outputs(body: bytes, length: str | None) -> dict[str, NDArray[Any]]:
    start = int(length) if length else len(body)
    found: dict[str, NDArray[Any]] = {}
    for output in json.loads(body[:start])["outputs"]:
        dtype = np.dtype(DATATYPES[output["datatype"]])
        size = output.get("parameters", {}).get("binary_data_size") if length else None
        if size is None:
            array = np.asarray(output["data"], dtype)
        else:
            array = np.frombuffer(body[start : start + size], dtype)
            start += size
        found[output["name"]] = array.reshape(output["shape"])
    return found


def _said(status: int, body: bytes) -> ServerError:
    try:
        text = str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        text = body.decode("utf-8", "replace") or http.client.responses.get(status, "nothing")
    if status in (401, 403):
        return ServerError("auth", f"{status} {text}")
    return ServerError("missing" if status == 404 else "said", f"{status} {text}")
