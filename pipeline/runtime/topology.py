"""Which processes a run has, and how they are joined. Checked before anything starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from pipeline.errors import ConfigError
from pipeline.runtime.plan import ClipsPlan, LogPlan, Peer, Settings, SinkPlan, SourcePlan, WorkerPlan
from pipeline.stages.base import STAGES

__all__ = ["Edge", "Placement", "edges", "make_groups", "plan_workers"]

#: Credits that one replica of a stage grants to each producer: one message in work, one ready behind it,
#: and more where the consumer is quick and the producer should never wait for a grant. See `_window`.
WINDOWS = {"preprocess": 2, "infer": 2, "postprocess": 4, "publish": 8}

_PORT_MAX = 65535


@dataclass(frozen=True, slots=True)
class Placement:
    """How the stages are spread over processes.

    Attributes:
        groups: Stages that share a process, as tuples of neighbours; the others stand alone.
        replicas: How many of each stage; 1 where nothing is said. ``capture`` has one for each source.
        addresses: ``tcp://host:port`` for a stage whose inlet is not a local socket; the first replica
            takes that port, further ones the ports after it.
    """

    groups: tuple[tuple[str, ...], ...] = ()
    replicas: dict[str, int] | None = None
    addresses: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """One edge of the picture: who sends to whom, how, and with how many credits each."""

    producer: str
    consumer: str
    endpoint: str
    credits: int


def make_groups(placement: Placement) -> tuple[tuple[str, ...], ...]:
    """All stages as groups, in pipeline order.

    Raises:
        ConfigError: a group is not a run of neighbours, or names a stage twice or one that does not exist.
    """
    seen: set[str] = set()
    starts: dict[str, tuple[str, ...]] = {}
    for group in placement.groups:
        for stage in group:
            if stage not in STAGES:
                raise ConfigError(
                    f"stages.groups names {stage!r}", hint=f"the stages are {', '.join(STAGES)}"
                )
            if stage in seen:
                raise ConfigError(f"stages.groups names {stage} twice")
            seen.add(stage)
        first = STAGES.index(group[0])
        if STAGES[first : first + len(group)] != tuple(group):
            raise ConfigError(
                f"stages.groups: {', '.join(group)} are not neighbours in pipeline order",
                hint=f"the order is {', '.join(STAGES)}",
            )
        starts[group[0]] = tuple(group)
    groups: list[tuple[str, ...]] = []
    for stage in STAGES:
        if stage in starts:
            groups.append(starts[stage])
        elif stage not in seen:
            groups.append((stage,))
    return tuple(groups)


def _replicas(group: tuple[str, ...], placement: Placement) -> int:
    counts = {(placement.replicas or {}).get(stage, 1) for stage in group if stage != "capture"}
    if len(counts) > 1:
        raise ConfigError(
            f"stages {', '.join(group)} share a process but not the number of replicas",
            hint="give all stages of a group the same replicas",
        )
    count = counts.pop() if counts else 1
    if "publish" in group and count != 1:
        raise ConfigError(
            f"publish has {count} replicas",
            hint="one publisher numbers all events without gaps; leave stages.publish.replicas at 1",
        )
    if group[0] == "capture" and count != 1:
        raise ConfigError(
            f"stages {', '.join(group)} cannot have replicas",
            hint="capture has one process for each source already",
        )
    return count


def _window(group: tuple[str, ...], settings: Settings) -> int:
    """Credits that a group grants to each producer, where ``infer`` takes several frames at once."""
    further = settings.batch - 1
    if "infer" in group:
        return WINDOWS["infer"] + 2 * further  # A batch in work, one ready behind it.
    if group[0] == "postprocess":
        return WINDOWS["postprocess"] + further  # A batch is handed over at once.
    return WINDOWS[group[0]]


def _endpoint(stage: str, replica: int, run_dir: str, placement: Placement) -> str:
    address = (placement.addresses or {}).get(stage)
    if not address:
        return f"ipc://{run_dir}/{stage}-{replica}"
    host, _, port = address.rpartition(":")
    if not port.isdigit() or not 0 < int(port) + replica <= _PORT_MAX:
        raise ConfigError(
            f"stages.{stage}.address {address!r}: replica {replica} has no port"
            + (f" ({int(port) + replica})" if port.isdigit() else ""),
            hint="write it as tcp://127.0.0.1:7001; further replicas take the ports after it",
        )
    return f"{host}:{int(port) + replica}"


def plan_workers(
    *,
    run_id: str,
    run_dir: str,
    sources: Sequence[SourcePlan],
    sinks: Sequence[SinkPlan],
    settings: Settings,
    placement: Placement,
    event_log: LogPlan | None = None,
    out: str = "",
    clips: ClipsPlan | None = None,
    keep: tuple[float | None, int | None] = (None, None),
) -> tuple[WorkerPlan, ...]:
    """The workers of a run, in pipeline order.

    Raises:
        ConfigError: the placement does not make a pipeline.
    """
    groups = make_groups(placement)
    workers: list[WorkerPlan] = []
    peers: tuple[Peer, ...] = ()
    window, inline = 2, False
    next_tracks = False
    for group in reversed(groups):
        first, count = group[0], _replicas(group, placement)
        common = WorkerPlan(
            run_id=run_id,
            run_dir=run_dir,
            name="",
            stages=group,
            settings=settings,
            sinks=tuple(sinks) if "publish" in group else (),
            event_log=event_log if "publish" in group else None,
            out=out,
            clips=clips,
            keep_s=keep[0],
            keep_bytes=keep[1],
            outlets=peers,
            outlet_window=window,
            inline=inline,
            sharded=next_tracks and len(peers) > 1,
        )
        members = _captures(common, sources) if first == "capture" else _replicated(common, count, placement)
        workers = members + workers
        if first != "capture":
            peers = tuple(Peer(member.name, member.inlet) for member in members)
            window = _window(group, settings)
            inline = bool((placement.addresses or {}).get(first))
        # Tracks are state: all frames of a source go to the one replica that owns them.
        next_tracks = "postprocess" in group
    return tuple(workers)


def _replicated(common: WorkerPlan, count: int, placement: Placement) -> list[WorkerPlan]:
    first = common.stages[0]
    return [
        replace(
            common,
            name=f"{'+'.join(common.stages)}-{replica}",
            inlet=_endpoint(first, replica, common.run_dir, placement),
            window=_window(common.stages, common.settings),
        )
        for replica in range(count)
    ]


def _captures(common: WorkerPlan, sources: Sequence[SourcePlan]) -> list[WorkerPlan]:
    if "postprocess" in common.stages:  # Tracks and event numbers need one process for all sources.
        return [replace(common, name="+".join(common.stages), sources=tuple(sources))]
    return [
        replace(common, name=f"{'+'.join(common.stages)}-{source.name}", sources=(source,))
        for source in sources
    ]


def edges(workers: Sequence[WorkerPlan]) -> list[Edge]:
    """All edges between the workers."""
    return [
        Edge(worker.name, peer.worker, peer.endpoint, worker.outlet_window)
        for worker in workers
        for peer in worker.outlets
    ]
