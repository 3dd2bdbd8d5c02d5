"""Every file in valid/ is taken, every one in invalid/ refused with the words on its first line."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import Config, load
from pipeline.errors import ConfigError

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
VALID = sorted([*(HERE / "valid").glob("*.yaml"), *(ROOT / "configs").glob("*.yaml")])
INVALID = sorted((HERE / "invalid").glob("*.yaml"))


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_valid(path: Path) -> None:
    environ = dict.fromkeys(("CAMERA_PASSWORD", "YARD_PASSWORD", "MQTT_PASSWORD"), "a/b@c")
    assert isinstance(load(path, environ=environ), Config)


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_invalid(path: Path) -> None:
    expected = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
    with pytest.raises(ConfigError) as caught:
        load(path, environ={})
    error = caught.value
    text = f"{error.message} -> {error.hint}"
    assert expected in text
    assert str(path) in text, "the file is named"
    assert "\n" not in text, "one error, one line"
    assert error.hint, "says what to write"
