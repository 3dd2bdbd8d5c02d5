"""Parquet files of detections or events, for analysis."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
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
_META = b"framewire"


class _Row(msgspec.Struct, omit_defaults=True):
    """A row that waits: of which source and number, and its values."""

    source: str
    number: int
    values: dict[str, Any]


class ParquetSink:
    """A folder of files ``part-000001.parquet``, which readers take for one table.

    The columns are those of `pipeline.sinks.csv`, typed: times are timestamps in UTC, the rest integers,
    doubles and text. A file is finished after ``rows`` rows or ``every_s`` seconds and at the end, and has
    its name only then. Rows that wait for that are in ``pending.jsonl``, so a killed process loses none, and
    the last file says which rows it has, so none is there twice.

    Args:
        path: The folder.
        what: ``detections`` or ``events``.
        rows: Most rows of one file.
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
        self._columns = DETECTION_COLUMNS if what == "detections" else EVENT_COLUMNS
        self._pending = AppendFile(self._folder / "pending.jsonl", resume=resume)
        self._rows: list[_Row] = []
        self._next: dict[str, int] = {}
        self._number = 1
        self._began = 0.0
        self._clock: Callable[[], float] = time.monotonic
        self._decoder = msgspec.json.Decoder(_Row)

    def open(self, spec: ModelSpec) -> Resume:
        """Find out what is there.

        Raises:
            SinkError: the folder cannot be written, or holds something that is not ours.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for left in self._folder.glob("part-*.tmp"):
                left.unlink()
            parts = sorted(self._folder.glob("part-*.parquet"))
            if parts:
                self._number = int(parts[-1].stem.removeprefix("part-")) + 1
                if self._resume:
                    said = self._parquet.read_schema(parts[-1]).metadata or {}
                    self._next = msgspec.json.decode(said.get(_META, b"{}"), type=dict[str, int])
        except (OSError, ValueError, self._arrow.ArrowInvalid) as error:
            raise SinkError(
                f"cannot use {self._folder}: {error}", hint="name another folder, or move this one away"
            ) from error

        def known(number: int, line: bytes) -> None:
            try:
                row = self._decoder.decode(line)
            except msgspec.DecodeError as error:
                raise SinkError(
                    f"{self._pending.path}:{number} is not what framewire keeps there",
                    hint="move this file away",
                ) from error
            if row.number >= self._next.get(row.source, 0):
                self._rows.append(row)

        self._pending.open(known)
        for row in self._rows:
            self._next[row.source] = max(self._next.get(row.source, 0), row.number + 1)
        self._began = self._clock()
        if self._what == "events":
            return Resume({}, self._next.get("", 0))
        return Resume({source: number for source, number in self._next.items() if source})

    def write(self, item: Publication) -> None:
        """Keep the rows of one publication, and finish a file when it is time.

        Raises:
            SinkError: the folder cannot be written.
        """
        rows: list[_Row] = []
        if self._what == "events":
            rows = [_Row("", event["sequence"], event_row(event)) for event in item.events]
        elif item.frame is not None:
            source, seq = item.frame["source"], item.frame["seq"]
            rows = [_Row(source, seq, values) for values in detection_rows(item.frame)]
        rows = [row for row in rows if row.number >= self._next.get(row.source, 0)]
        if rows:
            self._pending.append(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
            self._rows += rows
            for row in rows:
                self._next[row.source] = row.number + 1
        if len(self._rows) >= self._most or (self._rows and self._clock() - self._began >= self._every_s):
            self._finish()

    def close(self) -> list[str]:
        """Finish the last file and name the folder.

        Raises:
            SinkError: it cannot be written; the rows stay where they are kept.
        """
        if not self._pending.close():
            return []
        self._write_part()
        self._pending.path.unlink(missing_ok=True)
        return [str(self._folder)]

    def _finish(self) -> None:
        self._write_part()
        self._pending.cut(0)
        self._began = self._clock()

    def _write_part(self) -> None:
        if not self._rows:
            return
        schema = self._schema()
        columns = {name: [_typed(name, row.values.get(name)) for row in self._rows] for name in self._columns}
        table = self._arrow.table(columns, schema=schema)
        target = self._folder / f"part-{self._number:06d}.parquet"
        scratch = target.with_suffix(".tmp")
        try:
            self._parquet.write_table(table, scratch, compression="zstd")
            scratch.replace(target)
        except OSError as error:
            raise unwritable(target, error) from error
        self._number += 1
        self._rows = []

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
            fields.append(arrow.field(name, kind))
        said = {
            _META: msgspec.json.encode(self._next),
            b"schema": f"framewire.{self._what}/{VERSION}".encode(),
        }
        return arrow.schema(fields, metadata=said)


def _typed(name: str, value: Any) -> Any:
    return datetime.fromisoformat(value) if name in _TIMES and value is not None else value
