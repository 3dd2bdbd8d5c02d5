"""The lock pins everything by hash and names no address."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "requirements.lock").read_text(encoding="utf-8")
REQUIREMENTS = [entry for entry in re.split(r"\n(?=\S)", TEXT.strip()) if entry]


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_no_address() -> None:
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links|\s@\s", TEXT)


def test_every_requirement_is_pinned_and_hashed() -> None:
    wrong = [
        entry.splitlines()[0]
        for entry in REQUIREMENTS
        if not re.match(r"[A-Za-z0-9._-]+==\S+", entry) or not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)
    ]
    assert REQUIREMENTS
    assert not wrong


def test_every_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    wanted += [*project["optional-dependencies"]["demo"]]
    names = {plain(re.split(r"[^A-Za-z0-9._-]", entry)[0]) for entry in wanted} - {plain(project["name"])}
    assert not names - {plain(entry.partition("==")[0]) for entry in REQUIREMENTS}
