"""Bound sockets under attack, and how to find out whether they still serve."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import zmq

from pipeline.errors import MessageError
from pipeline.eventlog.log import EventLog
from pipeline.sinks.replay import SCHEMA as REPLAY
from pipeline.sinks.replay import Replay
from pipeline.transport.answering import Answering
from pipeline.transport.link import ZmqInlet
from pipeline.transport.pub import Publisher
from pipeline.transport.push import SCHEMA as PUSH
from pipeline.transport.push import PushInlet
from tests.eventlog.records import draft

LIMIT_MS = 10_000

#: ZMTP 3.0 without encryption, as far as a DEALER's first message.
GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
HANDSHAKE = GREETING + b"\x04" + bytes([len(READY)]) + READY


class Target:
    """A bound socket under attack: where it is, and how to find out whether it serves."""

    def __init__(self) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.clients: zmq.Context[Any] = zmq.Context()
        self.address = ""

    def open(self) -> None:
        raise NotImplementedError

    def turn(self) -> None:
        """Do what its owner does all the time."""

    def close(self) -> None:
        raise NotImplementedError

    def question(self) -> list[bytes]:
        raise NotImplementedError

    def client(self, kind: int = zmq.DEALER) -> zmq.Socket[Any]:
        made: zmq.Socket[Any] = self.clients.socket(kind)
        made.linger = 0
        made.connect(self.address)
        return made

    def raw(self) -> socket.socket:
        host, _, port = self.address.removeprefix("tcp://").rpartition(":")
        return socket.create_connection((host, int(port)), timeout=10)

    def served(self) -> None:
        with self.client() as peer:
            peer.send_multipart(self.question())
            self.until(lambda: peer.poll(2))

    def until(self, condition: Callable[[], object]) -> None:
        for _ in range(LIMIT_MS // 2):
            self.turn()
            if condition():
                return
        raise AssertionError("it did not come to pass")


class Push(Target):
    def open(self) -> None:
        self.inlet = PushInlet("tcp://127.0.0.1:*")
        self.address = self.inlet.address
        self.malformed = 0

    def turn(self) -> None:
        try:
            pushed = self.inlet.receive(0.001)
        except MessageError:
            self.malformed += 1
        else:
            if pushed is not None:
                self.inlet.answer(pushed)

    def question(self) -> list[bytes]:
        return [msgspec.json.encode({"schema": PUSH, "format": "gray8", "width": 2, "height": 1}), b"ab"]

    def close(self) -> None:
        self.inlet.close()


class Link(Target):
    def open(self) -> None:
        self.inlet = ZmqInlet(self.context, "tcp://127.0.0.1:*", window=2)
        self.address = self.inlet.endpoint

    def turn(self) -> None:
        delivery = self.inlet.receive()
        if delivery is not None:
            self.inlet.done(delivery)

    def question(self) -> list[bytes]:
        return [b"H", bytes(4)]

    def close(self) -> None:
        self.inlet.close()


class Pub(Target):
    def open(self) -> None:
        self.publisher = Publisher("tcp://127.0.0.1:*", linger_s=0, context=self.context)
        self.address = self.publisher.address

    def turn(self) -> None:
        self.publisher.send("framewire/gate/frame/", b"{}")

    def served(self) -> None:
        with self.client(zmq.SUB) as peer:
            peer.subscribe("framewire/")
            self.until(lambda: peer.poll(2))

    def close(self) -> None:
        self.publisher.close()


class Stream(Target):
    """The replay of an event log of 300 events, each of 4 kB and more."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.pause = threading.Event()

    def open(self) -> None:
        with EventLog(self.folder / "events.db", "run") as log:
            for key in range(300):
                log.commit("gate", "event", key, [draft(track_id=key, message="x" * 4000)])

        def make() -> tuple[Any, Callable[[], None]]:
            replay = Replay(self.folder / "events.db")
            return replay.answer, replay.close

        self.answering = Answering(self.context, "tcp://127.0.0.1:*", make)
        self.address = self.answering.address

    def turn(self) -> None:
        self.pause.wait(0.001)  # it turns by itself

    def question(self) -> list[bytes]:
        return [msgspec.msgpack.encode({"schema": REPLAY, "id": 1, "do": "events", "from": 299})]

    def close(self) -> None:
        self.answering.close()


def frame(body: bytes, *, more: bool = False) -> bytes:
    """One part of a message, as ZMTP writes it."""
    return bytes([2 | more]) + struct.pack(">Q", len(body)) + body
