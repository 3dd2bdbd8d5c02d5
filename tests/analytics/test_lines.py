"""Who crosses a line, where to, and in which frame."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.analytics.lines import Lines
from pipeline.analytics.objects import Fact
from pipeline.errors import ConfigError
from pipeline.messages import Filter, Line, Scene
from tests.analytics.playing import At, Frames, Player, play

#: Across a frame of 200 x 100 pixels at half its height, from x 50 to 150: left of it is above.
#: Boxes are 20 high, so with the margin of 0.05 one is settled 1 pixel away from it.
ENTRANCE = Line((50.0, 50.0), (150.0, 50.0), left="above", right="below", coordinates="pixels")


def say(fact: Fact) -> str:
    assert fact.type == "line"
    assert fact.item is not None
    assert set(fact.fields) == {"line", "direction"}
    return f"{fact.item.track_id} {fact.fields['line']} {fact.fields['direction']}"


def entrance(**options: Any) -> Lines:
    line = Line(**{name: getattr(ENTRANCE, name) for name in ENTRANCE.__struct_fields__} | options)
    return Lines(Scene(lines={"entrance": line}))


def way(*places: Any, step: int = 100) -> dict[int, dict[int, Any]]:
    """Object 1, one place a frame."""
    return {index * step: {1: place} for index, place in enumerate(places)}


@pytest.mark.parametrize(
    ("why", "options", "frames", "expected"),
    [
        (
            "down through the line",
            {},
            way((100, 40), (100, 48), (100, 52), (100, 60)),
            {200: ["1 entrance below"]},
        ),
        ("up through it", {}, way((100, 60), (100, 52), (100, 48)), {200: ["1 entrance above"]}),
        (
            "there and back are two",
            {},
            way((100, 40), (100, 60), (100, 40)),
            {100: ["1 entrance below"], 200: ["1 entrance above"]},
        ),
        ("a touch is none", {}, way((100, 40), (100, 50), (100, 40)), {}),
        (
            "over it by less than the margin, and back",
            {},
            way((100, 40), (100, 50.9), (100, 40), (100, 50.5)),
            {},
        ),
        (
            "on it, then beyond the margin: told there, once",
            {},
            way((100, 40), (100, 50), (100, 50.9), (100, 51), (100, 53), (100, 51)),
            {300: ["1 entrance below"]},
        ),
        ("swaying on the line for ever", {}, way((100, 40), *[(100, 49.5), (100, 50.5)] * 20), {}),
        (
            "a margin of a quarter of the height, 5 pixels",
            {"margin": 0.25},
            way((100, 44), (100, 46), (100, 54), (100, 55)),
            {300: ["1 entrance below"]},
        ),
        (
            "no margin: any step beyond it, none on it",
            {"margin": 0.0},
            way((100, 49), (100, 50), (100, 50.1)),
            {200: ["1 entrance below"]},
        ),
        (
            "frames dropped: the first frame on the other side",
            {},
            {0: {1: (100, 10)}, 4000: {1: (100, 90)}, 4100: {1: (100, 95)}},
            {4000: ["1 entrance below"]},
        ),
        (
            "not seen in some frames: the same",
            {},
            {0: {1: (100, 10)}, 100: {}, 200: {}, 300: {1: (100, 90)}},
            {300: ["1 entrance below"]},
        ),
        (
            "nor is it forgotten while it is open",
            {},
            {0: {1: (100, 10)}, **{ms: {} for ms in range(100, 3000, 100)}, 3000: {1: (100, 90)}},
            {3000: ["1 entrance below"]},
        ),
        ("around the end is none", {}, way((100, 40), (160, 45), (160, 55), (100, 60)), {}),
        ("past the end in one step is none", {}, way((170, 40), (160, 60)), {}),
        ("from inside to beyond the end, straight over its extension", {}, way((140, 30), (180, 60)), {}),
        ("over its very end is one", {}, way((140, 40), (160, 60)), {100: ["1 entrance below"]}),
        (
            "around the end and back through it is one, in the direction of the way back",
            {},
            way((100, 40), (170, 40), (170, 60), (100, 60), (100, 40)),
            {400: ["1 entrance above"]},
        ),
        (
            "on to the line, along it, past its end, and off on the other side there: it went around",
            {},
            way((140, 40), (140, 49.5), (160, 49.5), (160, 50.5), (160, 60)),
            {},
        ),
        (
            "on to the line, over it, then along it and off beyond its end: it went through",
            {},
            way((140, 40), (140, 49.5), (140, 50.5), (160, 50.5), (160, 60)),
            {400: ["1 entrance below"]},
        ),
        ("starts on the line and goes to a side: none", {}, way((100, 50), (100, 50.5), (100, 60)), {}),
        (
            "starts on the line, goes to a side, then crosses",
            {},
            way((100, 50), (100, 60), (100, 40)),
            {200: ["1 entrance above"]},
        ),
        ("ends on the line: none", {}, way((100, 40), (100, 50), "lost"), {}),
        (
            "the middle of the box, 10 above its lower edge, crosses later",
            {"anchor": "center"},
            way((100, 40), (100, 60), (100, 61)),
            {200: ["1 entrance below"]},
        ),
        (
            "another label is not counted",
            {"only": Filter(labels=("car",))},
            {
                0: {1: (100, 40), 2: At(110, 40, label="car")},
                100: {1: (100, 60), 2: At(110, 60, label="car")},
            },
            {100: ["2 entrance below"]},
        ),
        (
            "a score that dips on the line, after it was good",
            {"only": Filter(confidence=0.5)},
            way(At(100, 40, score=0.9), At(100, 49, score=0.3), At(100, 60, score=0.3)),
            {200: ["1 entrance below"]},
        ),
        (
            "a score that never was good; and good only before the crossing before",
            {"only": Filter(confidence=0.5)},
            way(
                At(100, 40, score=0.3),
                At(100, 60, score=0.3),
                At(100, 70, score=0.9),
                At(100, 40, score=0.3),
                At(100, 60, score=0.3),
            ),
            {300: ["1 entrance above"]},
        ),
        (
            "two objects at once, one each way",
            {},
            {0: {1: (80, 40), 2: (120, 60)}, 100: {1: (80, 60), 2: (120, 40)}},
            {100: ["1 entrance below", "2 entrance above"]},
        ),
    ],
)
def test_crossings(why: str, options: dict[str, Any], frames: Frames, expected: dict[int, list[str]]) -> None:
    assert play(entrance(**options), frames, say) == expected, why


@pytest.mark.parametrize(
    ("start", "end", "frames", "direction"),
    [
        ((0.0, 0.5), (1.0, 0.5), way((100, 60), (100, 40)), "left"),  # to the right: left is above
        ((1.0, 0.5), (0.0, 0.5), way((100, 60), (100, 40)), "right"),
        ((0.5, 1.0), (0.5, 0.0), way((120, 50), (80, 50)), "left"),  # up the picture: left is left
        ((0.5, 0.0), (0.5, 1.0), way((120, 50), (80, 50)), "right"),
        ((0.0, 0.0), (1.0, 1.0), way((100, 70), (150, 30)), "left"),  # down right: left is the upper right
    ],
)
def test_which_side_is_left(start: Any, end: Any, frames: Frames, direction: str) -> None:
    lines = Lines(Scene(lines={"l": Line(start, end, left="left", right="right")}))
    assert play(lines, frames, say) == {100: [f"1 l {direction}"]}


def test_several_lines_are_each_crossed_in_their_order() -> None:
    scene = Scene(
        lines={
            "first": Line((0.0, 0.3), (1.0, 0.3)),
            "second": Line((0.0, 0.6), (1.0, 0.6)),
            "upright": Line((0.5, 0.0), (0.5, 1.0)),
        }
    )
    frames = way((50, 20), (50, 40), (50, 80), (150, 80), (150, 20))
    assert play(Lines(scene), frames, say) == {
        100: ["1 first in"],
        200: ["1 second in"],
        300: ["1 upright out"],
        400: ["1 first out", "1 second out"],
    }


@pytest.mark.parametrize(
    ("why", "frames", "expected"),
    [
        (
            "lost above, found below as a new object: told of the new one, in its first frame",
            {0: {1: (100, 40)}, 100: {1: (100, 45)}, 200: {}, 300: {2: (100, 56)}, 400: {2: (100, 60)}},
            {300: ["2 entrance below"]},
        ),
        (
            "the old one ends later, and nothing more comes of it",
            {0: {1: (100, 45)}, 200: {2: (100, 56)}, 2000: {1: "lost", 2: (100, 60)}, 2100: {2: (100, 40)}},
            {200: ["2 entrance below"], 2100: ["2 entrance above"]},
        ),
        (
            "it had ended before",
            {0: {1: (100, 45)}, 100: {1: "lost"}, 200: {2: (100, 56)}},
            {200: ["2 entrance below"]},
        ),
        (
            "found on the line: told once it is beyond",
            {0: {1: (100, 45)}, 200: {2: (100, 50.5)}, 300: {2: (100, 56)}},
            {300: ["2 entrance below"]},
        ),
        (
            "lost on the line, having come from above",
            {0: {1: (100, 45)}, 100: {1: (100, 50.5)}, 200: {2: (100, 56)}},
            {200: ["2 entrance below"]},
        ),
        (
            "a new object on the same side is no crossing, and goes on for the lost one",
            {0: {1: (100, 45)}, 200: {2: (100, 46)}, 300: {2: (100, 46), 3: (100, 56)}},
            {},
        ),
        ("the limit of time counts", {0: {1: (100, 45)}, 1000: {2: (100, 56)}}, {1000: ["2 entrance below"]}),
        ("too late", {0: {1: (100, 45)}, 1001: {2: (100, 56)}}, {}),
        ("lost too far from the line", {0: {1: (100, 29)}, 200: {2: (100, 51)}}, {}),
        ("found too far from it", {0: {1: (100, 49)}, 200: {2: (100, 71)}}, {}),
        ("too far apart along the line", {0: {1: (60, 45)}, 200: {2: (105, 56)}}, {}),
        ("beside its end", {0: {1: (155, 45)}, 200: {2: (155, 56)}}, {}),
        ("another label", {0: {1: (100, 45)}, 200: {2: At(100, 56, label="car")}}, {}),
        (
            "who is still seen has not been lost",
            {0: {1: (100, 45)}, 200: {1: (100, 45), 2: (100, 56)}},
            {},
        ),
        (
            "who is there from the start follows nobody",
            {0: {1: (100, 45), 2: (100, 56)}, 200: {2: (100, 56)}},
            {},
        ),
        (
            "one lost, two found: the nearest follows it",
            {0: {1: (100, 45)}, 200: {2: (112, 56), 3: (101, 56)}},
            {200: ["3 entrance below"]},
        ),
        (
            "two lost, two found: each follows one",
            {0: {1: (80, 45), 2: (120, 56)}, 200: {3: (119, 45), 4: (81, 56)}},
            {200: ["3 entrance above", "4 entrance below"]},
        ),
        (
            "taken over, then seen again on the other side: counted once; its next crossing counts",
            {0: {1: (100, 45)}, 200: {2: (100, 56)}, 300: {1: (90, 56)}, 400: {1: (90, 40)}},
            {200: ["2 entrance below"], 400: ["1 entrance above"]},
        ),
        (
            "ids that go over from one to the other: both were seen on both sides",
            {0: {1: (90, 40), 2: (110, 60)}, 100: {1: (90, 60), 2: (110, 40)}},
            {100: ["1 entrance below", "2 entrance above"]},
        ),
    ],
)
def test_ids_that_change_on_the_line(why: str, frames: Frames, expected: dict[int, list[str]]) -> None:
    assert play(entrance(), frames, say) == expected, why


def test_no_handover_with_0() -> None:
    lines = Lines(Scene(lines={"entrance": ENTRANCE}), handover_s=0.0)
    assert play(lines, {0: {1: (100, 45)}, 100: {2: (100, 56)}}, say) == {}


def test_nothing_is_kept_of_objects_that_are_gone() -> None:
    lines = entrance()
    player = Player(lines)
    for number in range(50):
        player.frame(number * 3000, {number: (100, 45)})
        player.frame(number * 3000 + 2000, {number: "lost"})
    assert len(lines._gates["entrance"].ways) == 0


def test_lines_that_are_drawn_anew() -> None:
    """Where an object was counts at the line that stays; at the one that moved it begins anew."""
    lines = Lines(Scene(lines={"stays": ENTRANCE, "moves": ENTRANCE}))
    player = Player(lines)
    player.frame(0, {1: (100, 40)})
    moved = Line((0.0, 0.45), (1.0, 0.45))
    assert lines.adopt(Scene(lines={"stays": ENTRANCE, "moves": moved})) == []
    assert [say(fact) for fact in player.frame(100, {1: (100, 60)})] == ["1 stays below"]
    assert [say(fact) for fact in player.frame(200, {1: (100, 40)})] == ["1 stays above", "1 moves out"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"end": (50.0, 50.0)}, r"lines\.entrance starts where it ends"),
        ({"coordinates": "normalized"}, r"lines\.entrance has the point \[50\.0, 50\.0\]"),
        ({"margin": -0.1}, r"lines\.entrance\.margin is -0\.1"),
    ],
)
def test_lines_that_cannot_be(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        entrance(**options)
    assert raised.value.hint


def test_a_handover_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match="handover_s is nan"):
        Lines(Scene(), handover_s=float("nan"))
