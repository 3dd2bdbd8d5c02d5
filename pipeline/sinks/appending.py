"""A file to which whole lines are appended: cut where it was torn, rotated, and what it holds already."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

from pipeline.errors import SinkError
from pipeline.sinks.rotation import OldFiles, Rotation

__all__ = ["AppendFile", "FrameRows", "of_source", "unwritable"]

_Row = TypeVar("_Row")
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class AppendFile:
    """Appends what belongs together in one ``write`` of whole lines.

    A reader that follows the file by its name sees whole lines, but for the moment of a write; a killed
    process leaves at most the last one torn, which is cut at the next start. A new file gets its name with
    its first lines in it, so one that is empty was never written in its run.

    Args:
        path: The file; folders on the way are made.
        resume: Continue a file of the same run. Otherwise an existing one is replaced, or put away if there
            is rotation.
        header: First line of each file, with its line feed; empty for none.
        rotation: When it is put away; None for never.
        clock: Gives UTC seconds.

    Attributes:
        size: Bytes in the file; while `open` tells a line, where that line begins.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        resume: bool = False,
        header: bytes = b"",
        rotation: Rotation | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.path = Path(path)
        self.size = 0
        self._resume, self._header, self._clock = resume, header, clock
        self._rotation = rotation or Rotation()
        self._old = OldFiles(self.path, self._rotation)
        self._fresh = self.path.with_name(f"{self.path.name}.new")
        self._fd = -1
        self._regular = False
        self._slot = 0

    def open(self, line: Callable[[int, bytes], None] = lambda *_: None) -> None:
        """Create or continue the file.

        Args:
            line: Told the number and the content of each whole line that is there already, the header left
                out.

        Raises:
            SinkError: it cannot be written.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self._rotation.on:
                self._begin()
            self.size = 0
            self._fd = os.open(self.path, _FLAGS | (0 if self._resume else os.O_TRUNC), 0o666)
            status = os.fstat(self._fd)
            self._regular = stat.S_ISREG(status.st_mode)
            self._slot = self._slot_of(status.st_mtime if self._resume else self._clock())
            if self._resume and self._regular:
                for number, content in enumerate(_whole_lines(self.path), 1):
                    if number > 1 or content != self._header:
                        line(number, content)
                    self.size += len(content)
                os.ftruncate(self._fd, self.size)
            if not self.size and self._header:
                self._write(self._header)
            if self._rotation.on:
                self._old.tend()
        except OSError as error:
            self._abandon()
            raise unwritable(self.path, error) from error
        except SinkError:
            self._abandon()  # It is somebody else's: nothing more is done to it.
            raise

    def append(self, data: bytes) -> None:
        """Write whole lines.

        Raises:
            SinkError: the file cannot be written; a line that was begun is taken back.
        """
        if not data:
            return
        try:
            if self._regular and self._is_due(len(data)):
                self._rotate(data)
            else:
                self._write(data)
        except OSError as error:
            raise unwritable(self.path, error) from error

    def close(self) -> list[str]:
        """Close the file and name it; it exists even when nothing was written."""
        if self._fd < 0:
            return []
        os.close(self._fd)
        self._fd = -1
        self._old.close()
        return [str(self.path)]

    def old_files(self) -> list[Path]:
        """The files that were put away, oldest first."""
        return self._old.paths()

    def cut(self, size: int) -> None:
        """Take back all after the first so many bytes; for who knows more of the content than lines.

        Raises:
            SinkError: the file cannot be written.
        """
        try:
            os.ftruncate(self._fd, size)
        except OSError as error:
            raise unwritable(self.path, error) from error
        self.size = size

    def _abandon(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _begin(self) -> None:
        """Put the file of an earlier run away, or bring a rotation that was killed to its end."""
        if self._resume and not self.path.exists():
            with contextlib.suppress(FileNotFoundError):
                self._fresh.rename(self.path)
            return
        self._fresh.unlink(missing_ok=True)  # Its lines are handed over again.
        if not self._resume and self._is_filled():
            self.path.rename(self._old.name_of(self._clock()))

    def _is_filled(self) -> bool:
        with contextlib.suppress(FileNotFoundError):
            status = self.path.stat()
            return stat.S_ISREG(status.st_mode) and status.st_size > len(self._header)
        return False

    def _write(self, data: bytes) -> None:
        try:
            _write_all(self._fd, data)
        except OSError:
            if self._regular:
                with contextlib.suppress(OSError):  # What went wrong first is what is told.
                    os.ftruncate(self._fd, self.size)
            raise
        self.size += len(data)

    def _slot_of(self, at: float) -> int:
        return int(at // self._rotation.every_s) if self._rotation.every_s else 0

    def _is_due(self, more: int) -> bool:
        if not self._rotation.on:
            return False
        now = self._slot_of(self._clock())
        if self.size <= len(self._header):
            self._slot = now
            return False
        largest = self._rotation.max_bytes
        return now != self._slot or (largest is not None and self.size + more > largest)

    def _rotate(self, data: bytes) -> None:
        """Begin a new file with that. Until it has its name, the present one stays what it is."""
        fd = os.open(self._fresh, _FLAGS | os.O_TRUNC, 0o666)
        target = None
        try:
            _write_all(fd, self._header + data)
            free = self._old.name_of(self._clock())
            with contextlib.suppress(FileNotFoundError):  # Somebody has moved it.
                self.path.rename(free)
                target = free
            self._fresh.rename(self.path)
        except OSError:
            os.close(fd)
            with contextlib.suppress(OSError):
                if target is not None:
                    target.rename(self.path)
                self._fresh.unlink(missing_ok=True)
            raise
        os.close(self._fd)
        self._fd, self.size = fd, len(self._header) + len(data)
        self._slot = self._slot_of(self._clock())
        self._old.tend()


class FrameRows:
    """What a file with a line for each object holds of each source's frames.

    A killed process may have written some of the lines of its last frame. That frame comes again, and only
    the lines that are missing are written.

    Attributes:
        next_seq: By source, the frame after the last one in the file.
    """

    def __init__(self) -> None:
        self.next_seq: dict[str, int] = {}
        self._rows: dict[str, int] = {}

    def known(self, source: str, seq: int) -> None:
        """A line of that frame is there."""
        last = self.next_seq.get(source, 0) - 1
        if seq >= last:
            self._rows[source] = self._rows.get(source, 0) + 1 if seq == last else 1
            self.next_seq[source] = seq + 1

    def missing(self, source: str, seq: int, rows: list[_Row]) -> list[_Row]:
        """Those of a frame's rows that are not there."""
        after = seq + 1 - self.next_seq.get(source, 0)
        if after == 0:
            return rows[self._rows.get(source, 0) :]
        return rows if after > 0 else []


def _write_all(fd: int, data: bytes) -> None:
    done = 0
    while done < len(data):  # a disk that fills up takes a part first, then fails
        done += os.write(fd, data[done:])


def _whole_lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as lines:
        for content in lines:
            if not content.endswith(b"\n"):
                return
            yield content


def of_source(path: str | os.PathLike[str], source: str, sources: tuple[str, ...]) -> Path:
    """The file of one source: the path itself, or with several sources the one with its name in it."""
    given = Path(path)
    if len(sources) <= 1:
        return given
    return given.with_name(f"{given.stem}-{quote(source, safe=' ')}{given.suffix}")


def unwritable(path: Path, error: OSError) -> SinkError:
    """What to say of a file that cannot be written."""
    return SinkError(
        f"cannot write {path}: {error.strerror or error}",
        hint="free space there, or name a file that you may write",
    )
