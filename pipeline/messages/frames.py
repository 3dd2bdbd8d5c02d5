"""Identity, time and place of a frame."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Blob", "Clock", "FrameHeader", "LetterboxMap", "Span", "State", "Status"]

Clock = Literal["rtcp", "container", "arrival"]
Status = Literal["ok", "failed"]
#: States of a source. ``stalled``: connected, and silent; ``reconnecting``: lost, and tried again for ever.
State = Literal["connecting", "running", "stalled", "reconnecting", "ended", "failed"]


class FrameHeader(msgspec.Struct, frozen=True):
    """Identity and time of one admitted frame; rides on every message.

    Attributes:
        source: Name of the source.
        epoch: Rises when the source restarts, seeks or changes size; trackers reset on it.
        seq: Frame number within the source and run, from 0, given on admission, without gaps.
        pts_ns: Presentation time in nanoseconds from the start of the stream.
        captured_ns: Monotonic time at which the frame was decoded.
        captured_at: UTC wall-clock time of the frame, seconds since the epoch.
        clock: Where ``captured_at`` comes from.
        width: Width of the source frame in pixels, upright.
        height: Height of the source frame in pixels, upright.
    """

    source: str
    epoch: int
    seq: int
    pts_ns: int
    captured_ns: int
    captured_at: float
    clock: Clock
    width: int
    height: int


class Blob(msgspec.Struct, frozen=True, array_like=True):
    """Where one array lies: in a slot of a pool, or in a part of the message that carries it.

    Attributes:
        shape: Shape of the array.
        dtype: numpy dtype name.
        pool: Name of the pool; empty when the array travels inline.
        slot: Slot in the pool, or the index of the inline part.
        generation: Generation of the slot at the time of writing; even, rises with each use.
        offset: Byte offset in the slot.
    """

    shape: tuple[int, ...]
    dtype: str
    pool: str
    slot: int
    generation: int = 0
    offset: int = 0


class Span(msgspec.Struct, frozen=True, array_like=True):
    """Time that one frame spent at one stage.

    Attributes:
        stage: Name of the stage.
        wait_ns: From the previous stage's end (for capture: from decoding) to the start of work here.
        service_ns: Work itself.
        end_ns: Monotonic time at which the work ended, on the host of that stage.
    """

    stage: str
    wait_ns: int
    service_ns: int
    end_ns: int


class LetterboxMap(msgspec.Struct, frozen=True, array_like=True):
    """How a source frame was placed in the model input: ``x_input = x_source * scale_x + pad_x``.

    Attributes:
        scale_x: Input pixels per source pixel, horizontally.
        scale_y: Input pixels per source pixel, vertically.
        pad_x: Left edge of the picture in the input, pixels.
        pad_y: Top edge of the picture in the input, pixels.
        width: Source width in pixels.
        height: Source height in pixels.
    """

    scale_x: float
    scale_y: float
    pad_x: float
    pad_y: float
    width: int
    height: int
