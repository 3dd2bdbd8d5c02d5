"""Enter, exit and loiter, to the millisecond."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.analytics.objects import Fact
from pipeline.analytics.zones import Zones
from pipeline.errors import ConfigError
from pipeline.messages import Filter, Scene, Zone
from tests.analytics.playing import At, Frames, Player, header, play

#: The right half of a frame of 200 x 100 pixels, and places outside, inside and on its boundary.
RIGHT = ((100.0, 0.0), (200.0, 0.0), (200.0, 100.0), (100.0, 100.0))
OUT, IN, EDGE = (50, 50), (150, 50), (100, 50)
#: A U whose gap is from x 140 to 160.
U = (
    (120.0, 0.0),
    (140.0, 0.0),
    (140.0, 60.0),
    (160.0, 60.0),
    (160.0, 0.0),
    (180.0, 0.0),
    (180.0, 90.0),
    (120.0, 90.0),
)


def yard(**options: Any) -> Zone:
    return Zone(**{"polygon": RIGHT, "coordinates": "pixels", "exit_s": 0.5, **options})


def moves(fact: Fact) -> str:
    """``1 exit yard 2.5 lost``; nothing for numbers."""
    if fact.type != "zone":
        return ""
    assert fact.item is not None
    fields = fact.fields
    words = [
        fact.item.track_id,
        fields["action"],
        fields["zone"],
        f"{fields['dwell_s']:g}",
        fields.get("reason", ""),
    ]
    return " ".join(map(str, words)).strip()


def steady(place: Any, start: int, stop: int, step: int = 100) -> dict[int, dict[int, Any]]:
    """Object 1 in one place from start until before stop."""
    return {ms: {1: place} for ms in range(start, stop, step)}


@pytest.mark.parametrize(
    ("why", "options", "frames", "expected"),
    [
        (
            "in, and out again: the exit is told once it has held, the dwell ends with the last frame inside",
            {},
            steady(OUT, 0, 300) | steady(IN, 300, 1000) | steady(OUT, 1000, 2000),
            {300: ["1 enter yard 0"], 1500: ["1 exit yard 0.6"]},
        ),
        (
            "who starts inside enters, who ends inside exits for the reason of its end",
            {},
            steady(IN, 0, 500) | {2400: {1: "lost"}},
            {0: ["1 enter yard 0"], 2400: ["1 exit yard 0.4 lost"]},
        ),
        (
            "the boundary belongs to the zone",
            {},
            {0: {1: (99, 50)}, 100: {1: EDGE}, 200: {1: (99, 50)}, 800: {1: (99, 50)}},
            {100: ["1 enter yard 0"], 800: ["1 exit yard 0"]},
        ),
        (
            "out for less than exit_s is not out, however often; the dwell goes on",
            {},
            steady(IN, 0, 300)
            | steady(OUT, 300, 700)
            | steady(IN, 700, 900)
            | steady(OUT, 900, 1300)
            | steady(IN, 1300, 1400)
            | steady(OUT, 1400, 2000),
            {0: ["1 enter yard 0"], 1900: ["1 exit yard 1.3"]},
        ),
        (
            "exit_s 0: out in the first frame outside",
            {"exit_s": 0.0},
            {0: {1: IN}, 100: {1: IN}, 200: {1: OUT}},
            {0: ["1 enter yard 0"], 200: ["1 exit yard 0.1"]},
        ),
        (
            "who comes back enters anew, and its dwell begins anew",
            {"exit_s": 0.0, "dwell_s": 0.3},
            steady(IN, 0, 400) | {400: {1: OUT}} | steady(IN, 500, 900),
            {
                0: ["1 enter yard 0"],
                300: ["1 loiter yard 0.3"],
                400: ["1 exit yard 0.3"],
                500: ["1 enter yard 0"],
                800: ["1 loiter yard 0.3"],
            },
        ),
        (
            "enter_s: told when it has held, and timed from the first frame inside",
            {"enter_s": 0.3},
            steady(OUT, 0, 100) | steady(IN, 100, 1000) | {1000: {1: OUT}, 1500: {1: OUT}},
            {400: ["1 enter yard 0.3"], 1500: ["1 exit yard 0.8"]},
        ),
        (
            "enter_s: a break begins it anew, and who goes before has never been in",
            {"enter_s": 0.3},
            steady(IN, 0, 300)
            | {300: {1: OUT}}
            | steady(IN, 400, 600)
            | {600: {1: OUT}}
            | {2000: {1: "lost"}},
            {},
        ),
        (
            "enter_s: who leaves the scene before has never been in",
            {"enter_s": 0.3},
            steady(IN, 0, 300) | {300: {1: "lost"}},
            {},
        ),
        (
            "loiter once in a stay, and never while outside: due at 500, seen inside again at 700",
            {"dwell_s": 0.5, "exit_s": 1.0},
            steady(IN, 0, 400) | steady(OUT, 400, 700) | steady(IN, 700, 3000),
            {0: ["1 enter yard 0"], 700: ["1 loiter yard 0.7"]},
        ),
        (
            "loiter follows enter where both are due",
            {"dwell_s": 0.2, "enter_s": 0.4},
            steady(IN, 0, 600),
            {400: ["1 enter yard 0.4", "1 loiter yard 0.4"]},
        ),
        (
            "frames dropped: in and out are told by the frames that exist",
            {"dwell_s": 1.0},
            {0: {1: OUT}, 3000: {1: IN}, 4100: {1: IN}, 9000: {1: OUT}, 9400: {1: OUT}, 9700: {1: OUT}},
            {3000: ["1 enter yard 0"], 4100: ["1 loiter yard 1.1"], 9700: ["1 exit yard 1.1"]},
        ),
        (
            "frames dropped: one frame outside ends no stay, however long until the next",
            {},
            {0: {1: IN}, 100: {1: OUT}, 5000: {1: IN}, 5100: {1: OUT}, 5700: {1: OUT}},
            {0: ["1 enter yard 0"], 5700: ["1 exit yard 5"]},
        ),
        (
            "not seen for a while: it stays in until it is seen outside",
            {},
            {
                0: {1: IN},
                **{ms: {} for ms in range(100, 1900, 100)},
                1900: {1: IN},
                2000: {1: OUT},
                2500: {1: OUT},
            },
            {0: ["1 enter yard 0"], 2500: ["1 exit yard 1.9"]},
        ),
        (
            "a filter: another label is not in; a score that dips does not enter, and does not leave either",
            {"only": Filter(labels=("person",), confidence=0.5)},
            {
                0: {1: At(150, 50, score=0.4), 2: At(150, 50, label="car")},
                100: {1: At(150, 50, score=0.6), 2: At(150, 50, label="car")},
                200: {1: At(150, 50, score=0.1)},
                900: {1: At(150, 50, score=0.1)},
                1000: {1: At(150, 50, label="car", score=0.9)},
                1500: {1: At(150, 50, label="car", score=0.9)},
            },
            {100: ["1 enter yard 0"], 1500: ["1 exit yard 0.8"]},
        ),
        (
            "a filter: until it has entered, it must hold without a break",
            {"only": Filter(min_area=0.01), "enter_s": 0.2},
            {
                0: {1: At(150, 50)},
                100: {1: At(150, 50, height=19)},
                200: {1: At(150, 50)},
                300: {1: At(150, 50)},
                400: {1: At(150, 50)},
            },
            {400: ["1 enter yard 0.2"]},
        ),
        (
            "the middle of the box: 10 above its lower edge",
            {"anchor": "center", "polygon": ((0, 0), (200, 0), (200, 50), (0, 50)), "exit_s": 0.0},
            {0: {1: (50, 60)}, 100: {1: (50, 61)}},
            {0: ["1 enter yard 0"], 100: ["1 exit yard 0"]},
        ),
        (
            "a concave zone: the gap between its legs is outside, the floor below is not",
            {"polygon": U, "exit_s": 0.0},
            {
                0: {1: (130, 30)},
                100: {1: (150, 30)},
                200: {1: (150, 60)},
                300: {1: (170, 30)},
                400: {1: (190, 30)},
            },
            {
                0: ["1 enter yard 0"],
                100: ["1 exit yard 0"],
                200: ["1 enter yard 0"],
                400: ["1 exit yard 0.1"],
            },
        ),
        (
            "two objects do not share a stay; an id that is switched inside is a new one",
            {},
            {0: {1: IN}, 100: {1: IN, 2: IN}, 200: {2: IN}, 2100: {1: "lost", 2: IN}, 2200: {2: "lost"}},
            {
                0: ["1 enter yard 0"],
                100: ["2 enter yard 0"],
                2100: ["1 exit yard 0.1 lost"],
                2200: ["2 exit yard 2 lost"],
            },
        ),
    ],
)
def test_what_one_object_does(
    why: str, options: dict[str, Any], frames: Frames, expected: dict[int, list[str]]
) -> None:
    assert play(Zones(Scene(zones={"yard": yard(**options)})), frames, moves) == expected, why


def test_zones_that_overlap_are_each_their_own() -> None:
    """Exits come before what else happens in a frame; the object says where it is and where it has been."""
    scene = Scene(
        zones={
            "door": Zone(((0.0, 0.0), (0.7, 0.0), (0.7, 1.0), (0.0, 1.0)), exit_s=0.0),
            "yard": yard(exit_s=0.0),
        }
    )
    player = Player(Zones(scene))
    seen = []
    for ms, x in ((0, 50), (100, 120), (200, 150), (300, 120), (400, 50), (500, 150), (600, 50)):
        facts = [moves(fact) for fact in player.frame(ms, {1: (x, 50)})]
        seen.append(([words for words in facts if words], list(player.items[1].zones)))
    assert seen == [
        (["1 enter door 0"], ["door"]),
        (["1 enter yard 0"], ["door", "yard"]),
        (["1 exit door 0.1"], ["yard"]),
        (["1 enter door 0"], ["yard", "door"]),
        (["1 exit yard 0.2"], ["door"]),
        (["1 exit door 0.1", "1 enter yard 0"], ["yard"]),
        (["1 exit yard 0", "1 enter door 0"], ["door"]),
    ]
    assert player.items[1].entered_zones == ["door", "yard"]
    item = player.items[1]
    assert [moves(fact) for fact in player.frame(700, {1: "end_of_file"}) if moves(fact)] == [
        "1 exit door 0 end_of_file"
    ]
    assert item.zones == []


def test_zones_that_are_drawn_anew_while_someone_is_in() -> None:
    zones = Zones(Scene(zones={"yard": yard(crowd=1, crowd_s=0.0), "old": yard(crowd=1, crowd_s=0.0)}))
    player = Player(zones)
    player.frame(0, {1: IN})
    assert player.items[1].zones == ["yard", "old"]
    left = ((0.0, 0.0), (0.4, 0.0), (0.4, 1.0), (0.0, 1.0))
    facts = zones.adopt(Scene(zones={"yard": Zone(left, dwell_s=0.3), "new": yard()}))
    assert [moves(fact) for fact in facts] == ["1 exit old 0 scene", ""]
    assert facts[1] == Fact("crowd", None, {"zone": "old", "count": 0, "counts": {}, "action": "end"})
    assert player.items[1].zones == ["yard"]
    # it is in the yard still; the yard has moved, so it is outside from now on, and out in half a second
    told = {
        ms: [moves(fact) for fact in player.frame(ms, {1: IN}) if fact.type == "zone"]
        for ms in (300, 700, 800)
    }
    assert told == {300: ["1 enter new 0"], 700: [], 800: ["1 exit yard 0"]}
    with pytest.raises(ConfigError):
        zones.adopt(Scene(zones={"yard": yard(exit_s=-1.0)}))
    assert player.items[1].zones == ["new"]


def test_normalised_zones_follow_the_size_of_the_frame() -> None:
    half = ((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0))
    zones = Zones(Scene(zones={"yard": Zone(half)}))
    player = Player(zones)
    player.frame(0, {1: OUT})
    item = player.items[1]
    zones.begin(header(100, width=80, height=100), None)
    assert [moves(fact) for fact in zones.see(item)] == ["1 enter yard 0"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"enter_s": -1.0}, r"zones\.yard\.enter_s is -1"),
        ({"exit_s": float("inf")}, r"zones\.yard\.exit_s is inf"),
        ({"dwell_s": float("nan")}, r"zones\.yard\.dwell_s is nan"),
        ({"crowd": 0}, r"zones\.yard\.crowd is 0"),
        ({"polygon": ((0.0, 0.0), (9.0, 9.0))}, r"zones\.yard\.polygon has 2 points"),
    ],
)
def test_zones_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        Zones(Scene(zones={"yard": yard(**options)}))
    assert raised.value.hint


def test_a_settling_time_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="settle_s is -1"):
        Zones(Scene(), settle_s=-1)
