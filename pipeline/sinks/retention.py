"""Forget old files: by age, by size, and before a disk is full."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["Retention"]

log = logging.getLogger(__name__)

_EVERY_S = 60.0
#: What is newer may still be written, or is just being looked at.
_NEW_S = 60.0
_MIN_FREE_BYTES = 256 * 2**20


class Retention:
    """Keeps the files of some folders within bounds; the oldest go first.

    Args:
        folders: The folders, with all below them; they need not be there.
        keep_s: Age at which files go; None for any.
        max_bytes: Most bytes of all together; None for any.
        min_free_bytes: So much of the disk stays free.
        clock: Gives UTC seconds.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        keep_s: float | None = None,
        max_bytes: int | None = None,
        min_free_bytes: int = _MIN_FREE_BYTES,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folders = tuple(folders)
        self._keep_s, self._max_bytes, self._min_free = keep_s, max_bytes, min_free_bytes
        self._clock = clock
        self._next = float("-inf")
        self.removed = 0

    def tick(self) -> None:
        """Sweep once a minute."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY_S
            self.sweep()

    def sweep(self) -> int:
        """Remove what must go; how many files that were."""
        now = self._clock()
        files: list[tuple[float, int, Path]] = []
        for folder in self._folders:
            files += self._found(folder)
        files.sort()
        held = sum(size for _, size, _ in files)
        short = self._short()
        removed = 0
        for modified, size, path in files:
            old = self._keep_s is not None and now - modified > self._keep_s
            over = self._max_bytes is not None and held > self._max_bytes
            if not (old or over or short > 0) or now - modified < _NEW_S:
                break
            try:
                path.unlink()
            except FileNotFoundError:
                continue
            except OSError as error:
                log.warning("cannot remove %s: %s", path, error.strerror or error)
                continue
            held -= size
            short -= size
            removed += 1
        if removed and short > -self._min_free:
            log.info("%d old files removed", removed)
        self.removed += removed
        return removed

    @staticmethod
    def _found(folder: Path) -> list[tuple[float, int, Path]]:
        found = []
        for root, _, names in os.walk(folder):
            for name in names:
                path = Path(root) / name
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                if not name.startswith(".") and not name.endswith(".tmp"):
                    found.append((status.st_mtime, status.st_size, path))
        return found

    def _short(self) -> int:
        """Bytes by which the disk has too little left."""
        there = next((folder for folder in self._folders if folder.is_dir()), None)
        if there is None:
            return 0
        return self._min_free - shutil.disk_usage(there).free
