"""What is to run, as plain data: made once by the supervisor's side, handed to each child on its stdin.

Nothing secret may be read off a process list, so no plan ever travels on a command line.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = [
    "CascadePlan",
    "ClipsPlan",
    "LogPlan",
    "Peer",
    "RestartPolicy",
    "RunPlan",
    "Settings",
    "SinkPlan",
    "SourcePlan",
    "WorkerPlan",
]


class SourcePlan(msgspec.Struct, frozen=True):
    """One source.

    Attributes:
        name: Its name, as it appears in every event.
        url: Path or URL; may hold credentials.
        realtime: Play a recording at its own pace, as if it were live.
        live: Whether it is a camera or stream, which is never given up.
        options: Keyword arguments of the source.
        admission: Keyword arguments of `pipeline.sources.admission.Admission`; empty to want all.
    """

    name: str
    url: str
    realtime: bool = False
    live: bool = False
    options: dict[str, Any] = {}
    admission: dict[str, Any] = {}


class SinkPlan(msgspec.Struct, frozen=True):
    """One sink.

    Attributes:
        kind: A key of ``pipeline.sinks.SINKS``, or ``module:Class``.
        options: Keyword arguments of its constructor.
        delivery: Keyword arguments of `pipeline.sinks.delivery.Delivery`, for a connector; None for a sink.
    """

    kind: str
    options: dict[str, Any] = {}
    delivery: dict[str, Any] | None = None


class ClipsPlan(msgspec.Struct, frozen=True):
    """Clips of events.

    Attributes:
        options: Keyword arguments of `pipeline.sinks.clips.Clips`.
        ring_s: How long packets of a live source stay.
        ring_bytes: Most bytes of them.
        files: Path of each source that is a file.
        live: Names of the live sources.
    """

    options: dict[str, Any]
    ring_s: float
    ring_bytes: int
    files: dict[str, str] = {}
    live: tuple[str, ...] = ()


class LogPlan(msgspec.Struct, frozen=True):
    """The event log.

    Attributes:
        path: Its file.
        keep_s: Age at which events are forgotten, seconds.
        max_bytes: Size above which the oldest are forgotten.
        sync: ``normal`` or ``full``.
    """

    path: str
    keep_s: float = 7 * 86400.0
    max_bytes: int = 2**30
    sync: Literal["normal", "full"] = "normal"


class CascadePlan(msgspec.Struct, frozen=True):
    """A second model: its name, its file, and keyword arguments of `pipeline.tasks.cascade.Cascade`."""

    name: str
    model: str
    options: dict[str, Any] = {}


class Settings(msgspec.Struct, frozen=True):
    """What the stages are told.

    Attributes:
        model: Name or path of the model, or ``fake…``.
        device: ``auto``, ``cpu``, ``cuda``, ``tensorrt`` or ``openvino``.
        threads: Threads of one inference session.
        input_size: (width, height) for a model that leaves it open.
        precision: ``auto``, ``fp32``, ``fp16`` or ``bf16``.
        preprocess: ``fast`` or ``exact``.
        task: ``classify``, ``localize``, ``detect`` or ``tag``.
        top_k: Most classes of one frame.
        confidence: Detections below it are dropped.
        nms_iou: IoU threshold of NMS; None for the head's own.
        classes: Labels to keep; None for all.
        algorithm: Tracker; ``auto`` goes by the camera.
        track_options: Its options.
        reid: Name or path of the model that tells how objects look; empty for none.
        closing: Arguments of `pipeline.analytics.closing.Closing`; None for no such events.
        privacy: Arguments of `pipeline.vision.privacy.Privacy`; None where nothing but masks hides.
        snapshots: Folder of the run, where the best picture of each object goes; empty for none.
        update_interval_s: Shortest time between two ``update`` events of an object.
        lost_after_s: An object unseen for so long has ended.
        slots: Frames of one source that may be under way at once.
        in_flight: The same for a live source, where age counts.
        batch: Frames in one inference at most.
        cascades: Second models that look at objects.
    """

    model: str
    device: str = "auto"
    threads: int = 1
    input_size: tuple[int, int] | None = None
    precision: str = "auto"
    preprocess: Literal["fast", "exact"] = "fast"
    task: Literal["classify", "localize", "detect", "tag"] = "detect"
    top_k: int = 5
    confidence: float = 0.4
    nms_iou: float | None = None
    classes: tuple[str, ...] | None = None
    algorithm: str = "bytetrack"
    track_options: dict[str, Any] = {}
    reid: str = ""
    closing: dict[str, Any] | None = None
    privacy: dict[str, Any] | None = None
    snapshots: str = ""
    update_interval_s: float = 1.0
    lost_after_s: float = 2.0
    slots: int = 8
    in_flight: int = 2
    batch: int = 1
    cascades: tuple[CascadePlan, ...] = ()


class Peer(msgspec.Struct, frozen=True, array_like=True):
    """A replica of the next stage: its worker's name and where it listens."""

    worker: str
    endpoint: str


