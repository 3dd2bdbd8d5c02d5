"""The subscriber: a context manager and an iterator of what is published."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import zmq

from pipeline.errors import ConfigError, MessageError
from pipeline.schemas import TOPIC_ROOT, VERSION, parse_topic, topic

__all__ = ["Received", "Subscriber", "parse_message"]

_HINT = "write the address at which the pipeline publishes, such as tcp://127.0.0.1:5556"
_SCHEMA = re.compile(r"framewire\.([a-z_]+)/(\d+)")


class Received(msgspec.Struct, frozen=True):
    """One record.

    Attributes:
        topic: The topic it came under.
        kind: ``frame``, or the type of the event: ``start``, ``update``, ``end``, ``source``.
        record: Its content, as ``docs/events.md`` describes it; fields that a newer publisher adds included.
    """

    topic: str
    kind: str
    record: dict[str, Any]

    @property
    def source(self) -> str:
        """Name of the source."""
        return str(self.record["source"])

    @property
    def label(self) -> str:
        """Class name of the object that an event is about; empty for others."""
        return str(self.record.get("label", ""))


class _MalformedError(ValueError):
    """Not a message of ours at all."""


class Subscriber:
    """Receive frames and events, in the order in which they were published.

    A publisher that is not there yet, or goes and comes back, is no error: the connection is made again by
    itself. What was published meanwhile is gone; `sequence` of events and `seq` of frames show the gap.

    Args:
        address: Where the pipeline publishes, such as ``tcp://127.0.0.1:5556``.
        sources: Only these sources; empty for all.
        types: Only these kinds (``frame``, ``start``, ``update``, ``end``, ``source``); empty for all.
        labels: Only events of objects with these class names; frames have no label and then stay out.
        timeout_s: Iteration ends after that much silence; None waits for ever.
        queue_limit: Messages that may wait here until they are read.

    Attributes:
        malformed: How many messages were passed over because they were not ours.

    Raises:
        ConfigError: the address is not one to connect to.
    """

    def __init__(
        self,
        address: str,
        sources: Sequence[str] = (),
        types: Sequence[str] = (),
        labels: Sequence[str] = (),
        timeout_s: float | None = None,
        queue_limit: int = 10_000,
    ) -> None:
        self.malformed = 0
        self._sources, self._types, self._labels = frozenset(sources), frozenset(types), frozenset(labels)
        self._timeout_s = timeout_s
        port = re.fullmatch(r"tcp://.+:(\d+)", address)
        if port is not None and not 0 < int(port[1]) < 65536:  # ZeroMQ would wait there for ever
            raise ConfigError(f"cannot connect to {address!r}: there is no such port", hint=_HINT)
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        try:
            self._socket.setsockopt(zmq.RCVHWM, queue_limit)
            self._socket.setsockopt(zmq.LINGER, 0)
            self._socket.setsockopt(zmq.IPV6, int("[" in address))
            for prefix in _prefixes(sources, types, labels):
                self._socket.setsockopt(zmq.SUBSCRIBE, prefix.encode())
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(
                f"cannot connect to {address!r}: {error.strerror}",
                hint=_HINT,
            ) from error

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __iter__(self) -> Subscriber:
        return self

    def __next__(self) -> Received:
        """Wait for the next record.

        Raises:
            StopIteration: ``timeout_s`` of silence.
            MessageError: the publisher speaks a version that this subscriber does not know.
        """
        item = self.receive(self._timeout_s)
        if item is None:
            raise StopIteration
        return item

    def receive(self, timeout_s: float | None = None) -> Received | None:
        """Wait for the next record that was asked for; None after ``timeout_s`` without one.

        Raises:
            MessageError: the publisher speaks a version that this subscriber does not know.
        """
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            wait_ms = None if deadline is None else max(0, int((deadline - time.monotonic()) * 1000))
            if not self._socket.poll(wait_ms):
                return None
            try:
                item = _parse(self._socket.recv_multipart())
            except _MalformedError:
                self.malformed += 1
                continue
            if self._wanted(item):
                return item

    def close(self) -> None:
        """Disconnect."""
        self._socket.close(0)
        self._context.term()

    def _wanted(self, item: Received) -> bool:
        return (
            (not self._sources or item.source in self._sources)
            and (not self._types or item.kind in self._types)
            and (not self._labels or item.label in self._labels)
        )


def parse_message(parts: Sequence[bytes]) -> Received:
    """Read one message.

    Args:
        parts: Topic and payload, which is JSON if it begins with ``{``, else msgpack.

    Raises:
        MessageError: it is not a message of ours, or of a version that we do not know.
    """
    try:
        return _parse(parts)
    except _MalformedError as error:
        raise MessageError(f"not a framewire message: {error}") from error


def _parse(parts: Sequence[bytes]) -> Received:
    if len(parts) != 2:
        raise _MalformedError(f"{len(parts)} parts instead of topic and payload")
    try:
        name = parts[0].decode()
        source, kind, _ = parse_topic(name)
        decode = msgspec.json.decode if parts[1][:1] == b"{" else msgspec.msgpack.decode
        record = decode(parts[1], type=dict[str, Any])
    except (ValueError, msgspec.DecodeError) as error:
        raise _MalformedError(str(error)) from error
    schema = _SCHEMA.fullmatch(str(record.get("schema")))
    if schema is None or schema[1] != kind or record.get("source") != source:
        raise _MalformedError(f"topic {name!r} and content do not belong together")
    if int(schema[2]) != VERSION:
        raise MessageError(
            f"{name} carries {record['schema']!r}; this subscriber reads version {VERSION}",
            hint="use the same framewire version here as where the pipeline runs",
        )
    return Received(name, kind, record)


def _prefixes(sources: Iterable[str], types: Sequence[str], labels: Sequence[str]) -> list[str]:
    """Topic prefixes that ask for no more than needed; what they cannot say is filtered on arrival."""
    if not sources:
        return [TOPIC_ROOT]
    if not types:
        return [topic(source, "").removesuffix("/") for source in sources]
    return [topic(source, kind, label) for source in sources for kind in types for label in labels or [""]]
