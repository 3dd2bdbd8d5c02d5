"""publish: results -> sinks, in order, exactly once; then the lease goes home and the books are kept."""

from __future__ import annotations

import logging
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import FramewireError, StaleSlotError
from pipeline.messages import EndOfStream, Event, Message, ModelSpec, Result
from pipeline.sinks.base import Publication, Sink
from pipeline.sinks.records import event_record, frame_record
from pipeline.stages.base import STAGES
from pipeline.stages.latency import Latencies
from pipeline.stages.ordering import InOrder
from pipeline.transport.base import ViewArray
from pipeline.transport.ledger import LOST_CAUSES, Ledger
from pipeline.transport.shm import Pools
from pipeline.vision.tensor import planes_to_bgr

__all__ = ["PublishStage"]

log = logging.getLogger(__name__)


class PublishStage:
    """Gives each result to every sink and closes its account.

    Args:
        sinks: The sinks, not yet opened.
        ledger_of: Gives the books of a source.
        pools: Where the frames lie; leases are returned here.
        ring: Told the name of a source when one of its slots came free.
        sources: Names of all sources.
        run_id: Id of the run, part of every event's id.
        open_objects: File of the run that holds the objects still open, so that they get their end even if
            this process and then their tracker are killed; None to keep them in memory only.
    """

    name = "publish"

    def __init__(
        self,
        *,
        sinks: Sequence[Sink],
        ledger_of: Callable[[str], Ledger],
        pools: Pools,
        ring: Callable[[str], None],
        sources: tuple[str, ...],
        run_id: str,
        open_objects: Path | None = None,
    ) -> None:
        self._sinks = tuple(sinks)
        self._ledger_of = ledger_of
        self._pools = pools
        self._ring = ring
        self._sources = sources
        self._run_id = run_id
        self._open_objects = open_objects
        self._spec: ModelSpec | None = None
        self._order: dict[str, InOrder[Result | EndOfStream]] = {}
        self._sequence = 0
        self._open: dict[str, dict[int, Event]] = {}
        self._latencies = Latencies()
        self._objects: Counter[str] = Counter()
        self._files: list[str] = []

    def open(self) -> None:
        """Nothing is heavy before the model is known."""

    def begin(self, spec: ModelSpec) -> None:
        """Open the sinks; go on where an earlier incarnation was killed.

        Raises:
            SinkError: one cannot be written or bound.
        """
        self._spec = spec
        if self._open_objects is not None and self._open_objects.exists():
            self._open = msgspec.msgpack.decode(
                self._open_objects.read_bytes(), type=dict[str, dict[int, Event]]
            )
        resumes = [sink.open(spec) for sink in self._sinks]
        self._sequence = self._next_number(max((resume.next_sequence for resume in resumes), default=0))

    def _next_number(self, on_file: int) -> int:
        """Where the numbering goes on after a kill; ``on_file`` is the first number that no file holds."""
        numbers = [on_file]
        for source in self._sources:
            ledger = self._ledger_of(source)
            numbers.append(ledger["event_next"])
            if ledger["event_seq"] <= ledger["next_publish"]:
                continue
            # A frame was killed on its way to the sinks. Its numbers stay its own, unless a file shows that
            # they were never used.
            if 0 < on_file <= ledger["event_base"]:
                ledger["event_seq"] = 0
            else:
                numbers.append(ledger["event_base"] + ledger["event_count"])
        return max(numbers)

    def process(self, message: Message, view: ViewArray) -> Iterable[Message]:
        """``Result`` and ``EndOfStream`` in; nothing comes out.

        Raises:
            SinkError: a sink cannot take it.
        """
        if isinstance(message, EndOfStream):
            source = message.source
            order = self._stream(source)
            order.offer(message.seq, message)
        elif isinstance(message, Result):
            source = message.header.source
            order = self._stream(source)
            if not order.offer(message.header.seq, message) and message.header.seq < order.next_seq:
                self._return(message)  # It was published before; only its lease is new.
        else:
            raise TypeError(f"publish cannot take {type(message).__name__}")
        for item in order.ready():
            if isinstance(item, Result):
                self._publish(item, view)
            else:
                self._end(item)
        return ()

    def summary(self) -> dict[str, Any]:
        """Latencies by stage, objects by label, files written."""
        return {
            "latency": self._latencies.counts(),
            "objects": dict(self._objects),
            "files": self._files,
            "events": self._sequence,
        }

    def close(self) -> None:
        """Close all sinks, the others too when one fails; objects still open end as interrupted.

        Raises:
            SinkError: the first failure.
        """
        failure: FramewireError | None = None
        for source in [source for source, objects in self._open.items() if objects]:
            seq = self._stream(source).next_seq
            events = self._numbered(source, seq, self._interrupted(source, time.time()))
            try:
                self._write(source, Publication(None, None, events, lambda: None, None))
            except FramewireError as error:
                failure = error
        for sink in self._sinks:
            try:
                self._files += sink.close()
            except FramewireError as error:
                log.error("%s", error)
                failure = failure or error
        if failure is not None:
            raise failure

    def _stream(self, source: str) -> InOrder[Result | EndOfStream]:
        order = self._order.get(source)
        if order is None:
            order = self._order[source] = InOrder(self._ledger_of(source)["next_publish"])
        return order

    def _publish(self, result: Result, view: ViewArray) -> None:
        assert self._spec is not None
        start_ns = time.monotonic_ns()
        header = result.header
        events = result.events
        if result.resumed:
            events = (*self._interrupted(header.source, header.captured_at), *events)
        if header.seq == 0:
            events = (self._source_event(header.source, "running", header.captured_at), *events)
        self._remember(events)

        def picture() -> NDArray[np.uint8] | None:
            frame = result.frame
            if frame is None or not frame.pixels:
                return None
            try:
                return planes_to_bgr(tuple(view(blob) for blob in frame.pixels), frame.pixel_format)
            except StaleSlotError:
                return None

        record = frame_record(result, self._spec, start_ns)
        events = tuple(msgspec.structs.replace(e, latency_ms=record["latency_ms"]) for e in events)
        numbered = self._numbered(header.source, header.seq, events)
        self._write(header.source, Publication(header, record, numbered, picture, result))
        end_ns = time.monotonic_ns()
        self._account(result, start_ns, end_ns)
        ledger = self._ledger_of(header.source)
        counted = ledger["published"] + sum(ledger.lost().values())
        if counted > header.seq:
            pass  # Killed between this account and `next_publish`, it comes a second time.
        elif result.lost:
            ledger[f"lost_{result.lost if result.lost in LOST_CAUSES else 'stopped'}"] += 1
        else:
            ledger["published"] += 1
            ledger["failed"] += result.status == "failed"
        ledger["next_publish"] = header.seq + 1
        self._return(result)

    def _account(self, result: Result, start_ns: int, end_ns: int) -> None:
        """Count its times and objects; publish's own span ends here, so it is not in the record."""
        if result.lost:
            return
        latencies = self._latencies
        for span in result.spans:
            latencies.add(f"{span.stage}.wait", span.wait_ns)
            latencies.add(f"{span.stage}.service", span.service_ns)
        if result.spans:
            latencies.add(f"{STAGES[-1]}.wait", max(0, start_ns - result.spans[-1].end_ns))
        latencies.add(f"{STAGES[-1]}.service", end_ns - start_ns)
        latencies.add("total", start_ns - result.header.captured_ns)
        for event in result.events:
            if event.type == "start" and event.label is not None:
                self._objects[event.label] += 1

    def _end(self, item: EndOfStream) -> None:
        state = self._source_event(item.source, item.state, item.at, item.reason)
        self._remember(item.events)
        left = self._interrupted(item.source, item.at)
        events = self._numbered(item.source, item.seq, (*item.events, *left, state))
        self._write(item.source, Publication(None, None, events, lambda: None, None))
        ledger = self._ledger_of(item.source)
        ledger["ended"] = 1
        self._ring(item.source)

    def _source_event(self, source: str, state: str, at: float, reason: str | None = None) -> Event:
        spec = self._spec
        assert spec is not None
        return Event(
            "source", source, at, state=state, reason=reason, model=spec.name, provider=spec.provider
        )

    def _remember(self, events: tuple[Event, ...]) -> None:
        """Keep the last word on each open object, so that it can be ended if its tracker is killed."""
        for event in events:
            if event.track_id is None:
                continue
            objects = self._open.setdefault(event.source, {})
            if event.type == "end":
                objects.pop(event.track_id, None)
            else:
                objects[event.track_id] = event

    def _interrupted(self, source: str, at: float) -> tuple[Event, ...]:
        """Ends of all objects of a source that nobody follows any more."""
        objects = self._open.pop(source, {})
        return tuple(
            msgspec.structs.replace(event, type="end", at=at, reason="interrupted")
            for event in objects.values()
        )

    def _numbered(self, source: str, seq: int, events: tuple[Event, ...]) -> tuple[dict[str, Any], ...]:
        """Number the events of a frame; a frame that was killed in the middle keeps its numbers."""
        ledger = self._ledger_of(source)
        first = self._sequence
        digest = zlib.crc32(repr([(e.type, e.track_id, e.state) for e in events]).encode())
        if ledger["event_seq"] == seq + 1 and ledger["event_digest"] == digest:
            first = ledger["event_base"]
        elif events:
            ledger["event_seq"] = 0  # Until all three are written.
            ledger["event_base"], ledger["event_count"] = first, len(events)
            ledger["event_digest"] = digest
            ledger["event_seq"] = seq + 1
        self._sequence = max(self._sequence, first + len(events))
        return tuple(event_record(event, first + at, self._run_id) for at, event in enumerate(events))

    def _write(self, source: str, item: Publication) -> None:
        for sink in self._sinks:
            sink.write(item)
        if item.events:
            self._ledger_of(source)["event_next"] = item.events[-1]["sequence"] + 1
            if self._open_objects is not None:
                scratch = self._open_objects.with_suffix(".new")
                scratch.write_bytes(msgspec.msgpack.encode(self._open))
                scratch.replace(self._open_objects)

    def _return(self, result: Result) -> None:
        if result.frame is not None and self._pools.release(result.frame.lease):
            self._ring(result.header.source)
