"""When objects come, change and go, and what they do meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.analytics.objects import Box, Fact, Observer, TrackedObject
from pipeline.errors import ConfigError
from pipeline.messages import Attribute, Detections, Event, EventType, FrameHeader

__all__ = ["ObjectLifecycle"]

#: A side that moved by this share of the box's size is worth an update; so is such a rise of the score.
_NOTICEABLE_MOVE = 0.05
_NOTICEABLE_SCORE = 0.05


@dataclass(slots=True)
class _Report:
    """What was last told of an object."""

    at_ns: int
    box: Box
    top: float
    says: tuple[Any, ...]

    def outdated(self, item: TrackedObject) -> bool:
        """Whether it no longer describes the object."""
        x1, y1, x2, y2 = self.box
        size = max(x2 - x1, y2 - y1, 1.0)
        moved = max(abs(a - b) for a, b in zip(item.box, self.box, strict=True))
        noticeable = moved >= _NOTICEABLE_MOVE * size or item.top - self.top >= _NOTICEABLE_SCORE
        return noticeable or _says(item) != self.says


def _says(item: TrackedObject) -> tuple[Any, ...]:
    """What else is worth an update when it changes."""
    labels = tuple(label for label, _ in item.attributes.values())
    return (item.label, tuple(item.zones), item.stationary, tuple(item.attributes), labels)


class ObjectLifecycle:
    """Turns the tracked objects of one source into events. One instance per source and epoch.

    ``start`` comes with the first frame in which an object has a confirmed id. ``update`` comes at most once
    per interval, and only when its box, its best score or what is known of it has changed noticeably. ``end``
    comes with the first frame that is ``lost_after_s`` or more after the last in which it was seen, or from
    `finish`. All time is presentation time. Frames whose inference failed must not be given here: they do not
    say that nothing is there.

    Keep ``lost_after_s`` at or above the tracker's ``lost_s``, or an object that the tracker still remembers
    starts a second time with the same id.

    Observers look at each object of each frame. What they find belongs to the object; what they say becomes
    events of the same frame, after the object's own ``start`` and before its ``end``.

    Args:
        labels: Class names by class id.
        observers: Who looks at the objects, in this order.
        update_interval_s: Shortest time between two reports of one object, seconds.
        lost_after_s: Seconds without being seen after which an object has gone.
        model: Name of the model, for the events.
        provider: Execution provider, for the events.

    Raises:
        ConfigError: a time is negative or not finite.
    """

    def __init__(
        self,
        labels: Sequence[str],
        *,
        observers: Sequence[Observer] = (),
        update_interval_s: float = 1.0,
        lost_after_s: float = 2.0,
        model: str = "",
        provider: str = "",
    ) -> None:
        for name, value in (("update_interval_s", update_interval_s), ("lost_after_s", lost_after_s)):
            if not 0 <= value < float("inf"):
                raise ConfigError(f"events.{name} is {value}", hint="write a number of seconds, 0 or more")
        self._labels = tuple(labels)
        self._observers = tuple(observers)
        self._interval_ns = round(update_interval_s * 1e9)
        self._lost_ns = round(lost_after_s * 1e9)
        self._model = model or None
        self._provider = provider or None
        self._objects: dict[int, TrackedObject] = {}
        self._reports: dict[int, _Report] = {}
        self._header: FrameHeader | None = None

    def __len__(self) -> int:
        """Number of objects that have started and not ended."""
        return len(self._objects)

    def update(
        self,
        header: FrameHeader,
        detections: Detections,
        attributes: Sequence[Attribute] = (),
        motion: NDArray[np.float64] | None = None,
    ) -> tuple[Event, ...]:
        """Take in one frame.

        Args:
            header: The frame.
            detections: Its objects; those without a confirmed ``track_ids`` are ignored.
            attributes: What cascades say of them.
            motion: How the picture has moved; see `Observer.begin`.

        Returns:
            Events that this frame caused: ends first, then what happened to each object in the order of the
            objects, then what concerns them all.
        """
        self._header = header
        for observer in self._observers:
            observer.begin(header, motion)
        track_ids = detections.track_ids if detections.track_ids is not None else np.full(len(detections), -1)
        seen = {int(track_id) for track_id in track_ids if track_id >= 0}
        events: list[Event] = []
        for gone in [o for o in self._objects.values() if header.pts_ns - o.last.pts_ns >= self._lost_ns]:
            if gone.track_id not in seen:
                events += self._end(gone, header, "lost", header.captured_at)
        for row, track_id in enumerate(track_ids.tolist()):
            if track_id >= 0:
                said = [one for one in attributes if one.object == row]
                events += self._see(header, detections, row, track_id, said)
        for observer in self._observers:
            events += self._told(observer.finish(self._objects.values()), header)
        return tuple(events)

    def tell(self, facts: Iterable[Fact]) -> tuple[Event, ...]:
        """Events of what has become known between two frames, with the time of the last one."""
        return () if self._header is None else tuple(self._told(facts, self._header))

    def finish(self, reason: str, at: float) -> tuple[Event, ...]:
        """End all objects, because the source has ended or begins anew.

        Args:
            reason: Why, such as ``end_of_file`` or ``epoch_changed``.
            at: UTC seconds.
        """
        header = self._header
        if header is None:
            return ()
        events: list[Event] = []
        for item in list(self._objects.values()):
            events += self._end(item, header, reason, at)
        for observer in self._observers:
            events += self._told(observer.close(), header, at)
        return tuple(events)

    def _see(
        self,
        header: FrameHeader,
        detections: Detections,
        row: int,
        track_id: int,
        attributes: Sequence[Attribute],
    ) -> list[Event]:
        item = self._objects.get(track_id)
        kind: EventType = "update"
        if item is None:
            kind = "start"
            item = self._objects[track_id] = TrackedObject(track_id, header, header)
        x1, y1, x2, y2 = detections.boxes_xyxy[row].tolist()
        class_id, score = int(detections.class_ids[row]), float(detections.scores[row])
        item.last, item.box, item.score = header, (x1, y1, x2, y2), score
        item.top = max(item.top, score)
        item.frames += 1
        item.votes[class_id] = item.votes.get(class_id, 0.0) + score
        item.label = self._label(max(item.votes, key=item.votes.__getitem__))
        for one in attributes:
            item.attributes[one.name] = (one.label, one.confidence)
        facts = [fact for observer in self._observers for fact in observer.see(item)]
        report = self._reports.get(track_id)
        events: list[Event] = []
        due = report is None or (header.pts_ns - report.at_ns >= self._interval_ns and report.outdated(item))
        if due:
            self._reports[track_id] = _Report(header.pts_ns, item.box, item.top, _says(item))
            events.append(self._event(kind, item, header))
        return events + self._told(facts, header)

    def _end(self, item: TrackedObject, header: FrameHeader, reason: str, at: float) -> list[Event]:
        del self._objects[item.track_id], self._reports[item.track_id]
        facts = [fact for observer in self._observers for fact in observer.leave(item, reason)]
        path = tuple(item.path) or None
        return [
            *self._told(facts, header, at),
            self._event("end", item, header, at=at, reason=reason, path=path),
        ]

    def _told(self, facts: Iterable[Fact], header: FrameHeader, at: float | None = None) -> list[Event]:
        return [self._event(fact.type, fact.item, header, at=at, **fact.fields) for fact in facts]

    def _label(self, class_id: int) -> str:
        return self._labels[class_id] if 0 <= class_id < len(self._labels) else f"class_{class_id}"

    def _event(
        self,
        kind: EventType,
        item: TrackedObject | None,
        header: FrameHeader,
        *,
        at: float | None = None,
        **fields: Any,
    ) -> Event:
        return Event(
            type=kind,
            source=header.source,
            at=header.captured_at if at is None else at,
            pts_ns=header.pts_ns,
            epoch=header.epoch,
            seq=header.seq,
            model=self._model,
            provider=self._provider,
            clock=header.clock,
            **(_facts_of(item) if item is not None else {}),
            **fields,
        )


def _facts_of(item: TrackedObject) -> dict[str, Any]:
    """What every event of an object says of it."""
    x1, y1, x2, y2 = item.box
    width, height = item.last.width, item.last.height
    attributes = {
        name: {"label": label, "confidence": round(confidence, 4)}
        for name, (label, confidence) in item.attributes.items()
    }
    return {
        "label": item.label,
        "track_id": item.track_id,
        "confidence": item.score,
        "top_confidence": item.top,
        "box_xyxy": item.box,
        "box_normalized": (x1 / width, y1 / height, x2 / width, y2 / height),
        "first_seen": item.first.captured_at,
        "last_seen": item.last.captured_at,
        "duration_s": (item.last.pts_ns - item.first.pts_ns) / 1e9,
        "frames": item.frames,
        "attributes": attributes or None,
        "zones": tuple(item.zones) or None,
        "entered_zones": tuple(item.entered_zones) or None,
        "stationary": item.stationary,
        "speed_mps": item.speed_mps,
        "distance_m": item.distance_m,
    }
