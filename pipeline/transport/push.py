"""The input for pictures that a program pushes: one bound ROUTER that answers every message.

``docs/push.md`` is the protocol. The answers are the flow control: whoever sends may have two messages
unanswered, so what waits here is never more than two pictures of each sender, and none of them is old.
"""

from __future__ import annotations

import contextlib
import errno
import math
import re
import socket
import stat
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import zmq
from msgspec import Meta

from pipeline.errors import ConfigError, MessageError, TransportError
from pipeline.transport.pub import is_local

__all__ = [
    "MAX_PICTURE_BYTES", "SCHEMA", "WINDOW", "PushFormat", "PushHeader", "PushInlet", "Pushed",
    "push_address",
]  # fmt: skip

SCHEMA = "framewire.push/1"
#: Messages that a sender may have unanswered.
WINDOW = 2
#: The largest picture, in bytes of its pixels: 8K in BGR, and some.
MAX_PICTURE_BYTES = 128 * 2**20

PushFormat = Literal["bgr24", "rgb24", "gray8", "i420", "nv12", "jpeg", "png"]

_HINT = "write push+tcp://127.0.0.1:5570, or push+ipc:// and the path of a socket"
_HEADER_MAX = 4096
#: ZeroMQ hangs up on whoever sends a larger part, before it has been taken into memory. Between this and
#: `MAX_PICTURE_BYTES` there is room for an answer that says what is wrong.
_MESSAGE_MAX = 2 * MAX_PICTURE_BYTES
_TEXT_MAX = 200
_LATEST = 253_402_300_799  # end of the year 9999, as far as timestamps can be written

_Side = Annotated[int, Meta(ge=1, le=65535)]
_Seconds = Annotated[float, Meta(ge=0, le=_LATEST)]
_Moment = Annotated[datetime, Meta(tz=True)]
_Number = Annotated[int, Meta(ge=0, le=2**62)]


class PushHeader(msgspec.Struct, frozen=True):
    """First part of a message; fields that are not known are ignored.

    Attributes:
        schema: `SCHEMA`.
        format: What the second part holds; None where there is none.
        width: Width in pixels.
        height: Height in pixels.
        pts_ns: The sender's presentation time, nanoseconds.
        captured_at: When the picture was taken: UTC seconds, or ISO 8601 with a zone.
        sequence: Number of the picture, counting those that were not sent; a gap tells what was missed.
        end: Nothing more will come, ever.
        hello: Returned in the answer, so that a sender can tell to what it belongs.
    """

    schema: str
    format: PushFormat | None = None
    width: _Side | None = None
    height: _Side | None = None
    pts_ns: _Number | None = None
    captured_at: _Moment | _Seconds | None = None
    sequence: _Number | None = None
    end: bool = False
    hello: _Number | None = None

    def utc(self) -> float | None:
        """``captured_at`` in UTC seconds."""
        given = self.captured_at
        return given.timestamp() if isinstance(given, datetime) else given


class _Versioned(msgspec.Struct):
    schema: str


class _Answer(msgspec.Struct, omit_defaults=True):
    schema: str
    window: int
    hello: int | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Pushed:
    """One message: a picture, or the end.

    Attributes:
        header: Its first part.
        pixels: Its second part, in ZeroMQ's own memory and read-only; empty at the end.
        sender: Who sent it, as ZeroMQ names the connection.
        received_ns: Monotonic time at which it was taken in.
        plain: Whether the sender speaks JSON.
    """

    header: PushHeader
    pixels: memoryview
    sender: bytes
    received_ns: int
    plain: bool


