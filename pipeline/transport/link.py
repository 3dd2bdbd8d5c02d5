"""Credit-based links over ZeroMQ: the consumer binds a ROUTER, each producer connects a DEALER.

Frames on the wire, after the ROUTER's identity frame::

    producer -> consumer   H <greeting>                         repeated, the more often until it is answered
                           D <incarnation> <count> body parts…  data, the count-th for that incarnation
    consumer -> producer   G <incarnation> <processed> <window> <greeting>

The greeting in a grant is the last one heard: the dead cannot answer a new one. All is in totals, not
increments, so a lost or repeated grant does no harm. The consumer's incarnation
is drawn at start: a producer that hears a new one knows that the old consumer died, and takes back every
lease it had given. Data that was meant for an earlier incarnation is refused; capture sends it again.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import zmq

from pipeline.errors import MessageError, TransportError
from pipeline.messages import Blob, Message
from pipeline.transport import codec
from pipeline.transport.base import Delivery, LinkStats
from pipeline.transport.shm import Pools

__all__ = ["ZmqInlet", "ZmqOutlet", "make_context", "shard"]

_HELLO, _DATA, _GRANT = b"H", b"D", b"G"
_GRANT_BODY = struct.Struct("<QQII")
_HELLO_BODY = struct.Struct("<I")
_DATA_BODY = struct.Struct("<QQ")
_GREET_S = 0.25
_KEEP_S = 1.0
_LINGER_MS = 2000
_MAX_MESSAGE = 256 * 2**20
_TURN = 1000


def make_context() -> zmq.Context[zmq.Socket[bytes]]:
    """One ZeroMQ context for a process."""
    return zmq.Context(io_threads=1)


def shard(key: str, count: int) -> int:
    """Which of ``count`` replicas owns ``key``; the same in every process and run."""
    return zlib.crc32(key.encode()) % count


@dataclass(slots=True)
class _Producer:
    identity: bytes
    queue: deque[Delivery] = field(default_factory=deque)
    processed: int = 0
    greeting: int = 0


class ZmqInlet:
    """Consumer's end of a link; see `pipeline.transport.base.Inlet`.

    Args:
        context: The process's ZeroMQ context.
        endpoint: Where to bind, ``ipc://…`` or ``tcp://…``.
        window: Credits for each producer.
    """

    def __init__(self, context: zmq.Context[Any], endpoint: str, *, window: int) -> None:
        self.stats = LinkStats()
        self._window = window
        self._incarnation = struct.unpack("<Q", os.urandom(8))[0]
        self._producers: dict[bytes, _Producer] = {}
        self._turns: deque[_Producer] = deque()
        self.socket = context.socket(zmq.ROUTER)
        # Bounded by the credits; the mark only guards against a producer that ignores them.
        self.socket.rcvhwm = 1000
        self.socket.sndhwm = 1000
        self.socket.linger = 0
        self.socket.maxmsgsize = _MAX_MESSAGE
        try:
            self.socket.bind(endpoint)
        except zmq.ZMQError as error:
            self.socket.close()
            raise TransportError(
                f"cannot bind {endpoint}: {error.strerror}",
                hint="another program holds that address: choose another one" if "tcp" in endpoint else "",
            ) from error
        self.endpoint = self.socket.last_endpoint.decode().rstrip("\0")

    def receive(self) -> Delivery | None:
        """The next message, taking producers in turn."""
        self._drain()
        while self._turns:
            producer = self._turns[0]
            if producer.queue:
                self._turns.rotate(-1)
                return producer.queue.popleft()
            self._turns.popleft()
        return None

    def pump(self) -> None:
        """Take in what has arrived, at most the credits that were granted; `receive` hands it out."""
        self._drain()

    def waiting(self) -> int:
        """How many messages are here, not yet received."""
        return sum(len(producer.queue) for producer in self._turns)

    def done(self, delivery: Delivery) -> None:
        """Return the credit and the lease of a message."""
        producer: _Producer = delivery.producer
        producer.processed += 1
        self._grant(producer)

    def close(self) -> None:
        """Unbind; waiting messages are dropped, their producers still hold the leases."""
        self.socket.close()

    def _grant(self, producer: _Producer) -> None:
        body = _GRANT_BODY.pack(self._incarnation, producer.processed, self._window, producer.greeting)
        try:
            self.socket.send_multipart([producer.identity, _GRANT, body], zmq.DONTWAIT)
        except zmq.ZMQError:
            self.stats.peers_lost += 1  # It has gone; the next greeting from it, if any, is answered afresh.

    def _drain(self) -> None:
        for _ in range(_TURN):  # one who never stops sending must not keep us here
            try:
                identity, kind, *rest = self.socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return
            except ValueError:
                self.stats.malformed += 1
                continue
            self._take(identity.bytes, kind.bytes, rest)

    def _take(self, identity: bytes, kind: bytes, rest: list[zmq.Frame]) -> None:
        producer = self._producers.get(identity)
        if producer is None:
            if kind != _HELLO:
                self.stats.stale += 1
                return
            producer = self._producers[identity] = _Producer(identity)
        try:
            if kind == _HELLO:
                (producer.greeting,) = _HELLO_BODY.unpack(rest[0].bytes)
                self._grant(producer)
                return
            incarnation, _ = _DATA_BODY.unpack(rest[0].bytes)
            if kind != _DATA:
                raise MessageError("unknown kind of frame")
            if incarnation != self._incarnation:
                self.stats.stale += 1
                return
            if len(producer.queue) >= self._window:
                raise MessageError("more than there were credits for")
            message = codec.decode(rest[1].buffer)
        except (IndexError, struct.error, MessageError):
            self.stats.malformed += 1
            return
        self.stats.messages += 1
        parts = tuple(part.buffer for part in rest[2:])
        if not producer.queue and producer not in self._turns:
            self._turns.append(producer)
        producer.queue.append(Delivery(message, time.monotonic_ns(), producer, parts))


@dataclass(slots=True)
class _Peer:
    name: str
    socket: zmq.Socket[bytes]
    incarnation: int = 0
    window: int = 0
    sent: int = 0
    processed: int = 0
    leases: deque[tuple[int, tuple[Blob, ...]]] = field(default_factory=deque)
    greeted_at: float = 0.0
    greeting: int = 0
    awaited: int = 0
    since: float = 0.0  # when it began with what it works on

    @property
    def credit(self) -> int:
        return 0 if self.awaited else self.window - (self.sent - self.processed)

    def events(self) -> int:
        return int(self.socket.getsockopt(zmq.EVENTS))


class ZmqOutlet:
    """Producer's end of a link to one or more replicas; see `pipeline.transport.base.Outlet`.

    Args:
        context: The process's ZeroMQ context.
        name: Who we are, for the consumers' eyes.
        peers: Name and endpoint of each replica of the next stage.
        pools: Where the arrays of our messages lie; leases on pools that it owns end with the grant.
        inline: Send arrays inside the message instead of naming slots (``tcp://`` to another host).
        sharded: Each key always goes to the same replica.
    """

    def __init__(
        self,
        context: zmq.Context[Any],
        name: str,
        peers: Iterable[tuple[str, str]],
        *,
        pools: Pools,
        inline: bool = False,
        sharded: bool = False,
    ) -> None:
        self.stats = LinkStats()
        self._pools = pools
        self._inline = inline
        self._sharded = sharded
        self._peers: list[_Peer] = []
        identity = f"{name}.{os.urandom(4).hex()}".encode()
        for peer_name, endpoint in peers:
            socket = context.socket(zmq.DEALER)
            socket.identity = identity
            socket.linger = _LINGER_MS
            socket.sndhwm = 1000
            socket.rcvhwm = 1000
            socket.reconnect_ivl = 10
            socket.reconnect_ivl_max = 100
            socket.connect(endpoint)
            self._peers.append(_Peer(peer_name, socket))

    @property
    def sockets(self) -> list[zmq.Socket[bytes]]:
        """All sockets, for a poller."""
        return [peer.socket for peer in self._peers]

    def ready(self) -> bool:
        """Whether any message may be sent now: with shards, every shard must have credit."""
        credit = (peer.credit > 0 for peer in self._peers)
        return all(credit) if self._sharded else any(credit)

    def send(self, message: Message, key: str = "") -> None:
        """Send against a credit."""
        if self._sharded:
            peer = self._peers[shard(key, len(self._peers))]
        else:
            # Of equally loaded ones, the one that will be free first: it has been at work for longest.
            peer = max(self._peers, key=lambda p: (p.credit, -p.since))
        if peer.credit <= 0:
            raise TransportError(f"no credit at {peer.name}")
        if peer.sent == peer.processed:
            peer.since = time.monotonic()
        leases = tuple(blob for blob in codec.payload(message) if self._pools.owns(blob))
        parts: list[memoryview] = []
        if self._inline:
            message, parts = codec.inline(message, self._pools.view)
        peer.sent += 1
        header = _DATA_BODY.pack(peer.incarnation, peer.sent)
        # Inline arrays are copied here, so that their slot is free at once.
        peer.socket.send_multipart([_DATA, header, codec.encode(message), *parts], copy=True)
        self.stats.messages += 1
        if self._inline:
            for blob in leases:
                self._pools.release(blob)
            leases = ()
        peer.leases.append((peer.sent, leases))

    def drop_peer(self, peer: str) -> None:
        """A replica has died, so we are told: send it nothing until it answers a new greeting.

        The news may come late, when its successor has greeted already; then nothing is lost by asking. What
        was leased to the dead comes back when a successor answers.
        """
        for known in self._peers:
            if known.name == peer and known.incarnation:
                known.awaited = known.greeting + 1
                known.greeted_at = 0.0

    def pump(self) -> None:
        """Take in grants; greet peers that have not spoken yet, and now and then those that have."""
        now = time.monotonic()
        for peer in self._peers:
            while peer.events() & zmq.POLLIN:
                frames = peer.socket.recv_multipart(zmq.DONTWAIT)
                if len(frames) == 2 and frames[0] == _GRANT and len(frames[1]) == _GRANT_BODY.size:
                    self._granted(peer, *_GRANT_BODY.unpack(frames[1]))
                else:
                    self.stats.malformed += 1
            known = peer.incarnation and not peer.awaited
            if now - peer.greeted_at >= (_KEEP_S if known else _GREET_S) and peer.events() & zmq.POLLOUT:
                peer.greeted_at = now
                peer.greeting = (peer.greeting + 1) % 2**32
                peer.socket.send_multipart([_HELLO, _HELLO_BODY.pack(peer.greeting)])

    def outstanding(self) -> int:
        """Messages sent and not yet handled by their receivers."""
        return sum(peer.sent - peer.processed for peer in self._peers)

    def close(self) -> None:
        """Close; what was sent leaves within two seconds."""
        for peer in self._peers:
            peer.socket.close()

    def _granted(self, peer: _Peer, incarnation: int, processed: int, window: int, greeting: int) -> None:
        if greeting < peer.awaited:
            return  # Perhaps a last word of the dead, still in the pipe.
        peer.awaited = 0
        if incarnation != peer.incarnation:
            if peer.incarnation:
                self.stats.peers_lost += 1
            self._forget(peer, incarnation, window)
        if processed > peer.processed:
            peer.since = time.monotonic()
        peer.processed = max(peer.processed, min(processed, peer.sent))
        while peer.leases and peer.leases[0][0] <= peer.processed:
            for blob in peer.leases.popleft()[1]:
                self._pools.release(blob)

    def _forget(self, peer: _Peer, incarnation: int, window: int) -> None:
        for _, blobs in peer.leases:
            for blob in blobs:
                self._pools.release(blob)
        peer.leases.clear()
        peer.incarnation, peer.window = incarnation, window
        peer.sent = peer.processed = 0
