"""publish: results -> sinks, in order, exactly once; then the lease goes home and the books are kept."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from pipeline.errors import FramewireError
from pipeline.eventlog.log import EventLog, LogState
from pipeline.messages import EndOfStream, Event, Message, ModelSpec, Result, Task
from pipeline.sinks.base import Follower, Publication, Sink
from pipeline.sinks.records import OF_THE_RUN, event_draft, frame_record, interrupted_draft
from pipeline.stages.base import STAGES
from pipeline.stages.latency import Latencies
from pipeline.stages.openobjects import OpenObjects
from pipeline.stages.ordering import InOrder
from pipeline.stages.pictures import Pictures
from pipeline.stages.tallies import Tallies
from pipeline.stages.watch import SourceWatch
from pipeline.transport.base import ViewArray
from pipeline.transport.ledger import LOST_CAUSES, Ledger
from pipeline.transport.shm import Pools

if TYPE_CHECKING:
    from pipeline.sinks.clips import Clip, Clips

__all__ = ["PublishStage"]

log = logging.getLogger(__name__)


class PublishStage:
    """Gives each result to every sink and closes its account.

    Args:
        sinks: The sinks, not yet opened.
        ledger_of: Gives the books of a source.
        pools: Where the frames lie; leases are returned here.
        ring: Told the name of a source when one of its slots came free.
        sources: Gives the names of all sources that the run has, or had.
        task: What the run does with each frame.
        run_id: Id of the run, part of every object's id.
        open_log: Opens the event log, given the first number that is certainly free.
        pictures: What of the frames may be seen outside.
        open_objects: File of the run that holds the objects still open, so that they get their end even if
            this process and then their tracker are killed; None to keep them in memory only.
        clips: Cuts video of what happens; None for nobody.
        opened: A file of the run that is there once all sinks were opened: from then on they are resumed. One
            that was killed before has only what is of an earlier run.
    """

    name = "publish"

    def __init__(
        self,
        *,
        sinks: Sequence[Sink],
        ledger_of: Callable[[str], Ledger],
        pools: Pools,
        ring: Callable[[str], None],
        sources: Callable[[], Sequence[str]],
        run_id: str,
        open_log: Callable[[int], EventLog],
        task: Task = "detect",
        pictures: Pictures | None = None,
        open_objects: Path | None = None,
        clips: Clips | None = None,
        opened: Path | None = None,
    ) -> None:
        self._sinks = tuple(sinks)
        self._ledger_of = ledger_of
        self._pools = pools
        self._ring = ring
        self._sources = sources
        self._run_id = run_id
        self._open_log = open_log
        self._task = task
        self._pictures = pictures or Pictures()
        self._open_objects = open_objects
        self._clips = clips
        self._opened = opened
        self._spec: ModelSpec | None = None
        self._order: dict[str, InOrder[Result | EndOfStream]] = {}
        self._watches: dict[str, SourceWatch] = {}
        self._log: EventLog | None = None
        self._open = OpenObjects(None)
        self._latencies = Latencies()
        self._objects: Counter[str] = Counter()
        self._tallies = Tallies()
        self._files: list[str] = []

    def open(self) -> None:
        """Nothing is heavy before the model is known."""

    def begin(self, spec: ModelSpec) -> None:
        """Open the sinks; go on where an earlier incarnation was killed.

        Raises:
            SinkError: one cannot be written or bound.
            ConfigError: the model does not know a label that pictures are not to show.
        """
        self._spec = spec
        self._pictures.begin(spec)
        self._open = OpenObjects(self._open_objects)
        self._log = self._open_log(
            max((self._ledger_of(source)["event_next"] for source in self._sources()), default=0)
        )
        for sink in self._sinks:
            if isinstance(sink, Follower):
                sink.attach(self._log)
            resume = sink.open(spec)
            if resume.next_sequence is not None:
                self._catch_up(sink, resume.next_sequence)
        if self._opened is not None:
            self._opened.touch()
        if self._log.left_open:
            left = [interrupted_draft(record) for record in self._log.left_open]
            self._write_events(self._log.commit(OF_THE_RUN, "interrupted", 1, left) or ())

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

    def tick(self) -> None:
        """Publish what has changed in the state of any source, or of the event log.

        Raises:
            SinkError: a sink cannot take it.
        """
        for source in self._sources():
            self._tell(source)
        if self._log is not None:
            for state in self._log.tick():
                self._tell_log(state)
        if self._clips is not None:
            self._tell_clips(self._clips.tick())
        for sink in self._sinks:
            if isinstance(sink, Follower):
                sink.tick()

    def summary(self) -> dict[str, Any]:
        """Latencies by stage, objects by label, files written."""
        return {
            "latency": self._latencies.counts(),
            "objects": dict(self._objects),
            **self._tallies.summary(),
            "files": self._files,
            "events": self._log.next - self._log.first if self._log is not None else 0,
            "event_log": self._log.stats() if self._log is not None else {},
            "sinks": {sink.name: sink.stats() for sink in self._sinks if isinstance(sink, Follower)},
        }

    def close(self) -> None:
        """Close all sinks, the others too when one fails; objects still open end as interrupted.

        Raises:
            SinkError: the first failure.
        """
        failure: FramewireError | None = None
        for source in self._open.sources():
            key = -1 - self._stream(source).next_seq
            try:
                self._announce(source, key, self._open.end(source, time.time(), "interrupted"))
            except FramewireError as error:
                failure = error
        if self._clips is not None:
            self._tell_clips(self._clips.close())
        for sink in self._sinks:
            try:
                self._files += sink.close()
            except FramewireError as error:
                log.error("%s", error)
                failure = failure or error
        self._files += self._pictures.files()
        if self._log is not None:
            self._log.close()
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
        self._tell(header.source)
        ledger = self._ledger_of(header.source)
        # From a tracker that knows nothing it is another frame: what the last one said has to end.
        key = -1 - header.seq if result.resumed else 1 + header.seq
        picture = self._pictures.of(result, view)
        snapshots = self._pictures.name(result, picture, result.events)
        events: tuple[Event, ...] = ()
        if self._open.last_sent(header.source, "event") != key:
            events = self._open.known(header.source, result.events)
            events = tuple(
                msgspec.structs.replace(e, snapshot=snapshots.get(e.track_id or 0)) for e in events
            )
            if result.resumed:
                events = (*self._open.end(header.source, header.captured_at, "interrupted"), *events)
            self._open.remember(events)
            self._tallies.add(events)

        record = frame_record(result, self._spec, start_ns, self._task)
        events = tuple(msgspec.structs.replace(e, latency_ms=record["latency_ms"]) for e in events)
        numbered = self._committed(header.source, "event", key, events)
        scene, inside = self._pictures.scene_of(header.source), self._tallies.inside(header.source)
        self._write(Publication(header, record, numbered, picture, result, scene, inside))
        if events:
            self._open.sent(header.source, "event", key)
        if self._clips is not None:
            self._clips.see(header, numbered)
        end_ns = time.monotonic_ns()
        self._account(result, start_ns, end_ns)
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
        total_ns = start_ns - result.header.captured_ns
        latencies.add("total", total_ns)
        latencies.add(f"total@{result.header.source}", total_ns)
        for event in result.events:
            if event.type == "start" and event.label is not None:
                self._objects[event.label] += 1

    def _end(self, item: EndOfStream) -> None:
        ledger = self._ledger_of(item.source)
        self._pictures.forget(item.source)
        if self._clips is not None:
            self._clips.end(item.source)
        del self._order[item.source]  # It may be added again, and goes on from the same number.
        if ledger["ended"]:
            return  # It was sent twice.
        ends = self._open.known(item.source, item.events)
        self._open.remember(ends)
        self._tallies.add(ends)
        left = self._open.end(item.source, item.at, "interrupted")
        self._announce(item.source, -1 - item.seq, (*ends, *left))
        self._tell(item.source, ended=True)
        ledger["ended"] = 1
        self._ring(item.source)

    def _tell(self, source: str, *, ended: bool = False) -> None:
        """Publish the changes of state of a source that are due."""
        spec = self._spec
        assert spec is not None
        watch = self._watches.get(source)
        if watch is None:
            watch = self._watches[source] = SourceWatch(self._ledger_of(source))
        for key, change in watch.due(time.monotonic_ns(), time.time(), ended=ended):
            event = Event(
                "source", source, change.at, epoch=change.epoch, seq=change.seq, state=change.state,
                reason=change.reason or None, message=change.message or None,
                model=spec.name, provider=spec.provider,
            )  # fmt: skip
            gone = change.state == "reconnecting"
            ends = self._open.end(source, change.at, "source_lost") if gone else ()
            self._announce(source, key, (*ends, event))
            watch.told(key)

    def _announce(self, source: str, key: int, events: tuple[Event, ...]) -> None:
        """Publish events that no frame brought, unless an earlier incarnation has."""
        if self._open.last_sent(source, "change") == key:
            return
        self._write_events(self._committed(source, "change", key, events))
        if events:
            self._open.sent(source, "change", key)

    def _tell_log(self, state: LogState) -> None:
        assert self._log is not None
        event = Event(
            "log", OF_THE_RUN, time.time(), state=state.state, reason=state.reason, message=state.message,
            count=state.dropped,
        )  # fmt: skip
        self._write_events(self._committed(OF_THE_RUN, "change", self._log.next + 1, (event,)))

    def _tell_clips(self, clips: Sequence[Clip]) -> None:
        assert self._log is not None
        for clip in clips:
            event = Event(
                "clip", clip.source, time.time(), epoch=clip.epoch, seq=clip.seq, label=clip.label,
                track_id=clip.track_id, first_seen=clip.start, duration_s=clip.duration_s, clip=clip.path,
            )  # fmt: skip
            self._write_events(self._committed(clip.source, "clip", self._log.next + 1, (event,)))

    def _committed(
        self, source: str, ticket: str, key: int, events: Sequence[Event]
    ) -> tuple[dict[str, Any], ...]:
        """The events as records with numbers; none if they were committed before, for then all have them."""
        assert self._log is not None
        records = self._log.commit(source, ticket, key, [event_draft(e, self._run_id) for e in events])
        if records and source != OF_THE_RUN:
            # Should the disk be full, the log may die with this process, but not the numbers that it gave.
            self._ledger_of(source)["event_next"] = self._log.next
        return records or ()

    def _catch_up(self, sink: Sink, first: int) -> None:
        """Give a sink the events of this run that it had not got when an earlier incarnation was killed."""
        assert self._log is not None
        first = max(first, self._log.first)
        if first >= self._log.next:
            return
        with contextlib.closing(self._log.reader()) as reader:
            while first < self._log.next:
                page = reader.page(first)
                if page.end <= first:
                    break
                records = tuple(msgspec.msgpack.decode(record) for _, record in page.records)
                sink.write(Publication(None, None, records, lambda: None, None))
                first = page.end

    def _write_events(self, records: tuple[dict[str, Any], ...]) -> None:
        if records:
            self._write(Publication(None, None, records, lambda: None, None))

    def _write(self, item: Publication) -> None:
        for sink in self._sinks:
            sink.write(item)

    def _return(self, result: Result) -> None:
        if result.frame is not None and self._pools.release(result.frame.lease):
            self._ring(result.header.source)
