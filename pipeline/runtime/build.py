"""Plan -> objects, inside the child process. Imports a stage only when this process runs it."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import SourceError
from pipeline.messages import ModelSpec
from pipeline.runtime.plan import CascadePlan, ClipsPlan, LogPlan, SinkPlan, SourcePlan, WorkerPlan
from pipeline.runtime.scenes import SceneFiles, TuningFiles
from pipeline.stages.base import MakePool, Stage
from pipeline.stages.capture import CaptureStage
from pipeline.stages.turns import Turns, waiting
from pipeline.transport.control import Doorbell, Ringer
from pipeline.transport.ledger import Books
from pipeline.transport.link import ZmqInlet, ZmqOutlet, make_context
from pipeline.transport.shm import PREFIX, Pools, SlotPool, shm_dir

if TYPE_CHECKING:
    from pipeline.eventlog.log import EventLog
    from pipeline.sinks import Sink
    from pipeline.sinks.clips import Clips
    from pipeline.stages.pictures import Pictures
    from pipeline.tasks.cascade import Cascade
    from pipeline.tasks.embedding import Embedder

__all__ = [
    "Builder",
    "doorbell_endpoint",
    "frame_pool_name",
    "inherit_environment",
    "ledger_name",
    "open_stages",
    "ring_prefix",
]


def ledger_name(run_id: str, source: str) -> str:
    """Name of the books of a source in the shared-memory folder."""
    return f"{_books(run_id)}{source}"


def _books(run_id: str) -> str:
    return f"{PREFIX}{run_id}-books-"


def frame_pool_name(run_id: str, source: str, number: int) -> str:
    """Name of the ``number``-th frame pool of a source."""
    return f"{PREFIX}{run_id}-frames-{source}-{number}"


def ring_prefix(run_id: str, source: str) -> Path:
    """Beginning of the files in which the newest packets of a source lie."""
    return shm_dir() / f"{PREFIX}{run_id}-packets-{source}-"


def doorbell_endpoint(plan: WorkerPlan, source: str) -> str:
    """Where capture of that source is rung when a slot comes free."""
    return f"ipc://{plan.run_dir}/bell-{zlib.crc32(source.encode()):08x}"


@dataclass
class Builder:
    """Makes the parts of one worker and closes them again.

    Attributes:
        plan: What this process is.
        wake: Wakes the main thread; for sources that read in a thread of their own.
        on_error: Told of a source that broke.
        abandon: Ends this process at once; for a source that a library holds for ever.
    """

    plan: WorkerPlan
    wake: Callable[[], None]
    on_error: Callable[[SourceError], None]
    abandon: Callable[[], None] = lambda: None
    pools: Pools = field(default_factory=Pools)
    context: Any = field(default_factory=make_context)
    notes: list[str] = field(default_factory=list)
    _closers: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.books = Books(_books(self.plan.run_id))
        self.scenes = SceneFiles(self.plan.run_dir)
        self.tuning = TuningFiles(self.plan.run_dir)

    def stages(self) -> list[Stage]:
        """The stages after capture, opened; what ``infer`` found out is its return value there."""
        names = [name for name in self.plan.stages if name != "capture"]
        return [self._stage(name, last=name == names[-1]) for name in names]

    def captures(self) -> list[CaptureStage]:
        """One `CaptureStage` for each source of this worker, not yet opened."""
        return [self._capture(source) for source in self.plan.sources]

    def doorbells(self) -> list[Doorbell]:
        """One for each source of this worker, unless publish is in this very process."""
        if "publish" in self.plan.stages:
            return []
        bells = [
            Doorbell(self.context, doorbell_endpoint(self.plan, source.name)) for source in self.plan.sources
        ]
        self._closers += [bell.close for bell in bells]
        return bells

    def inlet(self) -> ZmqInlet | None:
        """Our end of the link from the stage before."""
        if not self.plan.inlet:
            return None
        inlet = ZmqInlet(self.context, self.plan.inlet, window=self.plan.window)
        self._closers.append(inlet.close)
        return inlet

    def outlet(self) -> ZmqOutlet | None:
        """Our end of the link to the next stage."""
        if not self.plan.outlets:
            return None
        outlet = ZmqOutlet(
            self.context,
            self.plan.name,
            [(peer.worker, peer.endpoint) for peer in self.plan.outlets],
            pools=self.pools,
            inline=self.plan.inline,
            sharded=self.plan.sharded,
        )
        self._closers.append(outlet.close)
        return outlet

    def close(self) -> None:
        """Close sockets first, then the pools, then the context."""
        for close in reversed(self._closers):
            close()
        self.books.close()
        self.pools.close()
        self.context.term()

    def _make_pool(self, stage: str, last: bool) -> MakePool:
        plan = self.plan

        def make(slot_bytes: int) -> SlotPool:
            if not last or plan.inline:  # Nobody outside this process reads it.
                # As many as a batch waits for or makes, and one to write in.
                slots = plan.settings.batch + 1
                return self.pools.add(SlotPool.in_memory(f"local-{stage}", slots, slot_bytes), owned=True)
            # What peers hold, what one batch adds to that before it is sent, and one to write in.
            made = plan.settings.batch if stage == "infer" else 1
            slots = plan.outlet_window * len(plan.outlets) + made + 1
            name = f"{PREFIX}{plan.run_id}-{plan.name}-{stage}-{plan.incarnation}"
            return self.pools.add(SlotPool.create(name, slots, slot_bytes), owned=True)

        return make

    def _stage(self, name: str, *, last: bool) -> Stage:
        settings = self.plan.settings
        make_pool = self._make_pool(name, last)
        if name == "preprocess":
            from pipeline.stages.preprocess import PreprocessStage

            return PreprocessStage(make_pool=make_pool)
        if name == "infer":
            from pipeline.models.base import build_runner
            from pipeline.stages.infer import InferStage

            runner = build_runner(
                settings.model,
                device=settings.device,
                threads=settings.threads,
                input_size=settings.input_size,
                batch=settings.batch,
                precision=settings.precision,
            )
            return InferStage(runner=runner, make_pool=make_pool, batch=settings.batch)
        if name == "postprocess":
            from pipeline.stages.following import Following
            from pipeline.stages.postprocess import PostprocessStage

            return PostprocessStage(
                ledger_of=self.books.of,
                task=settings.task,
                top_k=settings.top_k,
                confidence=settings.confidence,
                nms_iou=settings.nms_iou,
                classes=settings.classes,
                following=Following(
                    settings.algorithm,
                    settings.track_options,
                    settings.update_interval_s,
                    settings.lost_after_s,
                    settings.confidence,
                    settings.closing,
                ),
                scene_of=self.scenes.get,
                confidence_of=lambda source: self.tuning.get(source).confidence,
                embedder=self._embedder(settings.reid) if settings.reid else None,
                cascades=[self._cascade(one) for one in settings.cascades],
                check=self.pools.check,
            )
        from pipeline.stages.publish import PublishStage

        ringer = Ringer(self.context)
        self._closers.append(ringer.close)

        def ring(source: str) -> None:
            """Wake the capture whose slot came free, and the live one whose turn is next."""
            ringer.ring(doorbell_endpoint(self.plan, source))
            books = self.books.all()
            following = waiting(books.values(), time.monotonic_ns())[:1]
            for other, ledger in books.items():
                if other != source and ledger in following:
                    ringer.ring(doorbell_endpoint(self.plan, other))

        return PublishStage(
            sinks=[self._sink(sink) for sink in self.plan.sinks],
            ledger_of=self.books.of,
            pools=self.pools,
            ring=ring,
            sources=lambda: tuple(self.books.all()),
            run_id=self.plan.run_id,
            open_log=self._event_log,
            task=settings.task,
            pictures=self._pictures(),
            open_objects=Path(self.plan.run_dir) / "open-objects",
            clips=self._clips(),
            opened=self._opened,
        )

    def _event_log(self, at_least: int) -> EventLog:
        from pipeline.eventlog.log import EventLog

        # A run that nobody gave a place for it keeps its events as long as itself.
        plan = self.plan.event_log or LogPlan(str(Path(self.plan.run_dir) / "events.db"))
        return EventLog(
            plan.path, self.plan.run_id, keep_s=plan.keep_s, max_bytes=plan.max_bytes, sync=plan.sync,
            at_least=at_least,
        )  # fmt: skip

    def _sink(self, plan: SinkPlan) -> Sink:
        from pipeline.sinks import build_connector, build_sink

        if plan.delivery is None:
            return build_sink(plan.kind, resume=self._opened.exists(), **plan.options)
        from pipeline.runtime.admin import ask
        from pipeline.sinks.delivery import Delivery

        run_dir = Path(self.plan.run_dir)
        return Delivery(
            build_connector(plan.kind, **plan.options),
            known_sources=lambda: tuple(self.books.all()),
            control=lambda request: ask(run_dir, request),
            folder=self.plan.out or None,
            **plan.delivery,
        )

    @property
    def _opened(self) -> Path:
        """There once the sinks of this run were opened: what they have written is not an earlier run's."""
        return Path(self.plan.run_dir) / "sinks-open"

    def _pictures(self) -> Pictures:
        from pipeline.sinks.snapshots import Snapshots
        from pipeline.stages.pictures import Pictures
        from pipeline.vision.privacy import Privacy

        settings = self.plan.settings
        snapshots = None
        if settings.snapshots:
            snapshots = Snapshots(settings.snapshots, resume=self._opened.exists())
        privacy = Privacy(**settings.privacy) if settings.privacy is not None else None
        return Pictures(privacy, self.scenes.get, snapshots)

    def _clips(self) -> Clips | None:
        from pipeline.sinks.clips import Clips
        from pipeline.sinks.retention import Retention

        plan, out = self.plan, Path(self.plan.out)
        kept = None
        if plan.keep_s is not None or plan.keep_bytes is not None or plan.clips is not None:
            kept = Retention([out / "clips", out / "snapshots"], plan.keep_s, plan.keep_bytes)
        if plan.clips is None and (kept is None or not plan.out):
            return None
        clips = plan.clips or ClipsPlan({"types": ()}, 0.0, 0)
        rings = {name: ring_prefix(plan.run_id, name) for name in clips.live}
        files = {name: Path(path) for name, path in clips.files.items()}
        return Clips(out, rings=rings, files=files, retention=kept, **clips.options)

    def _embedder(self, model: str) -> Embedder:
        from pipeline.models.embedding import EmbeddingRunner
        from pipeline.tasks.embedding import Embedder

        # On the CPU: crops are small, and the accelerator belongs to infer.
        return Embedder(EmbeddingRunner(model, device="cpu"))

    def _cascade(self, plan: CascadePlan) -> Cascade:
        from pipeline.models.base import build_runner, is_remote
        from pipeline.tasks.cascade import Cascade

        # On the CPU: crops are small and few, and the accelerator belongs to infer.
        device = "auto" if is_remote(plan.model) else "cpu"
        return Cascade(plan.name, build_runner(plan.model, device=device), **plan.options)

    def _capture(self, source: SourcePlan) -> CaptureStage:
        from pipeline.sources import build_source
        from pipeline.sources.admission import Admission

        settings = self.plan.settings
        ledger = self.books.of(source.name)
        admission = Admission(switch=lambda: self.tuning.get(source.name).enabled, **source.admission)
        clips, recorder = self.plan.clips, None
        if clips is not None and source.live:
            from pipeline.sources.packets import PacketRing

            prefix = ring_prefix(self.plan.run_id, source.name)
            recorder = PacketRing(prefix, clips.ring_s, clips.ring_bytes)
        reader = build_source(
            source.name,
            source.url,
            pixels=settings.preprocess,
            realtime=source.realtime,
            awake=admission.awake,
            recorder=recorder,
            **source.options,
        )
        turns = Turns(ledger, lambda: self.books.all().values(), places=settings.in_flight)
        run_id = self.plan.run_id

        def make(number: int, slots: int, slot_bytes: int) -> SlotPool:
            name = frame_pool_name(run_id, source.name, number)
            return self.pools.add(SlotPool.create(name, slots, slot_bytes))

        def attach(number: int) -> SlotPool:
            return self.pools.get(frame_pool_name(run_id, source.name, number))

        return CaptureStage(
            source=reader,
            ledger=ledger,
            make_pool=make,
            attach_pool=attach,
            slots=settings.slots,
            in_flight=settings.in_flight,
            wake=self.wake,
            on_error=self.on_error,
            judge=admission.judge,
            turns=turns if reader.live else None,
            abandon=self.abandon,
        )


def open_stages(stages: list[Stage]) -> ModelSpec | None:
    """Open all; the model's spec when ``infer`` is among them."""
    spec: ModelSpec | None = None
    for stage in stages:
        spec = stage.open() or spec
    return spec


def inherit_environment() -> dict[str, str]:
    """The environment for children: threads of the numeric libraries must not multiply by processes."""
    environment = dict(os.environ)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM"):
        environment.setdefault(name, "1")
    return environment
