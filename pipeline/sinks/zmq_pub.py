"""Frames and events to subscribers over ZeroMQ PUB; `pipeline.client` is the other end."""

from __future__ import annotations

from typing import Literal

import msgspec

from pipeline.errors import ConfigError
from pipeline.messages import ModelSpec
from pipeline.sinks.base import Publication, Resume
from pipeline.sinks.records import topic
from pipeline.transport.pub import Publisher

__all__ = ["ZmqSink"]


class ZmqSink:
    """Publish each record under its topic, as msgpack or JSON of the same dict.

    Args:
        address: Where to bind, such as ``tcp://127.0.0.1:5556``.
        format: ``msgpack`` or ``json``.
        frames: Publish a record per frame.
        events: Publish events.
        insecure: Allow an address that other hosts can reach.
        queue_limit: Messages that may wait for one slow subscriber.
        linger_s: How long ``close`` waits for the tail to be sent.

    Raises:
        ConfigError: the format is neither.
    """

    def __init__(
        self,
        address: str,
        format: Literal["msgpack", "json"] = "msgpack",  # noqa: A002  (a config key)
        frames: bool = True,
        events: bool = True,
        insecure: bool = False,
        queue_limit: int = 1000,
        linger_s: float = 2.0,
    ) -> None:
        if format not in ("msgpack", "json"):
            raise ConfigError(f"a zmq sink cannot write {format!r}", hint="write 'msgpack' or 'json'")
        self._encode = msgspec.json.encode if format == "json" else msgspec.msgpack.encode
        self._address = address
        self._frames = frames
        self._events = events
        self._insecure = insecure
        self._queue_limit = queue_limit
        self._linger_s = linger_s
        self._publisher: Publisher | None = None

    @property
    def address(self) -> str:
        """The address in force once open; where the port was ``*``, the one that was given."""
        return self._publisher.address if self._publisher else self._address

    def open(self, spec: ModelSpec) -> Resume:
        """Bind.

        Raises:
            ConfigError: the address is malformed or not local.
            SinkError: it cannot be bound.
        """
        self._publisher = Publisher(
            self._address, insecure=self._insecure, queue_limit=self._queue_limit, linger_s=self._linger_s
        )
        return Resume()

    def write(self, item: Publication) -> None:
        """Publish the events, then the frame: who counts by frames has their events by then."""
        if self._publisher is None:
            raise RuntimeError("write before open")
        if self._events:
            for event in item.events:
                name = topic(event["source"], event["type"], event.get("label", ""))
                self._publisher.send(name, self._encode(event))
        if self._frames and item.frame is not None:
            self._publisher.send(topic(item.frame["source"], "frame"), self._encode(item.frame))

    def close(self) -> list[str]:
        """Send the tail and free the address; no files."""
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None
        return []
