"""What the publisher says of the event log and of its sinks: sums over its incarnations, and last words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

__all__ = ["families", "merged"]

#: Numbers that say how it is now; all others only rise.
_GAUGES = frozenset({"behind", "connected", "next", "oldest", "bytes", "pending", "degraded"})

_UNITS = {"behind": "_events", "pending": "_events", "next": "_sequence", "oldest": "_sequence"}

_TEXTS = {
    "delivered": "Events that the server has acknowledged.",
    "retries": "Attempts that failed and were made again.",
    "dead_letters": "Events that the server refused, set aside.",
    "missed": "Events that the event log forgot before they were delivered.",
    "behind": "Events of the log that the sink has still to look at.",
    "connected": "1 while the server is there.",
    "replays": "Requests for past events that were answered.",
    "malformed": "Messages to the stream that were no requests, and were dropped.",
    "accepted": "Connections of clients whose key is known.",
    "refused": "Connections of clients whose key is not known.",
    "sent": "Pictures that were sent to the server.",
    "repeated": "Pictures that were sent again because no new one came.",
    "replaced": "Pictures that a newer one took the place of, for the encoder was busy.",
    "reconnects": "How often the connection was made anew.",
    "next": "Number that the next event will have.",
    "oldest": "The oldest event that is kept.",
    "bytes": "Size of the event log.",
    "pending": "Events that wait in memory because the log cannot be written.",
    "degraded": "1 while the event log cannot be written as it should.",
    "dropped": "Events that a full or broken disk has cost the event log.",
}


def merged(summaries: Mapping[str, list[dict[str, Any]]], key: str) -> dict[str, Any]:
    """One part of the summaries of all incarnations: ``event_log``, or ``sinks`` with a level more.

    What only rises is added up, of what goes up and down the last word counts.
    """
    total: dict[str, Any] = {}
    for incarnations in summaries.values():
        for summary in incarnations:
            _merge(total, summary.get(key, {}))
    return total


def _merge(total: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping):
            _merge(total.setdefault(key, {}), value)
        else:
            total[key] = value if key in _GAUGES else total.get(key, 0) + value


def families(summaries: Mapping[str, list[dict[str, Any]]]) -> Iterator[Metric]:
    """Metrics of the event log and of the sinks; a label holds the name of a sink, and nothing of a URL."""
    for key, value in merged(summaries, "event_log").items():
        yield _family("event_log", key, [((), value)])
    sinks = merged(summaries, "sinks")
    for key in dict.fromkeys(key for stats in sinks.values() for key in stats):
        yield _family("sink", key, [((name,), stats[key]) for name, stats in sinks.items() if key in stats])


def _family(what: str, key: str, values: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    labels = ["sink"] if what == "sink" else []
    text = _TEXTS.get(key, f"{key} of a sink.")
    kind = GaugeMetricFamily if key in _GAUGES else CounterMetricFamily
    family = kind(f"framewire_{what}_{key}{_UNITS.get(key, '')}", text, labels=labels)
    for label, value in values:
        family.add_metric(label, value)
    return family
