"""The one loop of every process: receive, process, send, count, beat, stop."""

from __future__ import annotations

import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
from pipeline.runtime.batching import BatchPolicy, BatchStage, Waiting
from pipeline.runtime.control import Command, PeerDied, Stop
from pipeline.stages.base import Stage
from pipeline.stages.capture import CaptureStage
from pipeline.transport import codec
from pipeline.transport.base import Delivery, Inlet, Outlet, ViewArray
from pipeline.transport.shm import Pools

__all__ = ["Commands", "Worker"]

log = logging.getLogger(__name__)

_TICK_S = 0.2


class Commands(Protocol):
    """Where commands come from; `pipeline.runtime.agent.Agent` in a real process."""

    busy_since: float | None

    def commands(self) -> list[Command]:
        """Commands that have come since the last call."""


@dataclass(frozen=True, slots=True)
class _Held:
    """An input of the batching stage that waits here, and the delivery that is done with it."""

    message: ModelInput
    view: ViewArray
    delivery: Delivery | None


class Worker:
    """Runs a chain of stages between an inlet (or captures) and an outlet.

    A stage that takes several frames at once (`pipeline.runtime.batching.BatchStage`) gets them as its policy
    says; the messages that wait for that are held here, their credits and leases not yet given back.

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
        self._next_tick = 0.0
        self._batch_at, self._policy = _batching(self._stages)
        self._held: list[_Held] = []
        self._open: list[Delivery] = []
        self._handled: set[int] = set()
        self._until_ns = 0
        self.stale = 0
        self.idle = False

    @property
    def wait_s(self) -> float:
        """Longest time to sleep when idle, seconds; infinite unless frames wait for others to join them."""
        if not self._until_ns:
            return math.inf
        return max(0, self._until_ns - time.monotonic_ns()) / 1e9

    def step(self) -> bool:
        """Obey commands and handle at most one message, or one batch; whether anything moved."""
        for command in self._commands.commands():
            self.obey(command)
        self._tick()
        moved = self._step()
        self.idle = not moved
        return moved

    def _tick(self) -> None:
        now = time.monotonic()
        if now < self._next_tick:
            return
        self._next_tick = now + _TICK_S
        for capture in self._captures:
            capture.watch()
        for stage in self._stages:
            stage.tick()

    def _step(self) -> bool:
        self._until_ns = 0
        if self._outlet is not None:
            self._outlet.pump()
        moved = self._flush()
        if self._outbox or (self._outlet is not None and not self._outlet.ready()):
            if self._inlet is not None:
                self._inlet.pump()  # Left in the socket, it would keep waking us while we wait for credit.
            return moved
        if self._policy is not None:
            return self._gather(self._policy) or self._batch(self._policy) or moved
        delivery = self._receive()
        if delivery is None:
            return moved
        with self._busy():
            self._outbox.extend(self._through(delivery.message, delivery.viewer(self._pools.view), 0))
        self._done(delivery)
        self._flush()
        return True

    def _gather(self, policy: BatchPolicy) -> bool:
        """Receive what is here, up to the batching stage; whether anything went past it.

        What is no input of that stage goes through at once: the order of a source is restored behind it.
        """
        # Where messages come as they are, all are taken, so that the policy sees every source that waits.
        # What stages in this process make of them takes slots of ours: no more than a batch of that.
        room = policy.limit if self._batch_at or self._captures else math.inf
        while len(self._held) < room and not self._outbox:
            delivery = self._receive()
            if delivery is None:
                return False
            self._open.append(delivery)
            with self._busy():
                self._hold(delivery, policy)
        passed = bool(self._outbox)
        self._flush()
        return passed

    def _hold(self, delivery: Delivery, policy: BatchPolicy) -> None:
        view = delivery.viewer(self._pools.view)
        products = self._through(delivery.message, view, 0, self._batch_at)
        inputs = [product for product in products if isinstance(product, ModelInput)]
        for product in products:
            if isinstance(product, ModelInput):
                policy.arrived(product.frame.header.source, _arrival_ns(product, delivery))
                last = product is inputs[-1]
                self._held.append(
                    _Held(product, self._pools.view if self._batch_at else view, delivery if last else None)
                )
                continue
            if isinstance(product, EndOfStream):
                policy.ended(product.source)
            self._outbox.extend(self._through(product, self._pools.view, self._batch_at))
        if not inputs:
            self._handled.add(id(delivery))
            self._settle()

    def _batch(self, policy: BatchPolicy) -> bool:
        """Take a batch through the stages, if the policy wants one; whether it did."""
        if not self._held or (self._outlet is not None and not self._outlet.ready()):
            return False
        headers = [held.message.frame.header for held in self._held]
        waiting = [Waiting(header.source, header.captured_ns) for header in headers]
        decision = policy.decide(waiting, time.monotonic_ns(), more=not self._stopping)
        if not decision.picks:
            self._until_ns = decision.until_ns
            return False
        picked = [self._held[at] for at in decision.picks]
        gone = set(decision.picks)
        self._held = [held for at, held in enumerate(self._held) if at not in gone]
        with self._busy():
            for held, products in zip(picked, self._infer(picked, policy), strict=True):
                for product in products:
                    self._outbox.extend(self._through(product, self._pools.view, self._batch_at + 1))
                    if self._batch_at + 1 < len(self._stages):
                        self._release(product)
                if self._batch_at:
                    self._release(held.message)
                if held.delivery is not None:
                    self._handled.add(id(held.delivery))
        self._settle()
        self._flush()
        return True

    def _settle(self) -> None:
        """Give back credits and leases of what was handled, to each producer in the order of its messages.

        A producer counts what comes back and takes the oldest lease for it: were a later message done with
        first, the slot of one that still waits here would be written anew.
        """
        owing: list[Delivery] = []
        for delivery in self._open:
            first = not any(delivery.producer is other.producer for other in owing)
            if first and id(delivery) in self._handled:
                self._handled.remove(id(delivery))
                self._done(delivery)
            else:
                owing.append(delivery)
        self._open = owing

    def _infer(self, picked: Sequence[_Held], policy: BatchPolicy) -> list[list[Message]]:
        """What the batching stage makes of each; when it refuses them together, it gets them one by one."""
        stage = self._stages[self._batch_at]
        assert isinstance(stage, BatchStage)
        start_ns = time.monotonic_ns()
        if len(picked) == 1:
            made = self._process(stage, picked[0].message, picked[0].view)
            if made and isinstance(made[0], ModelOutput):
                policy.served(1, time.monotonic_ns() - start_ns)
            return [made]
        try:
            products = stage.process_batch([(held.message, held.view) for held in picked])
        except Exception as error:  # As in `_process`, where the guilty one will be found.
            if isinstance(error, SinkError):
                raise
            words = "%s: a batch of %d failed, its frames go one by one: %s"
            log.warning(words, stage.name, len(picked), error)
            return [self._process(stage, held.message, held.view) for held in picked]
        policy.served(len(picked), time.monotonic_ns() - start_ns)
        pairs = zip(picked, products, strict=True)
        return [self._checked(held.message, [product]) for held, product in pairs]

    @contextlib.contextmanager
    def _busy(self) -> Iterator[None]:
        self._commands.busy_since = time.monotonic()
        yield
        self._commands.busy_since = None

    def _done(self, delivery: Delivery) -> None:
        if self._inlet is not None and delivery.producer is not None:
            self._inlet.done(delivery)

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do: the streams have ended, or we were told that no more will come."""
        if self._orphaned:
            return True
        if self._outbox or self._held:
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

    def _through(self, message: Message, view: ViewArray, at: int, end: int | None = None) -> list[Message]:
        """Take a message through the stages from number ``at`` to ``end``; what comes out there."""
        end = len(self._stages) if end is None else end
        if at == end:
            return [message]
        out: list[Message] = []
        for product in self._process(self._stages[at], message, view):
            out += self._through(product, self._pools.view, at + 1, end)
            if at + 1 < end:
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
        return self._checked(message, products)

    def _checked(self, message: Message, products: list[Message]) -> list[Message]:
        """The products, unless a slot that they were made from was recycled meanwhile."""
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


def _batching(stages: Sequence[Stage]) -> tuple[int, BatchPolicy | None]:
    """Where in the chain frames are batched, and by which policy; None where they are not."""
    for at, stage in enumerate(stages):
        if isinstance(stage, BatchStage) and stage.batch > 1:
            return at, BatchPolicy(stage.batch, stage.service_ns)
    return 0, None


def _arrival_ns(message: ModelInput, delivery: Delivery) -> int:
    """When it came, by our clock. While we work we do not look: the stage before knows better, if local."""
    if message.spans and not delivery.parts:
        return message.spans[-1].end_ns
    return delivery.received_ns


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
