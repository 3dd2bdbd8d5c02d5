"""Occupancy and crowds of a zone, to the millisecond."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.analytics.objects import Fact
from pipeline.analytics.zones import Zones
from pipeline.messages import Scene
from tests.analytics.playing import At, Frames, play
from tests.analytics.test_zones import IN, OUT, yard


def numbers(fact: Fact) -> str:
    """``crowd start 3``, ``occupancy 2 car 1 person 1``; nothing for what one object does."""
    if fact.type == "zone":
        return ""
    assert fact.item is None
    assert fact.fields["zone"] == "yard"
    counts = fact.fields["counts"]
    assert fact.fields["count"] == sum(counts.values())
    by_label = [f"{label} {count}" for label, count in counts.items()] if len(counts) > 1 else []
    words = [fact.type, fact.fields.get("action", ""), str(fact.fields["count"]), *by_label]
    return " ".join(word for word in words if word)


def people(count: int, place: Any = IN) -> dict[int, Any]:
    return dict.fromkeys(range(1, count + 1), place)


@pytest.mark.parametrize(
    ("why", "settle_s", "frames", "expected"),
    [
        (
            "at once, with 0; a label that changes changes the counts",
            0.0,
            {
                0: {},
                100: people(1),
                200: people(2),
                300: {1: OUT},
                800: {1: OUT},
                900: {2: At(150, 50, label="car")},
            },
            {
                100: ["occupancy 1"],
                200: ["occupancy 2"],
                800: ["occupancy 1"],
                900: ["occupancy 1"],
            },
        ),
        (
            "counts by label",
            0.0,
            {0: {1: IN, 2: At(150, 50, label="car"), 3: IN}},
            {0: ["occupancy 3 car 1 person 2"]},
        ),
        (
            "told once it has held",
            0.5,
            {ms: people(2) for ms in range(0, 1000, 100)},
            {500: ["occupancy 2"]},
        ),
        (
            "a count that comes back before it has held was never told",
            0.5,
            {ms: people(1) for ms in range(0, 1000, 100)}
            | {1000: people(2), 1100: people(2), 1200: {2: "lost"}}
            | {ms: people(1) for ms in range(1300, 3000, 100)},
            {500: ["occupancy 1"]},
        ),
        (
            "nor was one that flickers now and then",
            0.5,
            {
                ms: people(1 + (ms % 1000 == 900)) | ({2: "lost"} if ms % 1000 == 0 and ms else {})
                for ms in range(0, 5000, 100)
            },
            {500: ["occupancy 1"]},
        ),
        (
            "one that goes on changing is told all the same",
            0.5,
            {ms: people(1 + ms // 400) for ms in range(0, 2500, 100)},
            {2000: ["occupancy 6"]},
        ),
        (
            "frames dropped: told in the first frame after it has held",
            0.5,
            {0: people(1), 3000: people(1), 3100: people(1) | {1: "lost"}, 3300: {}, 9000: {}},
            {3000: ["occupancy 1"], 9000: ["occupancy 0"]},
        ),
        (
            "who is not seen for a while is still in",
            0.0,
            {0: people(2), 100: {1: IN}, 900: {1: IN}, 2000: {1: IN, 2: "lost"}},
            {0: ["occupancy 2"], 2000: ["occupancy 1"]},
        ),
    ],
)
def test_how_many_are_in(why: str, settle_s: float, frames: Frames, expected: dict[int, list[str]]) -> None:
    zones = Zones(Scene(zones={"yard": yard()}), settle_s=settle_s)
    assert play(zones, frames, numbers) == expected, why


@pytest.mark.parametrize(
    ("why", "crowd_s", "frames", "expected"),
    [
        (
            "starts and ends once it has held",
            1.0,
            {ms: people(2) for ms in range(0, 500, 100)}
            | {ms: people(3) for ms in range(500, 2000, 100)}
            | {2000: people(2) | {3: "lost"}}
            | {ms: people(2) for ms in range(2100, 4000, 100)},
            {1500: ["crowd start 3"], 3000: ["crowd end 2"]},
        ),
        (
            "a short gap ends no crowd, a short press is none",
            1.0,
            {0: people(3), 400: people(2) | {3: "lost"}, 500: people(3), 1100: people(3)}
            | {1500: people(4), 1600: people(2) | {3: "lost", 4: "lost"}, 2000: people(5)}
            | {9000: people(5) | {3: "lost", 4: "lost", 5: "lost"}},
            {1500: ["crowd start 4"]},
        ),
        (
            "at once, with 0",
            0.0,
            {0: people(3), 100: {1: "lost"}},
            {0: ["crowd start 3"], 100: ["crowd end 2"]},
        ),
    ],
)
def test_crowds(why: str, crowd_s: float, frames: Frames, expected: dict[int, list[str]]) -> None:
    zones = Zones(Scene(zones={"yard": yard(crowd=3, crowd_s=crowd_s)}), settle_s=1e6)
    assert play(zones, frames, numbers) == expected, why
