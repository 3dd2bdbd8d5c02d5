"""Credit links over real sockets in one process: exact credits, fair turns, deaths on either side."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import TransportError
from pipeline.messages import Frame
from pipeline.transport.link import ZmqInlet, make_context, shard
from tests.helpers import leased_frame, make_frame, no_view
from tests.transport.link_bench import Bench, owned_pool, receive, seq_of, until


@pytest.mark.parametrize("window", [1, 3])
def test_never_more_than_the_window_unprocessed(bench: Bench, endpoint: str, window: int) -> None:
    inlet = bench.inlet(endpoint, window)
    outlet = bench.outlet(inlet.endpoint)
    assert not outlet.ready(), "no grant, no credit"
    until(outlet.ready, outlet, inlets=(inlet,))
    sent = handled = 0
    order = []
    while handled < 20:
        outlet.pump()
        while outlet.ready() and sent < 20:
            outlet.send(make_frame(sent))
            sent += 1
        assert sent - handled <= window
        assert outlet.outstanding() <= window
        delivery = receive(inlet)
        assert sent - handled <= window
        order.append(seq_of(delivery))
        inlet.done(delivery)
        handled += 1
        if sent < 20:
            until(outlet.ready, outlet)
    assert order == list(range(20)), "nothing lost, nothing twice, in order"
    assert (outlet.stats.messages, inlet.stats.messages) == (20, 20)
    assert (inlet.stats.stale, inlet.stats.malformed, outlet.stats.malformed) == (0, 0, 0)


def test_sending_without_credit_is_refused(bench: Bench, endpoint: str) -> None:
    inlet = bench.inlet(endpoint, 1)
    outlet = bench.outlet(inlet.endpoint)
    with pytest.raises(TransportError, match="no credit at peer-0"):
        outlet.send(make_frame())
    until(outlet.ready, outlet, inlets=(inlet,))
    outlet.send(make_frame())
    with pytest.raises(TransportError, match="no credit at peer-0"):
        outlet.send(make_frame())


def test_leases_end_with_the_grant(bench: Bench, endpoint: str) -> None:
    pools, pool = owned_pool(2)
    inlet = bench.inlet(endpoint, 2)
    outlet = bench.outlet(inlet.endpoint, pools=pools)
    until(outlet.ready, outlet, inlets=(inlet,))
    frames = [leased_frame(pool, seq) for seq in range(2)]
    for frame in frames:
        outlet.send(frame)
    first, second = receive(inlet), receive(inlet)
    outlet.pump()
    assert pool.free() == 0
    inlet.done(first)
    until(lambda: pool.free() == 1, outlet)
    assert not pool.valid(frames[0].lease) or pool.release(frames[0].lease) is False
    assert pool.valid(frames[1].lease)
    inlet.done(second)
    until(lambda: pool.free() == 2, outlet)


def test_a_flooding_producer_does_not_starve_a_slow_one(bench: Bench, endpoint: str) -> None:
    inlet = bench.inlet(endpoint, 4)
    flood, slow = (bench.outlet(inlet.endpoint, name=name) for name in ("flood", "slow"))
    until(lambda: flood.ready() and slow.ready(), flood, slow, inlets=(inlet,))
    for seq in range(4):
        flood.send(make_frame(seq))
    slow.send(make_frame(100))
    slow.send(make_frame(101))
    until(lambda: inlet.waiting() == 6, inlets=(inlet,))
    order = [seq_of(receive(inlet)) for _ in range(6)]
    assert sorted(order.index(seq) for seq in (100, 101)) in ([0, 2], [1, 3])
    assert [seq for seq in order if seq < 100] == [0, 1, 2, 3]


def test_the_replica_with_most_credit_is_served(bench: Bench, tmp_path: Path) -> None:
    inlets = [bench.inlet(f"ipc://{tmp_path}/{n}", 2) for n in range(2)]
    outlet = bench.outlet(*(inlet.endpoint for inlet in inlets))

    def both() -> bool:
        return all(peer.credit == 2 for peer in outlet._peers)

    until(both, outlet, inlets=tuple(inlets))
    for seq in range(4):
        outlet.send(make_frame(seq))
    assert not outlet.ready()
    for inlet in inlets:
        assert len({seq_of(receive(inlet)) for _ in range(2)}) == 2
    stuck, quick = inlets
    assert stuck.waiting() == 0
    assert quick.waiting() == 0


def test_a_stuck_replica_does_not_stop_the_others_but_a_shard_does(bench: Bench, tmp_path: Path) -> None:
    quick, stuck = (bench.inlet(f"ipc://{tmp_path}/{n}", 1) for n in ("quick", "stuck"))
    spread = bench.outlet(quick.endpoint, stuck.endpoint)
    until(lambda: all(p.credit for p in spread._peers), spread, inlets=(quick, stuck))
    spread.send(make_frame(0))
    assert spread.ready()
    sharded = bench.outlet(quick.endpoint, stuck.endpoint, sharded=True)
    until(sharded.ready, sharded, inlets=(quick, stuck))
    sharded.send(make_frame(0), "gate")
    assert not sharded.ready()


def test_shards_are_stable() -> None:
    assert [shard(name, 3) for name in ("gate", "yard", "dock", "")] == [2, 1, 1, 0]
    for count in (1, 2, 7):
        assert {shard(f"cam{n}", count) for n in range(100)} == set(range(count))


def test_each_source_stays_with_its_replica(bench: Bench, tmp_path: Path) -> None:
    inlets = [bench.inlet(f"ipc://{tmp_path}/{n}", 16) for n in range(2)]
    outlet = bench.outlet(*(inlet.endpoint for inlet in inlets), sharded=True)
    until(outlet.ready, outlet, inlets=tuple(inlets))
    for seq in range(3):
        for source in ("north", "dock", "west"):
            outlet.send(make_frame(seq, source=source), source)
    until(lambda: sum(i.waiting() for i in inlets) == 9, inlets=tuple(inlets))
    seen: dict[str, set[int]] = {}
    for at, inlet in enumerate(inlets):
        while (delivery := inlet.receive()) is not None:
            assert isinstance(delivery.message, Frame)
            seen.setdefault(delivery.message.header.source, set()).add(at)
    assert seen == {source: {shard(source, 2)} for source in ("north", "dock", "west")}


def test_inline_arrays_are_identical_and_free_their_slot_at_once(bench: Bench, endpoint: str) -> None:
    pools, pool = owned_pool(2)
    inlet = bench.inlet(endpoint, 4)
    outlet = bench.outlet(inlet.endpoint, pools=pools, inline=True)
    until(outlet.ready, outlet, inlets=(inlet,))
    for value in (1, 2, 3, 4):
        outlet.send(leased_frame(pool, value))
        assert pool.free() == 2, "a copy travels"
    for value in (1, 2, 3, 4):
        delivery = receive(inlet)
        assert isinstance(delivery.message, Frame)
        (blob,) = delivery.message.pixels
        np.testing.assert_array_equal(delivery.viewer(no_view)(blob), np.full((48, 64, 3), value, np.uint8))
        inlet.done(delivery)
    until(lambda: outlet.outstanding() == 0, outlet)


@pytest.mark.parametrize("address", ["tcp", "ipc"])
def test_an_address_that_cannot_be_bound(bench: Bench, tmp_path: Path, address: str) -> None:
    if address == "tcp":
        taken = bench.inlet("tcp://127.0.0.1:*").endpoint
        hint = "another program holds that address"
    else:
        taken, hint = f"ipc://{tmp_path}/nowhere/x", ""
    context = make_context()
    with pytest.raises(TransportError, match=f"cannot bind {taken}") as raised:
        ZmqInlet(context, taken, window=1)
    context.term()
    assert hint in raised.value.hint
