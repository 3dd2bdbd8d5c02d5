"""Results in the layout of MOTChallenge, one file for each source.

Columns: Milan et al., "MOT16: A Benchmark for Multi-Object Tracking", arXiv 1603.00831, 2016.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from pipeline.errors import SinkError
from pipeline.messages import ModelSpec
from pipeline.sinks.appending import AppendFile, FrameRows, of_source
from pipeline.sinks.base import Publication, Resume

__all__ = ["MotSink"]


class MotSink:
    """One row for each tracked object of each frame: ``frame,id,left,top,width,height,confidence,-1,-1,-1``.

    Frames are counted from 1: ``frame`` is ``seq`` + 1, which counts the frames that were admitted, without
    gaps. Frames of the camera that were dropped before have no number, so the truth of a whole recording
    fits only if none was (files drop none). ``framewire eval mot`` reads it.

    Args:
        path: The file; with several sources ``mot.txt`` becomes ``mot-<source>.txt``.
        sources: Names of all sources of the run.
        resume: Continue the files of the same run; otherwise existing ones are replaced.
    """

    def __init__(
        self, path: str | os.PathLike[str], sources: Sequence[str] = (), resume: bool = False
    ) -> None:
        self._path, self._sources, self._resume = path, tuple(sources), resume
        self._files: dict[str, AppendFile] = {}
        self._held = FrameRows()

    def open(self, spec: ModelSpec) -> Resume:
        """Create or continue the files.

        Raises:
            SinkError: one cannot be written, or holds lines that are not ours.
        """
        for source in self._sources:
            self._file(source)
        return Resume(dict(self._held.next_seq))

    def write(self, item: Publication) -> None:
        """Append the rows of one frame.

        Raises:
            SinkError: the file cannot be written; a line that was begun is taken back.
        """
        if item.frame is None:
            return
        source, seq = item.frame["source"], item.frame["seq"]
        file = self._file(source)
        rows = []
        for found in item.frame["detections"]:
            if "track_id" in found:
                x1, y1, x2, y2 = found["box_xyxy"]
                place = f"{x1:.2f},{y1:.2f},{x2 - x1:.2f},{y2 - y1:.2f}"
                rows.append(f"{seq + 1},{found['track_id']},{place},{found['confidence']:.4f},-1,-1,-1\n")
        file.append("".join(self._held.missing(source, seq, rows)).encode())

    def close(self) -> list[str]:
        """Close the files and name them."""
        return [name for file in self._files.values() for name in file.close()]

    def _file(self, source: str) -> AppendFile:
        file = self._files.get(source)
        if file is None:
            several = self._sources if source in self._sources else (*self._sources, source)
            file = AppendFile(of_source(self._path, source, several), resume=self._resume)

            def known(number: int, line: bytes) -> None:
                try:
                    self._held.known(source, int(line.split(b",")[0]) - 1)
                except ValueError as error:
                    raise SinkError(
                        f"{file.path}:{number} is no line of MOTChallenge results",
                        hint="name another file, or move this one away",
                    ) from error

            file.open(known)
            self._files[source] = file
        return file
