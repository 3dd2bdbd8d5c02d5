"""What is told to stages that run, for each source: its scene and its tuning, one small file each."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from pipeline.errors import TransportError
from pipeline.messages import Scene, Tuning

if TYPE_CHECKING:
    from pipeline.config import Config

__all__ = ["SceneFiles", "SourceFiles", "TuningFiles", "scene_of"]

#: What is new is noticed after so long at the latest.
_LOOK_EVERY_S = 0.5

T = TypeVar("T")


def scene_of(config: Config, source: str) -> Scene:
    """What a config has drawn for a source; empty for one that it does not name."""
    return msgspec.convert(config.scene(source), Scene)


class SourceFiles(Generic[T]):
    """Values of one kind by source: written by the supervisor's process as a whole, read by the others.

    Args:
        run_dir: The run's folder.
        name: Folder of these values in it.
        nothing: The value of a source for which none was put.
        clock: Seconds that rise.
    """

    def __init__(
        self, run_dir: str | Path, name: str, nothing: T, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = Path(run_dir) / name
        self._nothing = nothing
        self._clock = clock
        self._known: dict[str, tuple[float, tuple[int, int] | None, T]] = {}

    def put(self, source: str, value: T) -> None:
        """Let all stages see this value from now on.

        Raises:
            TransportError: the run's folder cannot be written.
        """
        path = self._folder / f"{source}.msgpack"
        scratch = path.with_suffix(".new")
        try:
            self._folder.mkdir(exist_ok=True)
            scratch.write_bytes(msgspec.msgpack.encode(value))
            scratch.replace(path)
            self._known.pop(source, None)
        except OSError as error:
            raise TransportError(
                f"cannot write {path}: {error.strerror}", hint="make room there, and reload"
            ) from error

    def get(self, source: str) -> T:
        """The value of a source; the same object until another one was put."""
        now = self._clock()
        known = self._known.get(source)
        if known is not None and now - known[0] < _LOOK_EVERY_S:
            return known[2]
        path = self._folder / f"{source}.msgpack"
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if known is not None and known[1] == stamp:
                value = known[2]
            else:
                value = msgspec.msgpack.decode(path.read_bytes(), type=type(self._nothing))
        except FileNotFoundError:
            stamp, value = None, self._nothing
        self._known[source] = (now, stamp, value)
        return value


class SceneFiles(SourceFiles[Scene]):
    """What is drawn for each source of a run.

    Args:
        run_dir: The run's folder.
        clock: Seconds that rise.
    """

    def __init__(self, run_dir: str | Path, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(run_dir, "scenes", Scene(), clock)


class TuningFiles(SourceFiles[Tuning]):
    """What was set for each source while the run goes on.

    Args:
        run_dir: The run's folder.
        clock: Seconds that rise.
    """

    def __init__(self, run_dir: str | Path, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(run_dir, "tuning", Tuning(), clock)
