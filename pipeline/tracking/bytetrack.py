"""ByteTrack, from the package ``trackers``, made fit for several sources in one process.

Algorithm: Zhang et al., "ByteTrack: Multi-Object Tracking by Associating Every Detection Box", ECCV 2022.
"""

from __future__ import annotations

import numpy as np
import supervision as sv
from trackers import ByteTrackTracker

from pipeline.errors import ConfigError
from pipeline.messages import Detections

__all__ = ["ByteTrack"]

#: Distance in pixels between the planes of two classes; wider than any frame.
_CLASS_STRIDE = 1_000_000.0
#: Step given to a frame whose time does not rise, in seconds.
_MIN_STEP_S = 0.001


class ByteTrack:
    """ByteTrack with ids of its own.

    Objects are associated within their class: a person never becomes a car. Boxes of different classes are
    moved so far apart that they cannot overlap, so that one tracker and one assignment serve all classes.
    With ``class_agnostic`` the class is ignored, which keeps the id of an object whose class flickers (car,
    truck).

    Args:
        first_id: Id of the first object.
        frame_rate: Nominal frames per second: the unit in which motion noise is scaled. Real times are used
            throughout, so this needs to be no more than roughly right.
        lost_s: Seconds for which an object that is not seen keeps its id.
        activation: Lowest score that starts a track.
        high: Score from which a detection takes part in the first association; others may only extend tracks.
        min_frames: Consecutive frames after which a track is confirmed.
        min_iou: Lowest IoU of a box and the predicted box that can be the same object.
        class_agnostic: Associate across classes.

    Raises:
        ConfigError: a value is out of its range.
    """

    def __init__(
        self,
        *,
        first_id: int = 1,
        frame_rate: float = 30.0,
        lost_s: float = 1.0,
        activation: float = 0.45,
        high: float = 0.45,
        min_frames: int = 2,
        min_iou: float = 0.1,
        class_agnostic: bool = False,
    ) -> None:
        for name, value, low, top in (
            ("first_id", first_id, 0, 2**62),
            ("frame_rate", frame_rate, 0.01, 1000.0),
            ("lost_s", lost_s, 0.0, 3600.0),
            ("activation", activation, 0.0, 1.0),
            ("high", high, 0.0, 1.0),
            ("min_frames", min_frames, 1, 1000),
            ("min_iou", min_iou, 0.0, 1.0),
        ):
            if not low <= value <= top:
                raise ConfigError(f"track.{name} is {value}", hint=f"write a number from {low} to {top}")
        self._tracker = ByteTrackTracker(
            lost_track_buffer=round(lost_s * 30),  # the library counts in frames of 30 fps, whatever the rate
            frame_rate=frame_rate,
            track_activation_threshold=activation,
            minimum_consecutive_frames=min_frames,
            minimum_iou_threshold=min_iou,
            high_conf_det_threshold=high,
        )
        self._class_agnostic = class_agnostic
        self._ids: dict[int, int] = {}
        self._next_id = first_id
        self._last_s: float | None = None

    @property
    def next_id(self) -> int:
        """Id that the next new object will get."""
        return self._next_id

    def update(self, detections: Detections, timestamp_s: float) -> Detections:
        """See `Tracker.update`."""
        if self._last_s is not None and timestamp_s <= self._last_s:
            timestamp_s = self._last_s + _MIN_STEP_S  # the library would leave such a frame untracked
        self._last_s = timestamp_s
        boxes = detections.boxes_xyxy.astype(np.float64)
        if not self._class_agnostic:
            boxes += detections.class_ids[:, None] * _CLASS_STRIDE
        # The library may return the objects in another order, so each carries its place.
        tracked = self._tracker.update(
            sv.Detections(xyxy=boxes, confidence=detections.scores, data={"place": np.arange(len(boxes))}),
            timestamp=timestamp_s,
        )
        track_ids = np.full(len(detections), -1, np.int64)
        if len(tracked) and tracked.tracker_id is not None:
            for place, foreign in sorted(zip(tracked.data["place"], tracked.tracker_id, strict=True)):
                track_ids[int(place)] = self._own_id(int(foreign))
        self._forget()
        return detections.with_tracks(track_ids)

    def reset(self) -> None:
        """See `Tracker.reset`."""
        self._tracker.reset()
        self._ids = {}
        self._last_s = None

    def _own_id(self, foreign: int) -> int:
        if foreign < 0:
            return -1
        if foreign not in self._ids:
            self._ids[foreign] = self._next_id
            self._next_id += 1
        return self._ids[foreign]

    def _forget(self) -> None:
        """Drop ids of tracks that are gone, so that a run of weeks does not grow."""
        if len(self._ids) > 2 * len(self._tracker.tracks) + 64:
            alive = {track.tracker_id for track in self._tracker.tracks}
            self._ids = {foreign: own for foreign, own in self._ids.items() if foreign in alive}
