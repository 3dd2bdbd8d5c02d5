"""The transport's double: a link within one thread, with the same contract and no sockets.

It drives most tests of the stages and of the worker loop, deterministically: nothing happens between two
calls. `MemoryInlet.kill` does what ``kill -9`` of a consumer does.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from pipeline.errors import TransportError
from pipeline.messages import Blob, Message
from pipeline.transport import codec
from pipeline.transport.base import Delivery, LinkStats
from pipeline.transport.shm import Pools

__all__ = ["MemoryInlet", "MemoryOutlet", "memory_link"]


@dataclass(slots=True)
class _Wire:
    """What lies between the two ends."""

    window: int
    queue: deque[tuple[int, bytes, tuple[bytes, ...]]] = field(default_factory=deque)
    incarnation: int = 0
    sent: int = 0
    processed: int = 0


class MemoryInlet:
    """Consumer's end; see `pipeline.transport.base.Inlet`."""

    def __init__(self, wires: list[_Wire]) -> None:
        self.stats = LinkStats()
        self._wires = wires
        self._turn = 0

    def receive(self) -> Delivery | None:
        """The next message, taking producers in turn."""
        for step in range(len(self._wires)):
            at = (self._turn + step) % len(self._wires)
            if self._wires[at].queue:
                self._turn = at + 1
                _, body, parts = self._wires[at].queue.popleft()
                self.stats.messages += 1
                return Delivery(codec.decode(body), 0, self._wires[at], parts)
        return None

    def pump(self) -> None:
        """Nothing arrives by itself."""

    def waiting(self) -> int:
        """How many messages are here, not yet received."""
        return sum(len(wire.queue) for wire in self._wires)

    def done(self, delivery: Delivery) -> None:
        """Return the credit and the lease of a message."""
        delivery.producer.processed += 1

    def kill(self) -> None:
        """Die as by ``kill -9`` and come back empty: what was waiting or being handled is gone."""
        for wire in self._wires:
            wire.queue.clear()
            wire.incarnation += 1
        self.stats.peers_lost += 1

    def close(self) -> None:
        """Nothing to close."""


class MemoryOutlet:
    """Producer's end; see `pipeline.transport.base.Outlet`."""

    def __init__(self, wire: _Wire, pools: Pools, *, inline: bool) -> None:
        self.stats = LinkStats()
        self._wire = wire
        self._pools = pools
        self._inline = inline
        self._leases: deque[tuple[int, tuple[Blob, ...]]] = deque()
        self._incarnation = wire.incarnation

    def ready(self) -> bool:
        """Whether a message may be sent now."""
        self.pump()
        return self._wire.sent - self._wire.processed < self._wire.window

    def send(self, message: Message, key: str = "") -> None:
        """Send against a credit."""
        if not self.ready():
            raise TransportError("no credit")
        leases = tuple(blob for blob in codec.payload(message) if self._pools.owns(blob))
        parts: tuple[bytes, ...] = ()
        if self._inline:
            message, views = codec.inline(message, self._pools.view)
            parts = tuple(bytes(view) for view in views)
        self._wire.sent += 1
        self._wire.queue.append((self._wire.sent, codec.encode(message), parts))
        self._leases.append((self._wire.sent, leases))
        self.stats.messages += 1

    def drop_peer(self, peer: str) -> None:
        """The consumer has died."""
        self._wire.queue.clear()
        self._wire.incarnation += 1
        self.pump()

    def pump(self) -> None:
        """Take back the leases of messages that were handled."""
        wire = self._wire
        if wire.incarnation != self._incarnation:  # The consumer was killed: every lease comes home.
            self._incarnation = wire.incarnation
            wire.sent = wire.processed = 0
            handled = len(self._leases)
            self.stats.peers_lost += 1
        else:
            handled = sum(1 for number, _ in self._leases if number <= wire.processed)
        for _ in range(handled):
            for blob in self._leases.popleft()[1]:
                self._pools.release(blob)

    def close(self) -> None:
        """Nothing to close."""


def memory_link(
    producers: int = 1, *, window: int, pools: Pools | None = None, inline: bool = False
) -> tuple[list[MemoryOutlet], MemoryInlet]:
    """A consumer with ``producers`` producers, each with ``window`` credits."""
    known = pools or Pools()
    wires = [_Wire(window) for _ in range(producers)]
    return [MemoryOutlet(wire, known, inline=inline) for wire in wires], MemoryInlet(wires)
