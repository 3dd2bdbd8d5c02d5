"""postprocess: raw outputs -> boxes in the source frame, NMS, tracks, life-cycle events; in order again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

import msgspec
import numpy as np

from pipeline.analytics.lifecycle import ObjectLifecycle
from pipeline.errors import ConfigError
from pipeline.heads import load_head
from pipeline.heads.base import Head
from pipeline.messages import (
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
)
from pipeline.stages.ordering import InOrder
from pipeline.tracking import build_tracker
from pipeline.tracking.base import Tracker
from pipeline.transport.base import ViewArray
from pipeline.transport.ledger import Ledger
from pipeline.vision.letterbox import to_source
from pipeline.vision.nms import nms

__all__ = ["PostprocessStage"]

_CACHE = 256


@dataclass(slots=True)
class _Decoded:
    """A frame that waits for its turn."""

    header: FrameHeader
    spans: tuple[Span, ...]
    frame: Frame | None
    detections: Detections
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
    resumed: bool
    epoch: int | None = None
    ended_at: int | None = None
    sent: deque[Result | EndOfStream] = field(default_factory=lambda: deque(maxlen=_CACHE))


class PostprocessStage:
    """Decodes, suppresses, tracks.

    Args:
        ledger_of: Gives the books of a source.
        confidence: Detections below it are dropped.
        nms_iou: IoU above which the weaker of two boxes of a class goes; None for the head's own default.
        classes: Labels to keep; None for all.
        max_detections: Most objects in one frame.
        algorithm: Name of the tracker.
        track_options: Its options.
        update_interval_s: Shortest time between two ``update`` events of an object.
        lost_after_s: An object unseen for so long has ended.
        check: Raises when a slot was recycled while it was read.
    """

    name = "postprocess"

    def __init__(
        self,
        *,
        ledger_of: Callable[[str], Ledger],
        confidence: float = 0.4,
        nms_iou: float | None = None,
        classes: tuple[str, ...] | None = None,
        max_detections: int = 300,
        algorithm: str = "bytetrack",
        track_options: dict[str, Any] | None = None,
        update_interval_s: float = 1.0,
        lost_after_s: float = 2.0,
        check: Callable[..., None] = lambda *_: None,
    ) -> None:
        self._ledger_of = ledger_of
        self._confidence = confidence
        self._nms_iou = nms_iou
        self._classes = classes
        self._max_detections = max_detections
        self._algorithm = algorithm
        self._track_options = track_options or {}
        self._update_interval_s = update_interval_s
        self._lost_after_s = lost_after_s
        self._check = check
        self._spec: ModelSpec | None = None
        self._head: Head | None = None
        self._keep: np.ndarray[Any, np.dtype[np.bool_]] | None = None
        self._streams: dict[str, _Stream] = {}

    def open(self) -> None:
        """Load the tracker's library now: it takes a second, which the first frame should not wait for."""
        build_tracker(self._algorithm, **self._track_options)

    def begin(self, spec: ModelSpec) -> None:
        """Load the head of this model.

        Raises:
            ConfigError: a class to keep is not among the model's labels.
        """
        self._spec = spec
        self._head = load_head(spec.family)
        if self._classes is not None:
            unknown = sorted(set(self._classes) - set(spec.labels))
            if unknown:
                near = get_close_matches(unknown[0], spec.labels, n=1)
                raise ConfigError(
                    f"the model {spec.name} has no class {', '.join(unknown)}",
                    hint=f"did you mean {near[0]}?" if near else f"it knows {', '.join(spec.labels)}",
                )
            self._keep = np.array([label in self._classes for label in spec.labels])

    def process(self, message: Message, view: ViewArray) -> Iterable[Message]:
        """``ModelOutput``, ``Lost`` and ``EndOfStream`` in, in any order -> ``Result`` in frame order."""
        start_ns = time.monotonic_ns()
        if isinstance(message, EndOfStream):
            stream = self._stream(message.source)
            if not stream.order.offer(message.seq, message):
                yield from (sent for sent in stream.sent if isinstance(sent, EndOfStream))
            yield from self._advance(stream)
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
            detections = self._decode(message, view)
            spent = time.monotonic_ns() - start_ns
            decoded = _Decoded(header, message.spans, message.frame, detections, spent)
        else:
            decoded = _Decoded(
                header, message.spans, message.frame, Detections.empty(), 0, message.reason, message.cause
            )
        stream.order.offer(header.seq, decoded)
        yield from self._advance(stream)

    def tick(self) -> None:
        """Nothing to look for."""

    def summary(self) -> dict[str, Any]:
        """Nothing of its own."""
        return {}

    def close(self) -> None:
        """All state is in memory."""

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
            stream = _Stream(ledger, InOrder(first), tracker, lifecycle, resumed=first > 0)
            self._streams[source] = stream
        return stream

    def _decode(self, message: ModelOutput, view: ViewArray) -> Detections:
        assert self._head is not None
        assert self._spec is not None
        raw = self._head.decode([view(blob) for blob in message.outputs], self._spec, self._confidence)
        self._check(*message.outputs)
        if self._keep is not None and len(raw):
            raw = raw.select(self._keep[raw.class_ids])
        iou = self._head.nms_iou if self._nms_iou is None else self._nms_iou
        if iou is not None and len(raw):
            raw = raw.select(nms(raw.boxes_xyxy, raw.scores, raw.class_ids, iou, self._max_detections))
        return Detections(to_source(raw.boxes_xyxy, message.letterbox), raw.scores, raw.class_ids)

    def _advance(self, stream: _Stream) -> Iterator[Message]:
        for item in stream.order.ready():
            if isinstance(item, EndOfStream):
                stream.ended_at = item.seq
                events = stream.lifecycle.finish(item.reason, item.at)
                done: Result | EndOfStream = msgspec.structs.replace(item, events=events)
            else:
                done = self._result(stream, item, time.monotonic_ns())
            stream.sent.append(done)
            yield done

    def _result(self, stream: _Stream, item: _Decoded, start_ns: int) -> Result:
        header, detections = item.header, item.detections
        events: tuple[Event, ...] = ()
        if stream.epoch != header.epoch:
            if stream.epoch is not None:
                events = stream.lifecycle.finish("epoch_changed", header.captured_at)
                stream.tracker.reset()
            stream.epoch = header.epoch
        failed = bool(item.reason or item.lost)
        if not failed:
            # A frame that failed tells the tracker nothing; it is not a frame without objects.
            detections = stream.tracker.update(detections, header.pts_ns / 1e9)
            stream.ledger["next_track_id"] = stream.tracker.next_id
            events += stream.lifecycle.update(header, detections)
        end_ns = time.monotonic_ns()
        resumed, stream.resumed = stream.resumed, False
        service_ns = item.service_ns + end_ns - start_ns
        before_ns = item.spans[-1].end_ns if item.spans else header.captured_ns
        span = Span(self.name, max(0, end_ns - before_ns - service_ns), service_ns, end_ns)
        return Result(
            header, (*item.spans, span), item.frame, "failed" if failed else "ok", detections,
            item.reason, item.lost, events, resumed,
        )  # fmt: skip
