"""What `check_dashcam` measures with: the hand-made truth, a recorded shake, and identity switches.

Needs neither the clip nor a model, so that a test can repeat the comparison on stored numbers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.analytics.objects import Fact, Observer, TrackedObject
from pipeline.messages import Detections, FrameHeader
from pipeline.tracking import build_tracker
from pipeline.tracking.association import assign
from pipeline.tracking.base import Hints
from pipeline.vision.boxes import iou_matrix
from pipeline.vision.camera_motion import rigid

__all__ = [
    "TRACKED",
    "TRUTH",
    "Seen",
    "Shake",
    "Switches",
    "Truth",
    "count_switches",
    "follow",
    "observe",
    "read_truth",
]

ROOT = Path(__file__).resolve().parents[1]
TRUTH = ROOT / "tests" / "data" / "dashcam_truth.json"

#: What is compared: a name, the tracker, and what it is told of the camera.
TRACKED = (
    ("ByteTrack", "bytetrack", "none"),
    ("BoT-SORT, told nothing", "botsort", "none"),
    ("BoT-SORT, with the scale", "botsort", "whole"),
    ("BoT-SORT", "botsort", "rigid"),
)

#: An object is followed by the track whose box has so much in common with its own. Low, for the far cars are
#: a dozen pixels high and their true boxes are interpolated.
_SAME = 0.35


@dataclass(frozen=True)
class Truth:
    """Where each vehicle of the clip is.

    Attributes:
        clip: File name of the clip.
        sha256: How the hash of that file begins.
        size: Width and height, pixels.
        fps: Frames a second.
        frames: Numbers of the frames that the truth covers.
        boxes: Float64 (n, 4) by name, xyxy, a row for each of ``frames``; nan while it is not to be seen.
    """

    clip: str
    sha256: str
    size: tuple[int, int]
    fps: float
    frames: range
    boxes: Mapping[str, NDArray[np.float64]]

    def shaken(self, shake: Shake) -> Truth:
        """The same for the clip under a shake."""
        boxes = {name: shake.move(rows, self.frames) for name, rows in self.boxes.items()}
        return Truth(self.clip, self.sha256, shake.size, self.fps, self.frames, boxes)


def read_truth(path: Path = TRUTH) -> Truth:
    """Read the truth; boxes between keyframes are interpolated.

    Args:
        path: JSON as in tests/data/dashcam_truth.json.
    """
    said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    frames = range(said["first"], said["last"] + 1)
    boxes = {}
    for name, one in said["objects"].items():
        keys = np.array(one["keyframes"], np.float64)
        rows = np.stack([np.interp(frames, keys[:, 0], side) for side in keys[:, 1:].T], axis=1)
        rows[(np.array(frames) < keys[0, 0]) | (np.array(frames) > keys[-1, 0])] = np.nan
        boxes[name] = rows
    size = (said["width"], said["height"])
    return Truth(said["clip"], said["sha256"], size, float(said["fps"]), frames, boxes)


class Shake:
    """A camera that jumps at every bump of the road: the same numbers for the same seed.

    A bump is a damped swing of the pitch at 3.5 Hz, with a little yaw and roll, every 0.6 to 1.1 s; between
    bumps the camera trembles. The picture is a window in the clip's, `MARGIN` smaller on each side, that
    moves against the camera.

    Args:
        size: Width and height of the clip, pixels.
        fps: Its frames a second.
        frames: How many frames there are.
        strength: 1 for swings of up to 33 pixels, which at the field of view of the clip is 2 degrees.
        seed: Of the random numbers.

    Attributes:
        size: Width and height of the shaken clip.
        matrices: Float64 (frames, 2, 3): pixels of the clip to pixels of the shaken clip.
    """

    MARGIN = 40

    def __init__(
        self, size: tuple[int, int], fps: float, frames: int, strength: float = 1.0, seed: int = 7
    ) -> None:
        random = np.random.default_rng(seed)
        times = np.arange(frames) / fps
        pitch, yaw, roll = (
            strength
            * scale
            * sum(np.sin(2 * np.pi * (rate * times + random.random())) for rate in (1.3, 2.9))
            for scale in (0.8, 0.6, 0.05)
        )
        at = 0.3
        while at < times[-1]:
            since = times - at
            swing = np.where(since > 0, np.exp(-np.maximum(since, 0) / 0.18) * np.sin(7 * np.pi * since), 0.0)
            push = strength * random.choice((-1.0, 1.0)) * random.uniform(25, 50)
            pitch, yaw, roll = (
                pitch + push * swing,
                yaw + 0.15 * random.uniform(-1, 1) * push * swing,
                roll + 0.02 * random.uniform(-1, 1) * push * swing,
            )
            at += random.uniform(0.6, 1.1)
        edge = self.MARGIN - 3.0
        pitch, yaw = np.clip(pitch, -edge, edge), np.clip(yaw, -edge, edge)
        self.size = (size[0] - 2 * self.MARGIN, size[1] - 2 * self.MARGIN)
        turn = np.radians(roll)
        rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]).transpose(2, 0, 1)
        middle = np.array(size) / 2
        shift = middle - self.MARGIN + np.stack([yaw, pitch], axis=1) - rotation @ middle
        self.matrices = np.concatenate([rotation, shift[:, :, None]], axis=2)

    def step(self, frame: int) -> NDArray[np.float64]:
        """How the shake moves the picture from the frame before to this one, float64 (2, 3)."""
        last, this = (np.vstack([self.matrices[at], [0.0, 0.0, 1.0]]) for at in (frame - 1, frame))
        return np.asarray((this @ np.linalg.inv(last))[:2], np.float64)

    def move(self, boxes: NDArray[np.float64], frames: Sequence[int]) -> NDArray[np.float64]:
        """Boxes (n, 4) of the clip, one for each frame, in the shaken clip; nan where nothing is left."""
        middle, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2
        models = self.matrices[list(frames)]
        moved = np.einsum("nij,nj->ni", models[:, :, :2], middle) + models[:, :, 2]
        placed = np.concatenate([moved - half, moved + half], axis=1)
        placed = np.clip(placed, 0, (*self.size, *self.size))
        placed[(placed[:, 2] - placed[:, 0] < 4) | (placed[:, 3] - placed[:, 1] < 4)] = np.nan
        return np.asarray(placed, np.float64)


@dataclass
class Switches:
    """How well tracks keep to objects.

    Attributes:
        switches: How often an object went on with another id than it had before.
        ids: Ids that each object has had, by name, in order.
        followed: Seconds for which each object had an id, by name.
        present: Seconds for which each was to be seen.
    """

    switches: int = 0
    ids: dict[str, list[int]] = field(default_factory=dict)
    followed: dict[str, float] = field(default_factory=dict)
    present: dict[str, float] = field(default_factory=dict)

    @property
    def per_minute(self) -> float:
        """Switches in a minute of an object with an id."""
        return 60 * self.switches / max(sum(self.followed.values()), 1e-9)

    @property
    def coverage(self) -> float:
        """Share of the objects' time for which they had an id."""
        return sum(self.followed.values()) / max(sum(self.present.values()), 1e-9)


