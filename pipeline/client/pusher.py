"""The pusher: hands pictures of a user's own program to a pipeline, and never holds that program up."""

from __future__ import annotations

import logging
import re
import time
from datetime import datetime
from typing import Any, Literal

import msgspec
import numpy as np
import zmq
from numpy.typing import NDArray

from pipeline.errors import ConfigError

__all__ = ["PushFormat", "Pusher"]

PushFormat = Literal["bgr24", "rgb24", "gray8", "i420", "nv12", "jpeg", "png"]

_SCHEMA = "framewire.push/1"
_HINT = "write the address of the source without push+, such as tcp://127.0.0.1:5570"
_CODED = ("jpeg", "png")
_PLANAR = ("i420", "nv12")
_MAX_BYTES = 128 * 2**20
#: Without an answer for so long, ask whether anybody is there: what was sent may have died with its receiver.
_ASK_S = 0.5
_SLICE_S = 0.1

_log = logging.getLogger(__name__)


class Pusher:
    """Push pictures into a source with a ``push+tcp://`` or ``push+ipc://`` URL.

    `send` never waits: a picture that the pipeline cannot take now is not queued but refused, and `send`
    returns False. A pipeline that is not there yet, or goes and comes back, is no error. Belongs to one
    thread.

    Args:
        address: Address of the source, with or without ``push+``.

    Attributes:
        sent: Pictures that a pipeline was given.
        missed: Pictures that no pipeline took, for which `send` returned False.
        rejected: Answers that said that something was wrong with a picture.
        error: The last of them; empty when the last picture was fine.

    Raises:
        ConfigError: the address is not one to connect to.
    """

    def __init__(self, address: str) -> None:
        address = address.removeprefix("push+")
        port = re.fullmatch(r"tcp://.+:(\d+)", address)
        if "@" in address and port is not None:
            raise ConfigError("a push source has no user name and no password", hint=_HINT)
        if not re.match("(tcp|ipc)://.", address) or (port is not None and not 0 < int(port[1]) < 65536):
            raise ConfigError(f"cannot push to {address!r}: that is no address of a push source", hint=_HINT)
        self.sent = self.missed = self.rejected = 0
        self.error = ""
        self._sequence = 0
        self._window = 1  # Until an answer tells.
        self._open = 0
        self._hello = 0
        self._awaiting_hello = False
        self._spoke_at = 0.0
        self._context: zmq.Context[Any] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        try:
            # Sent to a living connection or not at all; the answers keep what is under way to the window.
            self._socket.immediate = 1
            self._socket.sndhwm = 4
            self._socket.rcvhwm = 64
            self._socket.linger = 0
            self._socket.reconnect_ivl = 50
            self._socket.reconnect_ivl_max = 1000
            self._socket.ipv6 = int("[" in address)
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(f"cannot push to {address!r}: {error.strerror}", hint=_HINT) from error

    def __enter__(self) -> Pusher:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def send(
        self,
        picture: NDArray[np.uint8] | bytes | bytearray | memoryview,
        *,
        format: PushFormat = "bgr24",  # noqa: A002  (the word of the wire format)
        width: int | None = None,
        height: int | None = None,
        pts_ns: int | None = None,
        captured_at: float | datetime | None = None,
    ) -> bool:
        """Push one picture, if a pipeline can take it now. Never waits; the picture is copied.

        Args:
            picture: uint8 array: (h, w, 3) for ``bgr24`` and ``rgb24``, (h, w) for ``gray8``,
                (h * 3 / 2, w) for ``i420`` and ``nv12`` of even size; or packed bytes of any size and format.
            format: What it is.
            width: Width in pixels; wanted for raw bytes only.
            height: Height in pixels; wanted for raw bytes only.
            pts_ns: Presentation time in nanoseconds, on a clock of your own.
            captured_at: When it was taken: UTC seconds or a datetime with a zone. Without it, the time of
                arrival counts.

        Returns:
            Whether a pipeline was given it; False when there is none, or it has not yet taken the last ones.

        Raises:
            ConfigError: the arguments do not make a picture.
        """
        if isinstance(picture, np.ndarray):
            width, height = _size_of(picture, format)
            body = np.ascontiguousarray(picture).data.cast("B")
        else:
            body = memoryview(picture).cast("B")
        if format not in _CODED:
            _check_raw(body.nbytes, format, width, height)
        if not 0 < body.nbytes <= _MAX_BYTES:
            raise ConfigError(f"a picture of {body.nbytes} bytes", hint=f"it can have 1 to {_MAX_BYTES}")
        if isinstance(captured_at, datetime) and captured_at.tzinfo is None:
            raise ConfigError("captured_at has no time zone", hint="make it with datetime.now(timezone.utc)")
        self._hear()
        header: dict[str, Any] = {"schema": _SCHEMA, "format": format, "sequence": self._sequence}
        given = {"width": width, "height": height, "pts_ns": pts_ns, "captured_at": captured_at}
        header |= {key: value for key, value in given.items() if value is not None}
        self._sequence += 1
        if self._room() and self._say(header, body):
            self._open += 1
            self.sent += 1
            return True
        self.missed += 1
        return False

    def ready(self, timeout_s: float = 0.0) -> bool:
        """Whether a pipeline can take a picture, waiting at most ``timeout_s`` for one."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._hear()
            left_s = deadline - time.monotonic()
            if self._room() and self._connected():
                return True
            if left_s <= 0:
                return False
            # An answer, or (when nothing is open) a connection; in slices, as a question may be due.
            wanted = zmq.POLLIN if self._open or self._awaiting_hello else zmq.POLLIN | zmq.POLLOUT
            self._socket.poll(int(min(left_s, _SLICE_S) * 1000) + 1, wanted)

    def end(self, timeout_s: float = 1.0) -> bool:
        """Say that nothing more will come, ever: the source ends. `close` alone lets it wait for more.

        Returns:
            Whether a pipeline has taken it within ``timeout_s``, by its answer or by hanging up at the end.
        """
        if not self.ready(timeout_s) or not self._say({"schema": _SCHEMA, "end": True}):
            return False
        self._open += 1
        deadline = time.monotonic() + timeout_s
        while self._open:
            # With ``immediate``, what the other side said last is lost when it hangs up right after it.
            if not self._connected():
                return True
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            self._socket.poll(int(min(left_s, _SLICE_S) * 1000) + 1)
            self._hear()
        return True

    def close(self) -> None:
        """Disconnect; harmless when closed already."""
        self._socket.close(0)
        self._context.term()

    def _say(self, header: dict[str, Any], body: memoryview | None = None) -> bool:
        """Send if that needs no waiting; whether it was."""
        parts: list[bytes | memoryview] = [msgspec.msgpack.encode(header), *([] if body is None else [body])]
        try:
            self._socket.send_multipart(parts, zmq.DONTWAIT, copy=True)
        except zmq.Again:
            return False
        self._spoke_at = time.monotonic()
        return True

    def _connected(self) -> bool:
        """Whether there is anybody to send to; the queue is never full, for the window is smaller."""
        return bool(int(self._socket.getsockopt(zmq.EVENTS)) & zmq.POLLOUT)

    def _room(self) -> bool:
        """Whether the window lets one more picture through; asks for news when there was none for long."""
        if self._open < self._window and not self._awaiting_hello:
            return True
        if time.monotonic() - self._spoke_at > _ASK_S:
            self._hello += 1
            self._awaiting_hello = (
                self._say({"schema": _SCHEMA, "hello": self._hello}) or self._awaiting_hello
            )
        return False

    def _hear(self) -> None:
        """Take in the answers that are there."""
        while True:
            try:
                parts = self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return
            try:
                answer = msgspec.msgpack.decode(parts[0], type=_Answer)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            self._window = max(1, answer.window)
            if answer.hello is not None:
                if answer.hello == self._hello:  # All that was sent before is answered, or gone.
                    self._awaiting_hello = False
                    self._open = 0
                continue
            self._open = max(0, self._open - 1)
            if answer.error and answer.error != self.error:
                _log.warning("the pipeline does not take the pictures: %s", answer.error)
            self.rejected += bool(answer.error)
            self.error = answer.error


class _Answer(msgspec.Struct):
    schema: Literal["framewire.push/1"]
    window: int
    hello: int | None = None
    error: str = ""


def _size_of(picture: NDArray[np.uint8], picture_format: str) -> tuple[int | None, int | None]:
    """Width and height of a raw array; (None, None) for a coded picture."""
    shape = picture.shape
    if not picture.size:
        raise ConfigError(f"an array of shape {shape} has no pixels")
    if picture.dtype != np.uint8:
        raise ConfigError(f"the array is {picture.dtype}", hint="pictures are uint8")
    if picture_format in _CODED:
        return None, None
    if picture_format in _PLANAR:
        if len(shape) == 2 and not shape[0] % 3 and not shape[1] % 2:
            return shape[1], shape[0] // 3 * 2
        raise ConfigError(
            f"an array of shape {shape} is no {picture_format} picture",
            hint="give (height * 3 / 2, width) of an even size, or packed bytes with width and height",
        )
    channels = 1 if picture_format == "gray8" else 3
    if shape[2:] != ((3,) if channels == 3 else ()) or len(shape) < 2:
        raise ConfigError(
            f"an array of shape {shape} is no {picture_format} picture",
            hint="give (height, width)" if channels == 1 else "give (height, width, 3)",
        )
    return shape[1], shape[0]


def _check_raw(size: int, picture_format: str, width: int | None, height: int | None) -> None:
    if picture_format not in ("bgr24", "rgb24", "gray8", *_PLANAR):
        raise ConfigError(
            f"there is no format {picture_format!r}",
            hint="write bgr24, rgb24, gray8, i420, nv12, jpeg or png",
        )
    if width is None or height is None or not (0 < width < 65536 and 0 < height < 65536):
        raise ConfigError(f"width is {width} and height {height}", hint="raw bytes need both, 1 to 65535")
    area = width * height
    chroma = 2 * ((width + 1) // 2) * ((height + 1) // 2)
    wanted = area + chroma if picture_format in _PLANAR else area if picture_format == "gray8" else 3 * area
    if size != wanted:
        raise ConfigError(
            f"{size} bytes are no {picture_format} picture of {width}x{height}",
            hint=f"that has {wanted}, its rows without padding",
        )
