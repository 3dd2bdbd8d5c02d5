"""Zones, lines, masks, ground, closing and trackers: what they come to. What is wrong is in invalid/."""

from __future__ import annotations

import inspect
import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.analytics.closing import Closing as ClosingObserver
from pipeline.analytics.ground import check_ground
from pipeline.config import Closing, Config, Line, Mask, Track, Zone, from_mapping, load
from pipeline.config.points import check_polygon, turn
from pipeline.errors import ConfigError
from pipeline.messages import EventType
from pipeline.messages import scene as messages
from pipeline.tracking import TRACKERS, build_tracker

HERE = Path(__file__).parent


def read(folder: Path, text: str) -> Config:
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return load(path, environ={})


def scene(config: Config, name: str) -> messages.Scene:
    return msgspec.convert(config.scene(name), messages.Scene)


def test_a_scene_is_what_was_written() -> None:
    config = load(HERE / "valid" / "drawn.yaml", environ={})
    gate = scene(config, "gate")
    assert gate.zones["driveway"] == messages.Zone(
        polygon=((0, 0.5), (1, 0.5), (1, 1), (0, 1)),
        only=messages.Filter(("person", "car"), 0.5, 0.001, 1.0, 0.2, 4.0),
        dwell_s=10,
        crowd=5,
        crowd_s=2,
    )
    assert gate.zones["porch"] == messages.Zone(
        polygon=((100, 50), (300, 50), (300, 200)), coordinates="pixels", anchor="center"
    ), "a ring that ends where it began has that corner once"
    assert gate.lines == {
        "entrance": messages.Line((0.2, 0.8), (0.8, 0.8), only=messages.Filter(("person",)))
    }
    assert gate.masks == {"tree": messages.Mask(((0, 0), (0.2, 0), (0, 0.3)), hides="both", anchor="center")}
    assert gate.ground is not None
    assert gate.ground.metres[2] == (5.0, 20.0)
    assert (gate.moving, scene(config, "dash").moving) == (False, True)
    assert scene(config, "dash") == messages.Scene(moving=True)


def test_defaults_are_those_of_the_messages() -> None:
    plain = from_mapping(
        {
            "zones": {"a": {"z": {"polygon": [[0, 0], [1, 0], [1, 1]]}}},
            "lines": {"a": {"l": {"from": [0, 0], "to": [1, 1]}}},
            "masks": {"a": {"m": {"polygon": [[0, 0], [1, 0], [1, 1]]}}},
        },
        "test",
    )
    found = scene(plain, "a")
    corners = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))
    assert found.zones["z"] == messages.Zone(corners)
    assert found.lines["l"] == messages.Line((0.0, 0.0), (1.0, 1.0))
    assert found.masks["m"] == messages.Mask(corners)


@pytest.mark.parametrize(
    ("section", "message"), [(Zone, messages.Zone), (Mask, messages.Mask), (Line, messages.Line)]
)
def test_nothing_is_forgotten(section: type[Any], message: type[Any]) -> None:
    fields = {field.name for field in msgspec.structs.fields(message)}
    if "only" in fields:
        fields = fields - {"only"} | {field.name for field in msgspec.structs.fields(messages.Filter)}
    assert set(section.model_fields) == fields


def test_closing_is_that_of_the_observer() -> None:
    ClosingObserver(**Closing().options())
    defaults = {name: p.default for name, p in inspect.signature(ClosingObserver).parameters.items()}
    assert Closing().options().items() <= defaults.items()


@pytest.mark.parametrize("value", [True, {}, {"labels": ["car"]}])
def test_closing_can_be_short(value: Any) -> None:
    config = from_mapping({"sources": {"a": {"url": "a.mp4", "moving": True}}, "closing": value}, "test")
    assert config.closing is not None
    assert config.closing.notice_s == 4.0
    assert from_mapping({"closing": False}, "test").closing is None


@pytest.mark.parametrize(
    ("track", "still", "moving"),
    [
        ({}, "bytetrack", "botsort"),
        ({"reid": "x.onnx"}, "botsort", "botsort"),
        ({"algorithm": "sort"}, "sort", "sort"),
        ({"algorithm": "none"}, "none", "none"),
    ],
)
def test_auto_takes_the_tracker_that_fits(track: dict[str, Any], still: str, moving: str) -> None:
    found = from_mapping({"track": track}, "test").track
    assert (found.algorithm_for(moving=False), found.algorithm_for(moving=True)) == (still, moving)


