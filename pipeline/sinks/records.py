"""What subscribers and files get to see: plain dicts made from results and events. Pure.

The shapes are contracts: JSON Schemas lie in `pipeline.schemas`, words in ``docs/events.md``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pipeline.analytics.tags import tags_of
from pipeline.messages import Event, ModelSpec, Result, Task
from pipeline.schemas import VERSION, topic

__all__ = ["OF_THE_RUN", "event_draft", "frame_record", "interrupted_draft", "iso_utc", "label_of", "topic"]

#: In the place of a source, for events that are about none: no source can have that name.
OF_THE_RUN = "~"

_OPTIONAL = ("label", "track_id", "confidence", "top_confidence")
#: Of one event, and not of its object.
_OF_THE_MOMENT = frozenset({
    "action", "zone", "zones", "dwell_s", "line", "direction", "severity", "ttc_s", "latency_ms",
})  # fmt: skip
_AFTER = (
    "duration_s",
    "frames",
    "attributes",
    "action",
    "zone",
    "dwell_s",
    "count",
    "counts",
    "line",
    "direction",
    "severity",
    "ttc_s",
    "zones",
    "entered_zones",
    "stationary",
    "speed_mps",
    "distance_m",
    "snapshot",
    "clip",
    "state",
    "reason",
    "message",
    "model",
    "provider",
    "latency_ms",
)


def iso_utc(seconds: float) -> str:
    """UTC seconds since the epoch as ISO 8601 with milliseconds, such as ``2026-01-31T09:30:00.250Z``."""
    moment = datetime.fromtimestamp(round(seconds * 1000) / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def label_of(labels: tuple[str, ...], class_id: int) -> str:
    """Class name of an id; ``class_<id>`` when the model does not name it."""
    return labels[class_id] if 0 <= class_id < len(labels) else f"class_{class_id}"


def frame_record(result: Result, spec: ModelSpec, published_ns: int, task: Task = "detect") -> dict[str, Any]:
    """Make the record of one published frame (schema ``framewire.frame/1``).

    Args:
        result: The result; boxes in pixels of the source frame.
        spec: The model: its labels, name and provider.
        published_ns: Monotonic time of publishing, on the clock of ``header.captured_ns``.
        task: What the run does with each frame.

    Returns:
        Plain data. Pixels are rounded to 1/100, normalised coordinates to 1e-6, confidence to 1e-4 and
        times to a microsecond: finer than any model's noise, and half the size on the wire.
    """
    header = result.header
    record: dict[str, Any] = {
        "schema": f"framewire.frame/{VERSION}",
        "source": header.source,
        "epoch": header.epoch,
        "seq": header.seq,
        "pts_ns": header.pts_ns,
        "captured_at": iso_utc(header.captured_at),
        "clock": header.clock,
        "width": header.width,
        "height": header.height,
        "status": result.status,
    }
    if result.reason:
        record["reason"] = result.reason
    if result.lost:
        record["lost"] = result.lost
    record |= {"model": spec.name, "provider": spec.provider, "box_format": "xyxy"}
    record["detections"] = _detections(result, spec.labels)
    if task != "detect":
        record["task"] = task
    if result.classes is not None:
        record["classes"] = [
            {"label": label_of(spec.labels, class_id), "class_id": class_id, "confidence": round(score, 4)}
            for class_id, score in zip(result.classes.class_ids, result.classes.scores, strict=True)
        ]
    if task == "tag" and result.status == "ok":
        record["tags"] = {"auto": tags_of(spec.labels, result.detections, result.classes)}
    latency: dict[str, Any] = {
        span.stage: {"wait": _ms(span.wait_ns), "service": _ms(span.service_ns)} for span in result.spans
    }
    latency["total"] = _ms(published_ns - header.captured_ns)
    record["latency_ms"] = latency
    return record


def event_draft(event: Event, run_id: str) -> dict[str, Any]:
    """Make the record of one event (schema ``framewire.<type>/1``) that has no number yet.

    Args:
        event: The event.
        run_id: Name of the run, part of the ids of its objects.

    Returns:
        Plain data; what the event does not have is absent, never null. ``sequence`` and ``id`` have their
        places, and are given by the event log.
    """
    record: dict[str, Any] = {
        "schema": f"framewire.{event.type}/{VERSION}",
        "sequence": -1,
        "id": "",
        "type": event.type,
        "source": event.source,
        "at": iso_utc(event.at),
        "epoch": event.epoch,
        "seq": event.seq,
        "pts_ns": event.pts_ns,
    }
    if event.clock is not None:
        record["clock"] = event.clock
    for name in _OPTIONAL:
        value = getattr(event, name)
        if value is not None:
            record[name] = round(value, 4) if isinstance(value, float) else value
    if event.box_xyxy is not None:
        record |= {"box_format": "xyxy", "box_xyxy": [round(v, 2) for v in event.box_xyxy]}
    if event.box_normalized is not None:
        record["box_normalized"] = [round(v, 6) for v in event.box_normalized]
    for name in ("first_seen", "last_seen"):
        value = getattr(event, name)
        if value is not None:
            record[name] = iso_utc(value)
    for name in _AFTER:
        value = getattr(event, name)
        if value is not None:
            record[name] = _plain(value)
    if event.track_id is not None:
        record["object_id"] = f"{run_id}-{event.source}-{event.track_id}"
    if event.path is not None:
        record["path"] = [[round(at, 3), round(x, 4), round(y, 4)] for at, x, y in event.path]
    return record


def interrupted_draft(record: dict[str, Any]) -> dict[str, Any]:
    """The end of an object of which a run that was killed has left only this record.

    Args:
        record: The last event of the object.
    """
    kept = {key: value for key, value in record.items() if key not in _OF_THE_MOMENT}
    return kept | {"schema": f"framewire.end/{VERSION}", "type": "end", "reason": "interrupted"}


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    return list(value) if isinstance(value, tuple) else value


def _detections(result: Result, labels: tuple[str, ...]) -> list[dict[str, Any]]:
    found, header = result.detections, result.header
    # A frame whose size is unknown (it was lost before it had one) has no boxes; 1 avoids the division by 0.
    width, height = max(header.width, 1), max(header.height, 1)
    tracks = [-1] * len(found) if found.track_ids is None else found.track_ids.tolist()
    rows = zip(
        found.boxes_xyxy.tolist(), found.scores.tolist(), found.class_ids.tolist(), tracks, strict=True
    )
    records: list[dict[str, Any]] = []
    for (x1, y1, x2, y2), score, class_id, track_id in rows:
        record = {
            "label": label_of(labels, class_id),
            "class_id": class_id,
            "confidence": round(score, 4),
            "box_xyxy": [round(x1, 2), round(y1, 2), round(x2, 2), round(y2, 2)],
            "box_normalized": [
                round(x1 / width, 6), round(y1 / height, 6), round(x2 / width, 6), round(y2 / height, 6),
            ],
        }  # fmt: skip
        if track_id >= 0:
            record["track_id"] = track_id
        records.append(record)
    for one in result.attributes:
        said = records[one.object].setdefault("attributes", {})
        said[one.name] = {"label": one.label, "confidence": round(one.confidence, 4)}
    return records


def _ms(nanoseconds: int) -> float:
    return round(nanoseconds / 1e6, 3)
