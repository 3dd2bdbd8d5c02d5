"""Small real structs for tests of sinks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.messages import Clock, Detections, Event, FrameHeader, ModelSpec, Result, Span
from pipeline.sinks.base import Publication
from pipeline.sinks.records import event_draft, frame_record

SPEC = ModelSpec(
    "default", "0" * 64, "nanodet", ("person", "bicycle", "car"), 416, 416, provider="CPUExecutionProvider"
)
MS = 1_000_000


def make_header(
    seq: int = 0,
    *,
    source: str = "gate",
    epoch: int = 0,
    pts_ns: int | None = None,
    size: tuple[int, int] = (128, 96),
    clock: Clock = "container",
) -> FrameHeader:
    pts_ns = seq * 40 * MS if pts_ns is None else pts_ns
    return FrameHeader(source, epoch, seq, pts_ns, 1000 * MS + pts_ns, 1_769_852_400.25, clock, *size)


def make_result(header: FrameHeader, **changes: Any) -> Result:
    fields: dict[str, Any] = {
        "spans": (Span("capture", 0, 2 * MS, 0), Span("infer", 1_500_000, 20 * MS, 0)),
        "frame": None,
        "status": "ok",
        "detections": Detections([[16, 24, 64, 72], [10, 10, 30, 30]], [0.87, 0.5], [2, 0], [3, -1]),
    }
    return Result(header, **(fields | changes))


def make_event(**changes: Any) -> Event:
    fields: dict[str, Any] = {
        "type": "start", "source": "gate", "at": 1_769_852_400.25, "pts_ns": 40 * MS, "epoch": 0, "seq": 1,
        "label": "car", "track_id": 3, "confidence": 0.87, "top_confidence": 0.9,
        "box_xyxy": (16.0, 24.0, 64.0, 72.0), "box_normalized": (0.125, 0.25, 0.5, 0.75),
        "first_seen": 1_769_852_400.25, "last_seen": 1_769_852_400.25, "duration_s": 0.0, "frames": 1,
        "model": "default", "provider": "CPUExecutionProvider", "clock": "container",
        "latency_ms": {"total": 3.5},
    }  # fmt: skip
    return Event(**(fields | changes))


def make_item(
    header: FrameHeader,
    *events: dict[str, Any],
    picture: NDArray[np.uint8] | None = None,
    detections: Detections | None = None,
) -> Publication:
    result = make_result(header) if detections is None else make_result(header, detections=detections)
    frame = frame_record(result, SPEC, header.captured_ns + 30 * MS)
    return Publication(header, frame, events, lambda: picture, result)


def make_event_row(sequence: int = 0, **changes: Any) -> dict[str, Any]:
    return make_record(make_event(**changes), sequence, "run")


def make_record(event: Event, sequence: int, run_id: str) -> dict[str, Any]:
    """An event as the event log gives it out."""
    return event_draft(event, run_id) | {"sequence": sequence, "id": f"{run_id}-{sequence}"}
