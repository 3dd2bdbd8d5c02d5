"""Small real parts for tests of transport, stages and runtime: messages, sources, sinks, and a way to die."""

from __future__ import annotations

import itertools
import queue
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import SinkError, SourceError
from pipeline.messages import (
    Blob,
    Detections,
    Event,
    Frame,
    FrameHeader,
    LetterboxMap,
    ModelOutput,
    ModelSpec,
    Result,
    Span,
)
from pipeline.runtime.control import Command
from pipeline.sinks.base import Publication, Resume
from pipeline.sources.base import Picture
from pipeline.transport.ledger import Ledger
from pipeline.transport.shm import PREFIX, SlotPool

MS = 1_000_000
SPEC = ModelSpec(
    "fake", "", "fake", ("person", "car"), 64, 48, "uint8", "nhwc", output_names=("objects",), provider="fake"
)
_numbers = itertools.count()


def unique(kind: str = "test") -> str:
    """A name in shared memory that no other test has."""
    return f"{PREFIX}{kind}-{next(_numbers)}"


def make_ledger(**values: int) -> Ledger:
    """Fresh books with some fields set."""
    ledger = Ledger.named(unique("books"), create=True)
    for field, value in values.items():
        ledger[field] = value
    return ledger


def make_header(seq: int = 0, *, source: str = "gate", epoch: int = 0, **changes: Any) -> FrameHeader:
    fields: dict[str, Any] = {
        "pts_ns": seq * 40 * MS, "captured_ns": 1000 * MS + seq, "captured_at": 1_769_852_400.0 + seq * 0.04,
        "clock": "container", "width": 64, "height": 48,
    }  # fmt: skip
    return FrameHeader(source, epoch, seq, **(fields | changes))


def make_frame(
    seq: int = 0, *, lease: Blob | None = None, pixels: tuple[Blob, ...] = (), **changes: Any
) -> Frame:
    """A frame; its pixels lie nowhere unless they are given."""
    header = make_header(seq, **changes)
    return Frame(
        header, (Span("capture", 1, 2, 3),), lease or Blob((0,), "uint8", "gone", 0), pixels, "bgr24"
    )


def leased_frame(pool: SlotPool, seq: int = 0, **changes: Any) -> Frame:
    """A bgr24 frame in a leased slot of ``pool``, filled with its number."""
    slot = pool.acquire()
    assert slot is not None
    pool.array(slot, (48, 64, 3), "uint8")[...] = seq
    pixels = (pool.blob(slot, (48, 64, 3), "uint8"),)
    frame = make_frame(seq, lease=pool.blob(slot, (0,), "uint8"), pixels=pixels, **changes)
    pool.commit(slot)
    return frame


def make_detections(count: int = 2, *, tracked: bool = False) -> Detections:
    """Boxes side by side, scores from 0.9 down, classes 0 and 1 in turn."""
    at = np.arange(count, dtype=np.float32)
    boxes = np.stack([at * 10, at, at * 10 + 8, at + 20], axis=1) if count else np.zeros((0, 4))
    return Detections(boxes, 0.9 - at * 0.01, at.astype(np.int32) % 2, at + 1 if tracked else None)


def make_output(rows: Sequence[Sequence[float]], seq: int = 0, **changes: Any) -> tuple[ModelOutput, Any]:
    """A `ModelOutput` of the fake family and the view that gives its one array."""
    array = np.zeros((1, max(1, len(rows)), 6), np.float32)
    array[0, : len(rows)] = np.reshape(rows, (-1, 6))
    frame = make_frame(seq, **changes)
    output = ModelOutput(
        frame, frame.spans, LetterboxMap(1, 1, 0, 0, 64, 48), (Blob(array.shape, "float32", "", 0),)
    )
    return output, lambda _: array


def make_event(kind: str = "start", track_id: int | None = 1, **changes: Any) -> Event:
    fields: dict[str, Any] = {"source": "gate", "at": 1_769_852_400.0, "label": "car", "track_id": track_id}
    return Event(type=kind, **(fields | changes))  # type: ignore[arg-type]


def make_result(seq: int = 0, **changes: Any) -> Result:
    header = changes.pop("header", None) or make_header(seq, source=changes.pop("source", "gate"))
    fields: dict[str, Any] = {
        "spans": (Span("capture", 1 * MS, 2 * MS, 3), Span("infer", 1 * MS, 20 * MS, 4)),
        "frame": None,
        "status": "ok",
        "detections": make_detections(),
    }
    return Result(header, **(fields | changes))


