"""Every picture that is given shows what the camera sent, whatever is lost or damaged on the way."""

from __future__ import annotations

import functools
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.sources.live.stream import StreamConnection
from tests.servers.handles import Mount, RtspServer
from tests.servers.streams import Clip, clip, read_number
from tests.servers.udp_relay import UdpRelay

from .reading import reading


@functools.cache
def shown(source: Clip) -> dict[int, NDArray[np.uint8]]:
    """Luma of each whole picture of a clip, by its number."""
    with av.open(str(source.path), options={"framerate": str(source.fps)}) as container:
        frames = [frame.to_ndarray()[: frame.height].copy() for frame in container.decode(video=0)]
    return {source.first + number: np.asarray(frame, np.uint8) for number, frame in enumerate(frames)}


def check(connection: StreamConnection, source: Clip, least: int, losses: int) -> None:
    """Read until so many were given and left out; each that is given must be the one that was sent."""
    given = 0
    while given < least or connection.decode_errors < losses:
        picture = connection.read()
        assert picture is not None
        number = read_number(picture.planes[0])
        assert number is not None, f"picture {given} is unreadable"
        difference = np.abs(picture.planes[0].astype(np.int16) - shown(source)[number]).mean()
        assert difference < 0.1, f"picture {number} differs by {difference:.1f}"
        given += 1
        assert given < 400


@pytest.mark.parametrize("damage", ["flip", "truncate"])
def test_damaged_pictures(damage: Any) -> None:
    """H.264 only: the decoder of H.265 does not see damage of which RTP shows nothing."""
    source = clip()
    with RtspServer({"cam": Mount((source,), damage_every=9, damage=damage)}) as server:  # noqa: SIM117
        with reading(server.url(), read_timeout_s=2.0) as connection:
            check(connection, source, least=10, losses=10)


@pytest.mark.parametrize("codec", ["h264", "h265"])
@pytest.mark.parametrize(("loss", "reorder"), [(0.02, 0.0), (0.05, 0.02)])
def test_packets_lost_on_the_way(codec: Any, loss: float, reorder: float) -> None:
    source = clip(codec, gop=10)
    with RtspServer({"cam": Mount((source,))}) as server, UdpRelay(server.port, reorder=reorder) as relay:
        with reading(relay.url(server.url()), transport="udp", read_timeout_s=2.0) as connection:
            relay.loss = loss
            check(connection, source, least=15, losses=5)
        assert relay.lost > 0


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_packets_lost_while_it_is_opened(codec: Any) -> None:
    source = clip(codec)
    with RtspServer({"cam": Mount((source,))}) as server, UdpRelay(server.port, loss=0.2) as relay:
        for _ in range(2):
            with reading(relay.url(server.url()), transport="udp", read_timeout_s=2.0) as connection:
                relay.loss = 0.0
                check(connection, source, least=3, losses=0)
                relay.loss = 0.2


def test_pictures_swapped_on_the_way_are_put_in_order() -> None:
    source = clip()
    with RtspServer({"cam": Mount((source,))}) as server, UdpRelay(server.port, reorder=0.2) as relay:
        with reading(relay.url(server.url()), transport="udp", read_timeout_s=2.0) as connection:
            check(connection, source, least=25, losses=0)
            assert connection.decode_errors == 0
        assert relay.reordered > 0