def count_switches(
    truth: Truth, tracks: Mapping[int, tuple[NDArray[np.float64], NDArray[np.int64]]]
) -> Switches:
    """Match tracks with objects, frame by frame, and count changes of identity.

    As in Bernardin and Stiefelhagen, "Evaluating Multiple Object Tracking Performance: The CLEAR MOT Metrics"
    (EURASIP Journal on Image and Video Processing, 2008): an object keeps its track while their boxes still
    match; the rest is assigned so that the sum of IoU is greatest. Tracks without an object count nothing.

    Args:
        truth: Where the objects are.
        tracks: By frame: boxes float64 (n, 4) xyxy, and the ids (n,), of what has one. Frames that are
            missing are not looked at.
    """
    result = Switches(ids={name: [] for name in truth.boxes})
    held: dict[str, int] = {}
    for row, frame in enumerate(truth.frames):
        if frame not in tracks:
            continue
        boxes, ids = tracks[frame]
        names = [name for name, rows in truth.boxes.items() if np.isfinite(rows[row]).all()]
        for name in names:
            result.present[name] = result.present.get(name, 0.0) + 1 / truth.fps
        if not names or not len(boxes):
            continue
        common = iou_matrix(np.array([truth.boxes[name][row] for name in names]), boxes)
        worth = np.where(common >= _SAME, common, 0.0)
        for at, name in enumerate(names):  # who matches the track it had keeps it, whatever else is near
            worth[at, ids == held.get(name, -1)] += (worth[at, ids == held.get(name, -1)] > 0) * len(names)
        for at, column in zip(*assign(worth, 0.0), strict=True):
            name, found = names[at], int(ids[column])
            result.followed[name] = result.followed.get(name, 0.0) + 1 / truth.fps
            if held.get(name, found) != found:
                result.switches += 1
            if found not in result.ids[name]:
                result.ids[name].append(found)
            held[name] = found
    return result


