"""Links when one end dies: leases come home, nothing of the dead is believed, nothing is sent twice."""

from __future__ import annotations

import zmq

from tests.helpers import leased_frame, make_frame
from tests.transport.link_bench import Bench, Greeted, owned_pool, receive, send, seq_of, settled, until


def test_a_restarted_consumer_gives_all_leases_back(bench: Bench, endpoint: str) -> None:
    pools, pool = owned_pool()
    old = bench.inlet(endpoint, 3)
    where = old.endpoint
    outlet = bench.outlet(where, pools=pools)
    until(outlet.ready, outlet, inlets=(old,))
    for seq in range(3):
        outlet.send(leased_frame(pool, seq))
    receive(old)  # one in work, two waiting
    assert pool.free() == 5
    bench.kill(old)
    new = bench.inlet(where, 2)
    until(lambda: pool.free() == 8, outlet, inlets=(new,))
    assert outlet.stats.peers_lost == 1
    assert outlet.outstanding() == 0
    sent = 0
    while outlet.ready():
        outlet.send(make_frame(10 + sent))
        sent += 1
    assert sent == 2, "the window of the new one"
    assert [seq_of(receive(new)) for _ in range(2)] == [10, 11]


def test_what_was_meant_for_a_dead_consumer_is_refused(bench: Bench, endpoint: str) -> None:
    old = bench.inlet(endpoint, 4)
    where = old.endpoint
    outlet = bench.outlet(where)
    until(outlet.ready, outlet, inlets=(old,))
    bench.kill(old)
    outlet.send(make_frame(0))  # it cannot know yet; the message waits for whoever binds next
    new = bench.inlet(where, 4)
    until(lambda: outlet.stats.peers_lost, outlet, inlets=(new,))
    outlet.send(make_frame(1))
    assert seq_of(receive(new)) == 1
    settled(new)
    assert new.receive() is None
    assert new.stats.stale in (0, 1), "the socket may have dropped it with the connection"


def test_data_of_another_incarnation_or_of_a_stranger_is_stale(bench: Bench, endpoint: str) -> None:
    inlet = bench.inlet(endpoint, 4)
    with Greeted(bench, inlet) as (socket, incarnation):
        send(socket, incarnation + 1, make_frame(0))
        send(socket, incarnation, make_frame(1))
        assert seq_of(receive(inlet)) == 1
        assert inlet.stats.stale == 1
    stranger = bench.context.socket(zmq.DEALER)
    stranger.connect(inlet.endpoint)
    send(stranger, incarnation, make_frame(2))
    until(lambda: inlet.stats.stale == 2, inlets=(inlet,))
    assert inlet.receive() is None
    stranger.close(0)


def test_a_dropped_peer_gets_nothing_until_it_is_back(bench: Bench, endpoint: str) -> None:
    pools, pool = owned_pool()
    old = bench.inlet(endpoint, 3)
    where = old.endpoint
    outlet = bench.outlet(where, pools=pools)
    until(outlet.ready, outlet, inlets=(old,))
    outlet.send(leased_frame(pool, 0))
    old.done(receive(old))  # a last grant, still in the pipe when the death is known
    outlet.drop_peer("somebody-else")
    assert outlet.ready()
    outlet.drop_peer("peer-0")
    assert not outlet.ready()
    for _ in range(10):
        outlet.pump()
        outlet.sockets[0].poll(5)
        assert not outlet.ready(), "a last word of the dead is not a grant"
    bench.kill(old)
    new = bench.inlet(where, 1)
    until(outlet.ready, outlet, inlets=(new,))
    assert pool.free() == 8, "what was leased to the dead comes back when its successor is heard"
    outlet.send(make_frame(5))
    assert seq_of(receive(new)) == 5
    assert outlet.stats.peers_lost == 1


def test_the_news_of_a_death_may_come_after_the_successor(bench: Bench, endpoint: str) -> None:
    """A worker deep in a network hears of the restart only when both the new grant and the news wait."""
    old = bench.inlet(endpoint, 1)
    where = old.endpoint
    outlet = bench.outlet(where)
    until(outlet.ready, outlet, inlets=(old,))
    bench.kill(old)
    new = bench.inlet(where, 1)
    until(lambda: outlet.stats.peers_lost, outlet, inlets=(new,))
    outlet.drop_peer("peer-0")
    until(outlet.ready, outlet, inlets=(new,))
    outlet.send(make_frame(3))
    assert seq_of(receive(new)) == 3


def test_a_producer_that_is_gone_costs_nothing(bench: Bench, endpoint: str) -> None:
    inlet = bench.inlet(endpoint, 2)
    gone, stays = (bench.outlet(inlet.endpoint, name=name) for name in ("gone", "stays"))
    until(lambda: gone.ready() and stays.ready(), gone, stays, inlets=(inlet,))
    gone.send(make_frame(0))
    delivery = receive(inlet)
    bench.drop(gone)
    stays.send(make_frame(1))
    other = receive(inlet)
    inlet.done(delivery)
    inlet.done(other)
    until(lambda: stays.outstanding() == 0, stays, inlets=(inlet,))
    assert seq_of(other) == 1


def test_a_restarted_producer_starts_with_a_full_window(bench: Bench, endpoint: str) -> None:
    inlet = bench.inlet(endpoint, 2)
    first = bench.outlet(inlet.endpoint, name="capture-gate")
    until(first.ready, first, inlets=(inlet,))
    first.send(make_frame(0))
    first.send(make_frame(1))
    assert [seq_of(receive(inlet)) for _ in range(2)] == [0, 1]
    bench.drop(first)
    second = bench.outlet(inlet.endpoint, name="capture-gate")
    until(second.ready, second, inlets=(inlet,))
    second.send(make_frame(2))
    second.send(make_frame(3))
    assert not second.ready()
    assert [seq_of(receive(inlet)) for _ in range(2)] == [2, 3]
