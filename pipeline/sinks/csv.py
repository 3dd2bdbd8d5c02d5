"""CSV files of detections or events, for spreadsheets and data frames.

As RFC 4180 has it, but for lines that end with a line feed alone, so that one who follows the file sees them.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Iterator
from typing import Any, Literal

from pipeline.errors import ConfigError, SinkError
from pipeline.messages import ModelSpec
from pipeline.sinks.appending import AppendFile, FrameRows
from pipeline.sinks.base import Publication, Resume
from pipeline.sinks.rotation import Rotation

__all__ = ["DETECTION_COLUMNS", "EVENT_COLUMNS", "CsvSink", "detection_rows", "event_row"]

_BOX = ("x1", "y1", "x2", "y2")
DETECTION_COLUMNS = (
    "source", "epoch", "seq", "pts_ns", "captured_at", "label", "class_id", "confidence", *_BOX, "track_id",
)  # fmt: skip
EVENT_COLUMNS = (
    "sequence", "id", "type", "source", "at", "epoch", "seq", "pts_ns", "label", "track_id", "object_id",
    "confidence", "top_confidence", *_BOX, "duration_s", "frames", "zone", "line", "action", "direction",
    "dwell_s", "count", "severity", "ttc_s", "zones", "speed_mps", "distance_m", "state", "reason", "message",
    "snapshot", "clip",
)  # fmt: skip
_SEPARATOR = ";"


def detection_rows(frame: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """One row for each object of a frame record, by `DETECTION_COLUMNS`."""
    head = {name: frame[name] for name in DETECTION_COLUMNS[:5]}
    for found in frame["detections"]:
        row = head | {name: found.get(name) for name in ("label", "class_id", "confidence", "track_id")}
        yield row | dict(zip(_BOX, found["box_xyxy"], strict=True))


def event_row(event: dict[str, Any]) -> dict[str, Any]:
    """The row of an event record, by `EVENT_COLUMNS`; the way of an object is left out."""
    row = {name: event.get(name) for name in EVENT_COLUMNS}
    if event.get("box_xyxy") is not None:
        row |= dict(zip(_BOX, event["box_xyxy"], strict=True))
    return row


class CsvSink:
    """A row for each object of each frame, or for each event; the first line names the columns.

    Zones are joined by ``;``. Control characters and line breaks within a value are written as Python
    writes them in a string, so that a row is always one line.

    Args:
        path: The file; folders on the way are made.
        what: ``detections`` or ``events``.
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
        what: Literal["detections", "events"] = "detections",
        *,
        max_mb: float | None = None,
        every_s: float | None = None,
        keep: int | None = None,
        compress: bool = False,
        resume: bool = False,
    ) -> None:
        if what not in ("detections", "events"):
            raise ConfigError(f"a csv sink cannot write {what!r}", hint="write 'detections' or 'events'")
        self._what = what
        self._columns = DETECTION_COLUMNS if what == "detections" else EVENT_COLUMNS
        largest = None if max_mb is None else int(max_mb * 2**20)
        self._file = AppendFile(
            path, resume=resume, header=_lines([self._columns]),
            rotation=Rotation(largest, every_s, keep, compress),
        )  # fmt: skip
        self._held = FrameRows()
        self._next_sequence = 0

    def open(self, spec: ModelSpec) -> Resume:
        """Create or continue the file.

        Raises:
            SinkError: it cannot be written, or holds lines that are not ours.
        """
        self._file.open(self._known)
        return Resume(dict(self._held.next_seq), self._next_sequence if self._what == "events" else None)

    def write(self, item: Publication) -> None:
        """Append the rows of one publication, those that an earlier incarnation wrote left out.

        Raises:
            SinkError: the file cannot be written; a line that was begun is taken back.
        """
        rows: list[dict[str, Any]] = []
        if self._what == "events":
            rows = [event_row(event) for event in item.events if event["sequence"] >= self._next_sequence]
        elif item.frame is not None:
            found = list(detection_rows(item.frame))
            rows = self._held.missing(item.frame["source"], item.frame["seq"], found)
        self._file.append(_lines([row[name] for name in self._columns] for row in rows))

    def close(self) -> list[str]:
        """Close the file and name it."""
        return self._file.close()

    def _known(self, number: int, line: bytes) -> None:
        try:
            row = next(csv.reader([line.decode()]))
            if len(row) != len(self._columns):
                raise ValueError(f"it has {len(row)} columns, not {len(self._columns)}")
            if self._what == "events":
                self._next_sequence = max(self._next_sequence, int(row[0]) + 1)
            else:
                self._held.known(row[0], int(row[2]))
        except (csv.Error, ValueError, StopIteration) as error:
            raise SinkError(
                f"{self._file.path}:{number} is not a line of framewire {self._what}: {error}",
                hint="name another file, or move this one away",
            ) from error


def _lines(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return text.getvalue().encode()


def _cell(value: Any) -> Any:
    if isinstance(value, list | tuple):
        value = _SEPARATOR.join(value)
    return value.translate(_ESCAPED) if isinstance(value, str) else value


#: What a reader might take for the end of a line, or cannot show.
_ESCAPED = {code: repr(chr(code))[1:-1] for code in (*range(32), *range(127, 160), 0x2028, 0x2029)}
