"""Deliver events to a topic of Apache Kafka."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import msgspec

from pipeline.sinks.client import library, secret_of
from pipeline.sinks.connector import RefusedError, Session, UnreachableError

__all__ = ["KafkaConnector"]

log = logging.getLogger(__name__)

#: Errors of one message that no time cures.
_OF_THE_MESSAGE = (
    "MSG_SIZE_TOO_LARGE",
    "INVALID_MSG",
    "INVALID_MSG_SIZE",
    "INVALID_RECORD",
    "INVALID_TIMESTAMP",
)


class KafkaConnector:
    """Produces each event as JSON, and waits for the delivery reports of a batch.

    The key of a message is the source, so that all events of a source are in one partition and stay in order.
    The producer is idempotent and waits for all in-sync replicas. When a batch fails, its producer is thrown
    away with all that is still in it: nothing of it can arrive behind what is sent next.

    Args:
        servers: Bootstrap servers, ``HOST:PORT,HOST:PORT``.
        topic: The topic.
        security: ``plaintext``, ``ssl``, ``sasl_plaintext`` or ``sasl_ssl``.
        mechanism: ``PLAIN``, ``SCRAM-SHA-256`` or ``SCRAM-SHA-512``.
        username: User name, with ``sasl_…``.
        password: Its password.
        password_file: A file with the password.
        ca_file: Certificates to trust.
        compression: ``none``, ``gzip``, ``lz4``, ``zstd`` or ``snappy``.
        timeout_s: How long an acknowledgement may take.

    Raises:
        ConfigError: the library is not installed.
    """

    def __init__(
        self,
        servers: str,
        topic: str = "framewire.events",
        security: str = "plaintext",
        mechanism: str = "SCRAM-SHA-512",
        username: str | None = None,
        password: str | None = None,
        password_file: str | None = None,
        ca_file: str | None = None,
        compression: str = "none",
        timeout_s: float = 10.0,
    ) -> None:
        self._library = library("confluent_kafka", "kafka")
        self._servers, self._topic = servers, topic
        self._username, self._password, self._password_file = username, password, password_file
        self._timeout_s = timeout_s
        self._settings: dict[str, Any] = {
            "bootstrap.servers": servers,
            "client.id": "framewire",
            "enable.idempotence": True,
            "linger.ms": 5,
            "compression.type": compression,
            "security.protocol": security,
            "message.timeout.ms": int(timeout_s * 1000),
            "socket.connection.setup.timeout.ms": int(max(1.0, timeout_s) * 1000),
        }
        if ca_file is not None:
            self._settings["ssl.ca.location"] = ca_file
        if username is not None:
            self._settings |= {"sasl.mechanism": mechanism, "sasl.username": username}
        self._producer: Any = None
        self._trouble = ""

    def connect(self, session: Session) -> None:
        """See `Connector.connect`."""
        self.close()
        settings = dict(self._settings)
        password = secret_of(self._password, self._password_file)
        if password is not None:
            settings["sasl.password"] = password
        self._trouble = ""
        try:
            producer = self._library.Producer(settings | {"error_cb": self._note}, logger=log)
            producer.list_topics(self._topic, timeout=self._timeout_s)
        except self._library.KafkaException as error:
            raise UnreachableError(self._said(error.args[0])) from error
        self._producer = producer

    def send(self, records: Sequence[dict[str, Any]]) -> None:
        """See `Connector.send`."""
        reports: list[Any] = [None] * len(records)
        left = [len(records)]

        def reporter(at: int) -> Any:
            def report(error: Any, _: Any) -> None:
                reports[at] = error or True
                left[0] -= 1

            return report

        for at, record in enumerate(records):
            try:
                self._producer.produce(
                    self._topic,
                    msgspec.json.encode(record),
                    key=record["source"].encode(),
                    headers={
                        "schema": record["schema"], "sequence": str(record["sequence"]), "id": record["id"],
                    },
                    on_delivery=reporter(at),
                )  # fmt: skip
            except BufferError:  # Its queue is full: never with our batches, unless it does not send.
                break
            except self._library.KafkaException as error:
                reports[at] = error.args[0]
                left[0] -= 1
        deadline = time.monotonic() + self._timeout_s + 1
        while left[0] > 0 and time.monotonic() < deadline:
            self._producer.poll(0.1)
        done = next((at for at, report in enumerate(reports) if report is not True), len(records))
        if done < len(records):
            self._failed(reports[done], done)

    def close(self) -> None:
        """See `Connector.close`."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.poll(0)
            self._producer = None

    def _failed(self, error: Any, done: int) -> None:
        self.close()
        if error is not None and error.name() in _OF_THE_MESSAGE:
            raise RefusedError(error.str(), done=done)
        raise UnreachableError(self._said(error), done=done)

    def _said(self, error: Any) -> str:
        """What is wrong; behind a timeout there is often a better word that was said before."""
        text = error.str() if error is not None else "no acknowledgement in time"
        return f"{self._servers}: {text}" + (f" ({self._trouble})" if self._trouble else "")

    def _note(self, error: Any) -> None:
        self._trouble = error.str()
