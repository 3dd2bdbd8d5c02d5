"""What of a frame may be seen outside: pixels, with hidden what is to be hidden, and pictures of objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import StaleSlotError
from pipeline.messages import Event, ModelSpec, Result, Scene
from pipeline.transport.base import ViewArray
from pipeline.vision.privacy import Privacy
from pipeline.vision.tensor import planes_to_bgr

if TYPE_CHECKING:
    from pipeline.sinks.snapshots import Snapshots

__all__ = ["Pictures"]

_NO_SCENE = Scene()

Picture = Callable[[], NDArray[np.uint8] | None]


class Pictures:
    """The one way for pixels out of ``publish``.

    Args:
        privacy: Hides objects; None where only masks hide something.
        scene_of: Gives what is drawn for a source now.
        snapshots: Keeps the best picture of each object; None for none.
    """

    def __init__(
        self,
        privacy: Privacy | None = None,
        scene_of: Callable[[str], Scene] = lambda _: _NO_SCENE,
        snapshots: Snapshots | None = None,
    ) -> None:
        self._hides_objects = privacy is not None
        self._privacy = privacy or Privacy(())
        self.scene_of = scene_of
        self._snapshots = snapshots
        self._labels: tuple[str, ...] = ()

    def begin(self, spec: ModelSpec) -> None:
        """Know the model.

        Raises:
            ConfigError: it does not know a label that is to be hidden.
        """
        self._labels = spec.labels
        if self._hides_objects:
            self._privacy.check(spec.labels)

    def of(self, result: Result, view: ViewArray) -> Picture:
        """Makes the pixels of a frame when they are asked for; once, whoever asks.

        Every frame of a source has to come by here, in order, so that who was in the last one is known.
        """
        scene = self.scene_of(result.header.source)
        masked = any(mask.hides != "detections" for mask in scene.masks.values())
        if self._hides_objects:
            self._privacy.see(result, self._labels)
        made: list[NDArray[np.uint8] | None] = []

        def picture() -> NDArray[np.uint8] | None:
            if not made:
                made.append(self._made(result, view, scene if masked else None))
            return made[0]

        return picture

    def name(self, result: Result, picture: Picture, events: Iterable[Event]) -> Mapping[int, str]:
        """Where the pictures of objects are, by track id, relative to the run's folder.

        Args:
            result: The frame.
            picture: Makes its pixels.
            events: Its events: of objects that end in it, nothing more is kept.

        Raises:
            SinkError: a file cannot be written.
        """
        if self._snapshots is None:
            return {}
        found = self._snapshots.take(result, picture)
        ended = [e.track_id for e in events if e.type == "end" and e.track_id is not None]
        self._snapshots.forget(result.header.source, ended)
        return found

    def forget(self, source: str) -> None:
        """A source has ended."""
        self._privacy.forget(source)
        if self._snapshots is not None:
            self._snapshots.forget(source)

    def files(self) -> list[str]:
        """What has been written: the folder of the snapshots, if there is one."""
        if self._snapshots is None or not self._snapshots.path.is_dir():
            return []
        return [str(self._snapshots.path)]

    def _made(self, result: Result, view: ViewArray, scene: Scene | None) -> NDArray[np.uint8] | None:
        frame = result.frame
        if frame is None or not frame.pixels:
            return None
        try:
            bgr = planes_to_bgr(tuple(view(blob) for blob in frame.pixels), frame.pixel_format)
        except StaleSlotError:
            return None
        if scene is None and not self._hides_objects:
            return bgr
        return self._privacy.apply(bgr, result, self._labels, scene)
