"""What happened to an object or a source."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from pipeline.messages.frames import Clock

__all__ = ["Event"]


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
        attributes: What cascades say of the object, by name: ``{"label": …, "confidence": …}``.
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
    attributes: dict[str, Any] | None = None
    state: str | None = None
    reason: str | None = None
    message: str | None = None
    model: str | None = None
    provider: str | None = None
    clock: Clock | None = None
    latency_ms: dict[str, Any] | None = None
