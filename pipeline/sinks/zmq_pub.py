"""The event stream: frames and events over ZeroMQ PUB, and events of the past; `pipeline.client` reads it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from pipeline.errors import ConfigError, SinkError
from pipeline.messages import ModelSpec
from pipeline.schemas import LOG_ROOT
from pipeline.sinks.base import LogView, Publication, Resume
from pipeline.sinks.records import iso_utc, topic
from pipeline.transport.answering import Answer, Answering
from pipeline.transport.link import make_context
from pipeline.transport.pub import Publisher, next_address

if TYPE_CHECKING:
    from pipeline.transport.curve import Curve

__all__ = ["ZmqSink"]

_HEARTBEAT_S = 1.0


class ZmqSink:
    """Publish each record under its topic, as msgpack or JSON of the same dict, and answer for the past.

    Each event goes out twice: under its topic, for subscribers who want to hear what happens now, and under
    that of the log, for those who must miss nothing: there the numbers rise by one, a heartbeat tells how far
    they are, and what is missing is asked for at ``replay``.

    Args:
        address: ``tcp://127.0.0.1:5556`` or the like.
        format: ``msgpack`` or ``json``.
        frames: Publish a record per frame.
        events: Publish events.
        replay: Where to answer for the past; None for the port after ``address``, or beside its path.
        keys: Folder of the keys of those who may subscribe (CURVE); None for plain text.
        insecure: Allow an address that other hosts can reach without keys.
        queue_limit: Messages that may wait for one slow subscriber.
        linger_s: How long ``close`` waits for the tail to be sent.

    Raises:
        ConfigError: the format is neither.
    """

    name = "zmq"

    def __init__(
        self,
        address: str,
        format: Literal["msgpack", "json"] = "msgpack",  # noqa: A002  (a config key)
        frames: bool = True,
        events: bool = True,
        replay: str | None = None,
        keys: str | None = None,
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
        self._replay = replay
        self._keys = keys
        self._insecure = insecure
        self._queue_limit = queue_limit
        self._linger_s = linger_s
        self._log: LogView | None = None
        self._curve: Curve | None = None
        self._publisher: Publisher | None = None
        self._answering: Answering | None = None
        self._context: Any = None
        self._beaten_at = 0.0

    @property
    def address(self) -> str:
        """The address in force once open; where the port was ``*``, the one that was given."""
        return self._publisher.address if self._publisher else self._address

    def attach(self, log: LogView) -> None:
        """Go with that event log; before `open`."""
        self._log = log

    def open(self, spec: ModelSpec) -> Resume:
        """Bind.

        Raises:
            ConfigError: the address is malformed or not local, or the keys cannot be read.
            SinkError: it cannot be bound.
        """
        self._context = make_context()
        try:
            secure: Callable[[Any], None] | None = None
            if self._keys is not None:
                from pipeline.transport.curve import Curve  # only what is used is loaded
                from pipeline.transport.keyring import Keyring

                self._curve = Curve(self._context, Keyring(self._keys))
                secure = self._curve.secure
            self._publisher = Publisher(
                self._address, insecure=self._insecure, queue_limit=self._queue_limit,
                linger_s=self._linger_s, context=self._context, secure=secure,
            )  # fmt: skip
            if self._log is not None and self._events:
                self._answering = self._answers(self._log, secure)
        except BaseException:
            self.close()
            raise
        self._beat()
        return Resume()

    def write(self, item: Publication) -> None:
        """Publish the events, then the frame: who counts by frames has their events by then."""
        if self._publisher is None:
            raise RuntimeError("write before open")
        if self._events:
            for event in item.events:
                body = self._encode(event)
                name = topic(event["source"], event["type"], event.get("label", ""))
                self._publisher.send(name, body)
                if self._log is not None:
                    self._publisher.send(f"{LOG_ROOT}{self._log.log_id}/", body)
        if self._frames and item.frame is not None:
            self._publisher.send(topic(item.frame["source"], "frame"), self._encode(item.frame))

    def tick(self) -> None:
        """Send the heartbeat when it is due; hang up on clients whose keys were revoked.

        Raises:
            SinkError: the address was taken in that moment.
        """
        if self._curve is not None and self._curve.revoked():
            # ZeroMQ asks for the key only when a connection is made. The others come back by themselves.
            assert self._publisher is not None
            self._publisher.rebind()
            if self._answering is not None:
                self._answering.rebind()
        if time.monotonic() - self._beaten_at >= _HEARTBEAT_S:
            self._beat()

    def stats(self) -> dict[str, int]:
        """Numbers for metrics."""
        stats: dict[str, int] = {}
        if self._answering is not None:
            stats |= {"replays": self._answering.answered, "malformed": self._answering.malformed}
        if self._curve is not None:
            stats |= {"accepted": self._curve.accepted, "refused": self._curve.refused}
        return stats

    def close(self) -> list[str]:
        """Send the tail and free the addresses; no files."""
        if self._publisher is not None:
            self._beat(closing=True)
            self._publisher.close()
            self._publisher = None
        if self._answering is not None:
            self._answering.close()
            self._answering = None
        if self._curve is not None:
            self._curve.close()
            self._curve = None
        if self._context is not None:
            self._context.term()
            self._context = None
        return []

    def _answers(self, log: LogView, secure: Callable[[Any], None] | None) -> Answering:
        from pipeline.sinks.replay import Replay

        def make() -> tuple[Answer, Callable[[], None]]:
            replay = Replay(log.path, lambda: log.next)
            return replay.answer, replay.close

        wanted = self._replay or next_address(self._address)
        try:
            return Answering(self._context, wanted, make, secure or (lambda _: None))
        except SinkError as error:
            raise SinkError(
                f"cannot answer for past events at {wanted}: {error.message.partition(': ')[2]}",
                hint="name another address with replay: tcp://127.0.0.1:PORT",
            ) from error

    def _beat(self, *, closing: bool = False) -> None:
        self._beaten_at = time.monotonic()
        if self._log is None or self._publisher is None:
            return
        beat: dict[str, Any] = {
            "schema": "framewire.heartbeat/1",
            "log": self._log.log_id,
            "run": self._log.run_id,
            "next": self._log.next,
            "oldest": self._log.oldest,
            "at": iso_utc(time.time()),
            "interval_s": _HEARTBEAT_S,
        }
        if self._answering is not None:
            beat["replay"] = self._answering.address
        if closing:
            beat["closing"] = True
        self._publisher.send(f"{LOG_ROOT}heartbeat/", self._encode(beat))
