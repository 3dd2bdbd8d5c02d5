"""Pools and books of these tests lie in a folder of each test's own; links are quick to notice a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.transport import link
from tests.transport.link_bench import Bench


@pytest.fixture(autouse=True)
def shm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "shm"
    folder.mkdir()
    monkeypatch.setenv("FRAMEWIRE_SHM_DIR", str(folder))
    return folder


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Greet often, so that a restart is noticed at once."""
    monkeypatch.setattr(link, "_GREET_S", 0.02)
    monkeypatch.setattr(link, "_KEEP_S", 0.02)
    monkeypatch.setattr(link, "_LINGER_MS", 0)
    monkeypatch.setattr(link, "_RETIRED_S", 0.3, raising=False)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


@pytest.fixture(params=["ipc", "tcp"])
def endpoint(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"ipc://{tmp_path}/link" if request.param == "ipc" else "tcp://127.0.0.1:*"
