"""A process that publishes a real event log: for a number on its stdin it commits and publishes as many."""

from __future__ import annotations

import select
import sys
from typing import Any

from pipeline.eventlog.log import EventLog
from pipeline.sinks import zmq_pub
from pipeline.sinks.base import Publication
from tests.sinks.builders import SPEC, make_event_row


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(path: str, address: str, run_id: str, keys: str = "") -> None:
    with EventLog(path, run_id) as log:
        zmq_pub._HEARTBEAT_S = 0.1  # tests need not wait so long
        sink = zmq_pub.ZmqSink(address, keys=keys or None)
        sink.attach(log)
        sink.open(SPEC)
        say("ready")
        while True:
            sink.tick()
            if not select.select([sys.stdin], [], [], 0.05)[0]:
                continue
            text = sys.stdin.readline()
            if not text:
                break
            for _ in range(int(text)):
                draft: dict[str, Any] = make_event_row(0)
                events = log.commit("gate", "frame", log.next, [draft])
                assert events is not None
                sink.write(Publication(None, None, events, lambda: None, None))
            say(str(log.next))
        sink.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
