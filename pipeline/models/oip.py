"""The Open Inference Protocol, version 2, as far as both ways of speaking it share it.

Specification: ``github.com/kserve/open-inference-protocol`` (``specification/protocol``), with the extension
for binary tensors of Triton's ``docs/protocol/extension_binary_data.md``.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.heads import TensorInfo

__all__ = ["DATATYPES", "Address", "Kind", "ModelServer", "Said", "ServerError", "tensor_info"]

#: Element types of the protocol as numpy names them.
DATATYPES = {
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "UINT8": "uint8",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "BOOL": "bool",
}

_SCHEMES = {
    "oip": (False, False),
    "oips": (False, True),
    "oip+http": (True, False),
    "oip+https": (True, True),
}
_EXAMPLE = "for example oip://localhost:8001/yolox (gRPC) or oip+http://localhost:8000/yolox"

Kind = Literal["unreachable", "timeout", "missing", "auth", "said"]


class ServerError(Exception):
    """A request that failed; never shown as it is.

    Attributes:
        kind: ``unreachable`` (no connection, or it broke), ``timeout``, ``missing`` (no such model),
            ``auth`` (credentials are wrong or missing), or ``said`` (anything else that the server said).
        text: What was said, in one line.
    """

    def __init__(self, kind: Kind, text: str) -> None:
        line = " ".join(text.split())
        super().__init__(f"{kind}: {line}")
        self.kind = kind
        self.text = line if len(line) <= _MOST_TEXT else f"{line[:_MOST_TEXT]}..."


_MOST_TEXT = 300


@dataclass(frozen=True)
class Said:
    """What a server says of itself.

    Attributes:
        name: Its name and version.
        binary: Whether it takes binary tensors over HTTP.
    """

    name: str
    binary: bool


class ModelServer(Protocol):
    """One model on one server; every method raises `ServerError`."""

    def about(self) -> Said:
        """What the server says of itself."""

    def ready(self) -> bool:
        """Whether the model is."""

    def metadata(self) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
        """Inputs and outputs of the model."""

    def infer(self, inputs: Mapping[str, NDArray[Any]], names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """One run: the outputs of these names."""

    def close(self) -> None:
        """Close the connection; may be called twice."""


@dataclass(frozen=True)
class Address:
    """Where a model is served.

    Attributes:
        http: HTTP, else gRPC.
        tls: Encrypted.
        host: Name or address of the host.
        port: Port.
        model: Name of the model there.
        version: Its version; empty for the one that the server chooses.
        authorization: Header of that name; empty for none.
        card: Path of a card file; empty for none.
        timeout_s: Longest time for one answer, seconds.
        wait_s: Longest time for the server and the model to become ready, seconds.
    """

    http: bool
    tls: bool
    host: str
    port: int
    model: str
    version: str = ""
    authorization: str = ""
    card: str = ""
    timeout_s: float = 10.0
    wait_s: float = 60.0

    @property
    def where(self) -> str:
        """``host:port``."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def name(self) -> str:
        """The address without credentials and options, as a model is called everywhere."""
        scheme = next(scheme for scheme, kind in _SCHEMES.items() if kind == (self.http, self.tls))
        version = f"?version={quote(self.version)}" if self.version else ""
        return f"{scheme}://{self.where}/{quote(self.model)}{version}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read ``oip://[USER:PASSWORD@|TOKEN@]HOST:PORT/MODEL[?version=1&card=FILE&timeout_s=10&wait_s=60]``.

        ``oip`` is gRPC, ``oips`` gRPC over TLS, ``oip+http`` and ``oip+https`` HTTP. A user with a password
        is sent as basic authorization, a name alone as a bearer token. No error shows either.

        Raises:
            ModelError: it is not such an address.
        """
        try:
            parts = urlsplit(text)
            (parts.hostname or "").encode("idna")
        except ValueError:
            # Not what was said: it may quote a password.
            raise ModelError("the address of the model server has no valid host", hint=_EXAMPLE) from None
        if parts.scheme not in _SCHEMES:
            raise ModelError("this is no address of a model server", hint=_EXAMPLE)
        http, tls = _SCHEMES[parts.scheme]
        try:
            host, port = parts.hostname or "", parts.port
        except ValueError as error:
            raise ModelError(
                "the port of the model server is no number from 1 to 65535", hint=_EXAMPLE
            ) from error
        model = unquote(parts.path.strip("/"))
        if not host or not port or not model or "/" in model:
            lacks = "host" if not host else "port" if not port else "model"
            raise ModelError(f"the address of the model server names no {lacks}", hint=_EXAMPLE)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        unknown = sorted(set(options) - {"version", "card", "timeout_s", "wait_s"})
        if unknown:
            # Not the value: it may be a token.
            raise ModelError(
                f"the address of the model server has an unknown option {unknown[0]!r}",
                hint="its options are version, card, timeout_s, wait_s",
            )
        return cls(
            http,
            tls,
            host,
            port,
            model,
            version=options.get("version", ""),
            authorization=_authorization(parts.username, parts.password),
            card=options.get("card", ""),
            timeout_s=_seconds(options, "timeout_s", cls.timeout_s),
            wait_s=_seconds(options, "wait_s", cls.wait_s),
        )


def tensor_info(name: str, datatype: str, shape: Sequence[Any]) -> TensorInfo:
    """An input or output as a server tells it; -1 stands for a free size.

    Raises:
        ServerError: it is no such thing.
    """
    try:
        dimensions = [int(size) for size in shape]
    except (TypeError, ValueError) as error:
        raise ServerError("said", f"{name!r} has the shape {shape!r}") from error
    return TensorInfo(
        str(name),
        DATATYPES.get(datatype, datatype),
        tuple(size if size >= 0 else None for size in dimensions),
    )


def _authorization(user: str | None, password: str | None) -> str:
    if not user:
        return ""
    token = unquote(user)
    if password is None and not (token.isascii() and token.isprintable()):
        # Not the value: it is a secret.
        raise ModelError(
            "the token in the address of the model server has a character that no header can hold",
            hint="a line break, or one that is not ASCII: look at the variable that it comes from",
        )
    if password is None:
        return f"Bearer {token}"
    pair = f"{unquote(user)}:{unquote(password)}"
    return f"Basic {base64.b64encode(pair.encode()).decode('ascii')}"


def _seconds(options: Mapping[str, str], name: str, default: float) -> float:
    text = options.get(name)
    if text is None:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 3600:
        raise ModelError(
            f"option {name} of the address of the model server is {text!r}, not seconds from 0 to 3600",
            hint=f"for example ?{name}=10",
        )
    return value
