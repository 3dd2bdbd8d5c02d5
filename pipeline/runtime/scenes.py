"""What is drawn for each source, handed to stages that run: one small file a source, replaced as a whole."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pipeline.errors import TransportError
from pipeline.messages import Scene

if TYPE_CHECKING:
    from pipeline.config import Config

__all__ = ["SceneFiles", "scene_of"]

#: A new scene is noticed after so long at the latest.
_LOOK_EVERY_S = 0.5
_NOTHING = Scene()


def scene_of(config: Config, source: str) -> Scene:
    """What a config has drawn for a source; empty for one that it does not name."""
    return msgspec.convert(config.scene(source), Scene)


class SceneFiles:
    """The scenes of a run: written by the supervisor's process, read by the others.

    Args:
        run_dir: The run's folder.
        clock: Seconds that rise.
    """

    def __init__(self, run_dir: str | Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder = Path(run_dir) / "scenes"
        self._clock = clock
        self._known: dict[str, tuple[float, tuple[int, int] | None, Scene]] = {}

    def put(self, source: str, scene: Scene) -> None:
        """Let all stages see this scene from now on.

        Raises:
            TransportError: the run's folder cannot be written.
        """
        path = self._folder / f"{source}.msgpack"
        scratch = path.with_suffix(".new")
        try:
            self._folder.mkdir(exist_ok=True)
            scratch.write_bytes(msgspec.msgpack.encode(scene))
            scratch.replace(path)
        except OSError as error:
            raise TransportError(
                f"cannot write {path}: {error.strerror}", hint="make room there, and reload"
            ) from error

    def get(self, source: str) -> Scene:
        """The scene of a source; the same object until another one was put, empty where none was."""
        now = self._clock()
        known = self._known.get(source)
        if known is not None and now - known[0] < _LOOK_EVERY_S:
            return known[2]
        path = self._folder / f"{source}.msgpack"
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if known is not None and known[1] == stamp:
                scene = known[2]
            else:
                scene = msgspec.msgpack.decode(path.read_bytes(), type=Scene)
        except FileNotFoundError:
            stamp, scene = None, _NOTHING
        self._known[source] = (now, stamp, scene)
        return scene
