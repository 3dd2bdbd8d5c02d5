"""An RTSP proxy that takes the UDP packets of the pictures over its own ports, and loses or reorders some."""

from __future__ import annotations

import contextlib
import random
import re
import selectors
import socket

from tests.servers.proxy import TcpProxy

__all__ = ["UdpRelay"]

_PORTS = re.compile(rb"(client|server)_port=(\d+)-(\d+)")


class _Track:
    """The pair of ports (RTP, RTCP) between one client and the server, and what is held back on it."""

    def __init__(self, pair: tuple[socket.socket, socket.socket], client: tuple[int, int]) -> None:
        self.pair, self.client = pair, client
        self.server = (0, 0)
        self.late: bytes | None = None

    @property
    def ports(self) -> bytes:
        return b"%d-%d" % (self.pair[0].getsockname()[1], self.pair[1].getsockname()[1])


class UdpRelay(TcpProxy):
    """Like `TcpProxy`, for RTSP over UDP: SETUP is rewritten so that packets come through here, both ways.

    Args:
        target_port: Port of the RTSP server.
        loss: Share of RTP packets down that are lost, 0 to 1; may be changed at any time.
        reorder: Share of RTP packets down that come after their successor; may be changed at any time.
        seed: Of the dice.

    Attributes:
        packets: RTP packets that came from the server.
        lost: Of those, how many were thrown away.
        reordered: Of those, how many were held back.
    """

    def __init__(self, target_port: int, *, loss: float = 0.0, reorder: float = 0.0, seed: int = 1) -> None:
        super().__init__(target_port)
        self.loss, self.reorder = loss, reorder
        self.packets = self.lost = self.reordered = 0
        self._random = random.Random(seed)
        self._tracks: list[_Track] = []

    def _altered(self, data: bytes, source: socket.socket, *, down: bool) -> bytes:
        if not down and data.startswith(b"SETUP"):
            return _PORTS.sub(self._new_track, data)
        return _PORTS.sub(self._answer, data) if down and data.startswith(b"RTSP/1.0 200") else data

    def _new_track(self, found: re.Match[bytes]) -> bytes:
        track = _Track(_even_pair(), (int(found[2]), int(found[3])))
        self._tracks.append(track)
        for which, one in enumerate(track.pair):
            self._selector.register(one, selectors.EVENT_READ, lambda t=track, w=which: self._forward(t, w))
        return b"client_port=" + track.ports

    def _answer(self, found: re.Match[bytes]) -> bytes:
        """What the server says it uses becomes what the client should: its own ports, and ours."""
        track = self._tracks[-1]
        if found[1] == b"client":
            return b"client_port=%d-%d" % track.client
        track.server = (int(found[2]), int(found[3]))
        return b"server_port=" + track.ports

    def _forward(self, track: _Track, which: int) -> None:
        while True:
            try:
                data, (_, port) = track.pair[which].recvfrom(65536)
            except OSError:  # nothing more, or the last packet we sent there found nobody
                return
            if port in track.client:
                _send(track.pair[which], data, track.server[which])
            elif which == 0:
                self._down(track, data)
            else:
                _send(track.pair[which], data, track.client[which])

    def _down(self, track: _Track, data: bytes) -> None:
        self.packets += 1
        if self._random.random() < self.loss:
            self.lost += 1
            return
        if track.late is None and self._random.random() < self.reorder:
            self.reordered += 1
            track.late = data
            return
        _send(track.pair[0], data, track.client[0])
        if track.late is not None:
            _send(track.pair[0], track.late, track.client[0])
            track.late = None

    def _drop(self) -> None:
        super()._drop()
        for track in self._tracks:
            for one in track.pair:
                self._selector.unregister(one)
                one.close()
        self._tracks.clear()


def _send(sock: socket.socket, data: bytes, port: int) -> None:
    with contextlib.suppress(OSError):
        sock.sendto(data, ("127.0.0.1", port))


def _even_pair() -> tuple[socket.socket, socket.socket]:
    """Two sockets on neighbouring ports, the first even, as RTP wants them."""
    while True:
        first, second = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        first.bind(("127.0.0.1", 0))
        port = first.getsockname()[1]
        with contextlib.suppress(OSError, OverflowError):
            if port % 2 == 0:
                second.bind(("127.0.0.1", port + 1))
                first.setblocking(False)
                second.setblocking(False)
                return first, second
        first.close()
        second.close()
