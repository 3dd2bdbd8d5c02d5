from __future__ import annotations

from typing import Any

import pytest
import yaml

from pipeline.config.variables import expand
from pipeline.sources.discovery.onvif import Details, Profile
from pipeline.sources.discovery.probe import Device
from pipeline.sources.discovery.snippet import as_yaml, best_profile


def profile(width: int, url: str = "rtsp://h/x", **more: Any) -> Profile:
    return Profile(f"p{width}", "H264", width, width * 9 // 16, url=url, **more)


@pytest.mark.parametrize(
    ("widths", "best"), [((3840, 1280, 640, 320), 640), ((320, 176), 320), ((1920,), 1920), ((), None)]
)
def test_the_stream_that_a_detector_wants(widths: tuple[int, ...], best: int | None) -> None:
    chosen = best_profile([profile(width) for width in widths])
    assert (chosen.width if chosen else None) == best
    assert best_profile([profile(640, url="")]) is None


def test_a_config_can_be_pasted_and_says_nothing_that_it_should_not() -> None:
    found: list[tuple[Device, Details | None]] = [
        (Device("a", ["10.0.0.7"], name="Front door: #1"), Details(profiles=[profile(2560), profile(640)])),
        (
            Device("b", ["10.0.0.8"], name="Front door: #1"),
            Details(profiles=[profile(640, "rtsp://h/${HOME}$x")]),
        ),
        (Device("c", ["10.0.0.9"]), Details(profiles=[profile(640, "rtsp://h/password=***_1")])),
        (Device("d", ["10.0.0.10"], name="rogue"), Details(profiles=[profile(640, elsewhere=True)])),
        (Device("e", ["10.0.0.11"], name="shy"), Details(refused="it tells nobody")),
        (Device("f", ["10.0.0.12"], name="not asked"), None),
    ]
    text = as_yaml(found, user_variable="ONVIF_USER", password_variable="ONVIF_PASSWORD", login=True)
    sources = yaml.safe_load(text)["sources"]
    assert list(sources) == ["front_door_1", "front_door_1_2", "camera_10_0_0_9"]
    assert sources["front_door_1"] == {
        "url": "rtsp://h/x", "username": "${ONVIF_USER}", "password": "${ONVIF_PASSWORD}"
    }  # fmt: skip
    environ = {"HOME": "/secret", "PASSWORD_IN_URL": "typed"}
    assert expand(sources["front_door_1_2"]["url"], environ) == "rtsp://h/${HOME}$x"
    assert expand(sources["camera_10_0_0_9"]["url"], environ) == "rtsp://h/password=typed_1"
    for words in ("p2560", "CAREFUL", "it tells nobody", "not asked"):
        assert words in text
    empty = as_yaml([], user_variable="U", password_variable="P", login=False)
    assert yaml.safe_load(empty) == {"sources": {}}