def make_picture(
    index: int, *, size: tuple[int, int] = (64, 48), epoch: int = 0, pixel_format: str = "bgr24"
) -> Picture:
    """A picture filled with its own number."""
    width, height = size
    half = ((height + 1) // 2, (width + 1) // 2)
    shapes = [(height, width, 3)] if pixel_format == "bgr24" else [(height, width), half, half]
    planes: tuple[NDArray[np.uint8], ...] = tuple(np.full(shape, index % 256, np.uint8) for shape in shapes)
    return Picture(
        planes, pixel_format, width, height, index, index * 40 * MS, 1000 + index,  # type: ignore[arg-type]
        1_769_852_400.0 + index, "container", epoch,
    )  # fmt: skip


class ListSource:
    """A recording: given pictures, then the end or an error. Opens where it is told to, as a file does."""

    live = False
    frame_rate: float | None = 25.0
    decode_errors = 0

    def __init__(
        self,
        pictures: Iterable[Picture],
        *,
        name: str = "gate",
        error: SourceError | None = None,
        refuse: SourceError | None = None,
        live: bool = False,
    ) -> None:
        self.name = name
        self.live = live
        self.pictures = list(pictures)
        self.expected_frames: int | None = len(self.pictures)
        self.error = error
        self.refuse = refuse
        self.at = 0
        self.opened: list[tuple[int, int | None]] = []
        self.closed = False

    def open(self, *, skip: int = 0, after_pts_ns: int | None = None) -> None:
        self.opened.append((skip, after_pts_ns))
        if self.refuse is not None:
            raise self.refuse
        self.at = skip

    def read(self) -> Picture | None:
        if self.at < len(self.pictures):
            self.at += 1
            return self.pictures[self.at - 1]
        if self.error is not None:
            raise self.error
        return None

    def close(self) -> None:
        self.closed = True


class LiveSource(ListSource):
    """A camera whose pictures are pushed by the test; `read` blocks until one is."""

    def __init__(self, name: str = "gate") -> None:
        super().__init__((), name=name, live=True)
        self._pushed: queue.SimpleQueue[Picture | SourceError | None] = queue.SimpleQueue()

    def push(self, item: Picture | SourceError | None) -> None:
        self._pushed.put(item)

    def read(self) -> Picture | None:
        item = self._pushed.get(timeout=10)
        if isinstance(item, SourceError):
            raise item
        return item


class KilledError(BaseException):
    """Stands for ``kill -9``: nothing that the code under test could catch or clean up after."""


class Fuse:
    """Kills at the n-th point that is passed; None for never."""

    def __init__(self, after: int | None = None) -> None:
        self.left = after
        self.passed = 0

    def burn(self) -> None:
        self.passed += 1
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                raise KilledError


class FusedLedger(Ledger):
    """Books whose writer may be killed before each write."""

    fuse: Fuse = Fuse()

    def __setitem__(self, field: str, value: int) -> None:
        self.fuse.burn()
        super().__setitem__(field, value)


class FusedPool(SlotPool):
    """A pool whose owner may be killed before and after each step."""

    fuse: Fuse = Fuse()

    def acquire(self) -> int | None:
        self.fuse.burn()
        slot = super().acquire()
        self.fuse.burn()
        return slot

    def commit(self, slot: int, descriptor: bytes = b"") -> None:
        self.fuse.burn()
        super().commit(slot, descriptor)
        self.fuse.burn()


class Orders:
    """Commands for a worker, as the supervisor would send them."""

    def __init__(self) -> None:
        self.busy_since: float | None = None
        self._waiting: deque[Command] = deque()

    def give(self, *commands: Command) -> None:
        self._waiting.extend(commands)

    def commands(self) -> list[Command]:
        taken = list(self._waiting)
        self._waiting.clear()
        return taken


class ListSink:
    """Keeps what it is given; raises when told to."""

    def __init__(self, *, resume: Resume | None = None, before: Callable[[], None] = lambda: None) -> None:
        self.items: list[Publication] = []
        self.resume = resume or Resume()
        self.before = before
        self.fail_on_close = False
        self.closed = False

    def open(self, spec: ModelSpec) -> Resume:
        return self.resume

    def write(self, item: Publication) -> None:
        self.before()
        self.items.append(item)

    def close(self) -> list[str]:
        self.closed = True
        if self.fail_on_close:
            raise SinkError("the disk is full")
        return ["results"]

    @property
    def events(self) -> list[dict[str, Any]]:
        return [event for item in self.items for event in item.events]

    @property
    def seqs(self) -> list[int]:
        return [item.header.seq for item in self.items if item.header is not None]


def no_view(blob: Blob) -> NDArray[Any]:
    raise AssertionError(f"nothing should be read, but {blob} was")


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())
