"""COCO files: the frames as images with annotations, and the results array that evaluators read.

Layout: https://cocodataset.org/#format-data and #format-results.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from pipeline import __version__
from pipeline.errors import SinkError
from pipeline.messages import ModelSpec
from pipeline.sinks.appending import AppendFile, unwritable
from pipeline.sinks.base import Publication, Resume

__all__ = ["CocoSink"]


class _Frame(msgspec.Struct, array_like=True):
    """What is kept of a frame until the end: source, number, size, time, and rows of its objects."""

    source: str
    seq: int
    width: int
    height: int
    at: str
    objects: list[tuple[int, float, tuple[float, float, float, float], int]]


class CocoSink:
    """``PATH``: images, annotations and categories; ``PATH`` with ``-results``: the plain results array.

    An image is a frame that succeeded, its ``file_name`` is ``<source>/<seq>.jpg`` (no pictures are written);
    category ids are those of the model plus 1. While the run lasts frames are kept in a file beside it, so
    that neither a long run nor a killed process costs anything.

    Args:
        path: The JSON file.
        resume: Continue the files of the same run.
    """

    def __init__(self, path: str | os.PathLike[str], resume: bool = False) -> None:
        self._path = Path(path)
        self._kept = AppendFile(self._path.with_name(f"{self._path.name}.frames"), resume=resume)
        self._next_seq: dict[str, int] = {}
        self._labels: tuple[str, ...] = ()
        self._decoder = msgspec.json.Decoder(_Frame)

    def open(self, spec: ModelSpec) -> Resume:
        """Create or continue what is kept.

        Raises:
            SinkError: it cannot be written, or is not ours.
        """
        self._labels = spec.labels

        def known(number: int, line: bytes) -> None:
            try:
                frame = self._decoder.decode(line)
            except msgspec.DecodeError as error:
                raise SinkError(
                    f"{self._kept.path}:{number} is not what framewire keeps there",
                    hint="move this file away",
                ) from error
            self._next_seq[frame.source] = max(self._next_seq.get(frame.source, 0), frame.seq + 1)

        self._kept.open(known)
        return Resume(dict(self._next_seq))

    def write(self, item: Publication) -> None:
        """Keep one frame.

        Raises:
            SinkError: it cannot be written.
        """
        record = item.frame
        if record is None or record["status"] != "ok":
            return
        if record["seq"] < self._next_seq.get(record["source"], 0):
            return
        objects = []
        for found in record["detections"]:
            x1, y1, x2, y2 = found["box_xyxy"]
            box = (x1, y1, round(x2 - x1, 2), round(y2 - y1, 2))
            objects.append((found["class_id"], found["confidence"], box, found.get("track_id", -1)))
        frame = _Frame(
            record["source"], record["seq"], record["width"], record["height"], record["captured_at"], objects
        )
        self._kept.append(msgspec.json.encode(frame) + b"\n")

    def close(self) -> list[str]:
        """Put the two files together and name them.

        Raises:
            SinkError: one cannot be written; what was kept stays.
        """
        if not self._kept.close():
            return []
        results = self._path.with_name(f"{self._path.stem}-results{self._path.suffix}")
        try:
            self._join(self._path, self._whole())
            self._join(results, self._array("annotation", results=True))
            self._kept.path.unlink()
        except OSError as error:
            raise unwritable(self._path, error) from error
        return [str(self._path), str(results)]

    @staticmethod
    def _join(path: Path, pieces: Iterator[str]) -> None:
        scratch = path.with_name(f"{path.name}.tmp")
        with scratch.open("w", encoding="utf-8") as file:
            file.writelines(pieces)
        scratch.replace(path)

    def _whole(self) -> Iterator[str]:
        info = {"description": "framewire detections", "version": __version__}
        categories = [{"id": at + 1, "name": name} for at, name in enumerate(self._labels)]
        yield f'{{"info": {json.dumps(info)},\n"categories": {json.dumps(categories)},\n"images": '
        yield from self._array("image")
        yield ',\n"annotations": '
        yield from self._array("annotation")
        yield "}\n"

    def _array(self, what: str, *, results: bool = False) -> Iterator[str]:
        yield "["
        between = "\n"
        number = 0
        for image_id, frame in enumerate(self._frames(), 1):
            if what == "image":
                image = {
                    "id": image_id, "file_name": f"{frame.source}/{frame.seq}.jpg", "width": frame.width,
                    "height": frame.height, "date_captured": frame.at,
                }  # fmt: skip
                yield between + json.dumps(image)
                between = ",\n"
                continue
            for class_id, score, box, track_id in frame.objects:
                number += 1
                one: dict[str, Any] = {
                    "image_id": image_id, "category_id": class_id + 1, "bbox": list(box), "score": score,
                }  # fmt: skip
                if not results:
                    one |= {"id": number, "area": round(box[2] * box[3], 2), "iscrowd": 0}
                    if track_id >= 0:
                        one["track_id"] = track_id
                yield between + json.dumps(one)
                between = ",\n"
        yield "\n]"

    def _frames(self) -> Iterator[_Frame]:
        with self._kept.path.open("rb") as lines:
            for line in lines:
                yield self._decoder.decode(line)
