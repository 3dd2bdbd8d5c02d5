"""Messages to bytes and back. Pure: no sockets, no clock, never pickle.

A message is one version byte and a msgpack body, followed by the inline arrays if the link carries them.
Unknown fields are ignored, so that a newer peer may add some; an unknown version is refused.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from pipeline.errors import MessageError
from pipeline.messages import (
    WIRE_VERSION,
    Blob,
    Detections,
    Frame,
    Message,
    ModelInput,
    ModelOutput,
)
from pipeline.transport.base import ViewArray

__all__ = ["decode", "encode", "inline", "payload"]

_VERSION = bytes([WIRE_VERSION])


def _enc_hook(value: Any) -> Any:
    if isinstance(value, Detections):
        tracks = None if value.track_ids is None else value.track_ids.astype("<i8").tobytes()
        return (
            value.boxes_xyxy.astype("<f4").tobytes(),
            value.scores.astype("<f4").tobytes(),
            value.class_ids.astype("<i4").tobytes(),
            tracks,
        )
    raise TypeError(f"{type(value).__name__} does not travel")


def _dec_hook(kind: type, value: Any) -> Any:
    if kind is Detections:
        boxes, scores, class_ids, tracks = value
        return Detections(
            np.frombuffer(boxes, "<f4").reshape(-1, 4),
            np.frombuffer(scores, "<f4"),
            np.frombuffer(class_ids, "<i4"),
            None if tracks is None else np.frombuffer(tracks, "<i8"),
        )
    raise TypeError(f"{kind.__name__} does not travel")


_encoder = msgspec.msgpack.Encoder(enc_hook=_enc_hook)
_decoder = msgspec.msgpack.Decoder(Message, dec_hook=_dec_hook)


def encode(message: Message) -> bytes:
    """The bytes of a message, version first."""
    return _VERSION + _encoder.encode(message)


def decode(data: bytes | memoryview) -> Message:
    """The message that ``data`` holds.

    Raises:
        MessageError: the version is unknown or the body is not one of our messages.
    """
    if len(data) < 2:
        raise MessageError(f"a message of {len(data)} bytes is too short")
    if data[0] != WIRE_VERSION:
        raise MessageError(
            f"a message has wire version {data[0]}, this side speaks {WIRE_VERSION}",
            hint="run the same framewire version on both ends of the link",
        )
    try:
        message: Message = _decoder.decode(memoryview(data)[1:])
    except (msgspec.DecodeError, ValueError, TypeError, RecursionError) as error:
        raise MessageError(f"bytes that are not a message: {error}") from error
    return message


def payload(message: Message) -> tuple[Blob, ...]:
    """The arrays that the receiver of a message reads; what only passes through is not among them."""
    if isinstance(message, ModelInput):
        return (message.tensor,)
    if isinstance(message, ModelOutput):
        return message.outputs
    if isinstance(message, Frame):
        return message.pixels
    return ()


def inline(message: Message, view: ViewArray) -> tuple[Message, list[memoryview]]:
    """The message with its payload moved out of the pools, for a peer that does not share our memory.

    Returns:
        The message, its Blobs naming parts instead of slots, and the parts in order (views, not copies).
    """
    parts: list[memoryview] = []

    def moved(blob: Blob) -> Blob:
        parts.append(np.ascontiguousarray(view(blob)).data.cast("B"))
        return Blob(blob.shape, blob.dtype, "", len(parts) - 1)

    if isinstance(message, ModelInput):
        return msgspec.structs.replace(message, tensor=moved(message.tensor)), parts
    if isinstance(message, ModelOutput):
        return msgspec.structs.replace(message, outputs=tuple(map(moved, message.outputs))), parts
    if isinstance(message, Frame):
        return msgspec.structs.replace(message, pixels=tuple(map(moved, message.pixels))), parts
    return message, parts