def push_address(url: str, *, insecure: bool = False) -> str:
    """The ZeroMQ address to bind of ``push+tcp://HOST:PORT`` or ``push+ipc://PATH``.

    Args:
        url: The source's URL.
        insecure: Allow an address that other hosts can reach, in plain text and open to all.

    Raises:
        ConfigError: it is not such a URL, or other hosts can reach it.
    """
    address = url.removeprefix("push+")
    if "@" in address and not address.startswith("ipc:"):
        raise ConfigError("a push source has no user name and no password", hint=_HINT)
    try:
        local = bool(re.match("(tcp|ipc)://", address)) and is_local(address)
    except ConfigError as error:
        raise ConfigError(f"{url!r} is not an address to listen at for pictures", hint=_HINT) from error
    if not re.match("(tcp|ipc)://", address):
        raise ConfigError(f"{url!r} is not an address to listen at for pictures", hint=_HINT)
    if not local and not insecure:
        raise ConfigError(
            f"{url} can be reached from other hosts, and anyone there could push pictures",
            hint="listen at push+tcp://127.0.0.1:PORT, or set insecure: true if the network is trusted",
        )
    return address


class PushInlet:
    """A bound ROUTER. Belongs to one thread.

    Nothing that is sent here can stop it: what is no message of ours is answered with what is wrong, where
    it can be answered, and raised as a `MessageError` to be counted.

    Args:
        address: As `push_address` gives it.

    Raises:
        ConfigError: at that path there is something that is no socket.
        TransportError: the address is in use or cannot be bound.
    """

    def __init__(self, address: str) -> None:
        self._path: Path | None = None
        if address.startswith("ipc://") and not address.startswith("ipc://@"):
            self._path = Path(address.removeprefix("ipc://"))
            _check_path(self._path)
        self._inode = 0
        self._context: zmq.Context[Any] = zmq.Context(io_threads=1)
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.linger = 200  # The answer to the last message still goes out.
        self._socket.rcvhwm = WINDOW + 1
        self._socket.sndhwm = 16
        self._socket.maxmsgsize = _MESSAGE_MAX
        self._socket.router_handover = 1  # A program that restarts under the same name is heard at once.
        self._socket.tcp_keepalive = 1  # A host that vanished is noticed in two minutes.
        self._socket.tcp_keepalive_idle = 60
        self._socket.tcp_keepalive_intvl = 20
        self._socket.tcp_keepalive_cnt = 3
        self._socket.ipv6 = int("[" in address)
        try:
            self._socket.bind(address)
        except zmq.ZMQError as error:
            self.close()
            if error.errno == errno.EADDRINUSE:
                raise _in_use(address) from error
            raise TransportError(
                f"cannot listen at {address}: {_strerror(error)}",
                hint="use an address of this host, a port above 1023, or a path where you may write",
            ) from error
        self._inode = _inode(self._path)
        #: The address in force; where the port was ``*``, the one that was given.
        self.address = self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def receive(self, timeout_s: float) -> Pushed | None:
        """The next picture or end, waiting at most ``timeout_s``; questions are answered meanwhile.

        The pixels are not copied: they lie where ZeroMQ received them, as long as anything refers to them.

        Raises:
            MessageError: what came is no message of ours; its sender has been told.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            left_ms = max(0, math.ceil((deadline - time.monotonic()) * 1000))
            if not self._socket.poll(left_ms):
                return None
            sender, *parts = self._socket.recv_multipart(copy=False)
            pushed = self._parse(sender.bytes, parts)
            if pushed is not None:
                return pushed
            if time.monotonic() >= deadline:
                return None

    def answer(self, pushed: Pushed, error: str = "") -> None:
        """Tell the sender that its message was taken in, or what was wrong with it. Never waits."""
        self._tell(pushed.sender, pushed.plain, pushed.header.hello, error)

    def close(self) -> None:
        """Unbind; harmless when closed already."""
        self._socket.close()
        self._context.term()
        # ZeroMQ leaves the file; by now it may be another's.
        if self._path is not None and self._inode and self._inode == _inode(self._path):
            self._path.unlink(missing_ok=True)
        self._inode = 0

    def _parse(self, sender: bytes, parts: list[zmq.Frame]) -> Pushed | None:
        plain = bool(parts) and _is_json(parts[0].buffer)
        try:
            header = _header(parts)
            if header.format is None and not header.end:
                self._tell(sender, plain, header.hello)
                return None
        except MessageError as error:
            self._tell(sender, plain, None, error.message)
            raise
        pixels = parts[1].buffer.toreadonly() if len(parts) > 1 else memoryview(b"")
        return Pushed(header, pixels, sender, time.monotonic_ns(), plain)

    def _tell(self, sender: bytes, plain: bool, hello: int | None, error: str = "") -> None:
        answer = _Answer(SCHEMA, WINDOW, hello, error)
        body = msgspec.json.encode(answer) if plain else msgspec.msgpack.encode(answer)
        with contextlib.suppress(zmq.ZMQError):  # It has gone, or does not listen.
            self._socket.send_multipart([sender, body], zmq.DONTWAIT)


def _is_json(raw: memoryview) -> bool:
    return raw.nbytes > 0 and raw[0] == ord("{")


def _header(parts: list[zmq.Frame]) -> PushHeader:
    if not 1 <= len(parts) <= 2:
        raise MessageError(f"{len(parts)} parts instead of a header and the pixels")
    raw = parts[0].buffer
    if raw.nbytes > _HEADER_MAX:
        raise MessageError(f"a header of {raw.nbytes} bytes; {_HEADER_MAX} are allowed")
    decode = msgspec.json.decode if _is_json(raw) else msgspec.msgpack.decode
    try:
        schema = decode(raw, type=_Versioned).schema
        if schema != SCHEMA:
            raise MessageError(f"schema is {_plain(schema)!r}; this framewire reads {SCHEMA}")
        header: PushHeader = decode(raw, type=PushHeader)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"the header cannot be read: {_plain(str(error))}") from error
    stamp = header.captured_at
    if isinstance(stamp, datetime) and not 1970 <= stamp.year < 9999:
        raise MessageError(f"captured_at is in the year {stamp.year}")
    if isinstance(stamp, float) and not math.isfinite(stamp):
        raise MessageError("captured_at is not a number")
    if len(parts) == 2 and header.format is None:
        raise MessageError("there are pixels, and no format to say what they are")
    if header.format is not None and len(parts) < 2:
        raise MessageError(f"the header announces {header.format}, and no pixels follow")
    if len(parts) == 2 and parts[1].buffer.nbytes > MAX_PICTURE_BYTES:
        raise MessageError(f"a picture of {parts[1].buffer.nbytes} bytes; {MAX_PICTURE_BYTES} are allowed")
    return header


def _plain(text: str) -> str:
    """What a stranger wrote, fit for a log line."""
    return "".join(char if char.isprintable() else "?" for char in text[:_TEXT_MAX])


def _inode(path: Path | None) -> int:
    try:
        return 0 if path is None else path.stat().st_ino
    except OSError:
        return 0


def _check_path(path: Path) -> None:
    """ZeroMQ deletes whatever lies at the path before it binds, a living socket included: look first."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return  # Nothing there, or nothing that we may see: binding will tell.
    if not stat.S_ISSOCK(mode):
        raise ConfigError(
            f"{path} exists and is no socket; it would be overwritten",
            hint="choose a path that is free, such as push+ipc:///tmp/framewire-NAME.sock",
        )
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return  # Left behind by a process that was killed.
        except OSError as error:
            raise TransportError(f"cannot listen at {path}: {error.strerror or error}") from error
    raise _in_use(f"ipc://{path}")


def _in_use(address: str) -> TransportError:
    return TransportError(
        f"cannot listen at {address}: the address is in use",
        hint="stop the other program, or write another port or path here and where pictures are pushed",
    )


def _strerror(error: zmq.ZMQError) -> str:
    """ZeroMQ's reason, without the advice for programmers that pyzmq adds."""
    return str(error.strerror).partition(" for ipc path")[0]
