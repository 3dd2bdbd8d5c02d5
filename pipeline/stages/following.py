"""What the objects of one source pass through, frame by frame: tracker, cascades, observers, events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.analytics.closing import Closing
from pipeline.analytics.ego import CameraState
from pipeline.analytics.lifecycle import ObjectLifecycle
from pipeline.analytics.lines import Lines
from pipeline.analytics.movement import Movement
from pipeline.analytics.objects import Fact, Observer
from pipeline.analytics.zones import Zones
from pipeline.errors import FramewireError
from pipeline.messages import Attribute, Classes, Detections, Event, FrameHeader, ModelSpec, Scene
from pipeline.tasks.cascade import Cascade, ObjectAttributes
from pipeline.tasks.reading import Found
from pipeline.tracking import build_tracker
from pipeline.tracking.base import Hints
from pipeline.vision.camera_motion import CameraMotion, rigid
from pipeline.vision.tensor import PixelFormat, Plane

if TYPE_CHECKING:
    from pipeline.tasks.embedding import Embedder

__all__ = ["Followed", "Follower", "Following", "Pixels"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Following:
    """How objects are followed; the same for all sources.

    Attributes:
        algorithm: Name of the tracker; ``auto`` is ``botsort`` where the camera moves, else ``bytetrack``.
        track_options: Its options.
        update_interval_s: Shortest time between two ``update`` events of an object.
        lost_after_s: An object unseen for so long has ended.
        confidence: Classes of whole frames with a lower score are not followed.
        closing: Arguments of `Closing`, for cameras that move; None for no such events.
    """

    algorithm: str = "bytetrack"
    track_options: Mapping[str, Any] = field(default_factory=dict)
    update_interval_s: float = 1.0
    lost_after_s: float = 2.0
    confidence: float = 0.4
    closing: Mapping[str, Any] | None = None

    def algorithm_for(self, scene: Scene, spec: ModelSpec) -> str:
        """The tracker of a source."""
        if spec.kind == "classifier" and self.algorithm != "none":
            return "presence"  # nothing moves: what is followed is which classes are there
        if self.algorithm == "auto":
            return "botsort" if scene.moving else "bytetrack"
        return self.algorithm

    def options_for(self, algorithm: str) -> dict[str, Any]:
        """Its options: of whole frames nothing but the time is left."""
        options = dict(self.track_options)
        return {k: v for k, v in options.items() if k == "lost_s"} if algorithm == "presence" else options


@dataclass(frozen=True, slots=True)
class Pixels:
    """The pixels of a frame, while they last.

    Attributes:
        planes: As for `pipeline.vision.tensor.TensorFiller.fill`.
        pixel_format: What they are.
        check: Raises when they were overwritten meanwhile.
    """

    planes: tuple[Plane, ...]
    pixel_format: PixelFormat
    check: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Followed:
    """What has become of one frame."""

    detections: Detections
    attributes: tuple[Attribute, ...] = ()
    events: tuple[Event, ...] = ()


class Follower:
    """Follows the objects of one source. Nothing in it is shared with another, but for the networks.

    Args:
        source: Name of the source.
        spec: The model.
        following: How.
        scene_of: Gives what is drawn for the source now; the same object for as long as it is the same.
        first_id: Id of the first object.
        cascades: Second models that look at the objects, opened.
        embedder: What tells the tracker how objects look, opened; None for nothing.
    """

    def __init__(
        self,
        source: str,
        spec: ModelSpec,
        following: Following,
        *,
        scene_of: Callable[[], Scene] = Scene,
        first_id: int = 1,
        cascades: Sequence[Cascade] = (),
        embedder: Embedder | None = None,
    ) -> None:
        self._source = source
        self._spec = spec
        self._following = following
        self._scene_of = scene_of
        self._scene = scene_of()
        self._attributes = ObjectAttributes(cascades, spec.labels)
        self._has_cascades = bool(cascades)
        self._embedder = embedder
        self._epoch: int | None = None
        self._complaint = ""
        self._camera = CameraMotion()
        self._track(first_id)
        self._observe()

    @property
    def next_id(self) -> int:
        """Id that the next new object will get."""
        return self._tracker.next_id

    def enter(self, header: FrameHeader) -> tuple[Event, ...]:
        """A frame comes, whatever became of it: ends what belongs to another epoch, goes on with a new scene.

        Returns:
            The events of that.
        """
        events: tuple[Event, ...] = ()
        if self._epoch != header.epoch:
            if self._epoch is not None:
                events = self.finish("epoch_changed", header.captured_at)
                self._tracker.reset()
            self._epoch = header.epoch
        scene = self._scene_of()
        if scene is not self._scene and scene != self._scene:
            events += self._adopt(scene, header)
        self._scene = scene
        return events

    def follow(self, header: FrameHeader, found: Found, look: Callable[[], Pixels | None]) -> Followed:
        """Take in what a model saw in a frame.

        Args:
            header: The frame.
            found: What was seen; nothing of a frame that failed, which says nothing about what is there.
            look: Gives its pixels, None where there are none; called only where they are needed.
        """
        at_s = header.pts_ns / 1e9
        if found.classes is not None:
            stays = self._tracker.update(
                _whole_frame(header, found.classes, self._following.confidence), at_s
            )
            return Followed(
                found.detections, events=tuple(map(_without_box, self._lifecycle.update(header, stays)))
            )
        pixels = self._pixels(header, look)
        motion, embeddings = self._hints(header, found.detections, pixels)
        # A camera that drives ahead makes all grow: the way of the objects, which the tracker foresees.
        jolt = None if motion is None else rigid(motion, header.width, header.height)
        detections = self._tracker.update(found.detections, at_s, Hints(jolt, embeddings))
        attributes = self._look(header, detections, pixels) if self._has_cascades else ()
        events = self._lifecycle.update(header, detections, attributes, motion)
        return Followed(detections, attributes, events)

    def finish(self, reason: str, at: float) -> tuple[Event, ...]:
        """End all objects.

        Args:
            reason: Why, such as ``end_of_file``.
            at: UTC seconds.
        """
        events = self._lifecycle.finish(reason, at)
        self._attributes.reset()
        self._camera.reset()
        self._observe()
        return tuple(map(_without_box, events)) if self._spec.kind == "classifier" else events

    def _track(self, first_id: int) -> None:
        algorithm = self._following.algorithm_for(self._scene, self._spec)
        self._tracker = build_tracker(algorithm, first_id=first_id, **self._following.options_for(algorithm))
        self._watches_camera = self._scene.moving or algorithm == "botsort"

    def _observe(self) -> None:
        """Begin anew with all that is kept of objects."""
        scene, following = self._scene, self._following
        self._drawn = (Zones(scene), Lines(scene))
        self._movement = Movement(scene)
        moving: list[Observer] = []
        if scene.moving:
            moving = [CameraState()]
            if following.closing is not None:
                moving.append(Closing(**following.closing))
        self._lifecycle = ObjectLifecycle(
            self._spec.labels,
            observers=(self._movement, *self._drawn, *moving) if self._spec.kind == "detector" else (),
            update_interval_s=following.update_interval_s,
            lost_after_s=following.lost_after_s,
            model=self._spec.name,
            provider=self._spec.provider,
        )

    def _adopt(self, scene: Scene, header: FrameHeader) -> tuple[Event, ...]:
        if scene.moving != self._scene.moving:  # another tracker, other observers
            events = self.finish("scene_changed", header.captured_at)
            self._scene = scene
            self._track(self._tracker.next_id)
            self._observe()
            return events
        facts: list[Fact] = [fact for observer in self._drawn for fact in observer.adopt(scene)]
        self._movement.adopt(scene)
        return self._lifecycle.tell(facts)

    def _pixels(self, header: FrameHeader, look: Callable[[], Pixels | None]) -> Pixels | None:
        if not (self._watches_camera or self._embedder or self._has_cascades):
            return None
        try:
            return look()
        except FramewireError as error:
            self._complain("no pixels", header, error)
            return None

    def _hints(
        self, header: FrameHeader, detections: Detections, pixels: Pixels | None
    ) -> tuple[NDArray[np.float64] | None, NDArray[np.float32] | None]:
        """What the picture tells besides the boxes: its motion, and how objects look. No tracker needs it."""
        motion: NDArray[np.float64] | None = None
        embeddings: NDArray[np.float32] | None = None
        if pixels is None:
            self._camera.reset()
            return None, None
        try:
            if self._watches_camera:
                motion = self._camera.estimate(pixels.planes, pixels.pixel_format, detections.boxes_xyxy)
            if self._embedder is not None and len(detections):
                embeddings = self._embedder.look(pixels.planes, pixels.pixel_format, detections)
            pixels.check()
        except FramewireError as error:
            self._camera.reset()
            self._complain("no hints for the tracker", header, error)
            return None, None
        return motion, embeddings

    def _look(
        self, header: FrameHeader, detections: Detections, pixels: Pixels | None
    ) -> tuple[Attribute, ...]:
        """What cascades say of the objects; a crop that cannot be read costs its look, not the frame."""
        at_s = header.pts_ns / 1e9
        known = partial(self._attributes.update, detections, timestamp_s=at_s)
        try:
            if pixels is not None:
                return known(pixels.planes, pixels.pixel_format, check=pixels.check)
        except FramewireError as error:
            self._complain("no new attributes", header, error)
        return known((), "bgr24")

    def _complain(self, what: str, header: FrameHeader, error: FramewireError) -> None:
        """Once, and not with each frame of a pool that is gone or a server that is down."""
        level = logging.DEBUG if self._complaint == str(error) else logging.WARNING
        self._complaint = str(error)
        _log.log(level, "postprocess [%s]: %s for frame %d: %s", self._source, what, header.seq, error)


def _whole_frame(header: FrameHeader, classes: Classes, confidence: float) -> Detections:
    """Classes that are sure enough, as objects that fill the frame."""
    sure = [pair for pair in zip(classes.class_ids, classes.scores, strict=True) if pair[1] >= confidence]
    boxes = np.tile(np.array([0, 0, header.width, header.height], np.float32), (len(sure), 1))
    return Detections(boxes, [score for _, score in sure], [class_id for class_id, _ in sure])


def _without_box(event: Event) -> Event:
    return msgspec.structs.replace(event, box_xyxy=None, box_normalized=None)
