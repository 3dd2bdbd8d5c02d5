"""COCO files: the frames as images with annotations, and the results array that evaluators read.

Layout: https://cocodataset.org/#format-data and #format-results.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from pipeline import __version__
from pipeline.errors import SinkError
from pipeline.messages import ModelSpec
from pipeline.sinks.appending import AppendFile, unwritable
from pipeline.sinks.base import Publication, Resume
from pipeline.sinks.records import label_of

__all__ = ["CocoSink"]

# How the lines of our files begin.
_HEAD = b'{"info":'
_IMAGE = b'{"id":'
_ROW = b'{"image_id":'


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
    category ids are those of the model plus 1. While the run lasts frames are kept in ``PATH.frames``, so
    that neither a long run nor a killed process costs anything; at its end both files are put together from
    that, frame by frame, and get their names when they are whole.

    Args:
        path: The JSON file.
        resume: Continue the files of the same run; otherwise existing ones are replaced.
    """

    def __init__(self, path: str | os.PathLike[str], resume: bool = False) -> None:
        self._path = Path(path)
        self._results = self._path.with_name(f"{self._path.stem}-results{self._path.suffix}")
        self._resume = resume
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

        try:
            if self._resume and not self._kept.path.exists() and self._path.exists():
                # It was ended when it had put the files together: that is undone, for more may come.
                _replace(self._kept.path, (msgspec.json.encode(one) + b"\n" for one in self._taken_apart()))
        except (OSError, msgspec.DecodeError) as error:
            raise SinkError(f"cannot read {self._path}: {error}", hint="move this file away") from error
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
        try:
            _replace(self._results, self._array("result"))
            _replace(self._path, self._whole())
            self._kept.path.unlink()
        except OSError as error:
            raise unwritable(self._path, error) from error
        return [str(self._path), str(self._results)]

    def _whole(self) -> Iterator[bytes]:
        info = {"description": "framewire detections", "version": __version__}
        most = max((found[0] for frame in self._frames() for found in frame.objects), default=-1)
        categories = [
            {"id": at + 1, "name": label_of(self._labels, at)}
            for at in range(max(most + 1, len(self._labels)))
        ]
        yield _HEAD + msgspec.json.encode(info)
        yield b',\n"categories": ' + msgspec.json.encode(categories) + b',\n"images": '
        yield from self._array("image")
        yield b',\n"annotations": '
        yield from self._array("annotation")
        yield b"}\n"

    def _array(self, what: Literal["image", "annotation", "result"]) -> Iterator[bytes]:
        between = b"[\n"
        number = 0
        for image_id, frame in enumerate(self._frames(), 1):
            rows: list[dict[str, Any]] = []
            if what == "image":
                rows = [{
                    "id": image_id, "file_name": f"{frame.source}/{frame.seq}.jpg", "width": frame.width,
                    "height": frame.height, "date_captured": frame.at,
                }]  # fmt: skip
            else:
                for class_id, score, box, track_id in frame.objects:
                    number += 1
                    one = {"image_id": image_id, "category_id": class_id + 1, "bbox": box, "score": score}
                    if what == "annotation":
                        one |= {"id": number, "area": round(box[2] * box[3], 2), "iscrowd": 0}
                        if track_id >= 0:
                            one["track_id"] = track_id
                    rows.append(one)
            for row in rows:
                yield between + msgspec.json.encode(row)
                between = b",\n"
        yield b"[]" if between == b"[\n" else b"\n]"

    def _taken_apart(self) -> Iterator[_Frame]:
        """The frames of a file that `_whole` wrote; none of any other."""
        with self._path.open("rb") as images, self._path.open("rb") as others:
            if not images.readline().startswith(_HEAD):
                return
            rows = (msgspec.json.decode(line.rstrip(b",\n")) for line in others if line.startswith(_ROW))
            row = next(rows, None)
            for line in images:
                if not line.startswith(_IMAGE):
                    continue
                image = msgspec.json.decode(line.rstrip(b",\n"))
                objects = []
                while row is not None and row["image_id"] == image["id"]:
                    box = tuple(row["bbox"])
                    objects.append((row["category_id"] - 1, row["score"], box, row.get("track_id", -1)))
                    row = next(rows, None)
                source, _, name = image["file_name"].rpartition("/")
                yield _Frame(
                    source, int(name.removesuffix(".jpg")), image["width"], image["height"],
                    image["date_captured"], objects,
                )  # fmt: skip

    def _frames(self) -> Iterator[_Frame]:
        with self._kept.path.open("rb") as lines:
            for line in lines:
                yield self._decoder.decode(line)


def _replace(path: Path, pieces: Iterator[bytes]) -> None:
    scratch = path.with_name(f"{path.name}.tmp")
    try:
        with scratch.open("wb") as file:
            file.writelines(pieces)
        scratch.replace(path)
    except OSError:
        scratch.unlink(missing_ok=True)
        raise
