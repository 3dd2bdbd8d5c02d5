"""What a stage is: contract, open, process, close."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from pipeline.messages import Message, ModelSpec, Span
from pipeline.transport.base import ViewArray
from pipeline.transport.shm import SlotPool

__all__ = ["STAGES", "MakePool", "Stage", "passed"]

#: The stages in the order in which a frame passes them.
STAGES = ("capture", "preprocess", "infer", "postprocess", "publish")

#: Makes the pool in which a stage writes its arrays: slots are of at least so many bytes.
MakePool = Callable[[int], SlotPool]


class Stage(Protocol):
    """One stage behind its inlet; ``capture`` has none and is a `pipeline.stages.capture.CaptureStage`."""

    name: str

    def open(self) -> ModelSpec | None:
        """Heavy set-up, in the child process. ``infer`` returns what its model is."""

    def begin(self, spec: ModelSpec) -> None:
        """The model is known; frames come next."""

    def process(self, message: Message, view: ViewArray) -> Iterable[Message]:
        """Handle one message; arrays are read in place through ``view``.

        Raises:
            FramewireError: this frame cannot be handled; it goes on as a failed one.
        """

    def tick(self) -> None:
        """Look around; called a few times a second, busy or not.

        Raises:
            SinkError: what there was to write cannot be written.
        """

    def summary(self) -> dict[str, Any]:
        """What the run's summary should say of this stage; plain data."""

    def close(self) -> None:
        """Release everything; results written so far stay."""


def passed(stage: str, spans: tuple[Span, ...], since_ns: int, start_ns: int) -> tuple[Span, ...]:
    """The spans with this stage's own added, ending now.

    Args:
        stage: Name of the stage.
        spans: Stages passed before.
        since_ns: Monotonic time from which the frame waited, when no stage was passed before.
        start_ns: Monotonic time at which work on it started here.
    """
    end_ns = time.monotonic_ns()
    waited_from = spans[-1].end_ns if spans else since_ns
    return (*spans, Span(stage, max(0, start_ns - waited_from), end_ns - start_ns, end_ns))
