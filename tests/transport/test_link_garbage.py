"""What anybody may send to a tcp address: counted, never a crash."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.transport.codec import encode
from pipeline.transport.link import ZmqInlet, make_context
from tests.helpers import make_frame
from tests.transport.link_bench import Bench, Greeted, receive, send, seq_of, until


def test_garbage_is_counted_and_does_not_stop_the_link(bench: Bench, endpoint: str) -> None:
    inlet = bench.inlet(endpoint, 4)
    with Greeted(bench, inlet) as (socket, incarnation):
        header = struct.pack("<QQ", incarnation, 1)
        garbage = [
            [b""], [b"X"], [b"D"], [b"D", b"short"], [b"D", header], [b"D", header, b""],
            [b"D", header, b"\xff\xff"], [b"X", header, encode(make_frame())], [b"D", header, b"\x01" * 50],
        ]  # fmt: skip
        for parts in garbage:
            socket.send_multipart(parts)
        send(socket, incarnation, make_frame(1))
        assert seq_of(receive(inlet)) == 1
        assert inlet.stats.malformed == len(garbage)
        assert inlet.stats.messages == 1


@pytest.fixture(scope="module")
def open_inlet() -> Iterator[ZmqInlet]:
    context = make_context()
    inlet = ZmqInlet(context, "tcp://127.0.0.1:*", window=2)
    yield inlet
    inlet.close()
    context.term()


PARTS = st.sampled_from([b"", b"H", b"D", b"G", b"\0" * 16]) | st.binary(max_size=40)


@given(st.lists(st.lists(PARTS, min_size=1, max_size=5), min_size=1, max_size=8))
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_multipart_from_anybody_stops_an_inlet(open_inlet: ZmqInlet, sent: list[list[bytes]]) -> None:
    context = make_context()
    stranger = context.socket(zmq.DEALER)
    stranger.connect(open_inlet.endpoint)
    for parts in sent:
        stranger.send_multipart(parts)
    stranger.send_multipart([b"H", bytes(4)])
    greetings = 1 + sum(parts[0] == b"H" and len(parts) > 1 and len(parts[1]) == 4 for parts in sent)
    until(lambda: stranger.poll(0), inlets=(open_inlet,))
    for _ in range(greetings):
        until(lambda: stranger.poll(0), inlets=(open_inlet,))
        assert stranger.recv_multipart()[0] == b"G"
    assert open_inlet.receive() is None
    stranger.close(0)
    context.term()


def test_a_producer_counts_what_is_no_grant(bench: Bench) -> None:
    router = bench.context.socket(zmq.ROUTER)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    outlet = bench.outlet(f"tcp://127.0.0.1:{port}")
    until(lambda: router.poll(0), outlet)
    identity = router.recv_multipart()[0]
    bad = [[b"G"], [b"G", b"short"], [b"X", bytes(20)], [b"G", bytes(20), b"more"], [b""]]
    for parts in bad:
        router.send_multipart([identity, *parts])
    router.send_multipart([identity, b"G", struct.pack("<QQII", 7, 0, 2, 0)])
    until(outlet.ready, outlet)
    assert outlet.stats.malformed == len(bad)
    outlet.send(make_frame(0))
    # A total that no honest consumer could give must not open the window.
    router.send_multipart([identity, b"G", struct.pack("<QQII", 7, 2**63, 2, 0)])
    until(lambda: outlet.outstanding() == 0, outlet)
    outlet.send(make_frame(1))
    outlet.send(make_frame(2))
    assert not outlet.ready()
    # An older total, overtaken by a newer one, takes nothing back.
    router.send_multipart([identity, b"G", struct.pack("<QQII", 7, 0, 2, 0)])
    router.send_multipart([identity, b"X"])
    until(lambda: outlet.stats.malformed == len(bad) + 1, outlet)
    assert outlet.outstanding() == 2
    router.close(0)
