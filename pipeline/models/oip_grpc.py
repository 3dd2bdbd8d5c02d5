"""The Open Inference Protocol over gRPC, through the ``tritonclient`` package (extra ``triton``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.heads import TensorInfo
from pipeline.models.oip import DATATYPES, Address, Kind, Said, ServerError, tensor_info

__all__ = ["GrpcServer"]

_NAMES = {dtype: name for name, dtype in DATATYPES.items()}
_KINDS: dict[str, Kind] = {
    "StatusCode.UNAVAILABLE": "unreachable",
    "StatusCode.DEADLINE_EXCEEDED": "timeout",
    "StatusCode.NOT_FOUND": "missing",
    "StatusCode.UNAUTHENTICATED": "auth",
    "StatusCode.PERMISSION_DENIED": "auth",
}
#: Fields of ``InferTensorContents``, for servers that answer with numbers instead of raw bytes.
_CONTENTS = {
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "UINT8": "uint_contents",
    "INT8": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "BOOL": "bool_contents",
}


class GrpcServer:
    """One model on a server that speaks gRPC; a `pipeline.models.oip.ModelServer`.

    Args:
        address: Where it is.
    """

    def __init__(self, address: Address) -> None:
        # An extra: this module is imported without it, too.
        self._triton: Any = import_module("tritonclient.grpc")
        self._failure: type[Exception] = import_module("tritonclient.utils").InferenceServerException
        self._address = address
        self._client: Any = None
        self._options: dict[str, Any] = {"client_timeout": address.timeout_s}
        if address.authorization:
            self._options["headers"] = {"authorization": address.authorization}
        self._model = (address.model, address.version)

    def about(self) -> Said:
        """What the server says of itself."""
        said = self._ask("get_server_metadata")
        return Said(f"{said.name or 'unnamed'} {said.version}".strip(), True)

    def ready(self) -> bool:
        """Whether the model is."""
        try:
            return bool(self._ask("is_model_ready", *self._model))
        except ServerError as error:
            if error.kind == "missing" and not self._ask("is_server_ready"):
                return False
            raise

    def metadata(self) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
        """Inputs and outputs of the model."""
        said = self._ask("get_model_metadata", *self._model)
        inputs, outputs = (
            tuple(tensor_info(one.name, one.datatype, one.shape) for one in listed)
            for listed in (said.inputs, said.outputs)
        )
        return inputs, outputs

    def infer(self, inputs: Mapping[str, NDArray[Any]], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """One run: the outputs of these names."""
        name, version = self._model
        given = []
        for one, array in inputs.items():
            tensor = self._triton.InferInput(one, list(array.shape), _NAMES[array.dtype.name])
            tensor.set_data_from_numpy(array)
            given.append(tensor)
        wanted = [self._triton.InferRequestedOutput(one) for one in names]
        result = self._ask("infer", name, given, version, wanted)
        return _outputs(result.get_response())

    def close(self) -> None:
        """Close the channel."""
        if self._client is not None:
            self._client.close()
        self._client = None

    def _ask(self, method: str, *arguments: Any) -> Any:
        if self._client is None:
            address = self._address
            self._client = self._triton.InferenceServerClient(address.where, ssl=address.tls)
        try:
            return getattr(self._client, method)(*arguments, **self._options)
        except self._failure as error:
            told: Any = error
            kind = _KINDS.get(str(told.status()), "said")
            text = told.message() or str(told.status())
            if "ModelNotFound" in text:
                kind = "missing"  # MLServer has no status for it
            if "Expected SETTINGS frame" in text:
                kind, text = "said", "it speaks HTTP, not gRPC: use oip+http://, or its gRPC port"
            if kind == "unreachable":
                self.close()  # an old channel waits before it tries again, a new one does not
            if kind == "timeout":
                text = f"no answer within {self._address.timeout_s:g} s"
            raise ServerError(kind, text) from error


def _outputs(response: Any) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    try:
        for index, output in enumerate(response.outputs):
            dtype = np.dtype(DATATYPES[output.datatype])
            if index < len(response.raw_output_contents):
                array = np.frombuffer(response.raw_output_contents[index], dtype)
            else:
                array = np.asarray(getattr(output.contents, _CONTENTS[output.datatype]), dtype)
            found[output.name] = array.reshape(tuple(output.shape))
    except (KeyError, ValueError) as error:
        raise ServerError("said", f"an answer that is not of the protocol: {error!r}") from error
    return found
