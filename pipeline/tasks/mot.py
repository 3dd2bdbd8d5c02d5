"""MOTChallenge files: truth, stored detections and results, and a tracker run over them.

Layout and columns: Milan et al., "MOT16: A Benchmark for Multi-Object Tracking", arXiv 1603.00831, 2016:
``SEQ/seqinfo.ini``, ``SEQ/gt/gt.txt``, ``SEQ/det/det.txt``; rows of frame (from 1), id, left, top, width,
height, confidence, class, visibility.
"""

from __future__ import annotations

import configparser
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError, SinkError, SourceNotFoundError
from pipeline.messages import Detections
from pipeline.tracking import Tracker

__all__ = [
    "MotSequence",
    "detections_by_frame",
    "find_sequences",
    "read_rows",
    "result_rows",
    "track_detections",
    "write_rows",
]

Rows = NDArray[np.float64]
_COLUMNS = 10
_LEAST_COLUMNS = 6
_MOST_CLASSES = 13


@dataclass(frozen=True, slots=True)
class MotSequence:
    """One annotated sequence.

    Attributes:
        name: Name of its folder.
        folder: The folder.
        length: Number of frames.
        frame_rate: Frames per second.
        distractors: Whether its truth names classes besides pedestrians (MOT16 and later), so that results on
            them are left out before scoring.
    """

    name: str
    folder: Path
    length: int
    frame_rate: float
    distractors: bool

    @property
    def truth(self) -> Path:
        """The file with the truth."""
        return self.folder / "gt" / "gt.txt"


def find_sequences(root: Path) -> list[MotSequence]:
    """The sequences of a folder, or the one that it is, by name.

    Raises:
        SourceNotFoundError: there is none.
        ConfigError: one cannot be read.
    """
    folders = [root] if (root / "gt" / "gt.txt").is_file() else sorted(root.glob("*/gt/gt.txt"))
    if not folders:
        raise SourceNotFoundError(
            f"there is no sequence in {root}", hint="name a folder with SEQ/gt/gt.txt and SEQ/seqinfo.ini"
        )
    return [_sequence(folder if folder == root else folder.parents[1]) for folder in folders]


def _sequence(folder: Path) -> MotSequence:
    parser = configparser.ConfigParser()
    path = folder / "seqinfo.ini"
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
        section = parser["Sequence"]
        length, rate = int(section["seqLength"]), float(section["frameRate"])
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"there is no {path}", hint="MOTChallenge has one per sequence") from error
    except (KeyError, ValueError, UnicodeDecodeError, configparser.Error) as error:
        raise ConfigError(
            f"{path} does not say how long the sequence is: {error}",
            hint="it needs [Sequence] with seqLength and frameRate",
        ) from error
    if length < 1 or not 0 < rate < float("inf"):
        raise ConfigError(f"{path} says {length} frames at {rate} a second", hint="write what the video has")
    return MotSequence(folder.resolve().name, folder, length, rate, _names_classes(folder / "gt" / "gt.txt"))


def _names_classes(truth: Path) -> bool:
    """Whether the eighth column is a class and the ninth a visibility; in MOT15 they are places in metres."""
    rows = read_rows(truth)
    classes, visible = rows[:, 7], rows[:, 8]
    whole = (classes == classes.round()) & (classes >= 1) & (classes <= _MOST_CLASSES)
    return bool(len(rows) and whole.all() and ((visible >= 0) & (visible <= 1)).all())


def read_rows(path: Path) -> Rows:
    """Read a file of rows.

    Returns:
        float64 (n, 10); columns that a file does not have are -1.

    Raises:
        SourceNotFoundError: there is no such file.
        ConfigError: a line of it is none; it is named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"there is no file {path}", hint="check the folder") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            cells = [float(cell) for cell in line.replace(",", " ").split()]
        except ValueError:
            cells = []
        if not _LEAST_COLUMNS <= len(cells) <= _COLUMNS or not np.isfinite(cells).all() or cells[0] < 1:
            raise ConfigError(
                f"{path}:{number} is no row: {line[:60]!r}",
                hint="a row is frame, id, left, top, width, height, confidence, …, frames from 1",
            )
        rows.append(cells + [-1.0] * (_COLUMNS - len(cells)))
    return np.array(rows, np.float64).reshape(-1, _COLUMNS)


def detections_by_frame(rows: Rows, length: int, least_score: float = 0.0) -> list[Detections]:
    """Stored detections, one object for each frame of a sequence, all of class 0.

    Args:
        rows: As `read_rows` gives them.
        length: Number of frames.
        least_score: What scores less is left out.
    """
    frames = []
    for frame in range(1, length + 1):
        here = rows[(rows[:, 0] == frame) & (rows[:, 6] >= least_score)]
        boxes = np.column_stack([here[:, 2:4], here[:, 2:4] + here[:, 4:6]])
        frames.append(Detections(boxes, np.clip(here[:, 6], 0, 1), np.zeros(len(here))))
    return frames


def result_rows(frame: int, tracked: Detections) -> Rows:
    """Rows of the confirmed objects of one frame, numbered from 1."""
    ids = np.full(len(tracked), -1) if tracked.track_ids is None else tracked.track_ids
    sure = tracked.select(ids >= 0)
    boxes = sure.boxes_xyxy.astype(np.float64)
    rows = np.full((len(sure), _COLUMNS), -1.0)
    rows[:, 0], rows[:, 1], rows[:, 6] = frame, ids[ids >= 0], sure.scores
    rows[:, 2:4], rows[:, 4:6] = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    return rows


def track_detections(
    frames: Sequence[Detections], frame_rate: float, tracker: Tracker, times_s: Sequence[float] | None = None
) -> Rows:
    """Run a tracker over the detections of a sequence.

    Args:
        frames: Its detections, frame by frame.
        frame_rate: Frames per second.
        tracker: The tracker, new.
        times_s: Time of each frame in seconds; None for even steps.

    Returns:
        float64 (m, 10), rows of the confirmed objects.
    """
    found = []
    for index, detections in enumerate(frames):
        at_s = index / frame_rate if times_s is None else times_s[index]
        found.append(result_rows(index + 1, tracker.update(detections, at_s)))
    return np.concatenate(found) if found else np.zeros((0, _COLUMNS))


def write_rows(path: Path, rows: Rows) -> None:
    """Write results as MOTChallenge reads them.

    Raises:
        SinkError: the file cannot be written.
    """
    lines = [
        f"{int(row[0])},{int(row[1])},{row[2]:.2f},{row[3]:.2f},{row[4]:.2f},{row[5]:.2f},{row[6]:.4f},-1,-1,-1"
        for row in rows
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    except OSError as error:
        raise SinkError(f"cannot write {path}: {error.strerror}", hint="choose another folder") from error