class WorkerPlan(msgspec.Struct, frozen=True):
    """One process.

    Attributes:
        run_id: Id of the run.
        run_dir: Its folder: sockets and stderr of the children.
        name: Name of the worker, unique in the run: ``infer-0``, ``capture-gate``.
        stages: The stages in it, in pipeline order.
        settings: What they are told.
        sources: Those that this worker captures.
        sinks: Those that this worker writes.
        event_log: Where events are kept; for the worker that publishes.
        out: Folder for results; empty when there is none.
        clips: What is cut out of the sources' video; None for nothing.
        keep_s: Age at which snapshots and clips go, seconds; None for any.
        keep_bytes: Most bytes of snapshots and clips together; None for any.
        inlet: Where it listens; empty for capture.
        window: Credits that it grants to each producer.
        outlets: The replicas of the next stage; empty for publish.
        outlet_window: Credits that each of those grants.
        inline: Whether arrays go inside the messages to them.
        sharded: Whether each source always goes to the same replica.
        incarnation: How often this worker was started before.
    """

    run_id: str
    run_dir: str
    name: str
    stages: tuple[str, ...]
    settings: Settings
    sources: tuple[SourcePlan, ...] = ()
    sinks: tuple[SinkPlan, ...] = ()
    event_log: LogPlan | None = None
    out: str = ""
    clips: ClipsPlan | None = None
    keep_s: float | None = None
    keep_bytes: int | None = None
    inlet: str = ""
    window: int = 2
    outlets: tuple[Peer, ...] = ()
    outlet_window: int = 2
    inline: bool = False
    sharded: bool = False
    incarnation: int = 0


class RestartPolicy(msgspec.Struct, frozen=True):
    """How a dead worker is brought back.

    Attributes:
        budget: Restarts of one worker within ``window_s`` before the run gives up.
        window_s: Length of that window.
        backoff_s: Wait before the first restart; doubles with each further one in the window.
        backoff_max_s: Longest wait.
        live_backoff_max_s: The same for a process that only reads live sources; it has no budget.
        open_s: A worker that has not said its first word for so long after its start is killed.
        silent_s: One unheard for so long is killed.
        busy_s: One busy with the same message for so long is killed.
    """

    budget: int = 5
    window_s: float = 60.0
    backoff_s: float = 0.1
    backoff_max_s: float = 5.0
    live_backoff_max_s: float = 30.0
    open_s: float = 120.0
    silent_s: float = 10.0
    busy_s: float = 60.0


class RunPlan(msgspec.Struct, frozen=True):
    """The whole run: workers in pipeline order.

    Attributes:
        run_id: Id of the run.
        run_dir: Its folder.
        workers: Processes to start.
        restart: How dead ones are brought back.
        ready_timeout_s: Longest time from start to all ready.
        stop_timeout_s: Longest time that frames under way get to finish after a stop was asked for.
        close_timeout_s: Longest time that the last stage gets to finish its files.
        duration_s: Stop after so long; None to run to the end.
    """

    run_id: str
    run_dir: str
    workers: tuple[WorkerPlan, ...]
    restart: RestartPolicy = RestartPolicy()
    ready_timeout_s: float = 120.0
    stop_timeout_s: float = 15.0
    close_timeout_s: float = 300.0
    duration_s: float | None = None
