"""Fixtures that all tests share, and the check that a test run leaves nothing behind."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples in every run. `--hypothesis-profile explore` looks for others.
settings.register_profile("repeatable", derandomize=True)
settings.register_profile("explore", derandomize=False, print_blob=True)
settings.load_profile("repeatable")

ROOT = Path(__file__).resolve().parents[1]
ASSETS = ROOT.parent / "shared" / "assets"
SHM = Path("/dev/shm")


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heard() -> None:
    """A run in the background of a shell has SIGINT ignored, and would hand that on to all that it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def assets() -> Path:
    """Folder of real videos, images and models beside the project, where there is one."""
    if not ASSETS.is_dir():
        pytest.skip(f"the real assets are not here ({ASSETS.parent.name}/{ASSETS.name} beside the project)")
    return ASSETS


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime folder of this test's own, so that no other run is seen or swept."""
    folder = tmp_path / "runs"
    monkeypatch.setenv("FRAMEWIRE_RUNTIME_DIR", str(folder))
    return folder


@pytest.fixture(scope="session", autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    """Give the tests folders of their own, where other runs on this machine do not count; then look there."""
    shm = Path(tempfile.mkdtemp(prefix="fwtest-", dir=SHM if SHM.is_dir() else None))
    runs = Path(tempfile.mkdtemp(prefix="fwtest-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FRAMEWIRE_SHM_DIR", str(shm))
        patch.setenv("FRAMEWIRE_RUNTIME_DIR", str(runs))
        yield
    left = [path.name for folder in (shm, runs) for path in sorted(folder.iterdir())]
    shutil.rmtree(shm)
    shutil.rmtree(runs)
    assert not left, f"the tests left {len(left)} pools or runs behind: {', '.join(left[:5])}"
