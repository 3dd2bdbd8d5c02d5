"""Wire types: what stages say to each other. Frozen msgspec Structs, nothing heavier than numpy.

Coordinates are pixels of the source frame unless a name says otherwise; boxes are ``xyxy`` with
exclusive ``x2, y2``. Times ending in ``_ns`` are integers; ``captured_ns`` is the monotonic clock of
the capturing host, which all processes of one host share.

A frame's way through the stages is ``Frame -> ModelInput -> ModelOutput -> Result``; each carries the
same `FrameHeader`, so that joins are by ``(source, epoch, seq)`` and never by "latest".
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "WIRE_VERSION",
    "Blob",
    "Clock",
    "Detections",
    "EndOfStream",
    "Event",
    "Frame",
    "FrameHeader",
    "LetterboxMap",
    "Lost",
    "Message",
    "ModelInput",
    "ModelOutput",
    "ModelSpec",
    "Result",
    "Span",
    "State",
    "Status",
]

WIRE_VERSION = 1

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


class ModelSpec(msgspec.Struct, frozen=True):
    """What the stages around ``infer`` must know about a model; travels once, when it is ready.

    Attributes:
        name: Name as the user gave it, or the file's stem.
        sha256: Digest of the model file (lower-case hex).
        family: Head that decodes it (``yolox``, ``nanodet``, …), a key of ``pipeline.heads.HEADS``.
        labels: Class names by class id.
        input_width: Width of the input in pixels.
        input_height: Height of the input in pixels.
        input_dtype: ``uint8``, ``float32`` or ``float16``.
        input_layout: ``nhwc`` or ``nchw``.
        channels: Channel order of the input, ``bgr`` or ``rgb``.
        mean: Per-channel mean, in input channel order, subtracted before ``std`` (0..255 scale).
        std: Per-channel divisor, in input channel order.
        letterbox: ``center`` or ``topleft`` (aspect kept, padded), or ``stretch``.
        pad_value: Grey level of the padding.
        output_names: Outputs of the graph, in the order in which they travel.
        provider: Execution provider in force.
    """

    name: str
    sha256: str
    family: str
    labels: tuple[str, ...]
    input_width: int
    input_height: int
    input_dtype: Literal["uint8", "float32", "float16"] = "float32"
    input_layout: Literal["nhwc", "nchw"] = "nchw"
    channels: Literal["bgr", "rgb"] = "bgr"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    letterbox: Literal["center", "topleft", "stretch"] = "center"
    pad_value: int = 114
    output_names: tuple[str, ...] = ()
    provider: str = ""


class Detections:
    """Objects of one frame: a struct of arrays, validated when made, read-only.

    Attributes:
        boxes_xyxy: float32 (n, 4), pixels of the source frame, ``x2, y2`` exclusive.
        scores: float32 (n,), 0..1.
        class_ids: int32 (n,), index into the model's labels.
        track_ids: int64 (n,), -1 where the object has no confirmed track; None when nothing tracks.

    Raises:
        ValueError: a shape differs from the above, or a number is not finite.
    """

    __slots__ = ("boxes_xyxy", "class_ids", "scores", "track_ids")

    boxes_xyxy: NDArray[np.float32]
    scores: NDArray[np.float32]
    class_ids: NDArray[np.int32]
    track_ids: NDArray[np.int64] | None

    def __init__(self, boxes_xyxy: Any, scores: Any, class_ids: Any, track_ids: Any = None) -> None:
        boxes = np.ascontiguousarray(boxes_xyxy, np.float32).reshape(-1, 4)
        columns: dict[str, NDArray[Any]] = {"boxes_xyxy": boxes}
        columns["scores"] = np.ascontiguousarray(scores, np.float32)
        columns["class_ids"] = np.ascontiguousarray(class_ids, np.int32)
        if track_ids is not None:
            columns["track_ids"] = np.ascontiguousarray(track_ids, np.int64)
        for name, column in columns.items():
            if name != "boxes_xyxy" and column.shape != (len(boxes),):
                raise ValueError(f"{name} has shape {column.shape}, expected ({len(boxes)},)")
        if not (np.isfinite(boxes).all() and np.isfinite(columns["scores"]).all()):
            raise ValueError("boxes_xyxy and scores must be finite")
        object.__setattr__(self, "track_ids", None)
        for name, column in columns.items():
            column.flags.writeable = False
            object.__setattr__(self, name, column)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("Detections is read-only")

    def __len__(self) -> int:
        return len(self.scores)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Detections):
            return NotImplemented
        mine, theirs = self.track_ids, other.track_ids
        return (
            np.array_equal(self.boxes_xyxy, other.boxes_xyxy)
            and np.array_equal(self.scores, other.scores)
            and np.array_equal(self.class_ids, other.class_ids)
            and (mine is theirs or (mine is not None and theirs is not None and np.array_equal(mine, theirs)))
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Detections(n={len(self)}, tracked={self.track_ids is not None})"

    @classmethod
    def empty(cls) -> Detections:
        """No objects."""
        return cls(np.zeros((0, 4)), np.zeros(0), np.zeros(0))

    def select(self, index: Any) -> Detections:
        """The objects that a boolean mask, index array or slice names, in that order."""
        ids = None if self.track_ids is None else self.track_ids[index]
        return Detections(self.boxes_xyxy[index], self.scores[index], self.class_ids[index], ids)

    def with_tracks(self, track_ids: Any) -> Detections:
        """The same objects with ``track_ids`` (n,)."""
        return Detections(self.boxes_xyxy, self.scores, self.class_ids, track_ids)


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One life-cycle event of an object or a source, as subscribers see it (without its envelope).

    Attributes:
        type: ``start``, ``update``, ``end`` (objects) or ``source`` (state of a source).
        source: Name of the source.
        at: UTC seconds of the frame that caused it.
        pts_ns: Presentation time of that frame.
        epoch: Epoch of that frame.
        seq: Its number.
        label: Class name of the object.
        track_id: Id of the object, unique per source for the life of the run.
        confidence: Score at this moment.
        top_confidence: Best score so far.
        box_xyxy: Box in pixels of the source frame, at this moment.
        box_normalized: The same box, divided by the frame's width and height.
        first_seen: UTC seconds of its first frame.
        last_seen: UTC seconds of the last frame in which it was seen.
        duration_s: From first to last seen, by presentation time.
        frames: In how many frames it was seen.
        state: For ``source``: its new `State`.
        reason: Why an object ended, or why a source is in that state: one word.
        message: The same for a source, in a sentence.
        model: Name of the model.
        provider: Execution provider of the model.
        clock: Where ``at`` comes from.
        latency_ms: Capture-to-publish time of the frame so far and per stage.
    """

    type: Literal["start", "update", "end", "source"]
    source: str
    at: float
    pts_ns: int = 0
    epoch: int = 0
    seq: int = 0
    label: str | None = None
    track_id: int | None = None
    confidence: float | None = None
    top_confidence: float | None = None
    box_xyxy: tuple[float, float, float, float] | None = None
    box_normalized: tuple[float, float, float, float] | None = None
    first_seen: float | None = None
    last_seen: float | None = None
    duration_s: float | None = None
    frames: int | None = None
    state: str | None = None
    reason: str | None = None
    message: str | None = None
    model: str | None = None
    provider: str | None = None
    clock: Clock | None = None
    latency_ms: dict[str, Any] | None = None


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
        events: Life-cycle events that this frame caused.
        resumed: First frame after ``postprocess`` was killed: it no longer knows the objects that were open.
    """

    header: FrameHeader
    spans: tuple[Span, ...]
    frame: Frame | None
    status: Status
    detections: Detections
    reason: str = ""
    lost: str = ""
    events: tuple[Event, ...] = ()
    resumed: bool = False


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
