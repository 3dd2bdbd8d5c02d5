"""postprocess: raw outputs -> what the task asks for, tracks, attributes and events; in order again."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import msgspec
import numpy as np

from pipeline.analytics.lifecycle import ObjectLifecycle
from pipeline.errors import ConfigError, FramewireError
from pipeline.messages import (
    Attribute,
    Classes,
    Detections,
    EndOfStream,
    Event,
    Frame,
    FrameHeader,
    Lost,
    Message,
    ModelOutput,
    ModelSpec,
    Result,
    Span,
    Task,
)
from pipeline.stages.ordering import InOrder
from pipeline.tasks.cascade import Cascade, ObjectAttributes
from pipeline.tasks.reading import Found, Reader
from pipeline.tracking import build_tracker
from pipeline.tracking.base import Tracker
from pipeline.transport.base import ViewArray
from pipeline.transport.ledger import Ledger

__all__ = ["PostprocessStage"]

_log = logging.getLogger(__name__)

_CACHE = 256


@dataclass(slots=True)
class _Decoded:
    """A frame that waits for its turn."""

    header: FrameHeader
    spans: tuple[Span, ...]
    frame: Frame | None
    found: Found
    service_ns: int
    reason: str = ""
    lost: str = ""


@dataclass(slots=True)
class _Stream:
    """State of one source: nothing here is shared with another."""

    ledger: Ledger
    order: InOrder[_Decoded | EndOfStream]
    tracker: Tracker
    lifecycle: ObjectLifecycle
    attributes: ObjectAttributes
    resumed: bool
    epoch: int | None = None
    ended_at: int | None = None
    complaint: str = ""
    sent: deque[Result | EndOfStream] = field(default_factory=lambda: deque(maxlen=_CACHE))


class PostprocessStage:
    """Decodes, selects, tracks.

    Args:
        ledger_of: Gives the books of a source.
        task: What to do with each frame; see `pipeline.tasks.reading.Reader`.
        confidence: Detections below it are dropped.
        nms_iou: IoU above which the weaker of two boxes of a class goes; None for the head's own default.
        classes: Labels to keep; None for all.
        max_detections: Most objects in one frame.
        top_k: Most classes of one frame.
        algorithm: Name of the tracker.
        track_options: Its options.
        update_interval_s: Shortest time between two ``update`` events of an object.
        lost_after_s: An object unseen for so long has ended.
        cascades: Second models that look at the objects, not yet opened.
        check: Raises when a slot was recycled while it was read.
    """

    name = "postprocess"

    def __init__(
        self,
        *,
        ledger_of: Callable[[str], Ledger],
        task: Task = "detect",
        confidence: float = 0.4,
        nms_iou: float | None = None,
        classes: tuple[str, ...] | None = None,
        max_detections: int = 300,
        top_k: int = 5,
        algorithm: str = "bytetrack",
        track_options: dict[str, Any] | None = None,
        update_interval_s: float = 1.0,
        lost_after_s: float = 2.0,
        cascades: Sequence[Cascade] = (),
        check: Callable[..., None] = lambda *_: None,
    ) -> None:
        self._ledger_of = ledger_of
        self._confidence = confidence
        self._task = task
        self._make_reader = partial(
            Reader,
            task=task,
            confidence=confidence,
            nms_iou=nms_iou,
            classes=classes,
            max_detections=max_detections,
            top_k=top_k,
        )
        self._algorithm = algorithm
        self._track_options = track_options or {}
        self._update_interval_s = update_interval_s
        self._lost_after_s = lost_after_s
        self._check = check
        self._cascades = tuple(cascades)
        self._spec: ModelSpec | None = None
        self._reader: Reader | None = None
        self._streams: dict[str, _Stream] = {}

    def open(self) -> None:
        """Load the tracker's library and the cascades' models now: the first frame should not wait for them.

        Raises:
            ModelError: a cascade's model cannot be loaded.
        """
        if self._task != "classify":  # classes need no tracker that takes a second to load
            build_tracker(self._algorithm, **self._track_options)
        for cascade in self._cascades:
            cascade.open()

    def begin(self, spec: ModelSpec) -> None:
        """Load the head of this model.

        Raises:
            ConfigError: it cannot do the task, or a class to keep or to look at is not among its labels.
        """
        self._spec = spec
        self._reader = self._make_reader(spec)
        if self._cascades and spec.kind == "classifier":
            raise ConfigError(
                f"cascades.{self._cascades[0].name}: the model {spec.name} finds no objects to look at",
                hint="name a detector as model, or leave the cascades out",
            )
        for cascade in self._cascades:
            cascade.check(spec.labels)
        if spec.kind == "classifier" and self._algorithm != "none":
            # Nothing moves: what is followed is which classes are there.
            self._algorithm = "presence"
            self._track_options = {k: v for k, v in self._track_options.items() if k == "lost_s"}

    def process(self, message: Message, view: ViewArray) -> Iterable[Message]:
        """``ModelOutput``, ``Lost`` and ``EndOfStream`` in, in any order -> ``Result`` in frame order."""
        start_ns = time.monotonic_ns()
        if isinstance(message, EndOfStream):
            stream = self._stream(message.source)
            if not stream.order.offer(message.seq, message):
                yield from (sent for sent in stream.sent if isinstance(sent, EndOfStream))
            yield from self._advance(stream, view)
            return
        if isinstance(message, ModelOutput):
            header = message.frame.header
        elif isinstance(message, Lost):
            header = message.header
        else:
            raise TypeError(f"postprocess cannot take {type(message).__name__}")
        stream = self._stream(header.source)
        if stream.ended_at is not None and header.seq >= stream.ended_at:
            del self._streams[header.source]  # It was removed, and is back.
            first = stream.ended_at
            stream = self._stream(header.source)
            stream.order.next_seq = max(stream.order.next_seq, first)
        if not stream.order.fresh(header.seq):
            yield from (r for r in stream.sent if isinstance(r, Result) and r.header.seq == header.seq)
            return
        if isinstance(message, ModelOutput):
            found = self._decode(message, view)
            spent = time.monotonic_ns() - start_ns
            decoded = _Decoded(header, message.spans, message.frame, found, spent)
        else:
            decoded = _Decoded(
                header, message.spans, message.frame, _NOTHING, 0, message.reason, message.cause
            )
        stream.order.offer(header.seq, decoded)
        yield from self._advance(stream, view)

    def tick(self) -> None:
        """Nothing to look for."""

    def summary(self) -> dict[str, Any]:
        """Nothing of its own."""
        return {}

    def close(self) -> None:
        """Free the models of the cascades."""
        for cascade in self._cascades:
            cascade.close()

    def _stream(self, source: str) -> _Stream:
        stream = self._streams.get(source)
        if stream is None:
            assert self._spec is not None
            ledger = self._ledger_of(source)
            tracker = build_tracker(
                self._algorithm, first_id=max(1, ledger["next_track_id"]), **self._track_options
            )
            lifecycle = ObjectLifecycle(
                self._spec.labels,
                update_interval_s=self._update_interval_s,
                lost_after_s=self._lost_after_s,
                model=self._spec.name,
                provider=self._spec.provider,
            )
            # After a restart the numbering goes on where publish is, not where we were.
            first = ledger["next_publish"]
            attributes = ObjectAttributes(self._cascades, self._spec.labels)
            stream = _Stream(ledger, InOrder(first), tracker, lifecycle, attributes, resumed=first > 0)
            self._streams[source] = stream
        return stream

    def _decode(self, message: ModelOutput, view: ViewArray) -> Found:
        assert self._reader is not None
        try:
            return self._reader.read([view(blob) for blob in message.outputs], message.letterbox)
        finally:
            # Also where the head refuses them: what was overwritten need not look like its family's.
            self._check(*message.outputs)

    def _advance(self, stream: _Stream, view: ViewArray) -> Iterator[Message]:
        for item in stream.order.ready():
            if isinstance(item, EndOfStream):
                stream.ended_at = item.seq
                events = self._ended(stream, item.reason, item.at)
                done: Result | EndOfStream = msgspec.structs.replace(item, events=events)
            else:
                done = self._result(stream, item, view)
            stream.sent.append(done)
            yield done

    def _result(self, stream: _Stream, item: _Decoded, view: ViewArray) -> Result:
        start_ns = time.monotonic_ns()
        header = item.header
        events: tuple[Event, ...] = ()
        attributes: tuple[Attribute, ...] = ()
        if stream.epoch != header.epoch:
            if stream.epoch is not None:
                events = self._ended(stream, "epoch_changed", header.captured_at)
                stream.tracker.reset()
                stream.attributes.reset()
            stream.epoch = header.epoch
        failed = bool(item.reason or item.lost)
        detections, classes = item.found.detections, item.found.classes
        if not failed:
            # A frame that failed tells the tracker nothing; it is not a frame without objects.
            at_s = header.pts_ns / 1e9
            if classes is None:
                detections = stream.tracker.update(detections, at_s)
                attributes = self._attributes(stream, detections, item, view)
                events += stream.lifecycle.update(header, detections, attributes)
            else:
                stays = stream.tracker.update(_whole_frame(header, classes, self._confidence), at_s)
                events += tuple(map(_without_box, stream.lifecycle.update(header, stays)))
            stream.ledger["next_track_id"] = stream.tracker.next_id
        end_ns = time.monotonic_ns()
        resumed, stream.resumed = stream.resumed, False
        service_ns = item.service_ns + end_ns - start_ns
        before_ns = item.spans[-1].end_ns if item.spans else header.captured_ns
        span = Span(self.name, max(0, end_ns - before_ns - service_ns), service_ns, end_ns)
        return Result(
            header,
            (*item.spans, span),
            item.frame,
            "failed" if failed else "ok",
            detections,
            item.reason,
            item.lost,
            classes,
            attributes,
            events,
            resumed,
        )

    def _ended(self, stream: _Stream, reason: str, at: float) -> tuple[Event, ...]:
        events = stream.lifecycle.finish(reason, at)
        assert self._spec is not None
        return tuple(map(_without_box, events)) if self._spec.kind == "classifier" else events

    def _attributes(
        self, stream: _Stream, detections: Detections, item: _Decoded, view: ViewArray
    ) -> tuple[Attribute, ...]:
        """What cascades say of the objects; a crop that cannot be read costs its look, not the frame."""
        if not self._cascades or item.frame is None:
            return ()
        frame, at_s = item.frame, item.header.pts_ns / 1e9
        try:
            planes = tuple(view(blob) for blob in frame.pixels)
            check = partial(self._check, *frame.pixels)
            return stream.attributes.update(detections, planes, frame.pixel_format, at_s, check)
        except FramewireError as error:
            # Once, and not with each frame of a pool that is gone or a server that is down.
            level = logging.DEBUG if stream.complaint == str(error) else logging.WARNING
            stream.complaint = str(error)
            _log.log(level, "%s [%s]: no new attributes for frame %d: %s", self.name, item.header.source,
                     item.header.seq, error)  # fmt: skip
        return stream.attributes.update(detections, (), frame.pixel_format, at_s)


_NOTHING = Found(Detections.empty())


def _whole_frame(header: FrameHeader, classes: Classes, confidence: float) -> Detections:
    """Classes that are sure enough, as objects that fill the frame."""
    sure = [pair for pair in zip(classes.class_ids, classes.scores, strict=True) if pair[1] >= confidence]
    boxes = np.tile(np.array([0, 0, header.width, header.height], np.float32), (len(sure), 1))
    return Detections(boxes, [score for _, score in sure], [class_id for class_id, _ in sure])


def _without_box(event: Event) -> Event:
    return msgspec.structs.replace(event, box_xyxy=None, box_normalized=None)
