"""When objects come, change and go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from pipeline.errors import ConfigError
from pipeline.messages import Attribute, Detections, Event, FrameHeader

__all__ = ["ObjectLifecycle"]

Box = tuple[float, float, float, float]

#: A side that moved by this share of the box's size is worth an update; so is such a rise of the score.
_NOTICEABLE_MOVE = 0.05
_NOTICEABLE_SCORE = 0.05


@dataclass(slots=True)
class _Object:
    """What is known of one object that has started and not ended."""

    track_id: int
    first: FrameHeader
    last: FrameHeader
    box: Box = (0.0, 0.0, 0.0, 0.0)
    score: float = 0.0
    top: float = 0.0
    frames: int = 0
    votes: dict[int, float] = field(default_factory=dict)
    attributes: dict[str, tuple[str, float]] = field(default_factory=dict)
    reported_ns: int = 0
    reported_box: Box = (0.0, 0.0, 0.0, 0.0)
    reported_top: float = 0.0
    reported_says: dict[str, str] = field(default_factory=dict)

    def see(self, header: FrameHeader, box: Box, score: float, class_id: int) -> None:
        self.last, self.box, self.score = header, box, score
        self.top = max(self.top, score)
        self.frames += 1
        self.votes[class_id] = self.votes.get(class_id, 0.0) + score

    def changed(self) -> bool:
        """Whether the last report no longer describes it."""
        x1, y1, x2, y2 = self.reported_box
        size = max(x2 - x1, y2 - y1, 1.0)
        moved = max(abs(a - b) for a, b in zip(self.box, self.reported_box, strict=True))
        if moved >= _NOTICEABLE_MOVE * size or self.top - self.reported_top >= _NOTICEABLE_SCORE:
            return True
        return self.says() != self.reported_says

    def says(self) -> dict[str, str]:
        """The labels of its attributes, by name."""
        return {name: label for name, (label, _) in self.attributes.items()}

    def report(self, header: FrameHeader) -> None:
        """Take note that all this is being told."""
        self.reported_ns, self.reported_box, self.reported_top = header.pts_ns, self.box, self.top
        self.reported_says = self.says()


class ObjectLifecycle:
    """Turns the tracked objects of one source into events. One instance per source.

    ``start`` comes with the first frame in which an object has a confirmed id. ``update`` comes at most once
    per interval, and only when its box or best score has changed noticeably. ``end`` comes with the first
    frame that is ``lost_after_s`` or more after the last in which it was seen, with a new epoch (reason
    ``epoch_changed``), or from `finish`. All time is presentation time. Frames whose inference failed must
    not be given here: they do not say that nothing is there.

    Keep ``lost_after_s`` at or above the tracker's ``lost_s``, or an object that the tracker still remembers
    starts a second time with the same id.

    Args:
        labels: Class names by class id.
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
        update_interval_s: float = 1.0,
        lost_after_s: float = 2.0,
        model: str = "",
        provider: str = "",
    ) -> None:
        for name, value in (("update_interval_s", update_interval_s), ("lost_after_s", lost_after_s)):
            if not 0 <= value < float("inf"):
                raise ConfigError(f"events.{name} is {value}", hint="write a number of seconds, 0 or more")
        self._labels = tuple(labels)
        self._interval_ns = round(update_interval_s * 1e9)
        self._lost_ns = round(lost_after_s * 1e9)
        self._model = model or None
        self._provider = provider or None
        self._objects: dict[int, _Object] = {}
        self._header: FrameHeader | None = None

    def __len__(self) -> int:
        """Number of objects that have started and not ended."""
        return len(self._objects)

    def update(
        self, header: FrameHeader, detections: Detections, attributes: Sequence[Attribute] = ()
    ) -> tuple[Event, ...]:
        """Take in one frame.

        Args:
            header: The frame.
            detections: Its objects; those without a confirmed ``track_ids`` are ignored.
            attributes: What cascades say of them.

        Returns:
            Events that this frame caused: ends first, then starts and updates in the order of the objects.
        """
        events: list[Event] = []
        if self._header is not None and header.epoch != self._header.epoch:
            events += self._end_all(header, "epoch_changed", header.captured_at)
        self._header = header
        track_ids = detections.track_ids if detections.track_ids is not None else np.full(len(detections), -1)
        seen = {int(track_id) for track_id in track_ids if track_id >= 0}
        for gone in [o for o in self._objects.values() if header.pts_ns - o.last.pts_ns >= self._lost_ns]:
            if gone.track_id not in seen:
                del self._objects[gone.track_id]
                events.append(self._event("end", gone, header, reason="lost"))
        for row, track_id in enumerate(track_ids.tolist()):
            if track_id < 0:
                continue
            item = self._objects.get(track_id)
            kind: Literal["start", "update"] = "start" if item is None else "update"
            if item is None:
                item = self._objects[track_id] = _Object(track_id, header, header)
            x1, y1, x2, y2 = detections.boxes_xyxy[row].tolist()
            item.see(header, (x1, y1, x2, y2), float(detections.scores[row]), int(detections.class_ids[row]))
            for one in attributes:
                if one.object == row:
                    item.attributes[one.name] = (one.label, one.confidence)
            due = header.pts_ns - item.reported_ns >= self._interval_ns and item.changed()
            if kind == "start" or due:
                item.report(header)
                events.append(self._event(kind, item, header))
        return tuple(events)

    def finish(self, reason: str, at: float) -> tuple[Event, ...]:
        """End all objects, because the source has ended.

        Args:
            reason: Why, such as ``end_of_file``.
            at: UTC seconds.
        """
        return () if self._header is None else tuple(self._end_all(self._header, reason, at))

    def _end_all(self, header: FrameHeader, reason: str, at: float) -> list[Event]:
        items, self._objects = list(self._objects.values()), {}
        return [self._event("end", item, header, reason=reason, at=at) for item in items]

    def _event(
        self,
        kind: Literal["start", "update", "end"],
        item: _Object,
        header: FrameHeader,
        *,
        reason: str | None = None,
        at: float | None = None,
    ) -> Event:
        class_id = max(item.votes, key=item.votes.__getitem__)
        x1, y1, x2, y2 = item.box
        width, height = item.last.width, item.last.height
        return Event(
            type=kind,
            source=header.source,
            at=header.captured_at if at is None else at,
            pts_ns=header.pts_ns,
            epoch=header.epoch,
            seq=header.seq,
            label=self._labels[class_id] if 0 <= class_id < len(self._labels) else f"class_{class_id}",
            track_id=item.track_id,
            confidence=item.score,
            top_confidence=item.top,
            box_xyxy=item.box,
            box_normalized=(x1 / width, y1 / height, x2 / width, y2 / height),
            first_seen=item.first.captured_at,
            last_seen=item.last.captured_at,
            duration_s=(item.last.pts_ns - item.first.pts_ns) / 1e9,
            frames=item.frames,
            attributes={
                name: {"label": label, "confidence": round(confidence, 4)}
                for name, (label, confidence) in item.attributes.items()
            }
            or None,
            reason=reason,
            model=self._model,
            provider=self._provider,
            clock=header.clock,
        )
