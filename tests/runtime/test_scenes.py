"""Scenes of sources, from the supervisor to the stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import from_mapping
from pipeline.errors import TransportError
from pipeline.messages import Filter, Line, Scene, Zone
from pipeline.runtime.scenes import SceneFiles, scene_of

YARD = Zone(((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)), only=Filter(("person",), 0.5))
SCENE = Scene(zones={"yard": YARD}, lines={"door": Line((0.1, 0.2), (0.3, 0.4))}, moving=True)


class Clock:
    """Seconds that are set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_is_put_is_got_elsewhere(tmp_path: Path) -> None:
    clock = Clock()
    writer, reader = SceneFiles(tmp_path), SceneFiles(tmp_path, clock)
    assert reader.get("gate") == Scene()
    writer.put("gate", SCENE)
    assert reader.get("gate") == Scene(), "it is not looked for with every frame"
    clock.now = 0.6
    assert reader.get("gate") == SCENE
    assert reader.get("yard") == Scene()


def test_the_same_scene_is_the_same_object(tmp_path: Path) -> None:
    clock = Clock()
    files = SceneFiles(tmp_path, clock)
    files.put("gate", SCENE)
    first = files.get("gate")
    clock.now = 10.0
    assert files.get("gate") is first
    files.put("gate", Scene())
    clock.now = 20.0
    assert files.get("gate") == Scene()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="cannot write"):
        SceneFiles(tmp_path / "gone").put("gate", SCENE)


def test_from_a_config() -> None:
    yard = {"polygon": [[0, 0], [1, 0], [1, 1]], "labels": ["person"], "confidence": 0.5}
    config = from_mapping(
        {
            "sources": {"gate": {"url": "a.mp4", "moving": True}, "yard": "b.mp4"},
            "zones": {"gate": {"yard": yard}},
            "lines": {"gate": {"door": {"from": [0.1, 0.2], "to": [0.3, 0.4]}}},
        },
        "test",
    )  # fmt: skip
    assert scene_of(config, "gate") == SCENE
    assert scene_of(config, "yard") == Scene()
    assert scene_of(config, "nobody") == Scene()
