"""Who follows the events in `chaos_events`: subscribers as processes of their own, and readers of brokers."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.servers.programs import Program, need

__all__ = [
    "MqttReader", "SubscriberProcess", "judge", "mosquitto", "nats", "read_nats", "read_redis", "redis",
    "until",
]  # fmt: skip

ROOT = Path(__file__).resolve().parents[1]

_SUBSCRIBER = """
import sys, time
from pathlib import Path
from pipeline.client import Subscriber
address, out, pause = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
out.touch()
lines = out.read_text().splitlines(keepends=True)
if lines and not lines[-1].endswith("\\n"):
    out.write_text("".join(lines[:-1]))
    lines.pop()
log, _, last = lines[-1].partition(" ") if lines else ("", "", "-1")
with Subscriber(address, from_sequence=int(last) + 1, log=log, types=sys.argv[4].split(",")) as events:
    with out.open("a") as file:
        for event in events:
            file.write(f"{event.log} {event.sequence}\\n")
            file.flush()
            if pause:
                time.sleep(pause)
"""

_TYPES = "start,update,end,zone,line,occupancy,crowd,closing,camera,source,log,clip"


class SubscriberProcess:
    """Our client in a process that may be killed: it takes its place from what it has written down.

    Args:
        address: Where the pipeline publishes.
        out: Where it writes the numbers of what it has received.
        pause_s: What it needs for each event.
    """

    def __init__(self, address: str, out: Path, pause_s: float = 0.0) -> None:
        self.out = out
        self._command = [sys.executable, "-c", _SUBSCRIBER, address, str(out), str(pause_s), _TYPES]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it; it goes on where it was."""
        self._process = subprocess.Popen(self._command, cwd=ROOT)

    def kill(self) -> None:
        """``kill -9``."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def numbers(self) -> list[int]:
        """What it has received, in that order."""
        return [int(line.split()[1]) for line in self.out.read_text().splitlines() if " " in line]


def redis(folder: Path) -> Program:
    """A Redis that writes down what it has acknowledged."""
    program = need("redis-server", "redis-server")
    folder.mkdir(parents=True)
    return Program(
        lambda port: [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", "",
                      "--appendonly", "yes", "--appendfsync", "always"],
        folder,
    )  # fmt: skip


def nats(folder: Path) -> Program:
    """A NATS server with JetStream."""
    program = need("nats-server", "nats-server")
    return Program(
        lambda port: [program, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(folder)], folder
    )


def mosquitto(folder: Path) -> Program:
    """An MQTT broker that keeps the sessions of its clients over an orderly restart."""
    program = need("mosquitto", "mosquitto")
    folder.mkdir(parents=True)

    def command(port: int) -> list[str]:
        settings = folder / "mosquitto.conf"
        settings.write_text(
            f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\nmax_queued_messages 0\n"
            f"persistence_location {folder}/\nmax_inflight_messages 0\nuser root\n"
        )
        return [program, "-c", str(settings)]

    return Program(command, folder)


def read_redis(port: int) -> list[int]:
    """All that is in the stream."""
    import redis as library

    with library.Redis(port=port) as client:
        entries: Any = client.xrange("framewire:events")
        return [int(fields[b"sequence"]) for _, fields in entries]


def read_nats(port: int) -> list[int]:
    """All that is in the stream."""
    import nats as library

    async def read() -> list[int]:
        client = await library.connect(f"nats://127.0.0.1:{port}")
        stream = client.jetstream()
        found: list[int] = []
        count = (await stream.stream_info("FRAMEWIRE")).state.messages
        subscription = await stream.subscribe("framewire.>", ordered_consumer=True)
        while len(found) < count:
            found.append(json.loads((await subscription.next_msg(timeout=10)).data)["sequence"])
        await client.close()
        return found

    return asyncio.run(read())


class MqttReader:
    """An MQTT client with a session that the broker keeps; in a thread of its library."""

    def __init__(self, port: int) -> None:
        import paho.mqtt.client as library
        from paho.mqtt.enums import CallbackAPIVersion

        self._numbers: list[int] = []
        self._lock = threading.Lock()
        client = library.Client(
            CallbackAPIVersion.VERSION2, "chaos-reader", clean_session=False, protocol=library.MQTTv311
        )
        client.on_connect = lambda *_: client.subscribe("framewire/#", 1)
        client.on_message = self._note
        client.reconnect_delay_set(0.1, 0.5)  # type: ignore[arg-type]
        client.connect("127.0.0.1", port)
        client.loop_start()
        self._client = client

    def _note(self, _client: Any, _data: Any, message: Any) -> None:
        try:
            record = json.loads(message.payload)
        except ValueError:
            return  # A state for people, such as "online".
        if isinstance(record, dict) and "sequence" in record:
            with self._lock:
                self._numbers.append(record["sequence"])

    def numbers(self) -> list[int]:
        """What has come, in that order."""
        with self._lock:
            return list(self._numbers)

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()
        self._client.loop_stop()


def until(what: Callable[[], bool], limit_s: float) -> bool:
    """Wait for something, for so long at most; whether it came."""
    deadline = time.monotonic() + limit_s
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def judge(name: str, committed: set[int], got: list[int]) -> tuple[list[Any], bool]:
    """A row of the table, and whether all is well: nothing missing or made up, the first of each in order."""
    counts = Counter(got)
    first_of_each = list(counts)
    missing, strange = committed - set(counts), set(counts) - committed
    ordered = first_of_each == sorted(first_of_each)
    twice = len(got) - len(counts)
    row = [name, len(counts), len(missing), len(strange), twice, "yes" if ordered else "NO"]
    return row, not missing and not strange and ordered
