"""Run folders: private, locked while their supervisor lives, swept when it is dead."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from pipeline.errors import TransportError
from pipeline.runtime import rundir
from pipeline.runtime.rundir import RunDir, runtime_root, stale_runs, sweep
from pipeline.transport.shm import PREFIX
from tests.helpers import names_in

pytestmark = pytest.mark.usefixtures("run_dir")


def die(run: RunDir) -> None:
    """What the kernel does when the supervisor is killed."""
    os.close(run._lock)


def leave(shm: Path, run: RunDir, *names: str) -> None:
    for name in names:
        (shm / f"{PREFIX}{run.run_id}-{name}").write_bytes(b"\0")


def test_a_run_has_a_private_folder_and_removes_it(run_dir: Path, shm: Path) -> None:
    with RunDir() as run:
        assert run.path.parent == runtime_root() == run_dir
        assert run.path.stat().st_mode & 0o777 == 0o700
        assert run_dir.stat().st_mode & 0o777 == 0o700
        leave(shm, run, "frames-gate-1", "books-gate")
        (shm / "framewire-other-books").touch()
        (run.path / "infer-0.stderr").touch()
    assert names_in(run_dir) == []
    assert names_in(shm) == ["framewire-other-books"]


def test_only_dead_runs_are_swept(run_dir: Path, shm: Path) -> None:
    living, dead = RunDir(), RunDir()
    leave(shm, living, "books-gate")
    leave(shm, dead, "books-gate", "frames-gate-1", "infer-0-infer-0")
    assert stale_runs() == []
    assert sweep() == 0
    die(dead)
    assert stale_runs() == [dead.path]
    assert sweep() == 1
    assert names_in(run_dir) == [living.run_id]
    assert names_in(shm) == [f"{PREFIX}{living.run_id}-books-gate"]
    assert sweep() == 0
    living.remove()
    assert names_in(shm) == []


def test_nothing_to_sweep_and_folders_that_are_no_runs(run_dir: Path) -> None:
    assert sweep() == 0
    (run_dir / "keep-me").mkdir(parents=True)
    assert sweep() == 0
    assert names_in(run_dir) == ["keep-me"]


def test_a_run_that_is_just_being_made_is_not_taken_for_a_dead_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs start at once: the second sweeps while the first has its folder and not yet its lock."""
    seen: list[list[Path]] = []
    flock = fcntl.flock

    def slow_flock(fd: int, operation: int) -> None:
        if operation == fcntl.LOCK_EX and not seen:
            seen.append([])
            seen[0] = stale_runs()
        flock(fd, operation)

    monkeypatch.setattr(fcntl, "flock", slow_flock)
    with RunDir() as run:
        assert seen == [[]]
        assert run.path.is_dir()


def test_another_process_may_sweep_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    dead = [RunDir(), RunDir()]
    for run in dead:
        die(run)
    opened = os.open

    def raced(path: str | Path, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if dir_fd is None and Path(path).name == "lock":
            rundir._remove(Path(path).parent)  # the other one is quicker
        return opened(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", raced)
    assert stale_runs() == []


def test_too_long_a_path_for_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FRAMEWIRE_RUNTIME_DIR", str(tmp_path / ("x" * 100)))
    with pytest.raises(TransportError, match="too long a path for a socket") as raised:
        RunDir()
    assert "FRAMEWIRE_RUNTIME_DIR" in raised.value.hint


def test_the_longest_socket_of_a_run_fits_the_longest_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(tmp_path)
    root += "/" + "y" * (107 - 24 - 1 - 9 - len(root) - 1)
    monkeypatch.setenv("FRAMEWIRE_RUNTIME_DIR", root)
    with RunDir() as run:
        assert all(len(f"{run.path}/{name}") <= 107 for name in ("postprocess-63", "bell-9999", "control"))
    monkeypatch.setenv("FRAMEWIRE_RUNTIME_DIR", root + "y")
    with pytest.raises(TransportError, match="too long"):
        RunDir()


def test_a_root_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FRAMEWIRE_RUNTIME_DIR", str(tmp_path / "file" / "runs"))
    with pytest.raises(TransportError, match=r"cannot make .*: Not a directory") as raised:
        RunDir()
    assert "FRAMEWIRE_RUNTIME_DIR" in raised.value.hint


def test_a_root_of_somebody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: os.geteuid() + 1)
    with pytest.raises(TransportError, match="belongs to another user"):
        RunDir()


def test_where_run_folders_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FRAMEWIRE_RUNTIME_DIR")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert runtime_root() == tmp_path / "framewire"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert runtime_root().name == f"framewire-{os.getuid()}"
