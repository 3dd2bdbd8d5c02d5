"""A network on a model server that speaks the Open Inference Protocol (Triton, OpenVINO, MLServer, KServe).

::

    oip://HOST:PORT/MODEL            gRPC          oips://         gRPC over TLS
    oip+http://HOST:PORT/MODEL       HTTP          oip+https://    HTTP over TLS

Options follow as ``?version=1&card=FILE&timeout_s=10&wait_s=60``; see `pipeline.models.oip.Address`. Pixels
are prepared and outputs decoded here; the server runs the network alone.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from pipeline.errors import ModelError, ProviderError
from pipeline.heads import Signature
from pipeline.messages import ModelSpec
from pipeline.models.cards import check_card
from pipeline.models.oip import Address, ModelServer, ServerError
from pipeline.models.runner import GraphRunner

__all__ = ["RemoteRunner"]

#: Between two questions whether the model is ready, in seconds.
_ASK_S = 0.25
_PORTS = "gRPC is 8001 on Triton, 9000 on OpenVINO, 8081 on MLServer; HTTP 8000, 8000 and 8080"

Answer = TypeVar("Answer")


class RemoteRunner(GraphRunner):
    """A network on a model server; a `pipeline.models.base.Runner`.

    Args:
        model: Its address.
        device: ``auto``: where it runs is the server's affair.
        input_size: Width and height in pixels, for a model whose input size is free.
        batch: Frames at once at most.
        precision: ``auto``: that is the server's affair, too.

    Raises:
        ModelError: the address or its card is wrong, or it is gRPC and the client for it is not installed.
        ProviderError: a device or precision is named.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str = "auto",
        input_size: tuple[int, int] | None = None,
        batch: int = 1,
        precision: str = "auto",
    ) -> None:
        self._address = Address.parse(model)
        super().__init__(self._address.name, input_size=input_size, batch=batch, in_place=False)
        for what, value in (("device", device), ("precision", precision)):
            if value != "auto":
                raise ProviderError(
                    f"{what} {value!r} was asked for, but {self._name} runs on a model server",
                    hint=f"leave {what} out; the server's own settings say where and how it runs",
                )
        if not self._address.http and importlib.util.find_spec("tritonclient") is None:
            raise ModelError(
                f"{self._name} is gRPC, and the client for it is not installed",
                hint="pip install 'framewire[triton]', or use oip+http:// with the server's HTTP port",
            )
        self._card = _card(self._address.card)
        self._server: ModelServer | None = None

    def open(self) -> ModelSpec:
        """Wait for the server and the model, recognise it, and warm it up; see `Runner.open`.

        Raises:
            ModelError: the server cannot be reached, or has no such model, or the model is not ready in
                time or of no family that we decode.
        """
        self._server = _connect(self._address)
        try:
            until = time.monotonic() + self._address.wait_s
            said = self._patiently(self._server.about, until)
            self._wait_ready(until)
            inputs, outputs = self._asked(self._server.metadata)
            if not inputs or not outputs:
                raise ModelError(
                    f"the server of {self._name} tells no inputs or outputs of it",
                    hint="declare them: in config.pbtxt on Triton, in model-settings.json on MLServer",
                )
            self._recognise(
                Signature(inputs, outputs),
                name=self._name,
                sha256="",
                card=self._card,
                provider=f"oip: {said.name}",
            )
            if self._batch > 1:
                self._warm_up()
        except ModelError:
            self.close()
            raise
        return self.spec

    def close(self) -> None:
        """Close the connection."""
        if self._server is not None:
            self._server.close()
        self._server = None

    def _call(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        server = self._server
        if server is None:
            raise ModelError(f"model {self._name} is not open")
        names = [info.name for info in self._outputs]
        try:
            found = server.infer(inputs, names)
        except ServerError as error:
            if error.kind != "unreachable":
                raise self._error(error) from error
            # A server that was started again, or closed an idle connection: the run changes nothing there.
            found = self._asked(lambda: server.infer(inputs, names))
        missing = sorted(set(names) - set(found))
        if missing:
            raise ModelError(f"the server of {self._name} leaves out the output {missing[0]!r}")
        return found

    def _asked(self, ask: Callable[[], Answer]) -> Answer:
        try:
            return ask()
        except ServerError as error:
            raise self._error(error) from error

    def _patiently(self, ask: Callable[[], Answer], until: float) -> Answer:
        """An answer of a server that may still be starting."""
        while True:
            try:
                return ask()
            except ServerError as error:
                if error.kind not in ("unreachable", "timeout") or time.monotonic() + _ASK_S > until:
                    raise self._error(error) from error
            time.sleep(_ASK_S)

    def _wait_ready(self, until: float) -> None:
        assert self._server is not None
        while not self._patiently(self._server.ready, until):
            if time.monotonic() + _ASK_S > until:
                # Some servers call an unknown model not ready, and only its metadata tell.
                self._asked(self._server.metadata)
                raise ModelError(
                    f"model {self._name} is not ready after {self._address.wait_s:g} s",
                    hint="the server's log says why; wait longer with ?wait_s=300",
                )
            time.sleep(_ASK_S)

    def _error(self, error: ServerError) -> ModelError:
        name, address = self._name, self._address
        if error.kind == "unreachable":
            return ModelError(
                f"no model server answers at {address.where} for {name}: {error.text}",
                hint=f"start it, or check host and port: {_PORTS}",
            )
        if error.kind == "timeout":
            return ModelError(
                f"the model server at {address.where} gives {error.text} for {name}",
                hint="wait longer with ?timeout_s=60, or look at the server's load",
            )
        if error.kind == "missing":
            return ModelError(
                f"the model server at {address.where} has no model {address.model!r}"
                + (f" of version {address.version!r}" if address.version else "")
                + f": {error.text}",
                hint="check the name, which is that of its folder or settings file on the server",
            )
        if error.kind == "auth":
            return ModelError(
                f"the model server at {address.where} refuses us: {error.text}",
                hint="give oip://USER:PASSWORD@HOST or oip://TOKEN@HOST, from a variable",
            )
        hint = ""
        if "larger than max" in error.text:
            hint = "raise its limit: grpc_max_message_length in settings.json on MLServer"
        return ModelError(f"the model server at {address.where} said of {name}: {error.text}", hint=hint)


def _connect(address: Address) -> ModelServer:
    if address.http:
        from pipeline.models.oip_http import HttpServer

        return HttpServer(address)
    from pipeline.models.oip_grpc import GrpcServer

    return GrpcServer(address)


def _card(path: str) -> dict[str, Any]:
    if not path:
        return {}
    try:
        card = json.loads(Path(path).expanduser().read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"the card {path} cannot be read as JSON: {error}") from error
    return check_card(card, f"the card {path}")
