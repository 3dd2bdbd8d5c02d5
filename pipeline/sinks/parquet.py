"""Parquet files of detections or events, for analysis."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from pipeline.errors import ConfigError, SinkError
from pipeline.messages import ModelSpec
from pipeline.schemas import VERSION
from pipeline.sinks.appending import AppendFile, unwritable
from pipeline.sinks.base import Publication, Resume
from pipeline.sinks.client import library
from pipeline.sinks.csv import DETECTION_COLUMNS, EVENT_COLUMNS, detection_rows, event_row

__all__ = ["ParquetSink"]

_TIMES = frozenset({"captured_at", "at"})
_WHOLE = frozenset({"epoch", "seq", "pts_ns", "class_id", "track_id", "sequence", "frames", "count"})
_REAL = frozenset({
    "confidence", "top_confidence", "x1", "y1", "x2", "y2", "duration_s", "dwell_s", "ttc_s", "speed_mps",
    "distance_m",
})  # fmt: skip
_LISTS = frozenset({"zones"})
_META = b"framewire"
#: Rows that are encoded at once: a few milliseconds, in the way of the frames.
_GROUP = 4_000


class _Begin(msgspec.Struct, tag="begin"):
    """First line of what is pending: number of the first file of this run."""

    first: int


class _Rows(msgspec.Struct, tag="rows"):
    """Rows that wait, all of one frame or event: its source and number."""

    source: str
    number: int
    rows: list[dict[str, Any]]


class ParquetSink:
    """A folder of files ``part-000001.parquet``, which readers take for one table.

    The columns are those of `pipeline.sinks.csv`, typed: times are timestamps in UTC, zones lists, the rest
    integers, doubles and text. A file is finished when it has ``rows`` rows or its first is ``every_s`` old,
    and at the end, and has its name only then. Rows that wait for that are in ``_pending.jsonl`` (readers
    pass over names that begin with ``_``), so a killed process loses none, and the last file says which rows
    it has, so none is there twice. The metadata of the schema name the version of framewire's records.

    Args:
        path: The folder.
        what: ``detections`` or ``events``.
        rows: Rows of one file; it has more only where one frame brings more.
        every_s: A file is finished after so long.
        resume: Continue the folder of the same run; otherwise files of an earlier run stay, and new ones get
            the numbers after theirs.

    Raises:
        ConfigError: pyarrow is not installed, or ``what`` is neither.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        what: Literal["detections", "events"] = "detections",
        rows: int = 50_000,
        every_s: float = 300.0,
        resume: bool = False,
    ) -> None:
        if what not in ("detections", "events"):
            raise ConfigError(f"a parquet sink cannot write {what!r}", hint="write 'detections' or 'events'")
        self._arrow = library("pyarrow", "parquet")
        self._parquet = library("pyarrow.parquet", "parquet")
        self._folder = Path(path)
        self._what, self._most, self._every_s, self._resume = what, rows, every_s, resume
        names = DETECTION_COLUMNS if what == "detections" else EVENT_COLUMNS
        self._columns: dict[str, list[Any]] = {name: [] for name in names}
        # What is there was made by `open`, whole: it is always continued.
        self._pending = AppendFile(self._folder / "_pending.jsonl", resume=True)
        self._writer: Any = None
        self._failed = False
        self._begin_size = 0
        self._waiting = 0
        self._next: dict[str, int] = {}
        self._number = 1
        self._began = 0.0
        self._clock: Callable[[], float] = time.monotonic
        self._decoder = msgspec.json.Decoder(_Begin | _Rows)

    def open(self, spec: ModelSpec) -> Resume:
        """Find out what is there.

        Raises:
            SinkError: the folder cannot be written, or holds something that is not ours.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for left in self._folder.glob("_part-*.tmp"):
                left.unlink()
            last = max(self._folder.glob("part-*.parquet"), default=None)
            if last is not None:
                self._number = int(last.stem.removeprefix("part-")) + 1
            if not self._resume and self._pending.path.exists():
                self._rescue(last)
            else:
                self._begin(last)
        except (OSError, ValueError, self._arrow.ArrowException) as error:
            raise SinkError(
                f"cannot use {self._folder}: {error}", hint="name another folder, or move this one away"
            ) from error
        self._pending.open(self._known)
        if self._what == "events":
            return Resume({}, self._next.get("", 0))
        return Resume(dict(self._next))

    def write(self, item: Publication) -> None:
        """Keep the rows of one publication, and finish a file when it is time.

        Raises:
            SinkError: the folder cannot be written.
        """
        if self._failed:
            raise self._given_up()
        found: list[_Rows] = []
        if self._what == "events":
            found = [_Rows("", event["sequence"], [event_row(event)]) for event in item.events]
        elif item.frame is not None:
            found = [_Rows(item.frame["source"], item.frame["seq"], list(detection_rows(item.frame)))]
        found = [one for one in found if one.rows and one.number >= self._next.get(one.source, 0)]
        if found:
            self._pending.append(b"".join(msgspec.json.encode(one) + b"\n" for one in found))
            self._take(found)
        if self._waiting >= self._most or (self._waiting and self._clock() - self._began >= self._every_s):
            self._write_part()
            self._pending.cut(self._begin_size)

    def close(self) -> list[str]:
        """Finish the last file and name the folder.

        Raises:
            SinkError: it cannot be written; the rows stay where they are kept.
        """
        if not self._pending.close():
            return []
        if self._failed:
            raise self._given_up()
        self._write_part()
        try:
            self._pending.path.unlink(missing_ok=True)
        except OSError as error:
            raise unwritable(self._pending.path, error) from error
        return [str(self._folder)]

    def _begin(self, last: Path | None) -> None:
        """Make sure that what is pending says which files are of this run, and learn what is in the last."""
        pending = self._pending.path
        if pending.exists():
            with pending.open("rb") as lines:
                first = self._begin_of(lines.readline())
        else:
            # Resumed without it, it was killed when it had closed the folder: the last file is of this run.
            first = 1 if self._resume else self._number
            scratch = pending.with_suffix(".tmp")
            scratch.write_bytes(msgspec.json.encode(_Begin(first)) + b"\n")
            scratch.replace(pending)
        if last is not None and first < self._number:
            said = self._parquet.read_metadata(last).metadata or {}
            self._next = msgspec.json.decode(said.get(_META, b"{}"), type=dict[str, int])

    def _rescue(self, last: Path | None) -> None:
        """Write what an earlier run left pending that was killed and never went on; then begin anew."""
        self._begin(last)
        self._pending.open(self._known)
        self._write_part()
        self._pending.close()
        self._pending.path.unlink()
        self._next = {}
        self._begin(None)

    def _begin_of(self, line: bytes) -> int:
        try:
            return msgspec.json.decode(line, type=_Begin).first
        except msgspec.DecodeError as error:
            raise self._foreign(1) from error

    def _known(self, number: int, line: bytes) -> None:
        if number == 1:
            self._begin_size = len(line)
            return
        try:
            found = self._decoder.decode(line)
        except msgspec.DecodeError as error:
            raise self._foreign(number) from error
        if isinstance(found, _Rows) and found.number >= self._next.get(found.source, 0):
            self._take([found])

    def _foreign(self, number: int) -> SinkError:
        return SinkError(
            f"{self._pending.path}:{number} is not what framewire keeps there", hint="move this file away"
        )

    def _take(self, found: Iterable[_Rows]) -> None:
        for one in found:
            if not self._waiting:
                self._began = self._clock()
            for row in one.rows:
                for name, column in self._columns.items():
                    value = row.get(name)
                    column.append(datetime.fromisoformat(value) if name in _TIMES and value else value)
            self._waiting += len(one.rows)
            self._next[one.source] = one.number + 1
            if len(next(iter(self._columns.values()))) >= _GROUP:
                self._encode()

    def _scratch(self) -> Path:
        return self._folder / f"_part-{self._number:06d}.tmp"

    def _encode(self) -> None:
        """Encode the rows that have come, as a group of the file that is being written."""
        try:
            if self._writer is None:
                self._writer = self._parquet.ParquetWriter(
                    self._scratch(), self._schema(), compression="zstd"
                )
            self._writer.write_table(self._arrow.table(self._columns, schema=self._schema()))
        except OSError as error:
            raise self._give_up(error) from error
        for column in self._columns.values():
            column.clear()

    def _write_part(self) -> None:
        """Finish a file. It says which rows it has, for those may be pending still after a kill."""
        if not self._waiting:
            return
        self._encode()
        target = self._folder / f"part-{self._number:06d}.parquet"
        try:
            self._writer.add_key_value_metadata({_META: msgspec.json.encode(self._next)})
            self._writer.close()
            self._scratch().replace(target)
        except OSError as error:
            raise self._give_up(error) from error
        self._writer = None
        self._number += 1
        self._waiting = 0

    def _give_up(self, error: OSError) -> SinkError:
        """A file begun cannot be gone on with: its rows are pending, and an incarnation to come has them."""
        self._failed = True
        writer, self._writer = self._writer, None
        if writer is not None:
            with contextlib.suppress(OSError):
                writer.close()
        with contextlib.suppress(OSError):
            self._scratch().unlink(missing_ok=True)
        return unwritable(self._folder / f"part-{self._number:06d}.parquet", error)

    def _given_up(self) -> SinkError:
        return SinkError(
            f"{self._folder} could not be written before; what is missing is in {self._pending.path.name}",
            hint="free space there, and start again",
        )

    def _schema(self) -> Any:
        arrow = self._arrow
        fields = []
        for name in self._columns:
            kind = arrow.string()
            if name in _TIMES:
                kind = arrow.timestamp("us", tz="UTC")
            elif name in _WHOLE:
                kind = arrow.int64()
            elif name in _REAL:
                kind = arrow.float64()
            elif name in _LISTS:
                kind = arrow.list_(arrow.string())
            fields.append(arrow.field(name, kind))
        return arrow.schema(fields, metadata={b"schema": f"framewire.{self._what}/{VERSION}".encode()})
