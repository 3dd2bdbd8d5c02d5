"""Deliver events to a topic of Apache Kafka."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from functools import partial
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
#: Errors of a topic that are there to stay until somebody mends them; others pass while it is being made.
_OF_THE_TOPIC = ("TOPIC_AUTHORIZATION_FAILED", "TOPIC_EXCEPTION")

#: A timeout that is shorter is as long as this.
_LEAST_S = 1.0


class KafkaConnector:
    """Produces each event as JSON, and waits for the delivery reports of a batch.

    The key of a message is the source, so that all events of a source are in one partition and stay in order.
    The producer is idempotent, waits for all in-sync replicas, and stops at the first message that fails:
    none overtakes it. When a batch fails, its producer is thrown away with all that is still in it. What a
    broker that did not answer had taken all the same comes again.

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
        # A producer is not let in before half a second has passed.
        self._timeout_s = max(_LEAST_S, timeout_s)
        self._settings: dict[str, Any] = {
            "bootstrap.servers": servers,
            "client.id": "framewire",
            "enable.idempotence": True,
            # Nothing is sent behind a message that failed, which is to be sent again before it.
            "enable.gapless.guarantee": True,
            "linger.ms": 5,
            "compression.type": compression,
            "security.protocol": security,
            "message.timeout.ms": int(self._timeout_s * 1000),
            "socket.connection.setup.timeout.ms": int(self._timeout_s * 1000),
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
        self._open()
        try:
            topics = self._producer.list_topics(self._topic, timeout=self._timeout_s).topics
        except self._library.KafkaException as error:
            self._listen()
            self.close()
            raise UnreachableError(self._said(error.args[0])) from error
        wrong = topics[self._topic].error
        if wrong is not None and wrong.name() in _OF_THE_TOPIC:
            self.close()
            raise UnreachableError(f"{self._servers}: topic {self._topic}: {wrong.str()}")
        if wrong is not None:
            # Perhaps it is being made just now; if it is not, this is what was wrong.
            self._trouble = f"topic {self._topic}: {wrong.str()}"

    def send(self, records: Sequence[dict[str, Any]]) -> None:
        """See `Connector.send`."""
        done, error = self._deliver(records)
        if done < len(records) and len(records) > 1 and self._producer is None and _is_of_the_message(error):
            # A broker refuses all that came together for the sake of one: which, only one by one can tell.
            for at in range(done, len(records)):
                try:
                    one, error = self._deliver(records[at : at + 1])
                except UnreachableError as lost:
                    raise UnreachableError(lost.message, done=done) from lost
                done += one
                if not one:
                    break
        if done == len(records):
            self._trouble = ""
            return
        if _is_of_the_message(error):
            raise RefusedError(error.str(), done=done)
        self._listen()
        said = self._said(error)
        self.close()
        raise UnreachableError(said, done=done)

    def check(self) -> None:
        """Let the library say what it has to say while there is nothing to send; see `Listening`."""
        if self._producer is None:
            return
        try:
            self._producer.poll(0)
        except self._library.KafkaException as error:  # It takes nothing any more.
            said = self._said(error.args[0])
            self.close()
            raise UnreachableError(said) from error

    def close(self) -> None:
        """See `Connector.close`."""
        if self._producer is not None:
            self._producer.purge()
            with contextlib.suppress(self._library.KafkaException):
                self._producer.poll(0)
            self._producer = None

    def _listen(self) -> None:
        """What is behind an error comes to `_note` only when the library is asked."""
        if self._producer is not None:
            try:
                self._producer.poll(0)
            except self._library.KafkaException as error:
                self._note(error.args[0])

    def _open(self) -> None:
        settings = dict(self._settings)
        password = secret_of(self._password, self._password_file)
        if password is not None:
            settings["sasl.password"] = password
        self._trouble = ""
        try:
            self._producer = self._library.Producer(settings | {"error_cb": self._note}, logger=_Log())
        except self._library.KafkaException as error:
            raise UnreachableError(self._said(error.args[0])) from error

    def _deliver(self, records: Sequence[dict[str, Any]]) -> tuple[int, Any]:
        """Send, and wait for the reports: how many have arrived, and what the next one's error is.

        A producer with a message in it that was not acknowledged is thrown away.
        """
        if self._producer is None:  # It was thrown away for a message, and not for the server.
            self._open()
        reports: list[Any] = []
        sent, own = 0, None
        for record in records:
            try:
                self._producer.produce(
                    self._topic,
                    msgspec.json.encode(record),
                    key=record["source"].encode(),
                    headers={
                        "schema": record["schema"], "sequence": str(record["sequence"]), "id": record["id"],
                    },
                    on_delivery=partial(_report, reports, sent),
                )  # fmt: skip
            except BufferError:  # Its queue is full: never with our batches, unless it does not send.
                break
            except self._library.KafkaException as error:
                own = error.args[0]
                break
            sent += 1
        deadline = time.monotonic() + self._timeout_s + 1
        while len(reports) < sent and time.monotonic() < deadline:
            try:
                self._producer.flush(0.1)  # Does not linger for more to come, as polling would.
            except self._library.KafkaException as error:  # It takes nothing more, and has said so of all.
                self._note(error.args[0])
                self._producer.purge()
        answers = dict(reports)
        done = next((at for at in range(sent) if at not in answers or answers[at] is not None), sent)
        if done == sent:
            return done, own
        self.close()
        return done, answers.get(done)

    def _said(self, error: Any) -> str:
        """What is wrong; behind a timeout there is often a better word that was said before."""
        text = error.str() if error is not None else "no acknowledgement in time"
        return f"{self._servers}: {text}" + (f" ({self._trouble})" if self._trouble else "")

    def _note(self, error: Any) -> None:
        # That all brokers are down comes behind the reason, and says less.
        if not self._trouble or error.code() != self._library.KafkaError._ALL_BROKERS_DOWN:
            self._trouble = error.str()


class _Log:
    """Takes what the library logs. What it says of connections and fatal errors, it says to us as well."""

    def log(self, level: int, text: str, kind: str, *rest: str) -> None:
        """As `logging.Logger.log`, called by the library."""
        log.log(logging.DEBUG if kind in ("CONFWARN", "FAIL", "FATAL") else level, text, kind, *rest)


def _report(reports: list[tuple[int, Any]], at: int, error: Any, _: Any) -> None:
    reports.append((at, error))


def _is_of_the_message(error: Any) -> bool:
    return error is not None and error.name() in _OF_THE_MESSAGE
