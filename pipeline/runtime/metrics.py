"""Prometheus metrics of a run, from the books and from what the workers said of themselves."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from pipeline import __version__
from pipeline.messages import ModelSpec
from pipeline.runtime import outlook
from pipeline.runtime.report import merge_latencies
from pipeline.transport.ledger import DROP_CAUSES, LOST_CAUSES, STATES, Ledger

__all__ = ["BOUNDS_S", "View", "families"]

#: Upper bounds of the latency buckets, seconds.
BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0)

_PER_OCTAVE = 32  # as in `pipeline.stages.latency`


@dataclass(frozen=True, slots=True)
class View:
    """What there is to tell about a run at this moment.

    Attributes:
        ledgers: The books, by source.
        summaries: What the workers said of themselves, as `Supervisor.summaries` gives it.
        restarts: How often each worker was brought back, 0 included.
        pids: Process ids of the living workers.
        spec: The model; None while it is not loaded.
    """

    ledgers: Mapping[str, Ledger]
    summaries: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    restarts: Mapping[str, int] = field(default_factory=dict)
    pids: Mapping[str, int] = field(default_factory=dict)
    spec: ModelSpec | None = None


def families(view: View) -> Iterator[Metric]:
    """All metrics of a run; labels hold names of sources, workers and stages, and nothing of a URL."""
    build = GaugeMetricFamily(
        "framewire_build_info", "Version, model and execution provider; always 1.",
        labels=["version", "model", "provider"],
    )  # fmt: skip
    spec = view.spec
    build.add_metric([__version__, spec.name if spec else "", spec.provider if spec else ""], 1)
    yield build
    yield from _books(view.ledgers)
    yield from _live(view.ledgers)
    yield from _latencies(view)
    yield from _workers(view)
    yield from outlook.families(view.summaries)


def _books(ledgers: Mapping[str, Ledger]) -> Iterator[Metric]:
    # What goes out is read before what came in: read while they are written, the books still never show
    # more out than in.
    lost = CounterMetricFamily(
        "framewire_frames_lost", "Frames admitted that never came out, by cause.", labels=["source", "cause"]
    )
    dropped = CounterMetricFamily(
        "framewire_frames_dropped", "Frames decoded and not admitted, by cause.", labels=["source", "cause"]
    )
    in_flight = GaugeMetricFamily(
        "framewire_in_flight_frames", "Frames admitted and not yet accounted for.", labels=["source"]
    )
    plain = {
        name: CounterMetricFamily(f"framewire_{metric}", text, labels=["source"])
        for name, metric, text in (
            ("failed", "frames_failed", "Frames published as failed, with a reason instead of detections."),
            ("published", "frames_published", "Frames whose result was handed to all sinks."),
            ("admitted", "frames_admitted", "Frames taken into the pipeline."),
            ("decoded", "frames_decoded", "Frames decoded."),
            ("skipped", "frames_skipped", "Coded pictures of a live source not decoded on purpose."),
            (
                "decode_errors",
                "decode_errors",
                "Pictures that could not be decoded whole, and were left out.",
            ),
        )
    }
    for source, ledger in ledgers.items():
        out = 0
        for cause in LOST_CAUSES:
            count = ledger[f"lost_{cause}"]
            lost.add_metric([source, cause], count)
            out += count
        for cause in DROP_CAUSES:
            dropped.add_metric([source, cause], ledger[f"dropped_{cause}"])
        counts = {name: ledger[name] for name in plain}
        for name, family in plain.items():
            family.add_metric([source], counts[name])
        in_flight.add_metric([source], max(0, counts["admitted"] - counts["published"] - out))
    yield from (*reversed(plain.values()), dropped, lost, in_flight)


def _live(ledgers: Mapping[str, Ledger]) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "framewire_source_state", "1 for the state that the source is in.", labels=["source", "state"]
    )
    changes = CounterMetricFamily(
        "framewire_source_state_changes", "Changes of the state of a source.", labels=["source"]
    )
    silence = GaugeMetricFamily(
        "framewire_source_silence_seconds", "Time since data last came from a live source.", labels=["source"]
    )
    offset = GaugeMetricFamily(
        "framewire_source_clock_offset_seconds", "Clock of the camera minus that of this host.",
        labels=["source"],
    )  # fmt: skip
    drift = GaugeMetricFamily(
        "framewire_source_clock_drift_ratio", "How much faster than ours the clock of the camera runs.",
        labels=["source"],
    )  # fmt: skip
    now_ns = time.monotonic_ns()
    for source, ledger in ledgers.items():
        present = STATES[ledger["state"]]
        for name in STATES:
            state.add_metric([source, name], int(name == present))
        changes.add_metric([source], len(ledger.journal))
        if ledger["heard_ns"]:
            silence.add_metric([source], max(0, now_ns - ledger["heard_ns"]) / 1e9)
        if ledger["clocked"]:
            offset.add_metric([source], ledger["clock_offset_us"] / 1e6)
            drift.add_metric([source], ledger["drift_ppb"] / 1e9)
    yield from (state, changes, silence, offset, drift)


def _latencies(view: View) -> Iterator[Metric]:
    stages = HistogramMetricFamily(
        "framewire_latency_seconds", "Time of frames at a stage: waiting for it, and in it.",
        labels=["stage", "kind"],
    )  # fmt: skip
    frames = HistogramMetricFamily(
        "framewire_frame_latency_seconds", "Time of frames from capture to publish.", labels=["source"]
    )
    for name, histogram in sorted(merge_latencies(view.summaries).by_name.items()):
        stage, dot, kind = name.partition(".")
        _, at, source = name.partition("@")
        buckets, total_s = _cumulative(histogram.counts())
        if at:
            frames.add_metric([source], buckets, total_s)
        elif dot:
            stages.add_metric([stage, kind], buckets, total_s)
    yield from (stages, frames)


def _cumulative(counts: Mapping[int, int]) -> tuple[list[tuple[str, float]], float]:
    """Our fine buckets as Prometheus's cumulative ones, and the sum in seconds.

    A bucket of ours is 2.2 % wide and counts as its middle, so a bound is exact to 1.1 %, and the sum too.
    """
    middles = {at: 2 ** ((at + 0.5) / _PER_OCTAVE) / 1e6 for at in counts}
    bounds = (*BOUNDS_S, math.inf)
    found = [
        (
            "+Inf" if math.isinf(bound) else str(bound),
            float(sum(n for at, n in counts.items() if middles[at] <= bound)),
        )
        for bound in bounds
    ]
    return found, sum(middles[at] * n for at, n in counts.items())


def _workers(view: View) -> Iterator[Metric]:
    restarts = CounterMetricFamily(
        "framewire_worker_restarts", "How often a worker was brought back.", labels=["worker"]
    )
    for worker, count in view.restarts.items():
        restarts.add_metric([worker], count)
    memory = GaugeMetricFamily(
        "framewire_worker_resident_memory_bytes", "Memory of a process, shared pages included.",
        labels=["worker"],
    )  # fmt: skip
    cpu = CounterMetricFamily(
        "framewire_worker_cpu_seconds", "CPU time of a process, user and system; from 0 after a restart.",
        labels=["worker"],
    )  # fmt: skip
    for worker, pid in view.pids.items():
        try:
            process = psutil.Process(pid)
            with process.oneshot():
                times, resident = process.cpu_times(), process.memory_info().rss
        except psutil.Error:
            continue  # It has just ended.
        memory.add_metric([worker], resident)
        cpu.add_metric([worker], times.user + times.system)
    yield from (restarts, memory, cpu)
