"""Results in the layout of MOTChallenge, one file for each source.

Columns: Milan et al., "MOT16: A Benchmark for Multi-Object Tracking", arXiv 1603.00831, 2016.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from pipeline.errors import SinkError
from pipeline.messages import ModelSpec
from pipeline.sinks.appending import AppendFile, of_source
from pipeline.sinks.base import Publication, Resume

__all__ = ["MotSink"]


class MotSink:
    """One row for each tracked object of each frame: ``frame,id,left,top,width,height,confidence,-1,-1,-1``.

    Frames are counted from 1 by ``seq``: those that were admitted, whatever was dropped before. ``framewire
    eval mot`` reads it.

    Args:
        path: The file; with several sources ``mot.txt`` becomes ``mot-<source>.txt``.
        sources: Names of all sources of the run.
        resume: Continue the files of the same run.
    """

    def __init__(
        self, path: str | os.PathLike[str], sources: Sequence[str] = (), resume: bool = False
    ) -> None:
        self._path, self._sources, self._resume = path, tuple(sources), resume
        self._files: dict[str, AppendFile] = {}
        self._next_seq: dict[str, int] = {}

    def open(self, spec: ModelSpec) -> Resume:
        """Create or continue the files.

        Raises:
            SinkError: one cannot be written, or holds lines that are not ours.
        """
        for source in self._sources:
            self._file(source)
        return Resume(dict(self._next_seq))

    def write(self, item: Publication) -> None:
        """Append the rows of one frame.

        Raises:
            SinkError: the file cannot be written.
        """
        frame = item.frame
        if frame is None or frame["seq"] < self._next_seq.get(frame["source"], 0):
            return
        rows = []
        for found in frame["detections"]:
            if "track_id" in found:
                x1, y1, x2, y2 = found["box_xyxy"]
                place = f"{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f}"
                rows.append(
                    f"{frame['seq'] + 1},{found['track_id']},{place},{found['confidence']:.4f},-1,-1,-1\n"
                )
        self._file(frame["source"]).append("".join(rows).encode())

    def close(self) -> list[str]:
        """Close the files and name them."""
        return [name for file in self._files.values() for name in file.close()]

    def _file(self, source: str) -> AppendFile:
        file = self._files.get(source)
        if file is None:
            several = self._sources if source in self._sources else (*self._sources, source)
            file = AppendFile(of_source(self._path, source, several), resume=self._resume)
            self._files[source] = file

            def known(number: int, line: bytes) -> None:
                try:
                    self._next_seq[source] = max(self._next_seq.get(source, 0), int(line.split(b",")[0]))
                except ValueError as error:
                    raise SinkError(
                        f"{file.path}:{number} is no line of MOTChallenge results",
                        hint="name another file, or move this one away",
                    ) from error

            file.open(known)
        return file
