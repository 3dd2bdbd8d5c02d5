"""The in-memory double keeps the contract of a link."""

from __future__ import annotations

import pytest

from pipeline.errors import TransportError
from pipeline.messages import Frame, Message
from pipeline.transport.memory import MemoryInlet, memory_link
from pipeline.transport.shm import Pools, SlotPool
from tests.helpers import leased_frame, make_frame, no_view


def owned_pool(slots: int = 4) -> tuple[Pools, SlotPool]:
    pools = Pools()
    return pools, pools.add(SlotPool.in_memory("ours", slots, 48 * 64 * 3), owned=True)


def seq_of(message: Message) -> int:
    assert isinstance(message, Frame)
    return message.header.seq


def drain(inlet: MemoryInlet, *, done: bool = True) -> list[int]:
    seen = []
    while (delivery := inlet.receive()) is not None:
        seen.append(seq_of(delivery.message))
        if done:
            inlet.done(delivery)
    return seen


def test_credits_are_exact() -> None:
    (outlet,), inlet = memory_link(window=2)
    outlet.send(make_frame(0))
    outlet.send(make_frame(1))
    assert not outlet.ready()
    with pytest.raises(TransportError, match="no credit"):
        outlet.send(make_frame(2))
    first = inlet.receive()
    assert first is not None
    assert not outlet.ready(), "received is not handled"
    inlet.done(first)
    assert outlet.ready()
    outlet.send(make_frame(2))
    assert drain(inlet) == [1, 2]
    assert (outlet.stats.messages, inlet.stats.messages) == (3, 3)


def test_leases_come_home_when_the_message_is_handled() -> None:
    pools, pool = owned_pool()
    (outlet,), inlet = memory_link(window=2, pools=pools)
    outlet.send(leased_frame(pool, 0))
    outlet.send(leased_frame(pool, 1))
    assert pool.free() == 2
    delivery = inlet.receive()
    assert delivery is not None
    inlet.done(delivery)
    outlet.pump()
    assert pool.free() == 3
    drain(inlet)
    outlet.pump()
    assert pool.free() == 4


@pytest.mark.parametrize("who", ["inlet", "outlet"])
def test_a_killed_consumer_takes_nothing_with_it(who: str) -> None:
    pools, pool = owned_pool()
    (outlet,), inlet = memory_link(window=3, pools=pools)
    for seq in range(3):
        outlet.send(leased_frame(pool, seq))
    inlet.receive()
    if who == "inlet":
        inlet.kill()
    else:
        outlet.drop_peer("anyone")
    assert outlet.ready()
    assert pool.free() == 4
    assert outlet.stats.peers_lost == 1
    assert inlet.receive() is None
    outlet.send(make_frame(9))
    assert drain(inlet) == [9]


def test_producers_take_turns() -> None:
    (flood, slow), inlet = memory_link(2, window=4)
    for seq in range(4):
        flood.send(make_frame(seq))
    slow.send(make_frame(100))
    slow.send(make_frame(101))
    assert inlet.waiting() == 6
    assert drain(inlet) == [0, 100, 1, 101, 2, 3]
    assert inlet.waiting() == 0


def test_inline_arrays_travel_and_free_their_slot_with_the_grant() -> None:
    pools, pool = owned_pool()
    (outlet,), inlet = memory_link(window=1, pools=pools, inline=True)
    outlet.send(leased_frame(pool, 42))
    delivery = inlet.receive()
    assert delivery is not None
    assert isinstance(delivery.message, Frame)
    array = delivery.viewer(no_view)(delivery.message.pixels[0])
    assert array.shape == (48, 64, 3)
    assert set(array.ravel().tolist()) == {42}
    inlet.done(delivery)
    outlet.pump()
    assert pool.free() == 4
    outlet.close()
    inlet.close()
