"""The end of a run in numbers: ``summary.json`` and what the table at the end shows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.messages import ModelSpec
from pipeline.runtime import outlook
from pipeline.stages.latency import Latencies
from pipeline.transport.ledger import STATES, Ledger

__all__ = ["merge_latencies", "summarise"]

VERSION = 1


def merge_latencies(summaries: Mapping[str, list[dict[str, Any]]]) -> Latencies:
    """All histograms of all incarnations of the publisher in one."""
    merged = Latencies()
    for incarnations in summaries.values():
        for summary in incarnations:
            merged.merge(summary.get("latency", {}))
    return merged


def summarise(
    *,
    ledgers: Mapping[str, Ledger],
    summaries: Mapping[str, list[dict[str, Any]]],
    spec: ModelSpec | None,
    seconds: float,
    restarts: Mapping[str, int],
    run_id: str,
    extra_files: list[str],
) -> dict[str, Any]:
    """The content of ``summary.json``.

    Args:
        ledgers: The books by source, settled.
        summaries: What the workers said of themselves.
        spec: The model; None when it was never loaded.
        seconds: Length of the run.
        restarts: How often each worker was brought back.
        run_id: Id of the run.
        extra_files: Files written outside the sinks.
    """
    said = [summary for incarnations in summaries.values() for summary in incarnations]
    objects: Counter[str] = Counter()
    files: list[str] = []
    counts: dict[str, Any] = {"zones": {}, "lines": {}}
    for summary in said:
        objects.update(summary.get("objects", {}))
        for key, total in counts.items():
            _add(total, summary.get(key, {}))
        files += [file for file in summary.get("files", []) if file not in files]
    latencies = merge_latencies(summaries).by_name
    stages: dict[str, dict[str, Any]] = {}
    for name in sorted(latencies):
        stage, _, kind = name.partition(".")
        if kind:
            stages.setdefault(stage, {})[kind] = latencies[name].summary()
    by_stage: dict[str, Any] = {
        stage: {**times.get("service", {}), "wait": times.get("wait", {})} for stage, times in stages.items()
    }
    if "total" in latencies:
        by_stage["total"] = latencies["total"].summary()
    sources: dict[str, Any] = {}
    for name, ledger in ledgers.items():
        sources[name] = {
            "decoded": ledger["decoded"],
            "admitted": ledger["admitted"],
            "published": ledger["published"],
            "dropped": ledger.dropped(),
            "lost": ledger.lost(),
            "failed": ledger["failed"],
            "decode_errors": ledger["decode_errors"],
            "fps": round(ledger["published"] / seconds, 2) if seconds > 0 else 0.0,
            "state": STATES[ledger["state"]],
        }
        if f"total@{name}" in latencies:
            sources[name]["latency_ms"] = latencies[f"total@{name}"].summary()
        sources[name] |= {key: total[name] for key, total in counts.items() if name in total}
        if ledger["live"]:
            sources[name]["skipped"] = ledger["skipped"]
        if ledger["clocked"]:
            sources[name]["clock_offset_s"] = ledger["clock_offset_us"] / 1e6
            sources[name]["drift_ppm"] = ledger["drift_ppb"] / 1000
        last = ledger.journal.last()
        if last is not None:
            sources[name] |= {key: word for key in ("reason", "message") if (word := getattr(last, key))}
    model: dict[str, Any] = {}
    if spec is not None:
        model = {
            "name": spec.name,
            "sha256": spec.sha256,
            "family": spec.family,
            "input": [spec.input_width, spec.input_height],
        }
    return {
        "version": VERSION,
        "run_id": run_id,
        "model": model,
        "provider": spec.provider if spec else "",
        "seconds": round(seconds, 3),
        "sources": sources,
        "latency_ms": by_stage,
        "objects": dict(objects.most_common()),
        "events": max((summary.get("events", 0) for summary in said), default=0),
        "sinks": outlook.merged(summaries, "sinks"),
        "restarts": dict(restarts),
        "books_balance": all(ledger.balanced() for ledger in ledgers.values()),
        "files": [*(str(Path(file)) for file in files), *extra_files],
    }


def _add(total: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add counts to counts, however deep they lie."""
    for key, value in more.items():
        if isinstance(value, Mapping):
            _add(total.setdefault(key, {}), value)
        else:
            total[key] = total.get(key, 0) + value
