"""A Kafka cluster for tests: the mock that librdkafka brings, on loopback ports that any client can join."""

from __future__ import annotations

import contextlib
import ctypes
import json
import socketserver
import struct
import threading
import time
from collections.abc import Callable
from importlib.metadata import files
from types import TracebackType
from typing import Any, Self

import pytest

__all__ = ["INIT_PRODUCER", "PRODUCE", "KafkaCluster", "StrictBroker"]

#: Numbers of requests (https://kafka.apache.org/protocol#protocol_api_keys): messages, and leave to send.
PRODUCE, INIT_PRODUCER = 0, 22

_PRODUCER = 0
_LIMIT_S = 10.0


class KafkaCluster:
    """Brokers that keep messages in memory, can be cut off, and answer with errors; a context manager.

    confluent-kafka has no names for the mock's switches, so its library is called directly. The brokers live
    in this process; being down, they close their connections and take no new ones, and keep what they have.

    Args:
        topic: A topic that is there.
        partitions: How many it has.
        brokers: How many there are.

    Attributes:
        servers: Their bootstrap servers.
    """

    def __init__(self, topic: str = "framewire.events", partitions: int = 4, brokers: int = 1) -> None:
        self._topic, self._partitions, self._brokers = topic, partitions, brokers
        self._library = _library()
        self._handle: Any = None
        self._cluster: Any = None
        self.servers = ""

    def __enter__(self) -> Self:
        call = self._library
        conf = call.rd_kafka_conf_new()
        said = ctypes.create_string_buffer(512)
        call.rd_kafka_conf_set(ctypes.c_void_p(conf), b"log_level", b"0", said, 512)
        self._handle = ctypes.c_void_p(call.rd_kafka_new(_PRODUCER, ctypes.c_void_p(conf), said, 512))
        assert self._handle, said.value
        self._cluster = ctypes.c_void_p(call.rd_kafka_mock_cluster_new(self._handle, self._brokers))
        name = self._topic.encode()
        assert call.rd_kafka_mock_topic_create(self._cluster, name, self._partitions, self._brokers) == 0
        self.servers = call.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._handle)

    def down(self) -> None:
        """Cut all brokers off."""
        for broker in range(1, self._brokers + 1):
            assert self._library.rd_kafka_mock_broker_set_down(self._cluster, broker) == 0

    def up(self) -> None:
        """Let them come back, with what they had."""
        for broker in range(1, self._brokers + 1):
            assert self._library.rd_kafka_mock_broker_set_up(self._cluster, broker) == 0

    def slow(self, ms: int) -> None:
        """Let every answer take so long; what it answers has been done before."""
        for broker in range(1, self._brokers + 1):
            assert self._library.rd_kafka_mock_broker_set_rtt(self._cluster, broker, ms) == 0

    def fail(self, request: int, *codes: int) -> None:
        """Answer the next requests of a kind with these error codes, and do nothing else."""
        array = (ctypes.c_int * len(codes))(*codes)
        self._library.rd_kafka_mock_push_request_errors_array(
            self._cluster, ctypes.c_int16(request), ctypes.c_size_t(len(codes)), array
        )

    def topic_error(self, code: int) -> None:
        """What metadata says of the topic from now on; 0 for nothing."""
        self._library.rd_kafka_mock_topic_set_error(self._cluster, self._topic.encode(), code)

    def read(self, count: int) -> list[Any]:
        """What a consumer finds in the topic, partition by partition.

        Args:
            count: So many messages are waited for; more are returned if there are.
        """
        import confluent_kafka

        consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": self.servers, "group.id": "reader", "log_level": 0,
             "enable.auto.commit": False, "enable.partition.eof": True, "fetch.wait.max.ms": 10}
        )  # fmt: skip
        found: list[Any] = []
        ended: set[int] = set()
        try:
            consumer.assign(
                [confluent_kafka.TopicPartition(self._topic, at, 0) for at in range(self._partitions)]
            )
            deadline = time.monotonic() + _LIMIT_S
            while (len(found) < count or len(ended) < self._partitions) and time.monotonic() < deadline:
                for message in consumer.consume(500, 0.1):
                    error = message.error()
                    if error is None:
                        found.append(message)
                    elif error.code() == confluent_kafka.KafkaError._PARTITION_EOF:
                        ended.add(message.partition() or 0)
        finally:
            consumer.close()
        return sorted(found, key=lambda message: (message.partition(), message.offset()))

    def sequences(self, count: int) -> list[int]:
        """Numbers of the events in the topic, in the order of their partitions."""
        return [json.loads(message.value())["sequence"] for message in self.read(count)]


def _library() -> Any:
    pytest.importorskip("confluent_kafka")
    for file in files("confluent-kafka") or []:
        if file.name.startswith("librdkafka") and "." in file.suffix:
            library = ctypes.CDLL(str(file.locate()))
            break
    else:
        pytest.skip("this confluent-kafka does not bring librdkafka with it")
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
        getattr(library, name).restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    return library


class StrictBroker:
    """Speaks as much Kafka as it takes to tell a client that its password is wrong; a context manager.

    Attributes:
        server: Its address.
        seen: The last request in which a login was shown.
    """

    def __init__(self) -> None:
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    while size := self.rfile.read(4):
                        outer._answer(self.rfile.read(int.from_bytes(size)), self.wfile.write)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.server = f"127.0.0.1:{self._server.server_address[1]}"
        self.seen = b""

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, request: bytes, write: Callable[[bytes], Any]) -> None:
        # https://kafka.apache.org/protocol: int16 key, int16 version, int32 number, and the rest.
        key, version, number = struct.unpack(">hhi", request[:8])
        if key == 18:  # ApiVersions; of what is new it knows nothing.
            keys = ((0, 3, 7), (3, 0, 8), (17, 1, 1), (18, 0, 0), (22, 0, 1), (36, 0, 0))
            body = struct.pack(">hi", 0 if version == 0 else 35, len(keys))
            body += b"".join(struct.pack(">hhh", *row) for row in keys)
        elif key == 17:  # SaslHandshake
            body = struct.pack(">hi", 0, 1) + _text("PLAIN")
        else:  # SaslAuthenticate
            self.seen = request
            body = struct.pack(">h", 58) + _text("Authentication failed") + struct.pack(">i", 0)
        write(struct.pack(">ii", 4 + len(body), number) + body)


def _text(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()
