"""The contract of a connector: the client of a server that events are delivered to.

`pipeline.sinks.delivery.Delivery` owns a connector and calls it from one thread of its own: it keeps the
place in the event log, waits between attempts and sets refused events aside, so that a connector only has to
speak its protocol and to say truly what has arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from pipeline.messages import ModelSpec

__all__ = ["Connector", "DeliveryError", "Listening", "RefusedError", "Session", "UnreachableError"]


@dataclass(frozen=True, slots=True)
class Session:
    """What a connector may know of the run.

    Attributes:
        run_id: Id of the run.
        log_id: Id of the event log; with a record's ``sequence`` it tells an event from all others, ever.
        spec: The model.
        sources: Gives the names of all sources that the run has, or had.
        control: Gives a command to the run, such as ``{"do": "tune", "name": "gate", "enabled": false}``,
            and returns the answer. Raises `pipeline.errors.FramewireError` when the run refuses.
        folder: Folder that ``snapshot`` and ``clip`` of records start from; None when there is none.
    """

    run_id: str
    log_id: str
    spec: ModelSpec
    sources: Callable[[], Sequence[str]]
    control: Callable[[dict[str, Any]], dict[str, Any]]
    folder: str | None = None


class DeliveryError(Exception):
    """An attempt that failed.

    Args:
        message: What went wrong, in one sentence, without a password.
        done: How many events at the head of the sequence the server has acknowledged all the same.
    """

    def __init__(self, message: str, *, done: int = 0) -> None:
        super().__init__(message)
        self.message = message
        self.done = done


class UnreachableError(DeliveryError):
    """The server is not there, or cannot take anything now: it is tried again, for as long as it takes."""


class RefusedError(DeliveryError):
    """The server will not take the first event after ``done``, which after some attempts is set aside."""


class Connector(Protocol):
    """The client of one server. Options come to the constructor as plain keywords; it touches nothing yet.

    The constructor raises `pipeline.errors.ConfigError` when its library is not installed (the hint names the
    extra: ``pip install "framewire[kafka]"``) or its options make no sense.
    """

    def connect(self, session: Session) -> None:
        """Connect, or connect again after an `UnreachableError`; what was there before is thrown away.

        Raises:
            UnreachableError: not now. Everything that time may cure is this: a refused password too, for an
                operator may mend it on the server.
        """

    def send(self, records: Sequence[dict[str, Any]]) -> None:
        """Send events in order and wait, for a bounded time, until the server has them for certain.

        Args:
            records: Event records as `docs/events.md` describes them; never changed in place.

        Raises:
            UnreachableError: the connection or the server failed.
            RefusedError: the server refuses one of them for what it is.
        """

    def close(self) -> None:
        """Say goodbye; harmless when not connected. Bounded in time."""


@runtime_checkable
class Listening(Protocol):
    """A connector that also hears something: its connection is kept while there is nothing to send."""

    def check(self) -> None:
        """Look after the connection; never waits.

        Raises:
            UnreachableError: it is lost.
        """
