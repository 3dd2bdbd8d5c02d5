"""The contract that the ZeroMQ links and the in-memory double both keep.

A link is consumer-driven. The consumer owns an `Inlet` and grants each producer a window of credits; the
producer owns an `Outlet` and sends only against a credit. `Inlet.done` returns the credit, and with it
the hop's lease: the producer may then reuse the slot that the message pointed to. Depth is therefore
exact, and a dead peer takes nothing with it but its window.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.messages import Blob, Message

__all__ = ["Delivery", "Inlet", "LinkStats", "Outlet", "ViewArray"]

#: Gives the array that a Blob names, without a copy.
ViewArray = Callable[[Blob], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A received message.

    Attributes:
        message: The message.
        received_ns: Monotonic time of its arrival here.
        producer: Who sent it; opaque, for `Inlet.done`.
        parts: Arrays that travelled inline, as raw bytes.
    """

    message: Message
    received_ns: int
    producer: Any = None
    parts: tuple[Any, ...] = ()

    def viewer(self, fallback: ViewArray) -> ViewArray:
        """A view function over the inline parts, and over ``fallback`` for arrays that lie in pools."""
        if not self.parts:
            return fallback

        def view(blob: Blob) -> NDArray[Any]:
            if blob.pool:
                return fallback(blob)
            return np.frombuffer(self.parts[blob.slot], blob.dtype).reshape(blob.shape)

        return view


@dataclass(slots=True)
class LinkStats:
    """What passed over one end of a link since it was made."""

    messages: int = 0
    stale: int = 0
    malformed: int = 0
    peers_lost: int = 0


class Inlet(Protocol):
    """Consumer's end."""

    stats: LinkStats

    def receive(self) -> Delivery | None:
        """The next message, taking producers in turn; None when nothing is waiting. Never blocks."""

    def pump(self) -> None:
        """Take in what has arrived without handing it out; call it while nothing can be received."""

    def done(self, delivery: Delivery) -> None:
        """The message was handled: give its credit and its lease back to the producer."""

    def close(self) -> None:
        """Close it; messages that nobody received are the producers' to send again."""


class Outlet(Protocol):
    """Producer's end."""

    stats: LinkStats

    def ready(self) -> bool:
        """Whether any message may be sent now, to whomever it goes."""

    def send(self, message: Message, key: str = "") -> None:
        """Send to the peer with most credit, or to the one that owns ``key`` where the link is sharded.

        Raises:
            TransportError: there is no credit (ask `ready` first).
        """

    def drop_peer(self, peer: str) -> None:
        """The named peer has died: send it nothing until it is back.

        What was leased to it comes back at the latest when its successor is heard.
        """

    def pump(self) -> None:
        """Take in grants and greet silent peers; call it at least twice a second."""

    def close(self) -> None:
        """Close it, after what was sent has left."""
