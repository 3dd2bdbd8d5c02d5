"""JSON Lines files: ``detections.jsonl`` and ``events.jsonl``."""

from __future__ import annotations

import os
import stat
from collections import deque
from pathlib import Path
from typing import Any, Literal

import msgspec

from pipeline.errors import ConfigError, SinkError
from pipeline.messages import ModelSpec
from pipeline.sinks.base import Publication, Resume

__all__ = ["JsonlSink"]

# A publisher that is started again is handed at most what was in flight: a few frames per source. The keys of
# this many last events are enough to know those of them that are written, whatever the length of the run.
_REMEMBERED_EVENTS = 4096


class _Line(msgspec.Struct):
    """The fields by which a line written earlier is known again."""

    source: str
    seq: int
    epoch: int = 0
    type: str = ""
    sequence: int = -1
    track_id: int | None = None
    label: str | None = None
    state: str | None = None
    at: str = ""

    def key(self) -> tuple[object, ...]:
        """Identity of an event without its number, which a second incarnation would give anew."""
        if self.state is not None:  # A source may come into a state twice without a frame between.
            return (self.source, self.state, self.at)
        return (self.source, self.epoch, self.seq, self.type, self.track_id, self.label)


class JsonlSink:
    """One line per frame or per event.

    What one publication brings is one ``write`` of whole lines, so a reader that follows the file sees no
    torn line, and a killed process leaves none but perhaps the last, which is cut at the next start.

    Args:
        path: The file; folders on the way are made.
        what: ``detections`` (one line per frame) or ``events``.
        resume: Continue a file of the same run; otherwise an existing file is replaced.

    Raises:
        ConfigError: ``what`` is neither.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        what: Literal["detections", "events"] = "events",
        resume: bool = False,
    ) -> None:
        if what not in ("detections", "events"):
            raise ConfigError(f"a jsonl sink cannot write {what!r}", hint="write 'detections' or 'events'")
        self._path = Path(path)
        self._what = what
        self._resume = resume
        self._fd = -1
        self._size = 0
        self._regular = False
        self._next_seq: dict[str, int] = {}
        self._written: frozenset[tuple[object, ...]] = frozenset()

    def open(self, spec: ModelSpec) -> Resume:
        """Create or continue the file.

        Raises:
            SinkError: it cannot be written, or holds lines that are not ours.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | (0 if self._resume else os.O_TRUNC)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(self._path, flags, 0o666)
            self._regular = stat.S_ISREG(os.fstat(self._fd).st_mode)
            if self._resume and self._regular:
                return self._scan()
        except OSError as error:
            raise self._error(error) from error
        return Resume()

    def write(self, item: Publication) -> None:
        """Append the lines of one publication, those that an earlier incarnation wrote left out.

        Raises:
            SinkError: the file cannot be written; a line that was begun is taken back.
        """
        rows = [item.frame] if self._what == "detections" else list(item.events)
        data = b"".join(
            msgspec.json.encode(row) + b"\n" for row in rows if row is not None and not self._has(row)
        )
        done = 0
        try:
            while done < len(data):  # a disk that fills up takes a part first, then fails
                done += os.write(self._fd, data[done:])
        except OSError as error:
            if done and self._regular:
                os.ftruncate(self._fd, self._size)
            raise self._error(error) from error
        self._size += done

    def close(self) -> list[str]:
        """Close the file and name it; it exists even when nothing was written."""
        if self._fd < 0:
            return []
        os.close(self._fd)
        self._fd = -1
        return [str(self._path)]

    def _has(self, row: dict[str, Any]) -> bool:
        if self._what == "detections":
            return bool(row["seq"] < self._next_seq.get(row["source"], 0))
        return bool(self._written) and msgspec.convert(row, _Line).key() in self._written

    def _scan(self) -> Resume:
        """Read what is there, line by line, and cut a torn last line."""
        decoder = msgspec.json.Decoder(_Line)
        keys: deque[tuple[object, ...]] = deque(maxlen=_REMEMBERED_EVENTS)
        next_sequence = 0
        with self._path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if not line.endswith(b"\n"):
                    break
                try:
                    entry = decoder.decode(line)
                except msgspec.DecodeError as error:
                    raise SinkError(
                        f"{self._path}:{number} is not a line of framewire {self._what}: {error}",
                        hint="name another file, or move this one away",
                    ) from error
                self._size += len(line)
                if self._what == "detections":
                    self._next_seq[entry.source] = max(entry.seq + 1, self._next_seq.get(entry.source, 0))
                else:
                    keys.append(entry.key())
                    next_sequence = max(next_sequence, entry.sequence + 1)
        os.ftruncate(self._fd, self._size)
        self._written = frozenset(keys)
        return Resume(dict(self._next_seq), next_sequence)

    def _error(self, error: OSError) -> SinkError:
        return SinkError(
            f"cannot write {self._path}: {error.strerror or error}",
            hint="free space there, or name a file that you may write",
        )
