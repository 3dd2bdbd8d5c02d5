"""Ways to hand a frame to another process, behind one pair of functions each; for ``bench_transport``.

A way makes its two ends inside the two processes. ``send`` gets a picture and must leave it with the other
process; ``receive`` gives the first and the last eight bytes of it, proof that it is all there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import zmq
from numpy.typing import NDArray

from pipeline.messages import Blob, Frame, FrameHeader, Span
from pipeline.transport.control import Waiter
from pipeline.transport.link import ZmqInlet, ZmqOutlet, make_context
from pipeline.transport.shm import PREFIX, Pools, SlotPool

__all__ = ["WAYS", "Receiver", "Sender", "receiver", "sender"]

_WINDOW = 8
_HIGH_WATER = 8

#: What is measured, by name.
WAYS = {
    "framewire, in place": "shared-memory slot written in place, descriptor over ZeroMQ",
    "framewire, one copy": "the same with the picture copied into the slot",
    "zmq copy=False": "pyzmq over ipc, picture inline, copy=False",
    "zmq copy=True": "pyzmq over ipc, picture inline, copy=True",
    "mp.Queue": "multiprocessing.Queue of numpy arrays",
}
Ends = tuple[bytes, bytes]


class Sender(Protocol):
    """One end."""

    def send(self, picture: NDArray[np.uint8], stamp: bytes) -> None:
        """Hand over a picture with the stamp as its first and last eight bytes; blocks while it is full."""


class Receiver(Protocol):
    """The other end."""

    def receive(self) -> Ends:
        """First and last eight bytes of the next picture, once it is here."""


def _stamp(picture: NDArray[np.uint8], stamp: bytes) -> None:
    flat = picture.reshape(-1)
    flat[:8] = flat[-8:] = np.frombuffer(stamp, np.uint8)


def _ends(flat: Any) -> Ends:
    view = memoryview(flat)
    return bytes(view[:8]), bytes(view[-8:])


class _SlotSender:
    """Our link; with ``copying`` as capture uses it, without as preprocess does."""

    def __init__(self, folder: Path, shape: tuple[int, ...], copying: bool) -> None:
        self._copying = copying
        self._shape = shape
        self._pools = Pools()
        name = f"{PREFIX}bench-{folder.name}"
        self._pool = SlotPool.create(name, _WINDOW + 2, int(np.prod(shape)))
        self._pools.add(self._pool, owned=True)
        self.context = make_context()
        self._outlet = ZmqOutlet(
            self.context, "bench", [("receiver", f"ipc://{folder}/link")], pools=self._pools
        )
        self._waiter = Waiter()
        for socket in self._outlet.sockets:
            self._waiter.add(socket)
        self._seq = 0

    def send(self, picture: NDArray[np.uint8], stamp: bytes) -> None:
        """Through a slot."""
        self._outlet.pump()
        while not self._outlet.ready():
            self._waiter.wait(0.05)
            self._outlet.pump()
        with self._pool.writing() as slot:
            target = self._pool.array(slot, self._shape, "uint8")
            if self._copying:
                np.copyto(target, picture)
            _stamp(target, stamp)
            blob = self._pool.blob(slot, self._shape, "uint8")
        header = FrameHeader(
            "bench", 0, self._seq, 0, time.monotonic_ns(), 0.0, "arrival", *self._shape[1::-1]
        )
        self._seq += 1
        lease = Blob((0,), "uint8", blob.pool, blob.slot, blob.generation)
        self._outlet.send(Frame(header, (Span("capture", 0, 0, 0),), lease, (blob,), "bgr24"))

    def close(self) -> None:
        """Wait until all was taken, then remove the pool."""
        while self._outlet.outstanding():
            self._waiter.wait(0.05)
            self._outlet.pump()
        self._outlet.close()
        self._pools.close()
        self._pool.unlink()


class _SlotReceiver:
    def __init__(self, folder: Path) -> None:
        self._pools = Pools()
        self.context = make_context()
        self._inlet = ZmqInlet(self.context, f"ipc://{folder}/link", window=_WINDOW)
        self._waiter = Waiter()
        self._waiter.add(self._inlet.socket)

    def receive(self) -> Ends:
        """Read in place, give the slot back."""
        while (delivery := self._inlet.receive()) is None:
            self._waiter.wait(0.05)
        assert isinstance(delivery.message, Frame)
        blob = delivery.message.pixels[0]
        ends = _ends(self._pools.view(blob).reshape(-1))
        self._pools.check(blob)
        self._inlet.done(delivery)
        return ends

    def close(self) -> None:
        """Close the link."""
        self._inlet.socket.linger = 1000
        self._inlet.close()
        self._pools.close()


class _ZmqSender:
    def __init__(self, folder: Path, copy: bool) -> None:
        self._copy = copy
        self.context = zmq.Context()
        self._socket = self.context.socket(zmq.PUSH)
        self._socket.sndhwm = _HIGH_WATER
        self._socket.connect(f"ipc://{folder}/link")

    def send(self, picture: NDArray[np.uint8], stamp: bytes) -> None:
        """As one message; without a copy the array may not be touched again, so a fresh one goes out."""
        fresh = picture if self._copy else picture.copy()
        _stamp(fresh, stamp)
        self._socket.send(fresh.data.cast("B"), copy=self._copy)

    def close(self) -> None:
        """What was sent leaves first."""
        self._socket.close()


class _ZmqReceiver:
    def __init__(self, folder: Path, copy: bool) -> None:
        self._copy = copy
        self.context = zmq.Context()
        self._socket = self.context.socket(zmq.PULL)
        self._socket.rcvhwm = _HIGH_WATER
        self._socket.bind(f"ipc://{folder}/link")

    def receive(self) -> Ends:
        """One message."""
        if self._copy:
            return _ends(self._socket.recv())
        return _ends(self._socket.recv(copy=False).buffer)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class _QueueEnd:
    context = None

    def __init__(self, queue: Any) -> None:
        self._queue = queue

    def send(self, picture: NDArray[np.uint8], stamp: bytes) -> None:
        """Pickled in a thread of the queue's, so the array may not be touched again: a fresh one goes out."""
        fresh = picture.copy()
        _stamp(fresh, stamp)
        self._queue.put(fresh)

    def receive(self) -> Ends:
        """Unpickled."""
        return _ends(self._queue.get().reshape(-1))

    def close(self) -> None:
        """The queue goes with the processes."""


@contextmanager
def sender(way: str, folder: Path, shape: tuple[int, ...], queue: Any) -> Iterator[Sender]:
    """The sending end of a way, closed afterwards; everything lies in ``folder``."""
    end: Any
    if way.startswith("framewire"):
        end = _SlotSender(folder, shape, way.endswith("copy"))
    else:
        end = _ZmqSender(folder, way.endswith("True")) if way.startswith("zmq") else _QueueEnd(queue)
    yield from _closed(end)


@contextmanager
def receiver(way: str, folder: Path, queue: Any) -> Iterator[Receiver]:
    """The receiving end of a way, closed afterwards."""
    end: Any
    if way.startswith("framewire"):
        end = _SlotReceiver(folder)
    else:
        end = _ZmqReceiver(folder, way.endswith("True")) if way.startswith("zmq") else _QueueEnd(queue)
    yield from _closed(end)


def _closed(end: Any) -> Iterator[Any]:
    try:
        yield end
    finally:
        end.close()
        if end.context is not None:
            end.context.term()
