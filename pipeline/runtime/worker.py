"""The one loop of every process: receive, process, send, count, beat, stop."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from typing import Protocol

from pipeline.errors import FramewireError, SinkError, StaleSlotError
from pipeline.messages import (
    EndOfStream,
    Frame,
    FrameHeader,
    Lost,
    Message,
    ModelInput,
    ModelOutput,
    Result,
)
from pipeline.runtime.agent import ORPHANED
from pipeline.runtime.control import Command, PeerDied, Stop
from pipeline.stages.base import Stage
from pipeline.stages.capture import CaptureStage
from pipeline.transport import codec
from pipeline.transport.base import Delivery, Inlet, Outlet, ViewArray
from pipeline.transport.shm import Pools

__all__ = ["Commands", "Worker"]

log = logging.getLogger(__name__)


class Commands(Protocol):
    """Where commands come from; `pipeline.runtime.agent.Agent` in a real process."""

    busy_since: float | None

    def commands(self) -> list[Command]:
        """Commands that have come since the last call."""


class Worker:
    """Runs a chain of stages between an inlet (or captures) and an outlet.

    Args:
        stages: The stages of this process after ``capture``, in order, opened and begun.
        captures: The sources that this process reads.
        inlet: Where messages come from; None when they come from ``captures``.
        outlet: Where messages go; None when ``publish`` is in this process.
        pools: The pools mapped here.
        commands: Where commands come from.
    """

    def __init__(
        self,
        *,
        stages: Sequence[Stage],
        captures: Sequence[CaptureStage] = (),
        inlet: Inlet | None,
        outlet: Outlet | None,
        pools: Pools,
        commands: Commands,
    ) -> None:
        self._stages = tuple(stages)
        self._captures = deque(captures)
        self._inlet = inlet
        self._outlet = outlet
        self._pools = pools
        self._commands = commands
        self._outbox: deque[Message] = deque()
        self._stopping = False
        self._orphaned = False
        self.stale = 0
        self.idle = False

    def step(self) -> bool:
        """Obey commands and handle at most one message; whether anything moved."""
        for command in self._commands.commands():
            self.obey(command)
        moved = self._step()
        self.idle = not moved
        return moved

    def _step(self) -> bool:
        if self._outlet is not None:
            self._outlet.pump()
        moved = self._flush()
        if self._outbox or (self._outlet is not None and not self._outlet.ready()):
            if self._inlet is not None:
                self._inlet.pump()  # Left in the socket, it would keep waking us while we wait for credit.
            return moved
        delivery = self._receive()
        if delivery is None:
            return moved
        self._commands.busy_since = time.monotonic()
        self._outbox.extend(self._through(delivery.message, delivery.viewer(self._pools.view), 0))
        self._commands.busy_since = None
        if self._inlet is not None and delivery.producer is not None:
            self._inlet.done(delivery)
        self._flush()
        return True

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do: the streams have ended, or we were told that no more will come."""
        if self._orphaned:
            return True
        if self._outbox:
            return False
        if self._captures:
            return all(capture.finished for capture in self._captures)
        return self._stopping

    def obey(self, command: Command) -> None:
        """Do what the supervisor says."""
        if isinstance(command, Stop):
            self._orphaned = command.reason == ORPHANED
            self._stopping = True
            for capture in self._captures:
                capture.stop(command.reason)
        elif isinstance(command, PeerDied):
            if self._outlet is not None:
                self._outlet.drop_peer(command.worker)
            for capture in self._captures:
                capture.resend(command.cause)

    def _receive(self) -> Delivery | None:
        for _ in range(len(self._captures)):
            self._captures.rotate(-1)
            message = self._captures[-1].receive()
            if message is not None:
                return Delivery(message, time.monotonic_ns())
        return None if self._inlet is None else self._inlet.receive()

    def _flush(self) -> bool:
        moved = False
        while self._outbox and self._outlet is not None and self._outlet.ready():
            message = self._outbox.popleft()
            self._outlet.send(message, _source_of(message))
            moved = True
        return moved

    def _through(self, message: Message, view: ViewArray, at: int) -> list[Message]:
        """Take a message through the stages from number ``at`` on; what comes out at the end."""
        if at == len(self._stages):
            return [message]
        out: list[Message] = []
        for product in self._process(self._stages[at], message, view):
            out += self._through(product, self._pools.view, at + 1)
            if at + 1 < len(self._stages):
                self._release(product)
        return out

    def _process(self, stage: Stage, message: Message, view: ViewArray) -> list[Message]:
        try:
            products = list(stage.process(message, view))
        except StaleSlotError:
            self.stale += 1  # It came twice and the first one is through: nothing is missing.
            return []
        except SinkError:
            raise
        except Exception as error:  # The one broad catch: a frame may fail, the stage goes on.
            lost = _failed(stage.name, message, error)
            if lost is None:
                raise
            log.warning("%s", lost.reason, exc_info=not isinstance(error, FramewireError))
            return list(stage.process(lost, view))
        if isinstance(message, ModelOutput):
            return products  # postprocess has checked before it believed and went on to the next frame.
        try:
            self._pools.check(*codec.payload(message))
        except StaleSlotError:
            self.stale += 1
            for product in products:
                self._release(product)
            return []
        return products

    def _release(self, message: Message) -> None:
        for blob in codec.payload(message):
            if self._pools.owns(blob):
                self._pools.release(blob)


def _header_of(message: Message) -> FrameHeader | None:
    if isinstance(message, EndOfStream):
        return None
    if isinstance(message, ModelInput | ModelOutput):
        return message.frame.header
    return message.header


def _source_of(message: Message) -> str:
    header = _header_of(message)
    return header.source if header is not None else getattr(message, "source", "")


def _failed(stage: str, message: Message, error: Exception) -> Lost | None:
    """A frame that a stage could not handle, as such; None when the message is not a frame's."""
    reason = error.message if isinstance(error, FramewireError) else f"{type(error).__name__}: {error}"
    if isinstance(message, EndOfStream | Lost | Result):
        return None
    frame = message if isinstance(message, Frame) else message.frame
    return Lost(frame.header, message.spans, frame, "", f"{stage}: {reason}")
