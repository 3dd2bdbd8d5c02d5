"""What happened to an object or a source."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from pipeline.messages.frames import Clock

__all__ = ["Event", "EventType"]

#: ``start``, ``update`` and ``end`` of an object; ``zone`` and ``line``: what it did there; ``occupancy``
#: and ``crowd`` of a zone; ``closing``: an object comes nearer; ``camera``: it began or ceased to move;
#: ``source``: its connection; ``clip``: a recording is finished; ``log``: the event log itself.
EventType = Literal[
    "start",
    "update",
    "end",
    "zone",
    "line",
    "occupancy",
    "crowd",
    "closing",
    "camera",
    "source",
    "clip",
    "log",
]


class Event(msgspec.Struct, frozen=True, omit_defaults=True):
    """One life-cycle event of an object or a source, as subscribers see it (without its envelope).

    Attributes:
        type: What kind of thing happened.
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
        zones: Zones that the object is in now.
        entered_zones: All that it has ever entered.
        stationary: Whether the object stays where it is.
        speed_mps: Its speed over ground, metres a second, where the ground is calibrated.
        distance_m: Its way over ground so far, metres.
        path: For ``end``: where the object was, rows of seconds since its start and the normalised x and y of
            its anchor point.
        snapshot: Its best picture so far: a file, relative to the run's folder.
        clip: For ``clip``: its file, relative to the run's folder. ``first_seen`` is then the time of its
            first picture, ``duration_s`` its length.
        action: For ``zone``: ``enter``, ``exit`` or ``loiter``; for ``crowd`` and ``closing``: ``start``,
            ``update`` or ``end``.
        zone: Name of the zone.
        dwell_s: For ``zone``: how long the object has been in it, seconds.
        count: For ``occupancy`` and ``crowd``: how many objects are in the zone; for ``log``: how many events
            were dropped.
        counts: The same by label.
        line: Name of the line.
        direction: Name of the side of the line on which the object is now.
        severity: For ``closing``: ``notice``, ``warning`` or ``critical``.
        ttc_s: For ``closing``: time to contact if nothing changes, seconds.
        state: For ``source``: its new `State`; for ``camera``: ``moving`` or ``still``; for ``log``:
            ``degraded`` or ``recovered``.
        reason: Why an object ended, or why a source is in that state: one word.
        message: The same for a source, in a sentence.
        model: Name of the model.
        provider: Execution provider of the model.
        clock: Where ``at`` comes from.
        latency_ms: Capture-to-publish time of the frame so far and per stage.
    """

    type: EventType
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
    zones: tuple[str, ...] | None = None
    entered_zones: tuple[str, ...] | None = None
    stationary: bool | None = None
    speed_mps: float | None = None
    distance_m: float | None = None
    path: tuple[tuple[float, float, float], ...] | None = None
    snapshot: str | None = None
    clip: str | None = None
    action: str | None = None
    zone: str | None = None
    dwell_s: float | None = None
    count: int | None = None
    counts: dict[str, int] | None = None
    line: str | None = None
    direction: str | None = None
    severity: str | None = None
    ttc_s: float | None = None
    state: str | None = None
    reason: str | None = None
    message: str | None = None
    model: str | None = None
    provider: str | None = None
    clock: Clock | None = None
    latency_ms: dict[str, Any] | None = None