@dataclass(frozen=True)
class Seen:
    """One frame as the tracker gets it.

    Attributes:
        detections: Its objects.
        motion: How the picture has moved since the frame before, float64 (2, 3); None where it is not known.
        milliseconds: What finding the motion has cost, of one thread.
    """

    detections: Detections
    motion: NDArray[np.float64] | None
    milliseconds: float = 0.0


def follow(
    truth: Truth, seen: Mapping[int, Seen], algorithm: str, told: str
) -> dict[int, tuple[NDArray[np.float64], NDArray[np.int64]]]:
    """Track the objects of a clip.

    Args:
        truth: Of its size and frame rate.
        seen: Its frames by number, in order.
        algorithm: Key of `pipeline.tracking.TRACKERS`.
        told: What the tracker is told of the camera's motion: ``none``, ``rigid`` or ``whole``.

    Returns:
        As `count_switches` takes it.
    """
    tracker, tracks = build_tracker(algorithm), {}
    for frame, one in seen.items():
        motion = one.motion if told != "none" else None
        if motion is not None and told == "rigid":
            motion = rigid(motion, *truth.size)
        found = tracker.update(one.detections, frame / truth.fps, Hints(motion=motion))
        assert found.track_ids is not None
        named = found.track_ids >= 0
        tracks[frame] = (found.boxes_xyxy[named].astype(np.float64), found.track_ids[named])
    return tracks


def observe(
    truth: Truth,
    seen: Mapping[int, Seen],
    tracks: Mapping[int, tuple[NDArray[np.float64], NDArray[np.int64]]],
    observers: Sequence[Observer],
    lost_s: float = 2.0,
) -> list[tuple[float, Fact]]:
    """What observers say of a clip, with the second at which they say it."""
    told: list[tuple[float, Fact]] = []
    items: dict[int, TrackedObject] = {}
    for frame, one in seen.items():
        at = frame / truth.fps
        header = FrameHeader("clip", 0, frame, round(at * 1e9), 0, at, "container", *truth.size)
        for observer in observers:
            observer.begin(header, one.motion)
        for box, track_id in zip(tracks[frame][0].tolist(), tracks[frame][1].tolist(), strict=True):
            item = items.setdefault(track_id, TrackedObject(track_id, header, header))
            x1, y1, x2, y2 = box
            item.last, item.box = header, (x1, y1, x2, y2)
            for observer in observers:
                told += [(at, fact) for fact in observer.see(item)]
        for item in [item for item in items.values() if header.pts_ns - item.last.pts_ns >= lost_s * 1e9]:
            del items[item.track_id]
            for observer in observers:
                told += [(at, fact) for fact in observer.leave(item, "lost")]
        for observer in observers:
            told += [(at, fact) for fact in observer.finish(items.values())]
    return told
