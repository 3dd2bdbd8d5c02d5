"""When cameras were out of order in a soak, when that was told, and when they were back. Pure functions."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from scripts._cameras import Evidence

__all__ = [
    "CONNECT_S", "bound", "delays", "events_of", "facts_of", "is_short", "notice", "refused", "returns",
    "spells", "told",
]  # fmt: skip

#: Longest freeze after which the connection is still the same one.
SHORT_S = 4.5
#: What connecting to a silent camera may take (``connect_timeout_s``).
CONNECT_S = 10.0

Row = dict[str, Any]


def facts_of(evidence: Evidence, camera: str, fact: str) -> list[float]:
    return [one["at_ns"] / 1e9 for one in evidence["facts"] if (one["camera"], one["fact"]) == (camera, fact)]


def events_of(evidence: Evidence, source: str) -> list[Row]:
    return [event for event in evidence["events"] if event["source"] == source]


def told(
    evidence: Evidence, source: str, states: Sequence[str], after_s: float, until_s: float
) -> float | None:
    """When the first event with one of the states arrived."""
    times = (e["at_s"] for e in events_of(evidence, source) if e["state"] in states)
    return next((at_s for at_s in times if after_s < at_s <= until_s), None)


def _running_at(evidence: Evidence, source: str, at_s: float) -> bool:
    """Whether the last that was told before a time is that it runs, with a frame in the last second."""
    states = [event["state"] for event in events_of(evidence, source) if event["at_s"] < at_s]
    recent = any(name == source and at_s - 1 < when < at_s for name, _, when in evidence["arrivals"])
    return bool(states) and states[-1] == "running" and recent


def spells(evidence: Evidence, camera: str) -> Iterator[Row]:
    """Each time that a camera is out of order: when from, when until, and when it comes back.

    Only those that found it running, as there is nothing to tell else; and only what fell into the spell.
    """
    begin, end = {"mortal": ("kill", "ready"), "frozen": ("freeze", "thaw")}[camera]
    starts = facts_of(evidence, camera, begin)
    for at, start in enumerate(starts):
        until = min([evidence["stop_s"], *starts[at + 1 : at + 2]])
        if not _running_at(evidence, camera, start):
            continue
        back = next((t for t in facts_of(evidence, camera, end) if start < t < until), None)
        spell = {"start": start, "back": back, "until": until}
        if back is not None:
            arrivals = (when for name, _, when in evidence["arrivals"] if name == camera)
            spell |= {
                "playing": next((t for t in facts_of(evidence, camera, "playing") if back < t < until), None),
                "connected": next(
                    (t for t in facts_of(evidence, camera, "connected") if back < t < until), None
                ),
                "frame": next((when for when in arrivals if back + 0.05 < when < until), None),
                "running": told(evidence, camera, ["running"], back, until),
            }
        yield spell


def is_short(spell: Row) -> bool:
    return spell["back"] is not None and spell["back"] - spell["start"] < SHORT_S


def returns(evidence: Evidence, camera: str) -> list[Row]:
    """Spells long enough to lose the connection, and that came to an end in time to tell."""
    long = [
        s
        for s in spells(evidence, camera)
        if s["back"] is not None and not (camera == "frozen" and is_short(s))
    ]
    return [s for s in long if s["playing"] is not None or s["until"] - s["back"] > bound(s, camera)]


def bound(spell: Row, camera: str) -> float:
    """Back-off doubles: a wait is about as long as all before it. A frozen camera holds up a try besides."""
    return float(1.2 * (spell["back"] - spell["start"]) + 3 + (CONNECT_S if camera == "frozen" else 0))


def notice(evidence: Evidence, camera: str, states: Sequence[str]) -> list[float | None]:
    """Seconds from the start of each spell to the event; None where none came."""
    found = []
    for spell in spells(evidence, camera):
        at_s = told(evidence, camera, states, spell["start"], spell["until"])
        found.append(None if at_s is None else at_s - spell["start"])
    return found


def delays(evidence: Evidence) -> list[tuple[str, list[float], tuple[float, float, float]]]:
    """Seconds from facts to their signs: name, all values, and the least, median and largest of them."""
    named: dict[str, list[float | None]] = {
        "mortal: killed -> reconnecting": notice(evidence, "mortal", ["reconnecting"]),
        "frozen: stopped -> stalled": notice(evidence, "frozen", ["stalled"]),
        "frozen: stopped -> reconnecting": [
            delay
            for delay, s in zip(
                notice(evidence, "frozen", ["reconnecting"]), spells(evidence, "frozen"), strict=True
            )
            if not is_short(s)
        ],
        "frozen: goes on after a short stop -> running": [
            s["running"] and s["running"] - s["back"] for s in spells(evidence, "frozen") if is_short(s)
        ],
    }  # fmt: skip
    for camera, back in (("mortal", "listens again"), ("frozen", "goes on")):
        rows = returns(evidence, camera)
        for name, first, last in (
            (f"{back} -> plays (waiting)", "back", "playing"),
            ("plays -> first frame published", "playing", "frame"),
            ("plays -> running told", "playing", "running"),
            (f"{back} -> first frame published", "back", "frame"),
        ):
            named[f"{camera}: {name}"] = [s[last] and s[first] and s[last] - s[first] for s in rows]
    named["stranger: first try -> auth told"] = [refused(evidence)]
    result = []
    for name, values in named.items():
        known = [value for value in values if value is not None]
        if known:
            result.append((name, known, (min(known), statistics.median(known), max(known))))
    return result


def refused(evidence: Evidence) -> float | None:
    tries = facts_of(evidence, "stranger", "connected")
    refusals = [e["at_s"] for e in events_of(evidence, "stranger") if e.get("reason") == "auth"]
    return refusals[0] - tries[0] if refusals and tries else None
