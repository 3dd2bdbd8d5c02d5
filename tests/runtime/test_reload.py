"""What a changed config means for a run that goes on."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.config import Config, from_mapping
from pipeline.runtime.reload import Changes, compare

BASE: dict[str, Any] = {
    "sources": {"gate": {"url": "rtsp://10.0.0.7/1", "max_fps": 5}, "yard": "rtsp://10.0.0.8/1"},
    "model": {"name": "fake"},
}


def config(**changes: Any) -> Config:
    return from_mapping({**BASE, **changes}, "test")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Changes()),
        ({"sources": {**BASE["sources"], "lane": "rtsp://10.0.0.9/1"}}, Changes(added=("lane",))),
        ({"sources": {"gate": BASE["sources"]["gate"]}}, Changes(removed=("yard",))),
        (
            {"sources": {**BASE["sources"], "gate": {"url": "rtsp://10.0.0.7/1", "max_fps": 6}}},
            Changes(changed=("gate",)),
        ),
        (
            {"sources": {**BASE["sources"], "gate": {**BASE["sources"]["gate"], "username": "viewer"}}},
            Changes(changed=("gate",)),
        ),
        ({"sources": {"yard": BASE["sources"]["yard"], "gate": BASE["sources"]["gate"]}}, Changes()),
        ({"model": {"name": "fake", "confidence": 0.7}}, Changes(restart=("model.confidence",))),
        (
            {"model": {"name": "fake?ms=5"}, "publish": [{"zmq": "tcp://127.0.0.1:5556"}]},
            Changes(restart=("model.name", "publish")),
        ),
        (
            {"sources": {"lane": "rtsp://10.0.0.9/1"}, "run": {"slots": 9}},
            Changes(added=("lane",), removed=("gate", "yard"), restart=("run.slots",)),
        ),
    ],
)
def test_compare(changes: dict[str, Any], expected: Changes) -> None:
    found = compare(config(), config(**changes))
    assert found == expected
    assert bool(found) == (expected != Changes())


def test_a_changed_password_is_a_changed_source() -> None:
    def of(password: str) -> Config:
        source = {"url": "rtsp://10.0.0.7/1", "username": "viewer", "password": password}
        return config(sources={"gate": source})

    assert compare(of("old"), of("new")) == Changes(changed=("gate",))
    assert compare(of("old"), of("old")) == Changes()
