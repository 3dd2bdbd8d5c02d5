"""Run folders: where a run's sockets lie, and how what a killed run left behind is found and removed.

A run holds a lock on a file in its folder for as long as its supervisor lives; the kernel lets go of it
however the supervisor ends. So a folder whose lock can be taken belongs to nobody, and everything that
carries its run id (sockets, pools, books) may go.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
from pathlib import Path

from pipeline.errors import TransportError
from pipeline.transport.shm import PREFIX, shm_dir

__all__ = ["RunDir", "running_runs", "runtime_root", "stale_runs", "sweep"]

_LOCK = "lock"
_UNBORN = "."
_PATH_MAX = 107  # of a unix socket, Linux; 103 on macOS


def runtime_root() -> Path:
    """Folder of all run folders: ``FRAMEWIRE_RUNTIME_DIR``, else in XDG_RUNTIME_DIR, else a temporary one."""
    chosen = os.environ.get("FRAMEWIRE_RUNTIME_DIR")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and os.access(base, os.W_OK):
        return Path(base) / "framewire"
    return Path(tempfile.gettempdir()) / f"framewire-{os.getuid()}"


class RunDir:
    """The folder of one run, locked while this object lives. Use as a context manager."""

    def __init__(self) -> None:
        root = runtime_root()
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise TransportError(
                f"cannot make {root}: {error.strerror}", hint="set FRAMEWIRE_RUNTIME_DIR to a folder you own"
            ) from error
        if root.stat().st_uid != os.getuid():
            raise TransportError(f"{root} belongs to another user", hint="set FRAMEWIRE_RUNTIME_DIR")
        self.run_id = secrets.token_hex(4)
        self.path = root / self.run_id
        if len(str(self.path)) + len("/") + 24 > _PATH_MAX:
            raise TransportError(
                f"{root} is too long a path for a socket", hint="set FRAMEWIRE_RUNTIME_DIR to a shorter one"
            )
        # Made and locked under a name that no sweep looks at: a folder without a lock is a dead run's.
        unborn = root / f"{_UNBORN}{self.run_id}"
        unborn.mkdir(mode=0o700)
        self._lock = os.open(unborn / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        unborn.rename(self.path)

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove the folder and everything of this run in shared memory."""
        _remove(self.path)
        os.close(self._lock)


def _remove(path: Path) -> None:
    for left in shm_dir().glob(f"{PREFIX}{path.name}-*"):
        left.unlink(missing_ok=True)
    shutil.rmtree(path, ignore_errors=True)


def stale_runs() -> list[Path]:
    """Run folders whose supervisor is dead."""
    return [path for path, alive in _runs() if not alive]


def running_runs() -> list[Path]:
    """Run folders of this user whose supervisor lives."""
    return [path for path, alive in _runs() if alive]


def _runs() -> list[tuple[Path, bool]]:
    root = runtime_root()
    found = []
    for path in sorted(root.iterdir()) if root.is_dir() else []:
        if path.name.startswith(_UNBORN):
            continue
        try:
            fd = os.open(path / _LOCK, os.O_RDWR)
        except (FileNotFoundError, NotADirectoryError):
            continue  # Not a run, or another start has just swept it.
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found.append((path, False))
        except BlockingIOError:
            found.append((path, True))
        finally:
            os.close(fd)
    return found


def sweep() -> int:
    """Remove what dead runs left behind; how many there were."""
    runs = stale_runs()
    for path in runs:
        _remove(path)
    return len(runs)
