"""A file to which whole lines are appended: cut where it was torn, rotated, compressed."""

from __future__ import annotations

import contextlib
import gzip
import logging
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import SinkError

__all__ = ["AppendFile", "Rotation", "glob_escaped", "of_source", "unwritable"]

log = logging.getLogger(__name__)


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


class AppendFile:
    """Appends what belongs together in one ``write`` of whole lines.

    A reader that follows the file sees no torn line, and a killed process leaves none but perhaps the last,
    which is cut at the next start. An old file is called ``events.20260131T093000.250Z.jsonl``, by the time
    at which it was put away.

    Args:
        path: The file; folders on the way are made.
        resume: Continue a file of the same run. Otherwise an existing one is replaced, or put away if there
            is rotation.
        header: First line of each file, with its line feed; empty for none.
        rotation: When it is put away.
        clock: Gives UTC seconds.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        resume: bool = False,
        header: bytes = b"",
        rotation: Rotation = Rotation(),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = Path(path)
        self._resume, self._header, self._rotation, self._clock = resume, header, rotation, clock
        self._fd = -1
        self._size = 0
        self._regular = False
        self._slot = 0
        self._workers: list[threading.Thread] = []

    def open(self, line: Callable[[int, bytes], None] = lambda *_: None) -> None:
        """Create or continue the file.

        Args:
            line: Told the number and the content of each whole line that is there already, the header left
                out. Where the present file has none yet, those of the newest old one.

        Raises:
            SinkError: it cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if not self._resume and self._rotation.on and self._is_filled():
                self._put_away()
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | (0 if self._resume else os.O_TRUNC)
            self._fd = os.open(self.path, flags, 0o666)
            status = os.fstat(self._fd)
            self._regular = stat.S_ISREG(status.st_mode)
            self._slot = self._slot_of(status.st_mtime if self._resume else self._clock())
            if self._resume and self._regular:
                self._scan(line)
            if not self._size and self._header:
                self._write(self._header)
            if self._rotation.compress:
                self._compress()
        except OSError as error:
            raise unwritable(self.path, error) from error

    def append(self, data: bytes) -> None:
        """Write whole lines.

        Raises:
            SinkError: the file cannot be written; a line that was begun is taken back.
        """
        if not data:
            return
        try:
            if self._regular and self._is_due(len(data)):
                self._rotate()
            self._write(data)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def close(self) -> list[str]:
        """Close the file and name it; it exists even when nothing was written."""
        if self._fd < 0:
            return []
        os.close(self._fd)
        self._fd = -1
        for worker in self._workers:
            worker.join()
        self._workers.clear()
        return [str(self.path)]

    def old_files(self) -> list[Path]:
        """The files that were put away, oldest first."""
        stem, suffix = self.path.stem, self.path.suffix
        found = [
            path
            for path in self.path.parent.glob(f"{glob_escaped(stem)}.*Z{glob_escaped(suffix)}*")
            if path.name.endswith((suffix, f"{suffix}.gz")) and path != self.path
        ]
        return sorted(found, key=lambda path: path.name.removesuffix(".gz"))

    def cut(self, size: int) -> None:
        """Take back all after the first so many bytes; for who knows more of the content than lines."""
        os.ftruncate(self._fd, size)
        self._size = size

    def _write(self, data: bytes) -> None:
        done = 0
        try:
            while done < len(data):  # a disk that fills up takes a part first, then fails
                done += os.write(self._fd, data[done:])
        except OSError:
            if done and self._regular:
                os.ftruncate(self._fd, self._size)
            raise
        self._size += done

    def _scan(self, line: Callable[[int, bytes], None]) -> None:
        for number, content in enumerate(_whole_lines(self.path), 1):
            self._size += len(content)
            if number > 1 or content != self._header:
                line(number, content)
        os.ftruncate(self._fd, self._size)
        old = self.old_files()
        if self._size <= len(self._header) and old:
            for number, content in enumerate(_whole_lines(old[-1]), 1):
                if number > 1 or content != self._header:
                    line(number, content)

    def _is_filled(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            return self.path.stat().st_size > len(self._header)
        return False

    def _slot_of(self, at: float) -> int:
        return int(at // self._rotation.every_s) if self._rotation.every_s else 0

    def _is_due(self, more: int) -> bool:
        if self._size <= len(self._header):
            self._slot = self._slot_of(self._clock())
            return False
        largest = self._rotation.max_bytes
        return (largest is not None and self._size + more > largest) or self._slot_of(
            self._clock()
        ) != self._slot

    def _rotate(self) -> None:
        self._put_away()
        os.close(self._fd)
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_EXCL, 0o666)
        self._size = 0
        self._slot = self._slot_of(self._clock())
        if self._header:
            self._write(self._header)
        if self._rotation.compress:
            self._compress()
        if self._rotation.keep is not None:
            for old in self.old_files()[: -self._rotation.keep or None]:
                old.unlink(missing_ok=True)

    def _put_away(self) -> None:
        at_ms = int(self._clock() * 1000)
        for ms in range(at_ms, at_ms + 1000):  # Two within a millisecond: names are told apart, and in order.
            moment = time.strftime("%Y%m%dT%H%M%S", time.gmtime(ms // 1000))
            name = f"{self.path.stem}.{moment}.{ms % 1000:03d}Z{self.path.suffix}"
            target = self.path.with_name(name)
            if not target.exists() and not target.with_name(f"{name}.gz").exists():
                self.path.rename(target)
                return
        raise FileExistsError(f"{target} and a thousand like it are there already")

    def _compress(self) -> None:
        """Compress the old files in a thread; what a killed process left over, too."""
        waiting = [path for path in self.old_files() if path.suffix != ".gz"]
        if not waiting:
            return
        worker = threading.Thread(target=_compress_all, args=(waiting,), name="compress", daemon=True)
        worker.start()
        self._workers = [old for old in self._workers if old.is_alive()] + [worker]


def _compress_all(paths: list[Path]) -> None:
    for path in paths:
        target = path.with_name(f"{path.name}.gz")
        scratch = target.with_name(f"{target.name}.tmp")
        try:
            with path.open("rb") as plain, gzip.open(scratch, "wb", compresslevel=6) as packed:
                shutil.copyfileobj(plain, packed)
            scratch.replace(target)
            path.unlink()
        except FileNotFoundError:
            continue  # Somebody has removed it.
        except OSError as error:
            log.warning("%s stays as it is, not compressed: %s", path, error)
            scratch.unlink(missing_ok=True)


def _whole_lines(path: Path) -> Iterator[bytes]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
        for content in lines:
            if not content.endswith(b"\n"):
                return
            yield content


def glob_escaped(text: str) -> str:
    """A text as a pattern that matches only itself."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)


def of_source(path: str | os.PathLike[str], source: str, sources: tuple[str, ...]) -> Path:
    """The file of one source: the path itself, or with several sources the one with its name in it."""
    given = Path(path)
    return given if len(sources) <= 1 else given.with_name(f"{given.stem}-{source}{given.suffix}")


def unwritable(path: Path, error: OSError) -> SinkError:
    """What to say of a file that cannot be written."""
    return SinkError(
        f"cannot write {path}: {error.strerror or error}",
        hint="free space there, or name a file that you may write",
    )
