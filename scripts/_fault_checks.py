"""What must hold of every fault, whatever it is; and how each check is seen to fail."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from scripts._cameras import Evidence, utc_ns
from scripts._faults import Case, Step

__all__ = ["CHECKS", "FaultCheck", "can_fail", "counters", "judged", "matched"]

#: What counters may be off by: a picture or two are under way where a connection ends.
_UNDER_WAY = 6
#: Longest time from a change of state to where it can be read.
_PUBLISHED_S = 1.5


@dataclass(frozen=True, slots=True)
class FaultCheck:
    """One thing that must hold.

    Attributes:
        name: What must hold.
        problem: What is wrong; empty when nothing is.
        doctor: Breaks in the evidence what it is about, after which there must be a problem.
    """

    name: str
    problem: Callable[[Case, Evidence], str]
    doctor: Callable[[Case, Evidence], object]


def judged(case: Case, evidence: Evidence) -> list[tuple[str, str]]:
    """What differs: the name of each check that does not hold, and why."""
    found = ((check.name, check.problem(case, evidence)) for check in CHECKS)
    return [(name, problem) for name, problem in found if problem]


def can_fail(check: FaultCheck, case: Case, evidence: Evidence) -> bool:
    """Whether a check sees what was doctored; one that fails without it does."""
    doctored = copy.deepcopy(evidence)
    check.doctor(case, doctored)
    return bool(check.problem(case, doctored))


def matched(case: Case, events: Sequence[dict[str, Any]], fault_s: float) -> tuple[int, list[dict[str, Any]]]:
    """How many steps the events have come through, and the events that count.

    What was told before the fault, and the end when the run is stopped, do not count.
    """
    counted = [
        event
        for event in events
        if event["at_s"] > fault_s and event["state"] != "connecting" and event.get("reason") != "SIGTERM"
    ]
    return _come_to(case.steps, counted)[0], counted


def counters(evidence: Evidence) -> dict[str, int]:
    """What `Case.counted` names."""
    books = evidence["books"]
    late = books["skipped"] + sum(books["dropped"].get(cause, 0) for cause in ("stale", "superseded"))
    return {"decode_errors": books["decode_errors"], "late": late}


def _come_to(steps: Sequence[Step], events: Sequence[dict[str, Any]]) -> tuple[int, int]:
    """How many steps were come through, and how many events they took."""
    step = taken = 0
    while step < len(steps):
        wanted = steps[step]
        found = taken < len(events) and _same(wanted, events[taken])
        if not found and not wanted.optional:
            break
        if not found and taken == len(events):
            break
        taken += found
        step += 1
    return step, taken


def _same(step: Step, event: dict[str, Any]) -> bool:
    return event["state"] == step.state and (not step.reason or event.get("reason") == step.reason)


def _told(case: Case, evidence: Evidence) -> str:
    """States, reasons and words are those expected, in that order, and there are no others."""
    steps, events = matched(case, evidence["events"], evidence["fault_s"])
    came = ", ".join(f"{event['state']} {event.get('reason', '')}".strip() for event in events) or "nothing"
    missing = [step.state for step in case.steps[steps:] if not step.optional]
    if missing:
        return f"{missing[0]} is missing; told was {came}"
    rest = events[_come_to(case.steps, events)[1] :]
    if any(not case.flaps or event["state"] == "failed" for event in rest):
        return f"more was told than expected: {came}"
    if not any(case.tells in event.get("message", "") for event in events) and case.tells:
        return f"no message holds {case.tells!r}; told was {came}"
    for step, event in _pairs(case, evidence):
        if step.words not in event.get("message", ""):
            return f"{step.state}: {step.words!r} is not in {event.get('message', '')!r}"
    ends = [event for event in evidence["events"] if event["state"] in ("ended", "failed")]
    return "" if len(ends) == 1 else f"it ended {len(ends)} times"


def _pairs(case: Case, evidence: Evidence) -> list[tuple[Step, dict[str, Any]]]:
    events = matched(case, evidence["events"], evidence["fault_s"])[1]
    pairs, at = [], 0
    for step in case.steps:
        if at < len(events) and _same(step, events[at]):
            pairs.append((step, events[at]))
            at += 1
    return pairs


def _in_time(case: Case, evidence: Evidence) -> str:
    for step, event in _pairs(case, evidence):
        after_s = event["at_s"] - evidence[f"{step.after}_s"]
        if not 0 <= after_s <= step.within_s:
            return f"{step.state} {after_s:.2f} s after the {step.after}, not within {step.within_s:g} s"
    slowest_s = max(event["at_s"] - utc_ns(event["at"]) / 1e9 for event in evidence["events"][:-1])
    return "" if slowest_s < _PUBLISHED_S else f"an event was published {slowest_s:.2f} s after its own time"


def _on_terminal(_: Case, evidence: Evidence) -> str:
    """Each loss is on the terminal, in the words of the event."""
    shown = evidence["terminal"].splitlines()
    for event in evidence["events"]:
        if event["state"] not in ("stalled", "reconnecting", "failed"):
            continue
        text = event["message"]
        if not any(line.startswith(("warning: ", "error: ")) and text in line for line in shown):
            return f"no line says: {text}"
    return "" if "books balance" in evidence["terminal"] else "there is no table at its end"


def _books(_: Case, evidence: Evidence) -> str:
    books, frames = evidence["books"], evidence["frames"]
    admitted = books["decoded"] - sum(books["dropped"].values())
    if not evidence["balance"] or admitted != books["admitted"] or books["published"] != len(frames):
        return f"they do not balance with {len(frames)} frames: {books}"
    return "" if books["admitted"] == books["published"] + sum(books["lost"].values()) else f"{books}"


def _frames(case: Case, evidence: Evidence) -> str:
    """Each frame once, in order, none lost, none failed; and they are as many as the camera sent."""
    frames, books, sent = evidence["frames"], evidence["books"], evidence["sent"]
    if [seq for _, seq, *_ in frames] != list(range(len(frames))):
        return "some are missing, or come twice"
    if any(later[0] < one[0] or later[2] < one[2] for one, later in itertools.pairwise(frames)):
        return "time or epoch goes back"
    if books["lost"] or any(status != "ok" for *_, status in frames):
        return f"lost {books['lost']}, failed {books['failed']}"
    came = books["decoded"] + books["decode_errors"] + books["skipped"]
    if sent is not None and not (-_UNDER_WAY <= came - sent <= 0 or (case.misses and came < sent)):
        return f"{came} pictures are counted, {sent} were sent"
    return ""


def _counted(case: Case, evidence: Evidence) -> str:
    """What the fault must cost is counted, and damage is not counted where there is none."""
    counts = counters(evidence)
    if missing := [name for name in case.counted if not counts[name]]:
        return f"nothing is counted as {', '.join(missing)}"
    if "decode_errors" not in case.counted and counts["decode_errors"] > _UNDER_WAY:
        return f"{counts['decode_errors']} decode errors"
    return ""


def _at_its_end(case: Case, evidence: Evidence) -> str:
    """Pictures come exactly if it is running; and the run ends in good order."""
    last = next(
        (event["state"] for event in reversed(evidence["events"]) if event["state"] != "ended"), "nothing"
    )
    if (last == "running") != (evidence["flowing"] >= 3):
        return f"it is {last}, and {evidence['flowing']} frames come"
    if evidence["cure_s"] and last != "running":
        return f"it is {last}, though the fault is over"
    if last == "running" and evidence["late_s"] > case.late_s:
        return f"the newest frame is {evidence['late_s']:.1f} s old"
    if evidence["code"] != case.exit_code or evidence["left"]:
        return f"exit code {evidence['code']}, left behind: {evidence['left']}"
    return ""


def _hidden(_: Case, evidence: Evidence) -> str:
    """The password is nowhere, in places where another word is found."""
    for where, (secret, control) in evidence["found"].items():
        if secret or not control:
            return f"in {where}" if secret else f"nothing could be found in {where}"
    return "" if evidence["found"] else "nothing was looked at"


def _told_more(_: Case, evidence: Evidence) -> None:
    evidence["events"].append({**evidence["events"][0], "state": "failed", "at_s": evidence["stop_s"]})


def _much_later(_: Case, evidence: Evidence) -> None:
    for event in evidence["events"]:
        event["at_s"] += 100.0


def _miscounted(case: Case, evidence: Evidence) -> None:
    nothing = {"decode_errors": 0, "skipped": 0, "dropped": {}}
    evidence["books"].update(nothing if case.counted else {"decode_errors": 1000})


#: In the order in which they are shown.
CHECKS = (
    FaultCheck("what is told", _told, _told_more),
    FaultCheck("when", _in_time, _much_later),
    FaultCheck("terminal", _on_terminal, lambda _, seen: seen.update(terminal="")),
    FaultCheck("books", _books, lambda _, seen: seen["books"].update(decoded=seen["books"]["decoded"] + 1)),
    FaultCheck("frames", _frames, lambda _, seen: seen["frames"].extend([[0, 0, 0, "ok"]] * 2)),
    FaultCheck("counters", _counted, _miscounted),
    FaultCheck("at its end", _at_its_end, lambda _, seen: seen.update(flowing=0 if seen["flowing"] else 99)),
    FaultCheck("password", _hidden, lambda _, seen: seen["found"].update(terminal=[True, True])),
)
