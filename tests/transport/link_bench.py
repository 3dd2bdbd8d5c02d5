"""Both ends of real links in one process."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import zmq

from pipeline.messages import Frame
from pipeline.transport.base import Delivery
from pipeline.transport.codec import encode
from pipeline.transport.link import ZmqInlet, ZmqOutlet, make_context
from pipeline.transport.shm import Pools, SlotPool

TURNS = 600  # of 5 ms each: a bound, not a wait


class Bench:
    """Both ends of links, each consumer in a context of its own, as in a process of its own."""

    def __init__(self) -> None:
        self.context = make_context()
        self._consumers: dict[ZmqInlet, zmq.Context[Any]] = {}
        self._outlets: list[ZmqOutlet] = []

    def inlet(self, endpoint: str, window: int = 2) -> ZmqInlet:
        context = make_context()
        inlet = ZmqInlet(context, endpoint, window=window)
        self._consumers[inlet] = context
        return inlet

    def outlet(self, *endpoints: str, name: str = "producer", **options: Any) -> ZmqOutlet:
        peers = [(f"peer-{at}", endpoint) for at, endpoint in enumerate(endpoints)]
        options.setdefault("pools", Pools())
        outlet = ZmqOutlet(self.context, name, peers, **options)
        self._outlets.append(outlet)
        return outlet

    def kill(self, inlet: ZmqInlet) -> None:
        """End a consumer without a word, its address free again when this returns."""
        inlet.close()
        self._consumers.pop(inlet).term()

    def drop(self, outlet: ZmqOutlet) -> None:
        self._outlets.remove(outlet)
        outlet.close()

    def close(self) -> None:
        for outlet in list(self._outlets):
            self.drop(outlet)
        for inlet in list(self._consumers):
            self.kill(inlet)
        self.context.term()


def until(condition: Callable[[], object], *outlets: ZmqOutlet, inlets: tuple[ZmqInlet, ...] = ()) -> None:
    """Turn both ends until something holds."""
    poller = zmq.Poller()
    for socket in (*(s for o in outlets for s in o.sockets), *(i.socket for i in inlets)):
        poller.register(socket, zmq.POLLIN)
    for _ in range(TURNS):
        for inlet in inlets:
            inlet._drain()
        for outlet in outlets:
            outlet.pump()
        if condition():
            return
        poller.poll(5)
    raise AssertionError("it did not come to pass")


def receive(inlet: ZmqInlet) -> Delivery:
    for _ in range(TURNS):
        delivery = inlet.receive()
        if delivery is not None:
            return delivery
        inlet.socket.poll(5)
    raise AssertionError("nothing came")


def settled(inlet: ZmqInlet) -> None:
    """Take in all that lies in the pipe of a consumer, until it stays silent."""
    while inlet.socket.poll(20):
        inlet._drain()


def seq_of(delivery: Delivery) -> int:
    assert isinstance(delivery.message, Frame)
    return delivery.message.header.seq


def owned_pool(slots: int = 8) -> tuple[Pools, SlotPool]:
    pools = Pools()
    return pools, pools.add(SlotPool.in_memory("ours", slots, 48 * 64 * 3), owned=True)


class Greeted:
    """A bare DEALER that has been greeted; gives the socket and the consumer's incarnation."""

    def __init__(self, bench: Bench, inlet: ZmqInlet) -> None:
        self._socket: zmq.Socket[bytes] = bench.context.socket(zmq.DEALER)
        self._inlet = inlet

    def __enter__(self) -> tuple[zmq.Socket[bytes], int]:
        self._socket.connect(self._inlet.endpoint)
        self._socket.send_multipart([b"H", struct.pack("<I", 7)])
        until(lambda: self._socket.poll(0), inlets=(self._inlet,))
        kind, body = self._socket.recv_multipart()
        assert kind == b"G"
        incarnation, processed, window, greeting = struct.unpack("<QQII", body)
        assert greeting == 7, "a grant names the greeting that it answers"
        assert processed == 0
        assert window > 0
        return self._socket, incarnation

    def __exit__(self, *_: object) -> None:
        self._socket.close(0)


def send(socket: zmq.Socket[bytes], incarnation: int, frame: Frame, number: int = 1) -> None:
    socket.send_multipart([b"D", struct.pack("<QQ", incarnation % 2**64, number), encode(frame)])
