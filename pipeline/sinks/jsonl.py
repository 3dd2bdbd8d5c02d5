"""JSON Lines files: ``detections.jsonl`` and ``events.jsonl``."""

from __future__ import annotations

import os
from typing import Any, Literal

import msgspec

from pipeline.errors import ConfigError, SinkError
from pipeline.messages import ModelSpec
from pipeline.sinks.appending import AppendFile
from pipeline.sinks.base import Publication, Resume
from pipeline.sinks.rotation import Rotation

__all__ = ["JsonlSink"]


class _Line(msgspec.Struct):
    """The fields by which a line written earlier is known again."""

    source: str
    seq: int
    sequence: int = -1


class JsonlSink:
    """One line per frame or per event; what one publication brings is one write of whole lines.

    Args:
        path: The file; folders on the way are made.
        what: ``detections`` (one line per frame) or ``events``.
        max_mb: A file that would be larger is put away; None for any size.
        every_s: It is put away when the wall clock (UTC) comes to a multiple of that; None for never.
        keep: How many old files stay; None for all.
        compress: Old files are compressed with gzip.
        resume: Continue a file of the same run; otherwise an existing one is replaced, or put away if one of
            ``max_mb`` and ``every_s`` is given.

    Raises:
        ConfigError: ``what`` is neither.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        what: Literal["detections", "events"] = "events",
        *,
        max_mb: float | None = None,
        every_s: float | None = None,
        keep: int | None = None,
        compress: bool = False,
        resume: bool = False,
    ) -> None:
        if what not in ("detections", "events"):
            raise ConfigError(f"a jsonl sink cannot write {what!r}", hint="write 'detections' or 'events'")
        self._what = what
        largest = None if max_mb is None else int(max_mb * 2**20)
        self._file = AppendFile(path, resume=resume, rotation=Rotation(largest, every_s, keep, compress))
        self._next_seq: dict[str, int] = {}
        self._next_sequence = 0
        self._decoder = msgspec.json.Decoder(_Line)

    def open(self, spec: ModelSpec) -> Resume:
        """Create or continue the file.

        Raises:
            SinkError: it cannot be written, or holds lines that are not ours.
        """
        self._file.open(self._known)
        return Resume(dict(self._next_seq), self._next_sequence if self._what == "events" else None)

    def write(self, item: Publication) -> None:
        """Append the lines of one publication, those that an earlier incarnation wrote left out.

        Raises:
            SinkError: the file cannot be written; a line that was begun is taken back.
        """
        rows = [item.frame] if self._what == "detections" else list(item.events)
        self._file.append(
            b"".join(
                msgspec.json.encode(row) + b"\n" for row in rows if row is not None and not self._has(row)
            )
        )

    def close(self) -> list[str]:
        """Close the file and name it; it exists even when nothing was written."""
        return self._file.close()

    def _has(self, row: dict[str, Any]) -> bool:
        if self._what == "detections":
            return bool(row["seq"] < self._next_seq.get(row["source"], 0))
        return bool(row["sequence"] < self._next_sequence)

    def _known(self, number: int, line: bytes) -> None:
        try:
            entry = self._decoder.decode(line)
        except msgspec.DecodeError as error:
            raise SinkError(
                f"{self._file.path}:{number} is not a line of framewire {self._what}: {error}",
                hint="name another file, or move this one away",
            ) from error
        if self._what == "detections":
            self._next_seq[entry.source] = max(entry.seq + 1, self._next_seq.get(entry.source, 0))
        else:
            self._next_sequence = max(self._next_sequence, entry.sequence + 1)