@pytest.mark.parametrize("algorithm", ["sort", "bytetrack", "ocsort", "botsort"])
def test_every_tracker_takes_the_options(algorithm: str) -> None:
    given = {"min_frames": 1, "activation": 0.3, "high": 0.5, "min_iou": 0.2, "class_agnostic": True}
    if algorithm == "sort":
        del given["high"]
    track = from_mapping({"track": {"algorithm": algorithm, **given}}, "test").track
    assert algorithm in TRACKERS
    build_tracker(algorithm, **track.options())
    assert track.options() == given
    assert from_mapping({}, "test").track.options() == {}


def test_sources_may_come_later(tmp_path: Path) -> None:
    text = "zones: {gate: {z: {polygon: [[0, 0], [1, 0], [1, 1]]}}}\nclosing: true\n"
    assert list(read(tmp_path, text).zones) == ["gate"]
    with pytest.raises(ConfigError, match="is for a source that is not there"):
        load(tmp_path / "config.yaml", {"sources": {"clip": "clip.mp4"}})


def ring(count: int, seed: int) -> list[tuple[float, float]]:
    """Corners around a middle, each at its own distance: a polygon that never meets itself."""
    rng = random.Random(seed)
    turns = [2 * math.pi * (index + rng.uniform(0, 0.8)) / count for index in range(count)]
    far = [rng.uniform(0.2, 0.5) for _ in turns]
    return [(0.5 + r * math.cos(t), 0.5 + r * math.sin(t)) for r, t in zip(far, turns, strict=True)]


@given(st.integers(5, 30), st.integers(0, 10**6), st.booleans())
def test_any_simple_polygon_is_taken(count: int, seed: int, mirrored: bool) -> None:
    corners = ring(count, seed)
    check_polygon(tuple(corners[::-1] if mirrored else corners))


@given(st.integers(5, 30), st.integers(0, 10**6), st.integers(0, 29))
def test_two_corners_swapped_cross(count: int, seed: int, at: int) -> None:
    # On a circle, where exchanging neighbours always crosses.
    turns = [math.atan2(y - 0.5, x - 0.5) for x, y in ring(count, seed)]
    corners = [(math.cos(angle), math.sin(angle)) for angle in turns]
    one, other = at % count, (at + 1) % count
    corners[one], corners[other] = corners[other], corners[one]
    with pytest.raises(ValueError, match="crosses itself"):
        check_polygon(tuple(corners))


def test_a_turn_is_the_same_at_any_size() -> None:
    for size in (1e-3, 1.0, 4000.0):
        assert turn((0, 0), (size, 0), (size, size)) == 1
        assert turn((0, 0), (0.1 * size, 0.1 * size), (0.3 * size, 0.3 * size)) == 0


@given(st.lists(st.tuples(*[st.integers(0, 8)] * 2), min_size=8, max_size=8), st.booleans())
def test_a_calibration_is_taken_that_a_run_takes(points: list[tuple[int, int]], mirrored: bool) -> None:
    seen = [(x / 8, y / 8) for x, y in points[:4]]
    # Half of the time the same points, or their mirror image, on the ground: those always fit.
    real = [(-x if mirrored else x, y) for x, y in (points[4:] if points[4][0] > 4 else points[:4])]
    plain = {"points": seen, "metres": real}
    messages_ground = msgspec.convert(plain, messages.Ground)

    def refused(check: Callable[[], object]) -> bool:
        try:
            check()
        except ConfigError:
            return True
        return False

    in_config = refused(lambda: from_mapping({"ground": {"a": plain}}, "test"))
    assert in_config == refused(lambda: check_ground("ground", messages_ground))


DOCS = (HERE.parents[1] / "docs" / "zones.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_the_docs_are_valid(snippet: str, tmp_path: Path) -> None:
    if "sources:" not in snippet:
        snippet = f"sources: {{gate: a.mp4}}\n{snippet}"
    assert read(tmp_path, snippet) != read(tmp_path, "sources: {gate: a.mp4}\n")


def test_the_docs_have_all_that_can_be_drawn() -> None:
    keys = {key for snippet in SNIPPETS for key in re.findall(r"(\w+):", snippet)}
    assert {"zones", "lines", "masks", "ground", "privacy", "closing", "moving", "track"} <= keys
    for section in (Zone, Line, Mask, Closing):
        for name, field in section.model_fields.items():
            assert f"`{field.alias or name}" in DOCS or (field.alias or name) in keys, name
    for event in get_args(EventType):
        if event not in ("start", "source", "clip", "log"):
            assert f"`{event}`" in DOCS, event


def test_the_tracking_table_has_the_defaults() -> None:
    rows = {
        row.split("|")[1].strip(" `"): row.split("|")[2].strip(" `")
        for row in DOCS.splitlines()
        if "|" in row
    }
    for name in ("algorithm", "lost_after_s", "class_agnostic"):
        default = Track.model_fields[name].default
        assert rows[name] == (str(default).lower() if isinstance(default, bool) else str(default))
