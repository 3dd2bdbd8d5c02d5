"""postprocess: raw outputs -> what the task asks for, tracks, attributes and events; in order again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.analytics.areas import keep
from pipeline.errors import ConfigError
from pipeline.messages import (
    Detections,
    EndOfStream,
    Frame,
    FrameHeader,
    Lost,
    Message,
    ModelOutput,
    ModelSpec,
    Result,
    Scene,
    Span,
    Task,
)
from pipeline.stages.following import Followed, Follower, Following, Pixels
from pipeline.stages.ordering import InOrder
from pipeline.tasks.cascade import Cascade
from pipeline.tasks.reading import Found, Reader
from pipeline.tracking import build_tracker
from pipeline.transport.base import ViewArray
from pipeline.transport.ledger import Ledger

if TYPE_CHECKING:
    from pipeline.tasks.embedding import Embedder

__all__ = ["PostprocessStage"]

_CACHE = 256
_NOTHING = Found(Detections.empty())
_NO_SCENE = Scene()


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
    follower: Follower
    resumed: bool
    ended_at: int | None = None
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
        following: How objects are followed.
        scene_of: Gives what is drawn for a source now.
        confidence_of: Gives what somebody has set for a source instead of ``confidence``; None for nothing.
        cascades: Second models that look at the objects, not yet opened.
        embedder: What tells trackers how objects look, not yet opened; None for nothing.
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
        following: Following = Following(),  # noqa: B008  (frozen)
        scene_of: Callable[[str], Scene] = lambda _: _NO_SCENE,
        confidence_of: Callable[[str], float | None] = lambda _: None,
        cascades: Sequence[Cascade] = (),
        embedder: Embedder | None = None,
        check: Callable[..., None] = lambda *_: None,
    ) -> None:
        self._ledger_of = ledger_of
        self._make_reader = partial(
            Reader,
            task=task,
            confidence=confidence,
            nms_iou=nms_iou,
            classes=classes,
            max_detections=max_detections,
            top_k=top_k,
        )
        self._task = task
        self._following = following
        self._scene_of = scene_of
        self._confidence_of = confidence_of
        self._check = check
        self._cascades = tuple(cascades)
        self._embedder = embedder
        self._spec: ModelSpec | None = None
        self._reader: Reader | None = None
        self._tuned: dict[str, tuple[float, Reader]] = {}
        self._streams: dict[str, _Stream] = {}

    def open(self) -> None:
        """Load the second models now: the first frame should not wait for them.

        Raises:
            ModelError: one cannot be loaded.
        """
        if self._task != "classify" and self._following.algorithm != "auto":
            build_tracker(self._following.algorithm, **self._following.track_options)
        for cascade in self._cascades:
            cascade.open()
        if self._embedder is not None:
            self._embedder.open()

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
        """Free the second models."""
        for cascade in self._cascades:
            cascade.close()
        if self._embedder is not None:
            self._embedder.close()

    def _stream(self, source: str) -> _Stream:
        stream = self._streams.get(source)
        if stream is None:
            assert self._spec is not None
            ledger = self._ledger_of(source)
            follower = Follower(
                source,
                self._spec,
                self._following,
                scene_of=partial(self._scene_of, source),
                first_id=max(1, ledger["next_track_id"]),
                cascades=self._cascades,
                embedder=self._embedder,
            )
            # After a restart the numbering goes on where publish is, not where we were.
            first = ledger["next_publish"]
            stream = _Stream(ledger, InOrder(first), follower, resumed=first > 0)
            self._streams[source] = stream
        return stream

    def _decode(self, message: ModelOutput, view: ViewArray) -> Found:
        header = message.frame.header
        reader = self._reader_for(header.source)
        try:
            outputs = [view(blob) for blob in message.outputs]
            return reader.read(outputs, message.letterbox, self._unmasked(header))
        finally:
            # Also where the head refuses them: what was overwritten need not look like its family's.
            self._check(*message.outputs)

    def _reader_for(self, source: str) -> Reader:
        """The reader of a source: that of all, unless somebody has set a confidence for it."""
        assert self._reader is not None
        assert self._spec is not None
        confidence = self._confidence_of(source)
        if confidence is None:
            return self._reader
        tuned = self._tuned.get(source)
        if tuned is None or tuned[0] != confidence:
            tuned = self._tuned[source] = confidence, self._make_reader(self._spec, confidence=confidence)
        return tuned[1]

    def _unmasked(self, header: FrameHeader) -> Callable[[Detections], NDArray[np.bool_]] | None:
        """Says which objects no mask of the source hides; None where there is no mask."""
        masks = tuple(
            mask for mask in self._scene_of(header.source).masks.values() if mask.hides != "picture"
        )
        return partial(keep, masks=masks, width=header.width, height=header.height) if masks else None

    def _advance(self, stream: _Stream, view: ViewArray) -> Iterator[Message]:
        for item in stream.order.ready():
            if isinstance(item, EndOfStream):
                stream.ended_at = item.seq
                events = stream.follower.finish(item.reason, item.at)
                done: Result | EndOfStream = msgspec.structs.replace(item, events=events)
            else:
                done = self._result(stream, item, view)
            stream.sent.append(done)
            yield done

    def _result(self, stream: _Stream, item: _Decoded, view: ViewArray) -> Result:
        start_ns = time.monotonic_ns()
        header = item.header
        events = stream.follower.enter(header)
        failed = bool(item.reason or item.lost)
        followed = Followed(item.found.detections)
        if not failed:
            # A frame that failed tells the tracker nothing; it is not a frame without objects.
            followed = stream.follower.follow(header, item.found, partial(self._pixels, item, view))
            stream.ledger["next_track_id"] = stream.follower.next_id
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
            followed.detections,
            item.reason,
            item.lost,
            item.found.classes,
            followed.attributes,
            events + followed.events,
            resumed,
            item.found.masked,
        )

    def _pixels(self, item: _Decoded, view: ViewArray) -> Pixels | None:
        frame = item.frame
        if frame is None or not frame.pixels:
            return None
        planes = tuple(view(blob) for blob in frame.pixels)
        return Pixels(planes, frame.pixel_format, partial(self._check, *frame.pixels))
