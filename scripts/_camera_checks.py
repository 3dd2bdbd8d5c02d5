"""What must hold while cameras fail: the checks of ``soak_cameras``, pure functions of what was seen."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from scripts._camera_spells import (
    CONNECT_S,
    bound,
    events_of,
    facts_of,
    is_short,
    notice,
    refused,
    returns,
    spells,
    told,
)
from scripts._cameras import Check, Evidence, Verdict, percentiles, trend

__all__ = ["checks"]

#: A change of state is told within so long of the fact.
TOLD_S = 5.0
#: A camera is stalled after two frame periods or 2 s, whichever is longer; looked at a few times a second.
STALLED_S = 3.0
#: How much a process may seem to grow over half a run.
SPAN_MB, SPAN_SHARE = 3.0, 0.03

Row = dict[str, Any]


def _within(values: list[float | None], limit: float) -> Verdict:
    """All came, and none later than the limit."""
    known = [value for value in values if value is not None]
    if not known:
        raise ValueError("it never happened")
    words = f"{len(known)} of {len(values)}, at most {max(known):.2f} s"
    return Verdict(words, f"all, <= {limit:g} s", len(known) == len(values) and max(known) <= limit)


def _nothing_lost(evidence: Evidence) -> Verdict:
    book = evidence["summary"]["sources"]["healthy"]
    whole = book["admitted"] == book["published"] > 0 and not book["lost"] and not book["failed"]
    return Verdict(f"{book['published']} of {book['admitted']}", "all", whole)


def _stays_running(evidence: Evidence) -> Verdict:
    states = [
        event["state"] for event in events_of(evidence, "healthy") if event["at_s"] < evidence["stop_s"]
    ]
    return Verdict(
        " ".join(states), "(connecting) running", states in (["connecting", "running"], ["running"])
    )


def _healthy_times(evidence: Evidence) -> list[float]:
    return [
        when for name, _, when in evidence["arrivals"]
        if name == "healthy" and evidence["faults_s"] < when < evidence["stop_s"]
    ]  # fmt: skip


def _rate(evidence: Evidence) -> Verdict:
    times, wanted = _healthy_times(evidence), evidence["rates"]["healthy"]
    rate = (len(times) - 1) / (times[-1] - times[0])
    return Verdict(f"{rate:.2f} frames/s", f"{wanted} +- 5 %", abs(rate - wanted) <= 0.05 * wanted)


def _gap(evidence: Evidence) -> Verdict:
    times = _healthy_times(evidence)
    most = max(later - earlier for earlier, later in itertools.pairwise(times))
    return Verdict(f"{most:.2f} s", "<= 1 s", most <= 1)


def _latency(evidence: Evidence) -> Verdict:
    rows = [(at_s, ms) for name, _, at_s, ms, _ in evidence["frames"] if name == "healthy"]
    # Out of order, or only just back: 2 s for what comes with that.
    spans = [
        (s["start"], (s.get("frame") or s["until"]) + 2)
        for camera in ("mortal", "frozen")
        for s in spells(evidence, camera)
    ]
    before = percentiles([ms for at_s, ms in rows if evidence["began_s"] + 5 < at_s < evidence["faults_s"]])
    during = percentiles([ms for at_s, ms in rows if any(start <= at_s <= end for start, end in spans)])
    words = "\n".join(
        f"{name} {one:.0f} -> {other:.0f} ms, {other / one:.2f}x"
        for name, one, other in zip(("p50", "p95", "p99"), before, during, strict=False)
    )
    calm = during[0] <= 1.5 * before[0] + 5 and during[2] <= max(2 * before[2], before[2] + 50)
    return Verdict(words, "p50 <= 1.5x + 5 ms; p99 <= 2x or + 50 ms", calm)


def _recovers(evidence: Evidence, camera: str) -> Verdict:
    rows = returns(evidence, camera)
    late = [s for s in rows if s["frame"] is None or s["frame"] - s["back"] > bound(s, camera)]
    took = [s["frame"] - s["back"] for s in rows if s["frame"] is not None]
    words = f"{len(rows) - len(late)} of {len(rows)}, at most {max(took):.1f} s"
    extra = f" + {CONNECT_S:g} s" if camera == "frozen" else ""
    return Verdict(words, f"all, <= 1.2 x time away + 3 s{extra}", not late)


def _plays(evidence: Evidence, camera: str) -> Verdict:
    rows = [s for s in returns(evidence, camera) if s["playing"] and s["until"] - s["playing"] > TOLD_S]
    return _within([s["running"] and s["running"] - s["playing"] for s in rows], TOLD_S)


def _short_stop(evidence: Evidence) -> Verdict:
    rows = [s for s in spells(evidence, "frozen") if is_short(s)]
    verdict = _within([s["running"] and s["running"] - s["back"] for s in rows], TOLD_S)
    lost = sum(
        told(evidence, "frozen", ["reconnecting"], s["start"], s["back"] + 3) is not None for s in rows
    )
    limit = f"{verdict.limit}, 0 reconnects"
    return Verdict(f"{verdict.figure}, {lost} reconnects", limit, verdict.passed and not lost)


def _stranger(evidence: Evidence) -> Verdict:
    events = [e for e in events_of(evidence, "stranger") if e["at_s"] < evidence["stop_s"]]
    states = {f"{e['state']} {e.get('reason', '')}".strip() for e in events} - {"connecting"}
    tries = len(facts_of(evidence, "stranger", "connected"))
    most = 4 + (evidence["stop_s"] - evidence["began_s"]) / 50
    words = f"{', '.join(sorted(states))}; {tries} tries"
    return Verdict(
        words, f"reconnecting auth; <= {most:.0f} tries", states == {"reconnecting auth"} and tries <= most
    )


def _prompt(evidence: Evidence) -> Verdict:
    """From the moment that an event itself names to its arrival."""
    late = [e["at_s"] - e["said_s"] for e in evidence["events"] if e["at_s"] > evidence["began_s"]]
    return Verdict(f"{len(late)} events, at most {max(late):.2f} s", "<= 1 s", max(late) <= 1)


def _series(evidence: Evidence, what: str) -> Iterator[tuple[str, list[float], list[float]]]:
    """Each process with its values since all cameras were first up."""
    rows = [s for s in evidence["samples"] if evidence["began_s"] < s["at_s"] < evidence["stop_s"]]
    for name in sorted({name for row in rows for name in row["processes"]}):
        seen = [(row["at_s"], p[what]) for row in rows if what in (p := row["processes"].get(name, {}))]
        yield name, [at_s for at_s, _ in seen], [value for _, value in seen]


def _memory(evidence: Evidence) -> Verdict:
    """A line through the second half must not rise; the worst process stands for all."""
    worst, name_of, all_flat = -1e9, "", True
    for name, times, values in _series(evidence, "rss_mb"):
        half = len(times) // 2
        rise = trend(times[half:], values[half:])
        all_flat &= rise <= max(SPAN_MB, SPAN_SHARE * values[half])
        if rise > worst:
            worst = rise
            name_of = f"{name.split(' (')[0]}: {rise:+.2f} MB ({values[half]:.0f} -> {values[-1]:.0f})"
    return Verdict(
        name_of, f"second half <= +{SPAN_MB:g} MB or {100 * SPAN_SHARE:g} %", all_flat and bool(name_of)
    )


def _counts(evidence: Evidence, what: str) -> Verdict:
    """The second half needs no more than the first did, and a line through it does not rise."""
    worst, flat, seen = "", True, 0
    for name, times, values in _series(evidence, what):
        half = len(times) // 2
        grown, rise = max(values[half:]) - max(values[:half]), trend(times[half:], values[half:])
        seen += 1
        if grown > 2 or rise > 2:
            flat, worst = False, f"{worst} {name}: {max(values[:half])} -> {max(values[half:])}"
    return Verdict(worst.strip() or f"flat in {seen} processes", "<= +2", flat and seen > 0)


def _processes(evidence: Evidence) -> Verdict:
    """The same processes from beginning to end, none of them dead without being fetched."""
    rows = [row for row in evidence["samples"] if evidence["began_s"] < row["at_s"] < evidence["stop_s"]]
    sets = {frozenset(row["processes"]) for row in rows}
    dead = sum(p.get("zombie", False) for row in rows for p in row["processes"].values())
    restarts = sum(evidence["summary"]["restarts"].values())
    came = len(frozenset().union(*sets)) - min(len(names) for names in sets)
    return Verdict(
        f"{came} came or went, {restarts} restarts, {dead} zombies", "0", not (came or restarts or dead)
    )


def _books(evidence: Evidence) -> Verdict:
    words, right = [], bool(evidence["summary"]["books_balance"])
    for name, book in sorted(evidence["summary"]["sources"].items()):
        dropped, lost = sum(book["dropped"].values()), sum(book["lost"].values())
        right &= (
            book["decoded"] == book["admitted"] + dropped and book["admitted"] == book["published"] + lost
        )
        words.append(f"{name} {book['decoded']} = {book['published']} + {dropped} + {lost}")
    right &= sorted(evidence["summary"]["sources"]) == sorted(evidence["rates"])
    return Verdict("\n".join(words), "decoded = published + dropped + lost", right)


def _records(evidence: Evidence) -> Verdict:
    """Each admitted frame has one record, in order."""
    right, count = True, 0
    for name, book in evidence["summary"]["sources"].items():
        numbers = [seq for source, seq, *_ in evidence["frames"] if source == name]
        right &= numbers == list(range(book["admitted"]))
        count += len(numbers)
    return Verdict(f"{count} records", "one for each admitted frame, in order", right and count > 0)


def _listings(evidence: Evidence) -> Verdict:
    good, took = 0, []
    for one in evidence["listings"]:
        rows = one["rows"] if one["code"] == 0 else []
        took.append(one["took_s"])
        good += sorted(row["source"] for row in rows) == sorted(evidence["rates"]) and all(
            _plausible(evidence, row, one["at_s"], one["at_s"] + one["took_s"]) for row in rows
        )
    words = f"{good} of {len(took)}, at most {max(took):.1f} s"
    return Verdict(words, "all, states as events told", good == len(took))


def _plausible(evidence: Evidence, row: Row, begin_s: float, end_s: float) -> bool:
    """Whether a state was the one told then, or became it meanwhile; half a second is allowed for telling."""
    events = events_of(evidence, row["source"])
    before = [e["state"] for e in events if e["at_s"] < begin_s]
    meanwhile = [e["state"] for e in events if begin_s <= e["at_s"] < end_s + 0.5]
    return row["state"] in [*(before[-1:] or ["connecting"]), *meanwhile] and (
        row["decoded"] >= row["published"] + sum(row["dropped"].values())
    )


def _exit(evidence: Evidence) -> Verdict:
    end = evidence["end"]
    left = [*end["alive"], *end["shared_memory"], *end["runtime"]]
    words = f"code {end['code']}, {end['exit_s']:.2f} s, left: {left or 'nothing'}"
    return Verdict(words, "code 0, < 5 s, nothing", end["code"] == 0 and end["exit_s"] < 5 and not left)


def _secrets(evidence: Evidence) -> Verdict:
    """Nothing that was planted is found; the word that must be there is, so the search does search."""
    found = evidence["found"]
    leaks = [where for where, words in found.items() if set(words) & set(evidence["hidden"])]
    blind = [where for where, words in found.items() if evidence["control"] not in words]
    words = f"found in {', '.join(leaks) or 'none'} of {len(found)} places"
    blindly = f"; nothing at all found in {', '.join(blind)}" if blind else ""
    return Verdict(words + blindly, "none", bool(found) and not leaks and not blind)


def _push(source: str, state: str, **fields: Any) -> Callable[[Evidence], None]:
    """Doctors in one more event in the middle of the faults."""

    def doctor(evidence: Evidence) -> None:
        at_s = (evidence["faults_s"] + evidence["stop_s"]) / 2
        evidence["events"].append({"at_s": at_s, "said_s": at_s, "source": source, "state": state, **fields})

    return doctor


def _silence(source: str, *states: str) -> Callable[[Evidence], None]:
    """Doctors out the last event of one of the states."""

    def doctor(evidence: Evidence) -> None:
        events = evidence["events"]
        at = max(i for i, e in enumerate(events) if e["source"] == source and e["state"] in states)
        del events[at]

    return doctor


def _shift(source: str, state: str, by_s: float) -> Callable[[Evidence], None]:
    def doctor(evidence: Evidence) -> None:
        for event in evidence["events"]:
            if (event["source"], event["state"]) == (source, state) and event["at_s"] > evidence["faults_s"]:
                event["at_s"] += by_s

    return doctor


def _grow(what: str, by: float) -> Callable[[Evidence], None]:
    """One process takes more and more."""

    def doctor(evidence: Evidence) -> None:
        rows = [s for s in evidence["samples"] if evidence["began_s"] < s["at_s"] < evidence["stop_s"]]
        name = next(iter(rows[0]["processes"]))
        for at, row in enumerate(rows):
            row["processes"][name][what] += by * at / len(rows)

    return doctor


def _drop_frames(evidence: Evidence) -> None:
    """Takes out what reached the subscriber from the healthy camera for 2 s."""
    middle = (evidence["faults_s"] + evidence["stop_s"]) / 2
    evidence["arrivals"] = [one for one in evidence["arrivals"] if not 0 < one[2] - middle < 2]


def _slow(evidence: Evidence) -> None:
    evidence["frames"] = [
        [name, seq, at_s, ms + 100 * (at_s > evidence["faults_s"]), status]
        for name, seq, at_s, ms, status in evidence["frames"]
    ]


def _thin(evidence: Evidence) -> None:
    evidence["arrivals"] = [one for one in evidence["arrivals"] if one[1] % 8]


def _late_frames(camera: str) -> Callable[[Evidence], None]:
    """Nothing comes of a camera any more, from its first return on."""

    def doctor(evidence: Evidence) -> None:
        from_s = returns(evidence, camera)[0]["back"]
        evidence["arrivals"] = [one for one in evidence["arrivals"] if one[0] != camera or one[2] < from_s]

    return doctor


def _book(name: str, key: str) -> Callable[[Evidence], None]:
    def doctor(evidence: Evidence) -> None:
        evidence["summary"]["sources"][name][key] += 1

    return doctor


def checks() -> list[Check]:
    """Everything that must hold, and how to break each."""
    every: list[Check] = []

    def add(name: str, judge: Callable[[Evidence], Verdict], doctor: Callable[[Evidence], object]) -> None:
        every.append(Check(name, judge, doctor))

    add("healthy: no admitted frame lost", _nothing_lost, _book("healthy", "admitted"))
    add("healthy: never leaves running", _stays_running, _push("healthy", "stalled"))
    add("healthy: rate at the subscriber during faults", _rate, _thin)
    add("healthy: longest pause at the subscriber", _gap, _drop_frames)
    add("healthy: latency before -> during faults", _latency, _slow)
    add(
        "mortal: kill told",
        lambda e: _within(notice(e, "mortal", ["reconnecting", "stalled"]), TOLD_S),
        _silence("mortal", "reconnecting"),
    )
    add("mortal: running told once it plays", lambda e: _plays(e, "mortal"), _shift("mortal", "running", 5.5))
    add("mortal: back to its first frame", lambda e: _recovers(e, "mortal"), _late_frames("mortal"))
    add(
        "frozen: stalled told",
        lambda e: _within(notice(e, "frozen", ["stalled"]), STALLED_S),
        _shift("frozen", "stalled", 1.5),
    )
    add("frozen: short stop, running told", _short_stop, _shift("frozen", "running", 6))
    add("frozen: running told once it plays", lambda e: _plays(e, "frozen"), _shift("frozen", "running", 5.5))
    add("frozen: back to its first frame", lambda e: _recovers(e, "frozen"), _late_frames("frozen"))
    add(
        "stranger: refusal told after the first try",
        lambda e: _within([refused(e)], TOLD_S),
        lambda e: [event.pop("reason", "") for event in e["events"]],
    )
    add("stranger: nothing but refusals", _stranger, _push("stranger", "running"))
    add(
        "events reach the subscriber",
        _prompt,
        lambda e: e["events"][-1].update(said_s=e["events"][-1]["at_s"] - 2),
    )
    add("memory flat", _memory, _grow("rss_mb", 40))
    add("descriptors flat", lambda e: _counts(e, "fds"), _grow("fds", 12))
    add("threads flat", lambda e: _counts(e, "threads"), _grow("threads", 12))
    add(
        "same processes, no zombie",
        _processes,
        lambda e: e["samples"][len(e["samples"]) // 2]["processes"].update(x={"zombie": True}),
    )
    add("books balance", _books, _book("frozen", "decoded"))
    add("a record for each admitted frame", _records, lambda e: e["frames"].pop(len(e["frames"]) // 2))
    add(
        "sources list tells the truth",
        _listings,
        lambda e: e["listings"][-1]["rows"][0].update(state="ended"),
    )
    add("SIGTERM at a bad moment", _exit, lambda e: e["end"]["shared_memory"].append("framewire-left"))
    add("passwords found anywhere", _secrets, lambda e: e["found"]["log"].append(e["hidden"][0]))
    return every
