"""Files that were put away: their names, how they are compressed in a thread, how many stay."""

from __future__ import annotations

import gzip
import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["OldFiles", "Rotation"]

log = logging.getLogger(__name__)

#: The end of a run waits so long for compression; what is left is done by the next run.
_CLOSE_S = 5.0
_CHUNK = 2**18


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a file makes room for a new one, and what becomes of it.

    Attributes:
        max_bytes: Before it is larger than that; None for any size.
        every_s: When the wall clock, UTC, comes to a multiple of that (3600: a full hour); None for never.
        keep: How many old files stay; None for all.
        compress: Old files are compressed, in a thread.
    """

    max_bytes: int | None = None
    every_s: float | None = None
    keep: int | None = None
    compress: bool = False

    @property
    def on(self) -> bool:
        """Whether there is any."""
        return self.max_bytes is not None or self.every_s is not None


class OldFiles:
    """The old files of one file: ``events.20260131T093000.250Z.jsonl``, by the time they were put away.

    Only names of just that form are ever touched. A file is compressed beside itself and goes when the
    compressed one is whole and on the disk, so a killed process costs none.

    Args:
        path: The file itself.
        rotation: Whether they are compressed, and how many stay.
    """

    def __init__(self, path: Path, rotation: Rotation) -> None:
        self._path, self._rotation = path, rotation
        name = rf"{re.escape(path.stem)}\.\d{{8}}T\d{{6}}\.\d{{3}}Z{re.escape(path.suffix)}"
        self._ours = re.compile(rf"({name})(\.gz|\.gz\.tmp)?")
        self._lock = threading.Lock()
        self._worker: threading.Thread | None = None
        self._again = False
        self._stop = threading.Event()

    def paths(self) -> list[Path]:
        """The files, oldest first; one that is just being compressed is there plain."""
        return [
            self._beside(name) if "" in kinds else self._beside(f"{name}.gz")
            for name, kinds in sorted(self._found().items())
            if kinds != {".gz.tmp"}
        ]

    def name_of(self, utc_s: float) -> Path:
        """A name that is free, for a file that is put away at that time.

        Raises:
            FileExistsError: a thousand are taken.
        """
        at_ms = int(utc_s * 1000)
        found = self._found()
        for ms in range(at_ms, at_ms + 1000):  # Two within a millisecond: names are told apart, and in order.
            moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime(ms // 1000))
            name = f"{self._path.stem}.{moment}.{ms % 1000:03d}Z{self._path.suffix}"
            if name not in found:
                return self._beside(name)
        raise FileExistsError(f"{self._beside(name)} and a thousand like it are there already")

    def tend(self) -> None:
        """Compress what is to be compressed, in a thread, then forget what is too much."""
        if not self._rotation.compress:
            self._forget()
            return
        with self._lock:
            self._again = True
            if self._worker is None:
                self._worker = threading.Thread(target=self._work, name="compress", daemon=True)
                self._worker.start()

    def close(self) -> None:
        """Wait for the thread, but not for long."""
        with self._lock:
            worker = self._worker
        if worker is not None:
            worker.join(_CLOSE_S)
            self._stop.set()
            worker.join()

    def _work(self) -> None:
        # One thread at a time, so no two write the same file.
        while True:
            with self._lock:
                if not self._again or self._stop.is_set():
                    self._worker = None
                    return
                self._again = False
            for name, kinds in sorted(self._found().items()):
                if "" in kinds:
                    self._compress(self._beside(name))
                elif ".gz.tmp" in kinds:
                    self._beside(f"{name}.gz.tmp").unlink(missing_ok=True)
            self._forget()

    def _compress(self, path: Path) -> None:
        target = path.with_name(f"{path.name}.gz")
        scratch = path.with_name(f"{path.name}.gz.tmp")
        try:
            with path.open("rb") as plain, scratch.open("wb") as file:
                with gzip.GzipFile(path.name, "wb", compresslevel=6, fileobj=file) as packed:
                    while chunk := plain.read(_CHUNK):
                        packed.write(chunk)
                        if self._stop.is_set():
                            return
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(target)
            path.unlink()
        except FileNotFoundError:
            scratch.unlink(missing_ok=True)  # Somebody has removed it.
        except OSError as error:
            log.warning("%s stays as it is, not compressed: %s", path, error.strerror or error)
            scratch.unlink(missing_ok=True)

    def _forget(self) -> None:
        if self._rotation.keep is None:
            return
        for name, kinds in sorted(self._found().items())[: -self._rotation.keep or None]:
            for kind in kinds:
                try:
                    self._beside(f"{name}{kind}").unlink(missing_ok=True)
                except OSError as error:
                    log.warning("%s%s stays: %s", self._beside(name), kind, error.strerror or error)

    def _found(self) -> dict[str, set[str]]:
        """By name, what there is of it: ``""``, ``.gz``, ``.gz.tmp``."""
        found: dict[str, set[str]] = {}
        for match in self._matches():
            found.setdefault(match[1], set()).add(match[2] or "")
        return found

    def _matches(self) -> Iterator[re.Match[str]]:
        with os.scandir(self._path.parent) as entries:
            for entry in entries:
                if match := self._ours.fullmatch(entry.name):
                    yield match

    def _beside(self, name: str) -> Path:
        return self._path.with_name(name)
