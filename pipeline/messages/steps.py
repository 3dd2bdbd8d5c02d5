"""The messages between stages, in the order of a frame's way."""

from __future__ import annotations

from typing import Literal

import msgspec

from pipeline.messages.events import Event
from pipeline.messages.found import Attribute, Classes, Detections
from pipeline.messages.frames import Blob, FrameHeader, LetterboxMap, Span, Status

__all__ = ["EndOfStream", "Frame", "Lost", "Message", "ModelInput", "ModelOutput", "Result"]


class Frame(msgspec.Struct, frozen=True, tag="frame"):
    """A decoded frame in a leased slot: ``capture -> preprocess``.

    Attributes:
        header: Identity and time.
        spans: Stages passed so far.
        lease: The frame slot, held until the frame is published.
        pixels: The planes: one (h, w, 3) for ``bgr24``; Y, U, V for ``i420``.
        pixel_format: ``bgr24`` or ``i420`` (limited range, BT.601 unless the source says otherwise).
    """

    header: FrameHeader
    spans: tuple[Span, ...]
    lease: Blob
    pixels: tuple[Blob, ...]
    pixel_format: Literal["bgr24", "i420"]


class ModelInput(msgspec.Struct, frozen=True, tag="input"):
    """A letterboxed tensor: ``preprocess -> infer``. ``frame`` passes through, unread."""

    frame: Frame
    spans: tuple[Span, ...]
    letterbox: LetterboxMap
    tensor: Blob


class ModelOutput(msgspec.Struct, frozen=True, tag="output"):
    """Raw outputs of the model, one Blob per output name: ``infer -> postprocess``."""

    frame: Frame
    spans: tuple[Span, ...]
    letterbox: LetterboxMap
    outputs: tuple[Blob, ...]


class Result(msgspec.Struct, frozen=True, tag="result"):
    """The one result of an admitted frame: ``postprocess -> publish``.

    Attributes:
        header: Identity and time.
        spans: Stages passed so far.
        frame: The frame's pixels; None when they are gone.
        status: ``failed`` is never the same as "nothing there".
        reason: Why it failed.
        lost: Cause, when the frame never reached the end of the pipeline.
        detections: The objects.
        classes: The classes of the whole frame; None where the model finds objects, or the frame failed.
        attributes: What cascades say of the objects.
        events: Life-cycle events that this frame caused.
        masked: Objects that a mask leaves out of all this, for pictures that must not show them either.
        resumed: First frame after ``postprocess`` was killed: it no longer knows the objects that were open.
    """

    header: FrameHeader
    spans: tuple[Span, ...]
    frame: Frame | None
    status: Status
    detections: Detections
    reason: str = ""
    lost: str = ""
    classes: Classes | None = None
    attributes: tuple[Attribute, ...] = ()
    events: tuple[Event, ...] = ()
    resumed: bool = False
    masked: Detections | None = None


class Lost(msgspec.Struct, frozen=True, tag="lost"):
    """Stands for an admitted frame that will not arrive or failed on the way; any stage may send it.

    Attributes:
        header: Identity and time of the frame.
        spans: Stages passed so far.
        frame: Its pixels, if they still exist.
        cause: Short name, a key of the books (``infer_died``) or ``""`` when a stage refused the frame.
        reason: What happened, in words.
    """

    header: FrameHeader
    spans: tuple[Span, ...]
    frame: Frame | None
    cause: str
    reason: str


class EndOfStream(msgspec.Struct, frozen=True, tag="eos"):
    """A source has ended; comes after its last frame.

    Attributes:
        source: Name of the source.
        epoch: Its last epoch.
        seq: Number that the next frame would have had, so the count of admitted frames.
        state: ``ended`` or ``failed``.
        reason: ``end_of_file``, ``stopped``, or what failed.
        at: UTC seconds.
        events: Events of objects that the end closes.
    """

    source: str
    epoch: int
    seq: int
    state: Literal["ended", "failed"]
    reason: str
    at: float
    events: tuple[Event, ...] = ()


Message = Frame | ModelInput | ModelOutput | Result | Lost | EndOfStream
