"""A worker that waits for credit must sleep: a message left in the socket would wake it for ever."""

from __future__ import annotations

from pathlib import Path

from pipeline.runtime.worker import Worker
from pipeline.transport.link import ZmqInlet, ZmqOutlet, make_context
from pipeline.transport.memory import memory_link
from pipeline.transport.shm import Pools
from tests.helpers import Orders, make_frame


def test_what_arrives_without_credit_is_taken_off_the_socket(tmp_path: Path) -> None:
    context = make_context()
    inlet = ZmqInlet(context, f"ipc://{tmp_path}/in", window=2)
    producer = ZmqOutlet(context, "before", [("self", inlet.endpoint)], pools=Pools())
    (outlet,), behind = memory_link(window=1)
    worker = Worker(stages=(), inlet=inlet, outlet=outlet, pools=Pools(), commands=Orders())
    try:
        outlet.send(make_frame(0))  # The one credit is used up.
        while not producer.ready():
            worker.step()
            producer.pump()
        producer.send(make_frame(1))
        assert inlet.socket.poll(5000)
        assert not worker.step()
        assert not inlet.socket.poll(0), "nothing is left that would wake it"
        assert inlet.waiting() == 1
        delivery = behind.receive()
        assert delivery is not None
        behind.done(delivery)
        assert worker.step(), "with credit it goes on"
    finally:
        producer.close()
        inlet.close()
        context.term()
