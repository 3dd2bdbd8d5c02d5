"""One connection to an MQTT server: publishes many at once, and knows of each what became of it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.sinks.client import library
from pipeline.sinks.connector import UnreachableError
from pipeline.sinks.homeassistant import Retained

__all__ = ["NOT_SENT", "SENT", "Link", "Message"]

#: In the place of a reason code: it did not leave; it left, and nobody knows whether it arrived.
NOT_SENT, SENT = -1, -2

#: So many messages are on their way at most; a server may want fewer.
_WINDOW = 100
_TOO_LARGE, _UNSPECIFIED = 0x95, 0x80
_GOODBYE_S = 2.0
_NO_PROPERTIES: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """A message to publish.

    Attributes:
        topic: Its topic.
        payload: Its payload.
        retain: Whether the server is to keep it.
        properties: User properties, for version 5; with any, the content type is JSON.
    """

    topic: str
    payload: bytes
    retain: bool = False
    properties: tuple[tuple[str, str], ...] = _NO_PROPERTIES


class Link:
    """A connection, from `open` to `close`, that is never made again by itself.

    ``publish`` may be called from several threads.

    Args:
        will: What the server says for us when we are gone without a goodbye.
        protocol: Version of MQTT.
        client_id: Our name on the server; None for one by chance.
        keepalive_s: Longest silence.
        timeout_s: How long the server may keep silent while we wait for it.
    """

    def __init__(
        self,
        will: Retained,
        protocol: Literal["5", "3.1.1"],
        client_id: str | None,
        keepalive_s: int,
        timeout_s: float,
    ) -> None:
        paho = library("paho.mqtt.client", "mqtt")
        self._properties = library("paho.mqtt.properties", "mqtt").Properties
        self._packets = library("paho.mqtt.packettypes", "mqtt").PacketTypes
        self._reasons = library("paho.mqtt.reasoncodes", "mqtt").ReasonCode
        self._five = protocol == "5"
        self._keepalive_s, self._timeout_s = keepalive_s, timeout_s
        self._news = threading.Condition()
        self._answer: Any = None
        self._acks: dict[int, int] = {}
        self._grants: dict[int, list[bool]] = {}
        self._window = _WINDOW
        self._largest: int | None = None
        self._started = False
        #: Why the connection is of no use any more; empty while it is.
        self.lost = ""
        #: Called in the thread of the network with topic, payload and whether the message was retained.
        self.received: Callable[[str, bytes, bool], None] | None = None
        client = self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=client_id or "",
            protocol=paho.MQTTv5 if self._five else paho.MQTTv311,
            reconnect_on_failure=False,
        )
        client.max_inflight_messages = 0  # The window is kept here, where what is in it is known.
        client.connect_timeout = timeout_s
        client.will_set(will.topic, will.payload, qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message

    def open(
        self, host: str, port: int, login: tuple[str | None, str | None], tls: ssl.SSLContext | None
    ) -> None:
        """Connect.

        Args:
            host: The server.
            port: Its port.
            login: User name and password.
            tls: What to trust; None for plain text.

        Raises:
            UnreachableError: nobody is there, or he does not want us.
        """
        if login[0] is not None:
            self._client.username_pw_set(*login)
        if tls is not None:
            tls.sslsocket_class = _TidySocket
            self._client.tls_set_context(tls)
        try:
            self._client.connect(host, port, keepalive=self._keepalive_s)
        except (OSError, ValueError) as error:
            self.lost = f"cannot connect: {error}"
            raise UnreachableError(self.lost) from error
        self._client.loop_start()
        self._started = True
        with self._news:
            self._news.wait_for(lambda: self._answer is not None or self.lost, self._timeout_s)
            answer = self._answer
        if answer is None:
            raise UnreachableError(self.lost or f"does not answer within {self._timeout_s:g} s")
        if answer.is_failure:
            self.lost = f"refuses the connection: {answer.getName()}"
            raise UnreachableError(self.lost)

    def publish(
        self, messages: Sequence[Message], *, stop: bool = False, timeout_s: float | None = None
    ) -> list[int]:
        """Publish in order with QoS 1, and wait for the acknowledgements.

        Args:
            messages: What to publish.
            stop: Whether nothing more is sent after the first that is refused.
            timeout_s: How long the server may keep silent.

        Returns:
            For each the reason code of its acknowledgement: 0, a refusal (128 and more; see `words`), or
            `NOT_SENT` or `SENT` where none came.
        """
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        codes = [NOT_SENT] * len(messages)
        waiting: dict[int, int] = {}
        for index, message in enumerate(messages):
            properties = self._describe(message)
            if self._largest is not None and self._size(message, properties) > self._largest:
                codes[index] = _TOO_LARGE
            elif self._room(codes, waiting, self._window - 1, timeout_s) and not self.lost:
                if stop and max(codes) > 0:
                    break
                info = self._client.publish(
                    message.topic, message.payload, qos=1, retain=message.retain, properties=properties
                )
                codes[index] = SENT
                waiting[info.mid] = index
            else:
                break
            if stop and codes[index] > 0:
                break
        while waiting and self._room(codes, waiting, len(waiting) - 1, timeout_s):
            pass
        return codes

    def words(self, code: int) -> str:
        """A reason code in words."""
        names = self._reasons(self._packets.PUBACK).names.get(code, ())
        return str(next(iter(names), f"reason {code:#04x}")).lower()

    def subscribe(self, topics: Sequence[str]) -> list[bool]:
        """Subscribe with QoS 1; for each topic whether the server allows it.

        Raises:
            UnreachableError: no answer came.
        """
        _, mid = self._client.subscribe([(topic, 1) for topic in topics])
        with self._news:
            self._news.wait_for(lambda: mid in self._grants or self.lost, self._timeout_s)
            if mid not in self._grants:
                raise UnreachableError(self.lost or f"does not answer within {self._timeout_s:g} s")
            return self._grants.pop(mid)

    def unsubscribe(self, topics: Sequence[str]) -> None:
        """Unsubscribe; waits for nothing."""
        self._client.unsubscribe(list(topics))

    def close(self, *, goodbye: bool) -> None:
        """Hang up; without a goodbye the server says our will. Bounded in time; harmless when it was lost."""
        if not self._started:
            return
        if goodbye:
            self._client.disconnect()
            with self._news:
                self._news.wait_for(lambda: self.lost, _GOODBYE_S)
        if not self.lost and (connection := self._client.socket()) is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._client.loop_stop()
        self._started = False

    def _room(self, codes: list[int], waiting: dict[int, int], at_most: int, timeout_s: float) -> bool:
        """Wait until only so many wait for their acknowledgement; false when nothing comes for too long."""
        deadline = time.monotonic() + timeout_s
        with self._news:
            while True:
                for mid in [mid for mid in waiting if mid in self._acks]:
                    codes[waiting.pop(mid)] = self._acks.pop(mid)
                    deadline = time.monotonic() + timeout_s
                if len(waiting) <= at_most:
                    return True
                left_s = deadline - time.monotonic()
                if self.lost or left_s <= 0:
                    return False
                self._news.wait(left_s)

    def _describe(self, message: Message) -> Any:
        if not self._five or not message.properties:
            return None
        properties = self._properties(self._packets.PUBLISH)
        properties.PayloadFormatIndicator = 1
        properties.ContentType = "application/json"
        properties.UserProperty = list(message.properties)
        return properties

    def _size(self, message: Message, properties: Any) -> int:
        """Most bytes that the packet can have: header, topic, number, properties, payload."""
        extra = len(properties.pack()) if properties is not None else 1
        return 5 + 2 + len(message.topic.encode()) + 2 + extra + len(message.payload)

    def _on_connect(self, _client: Any, _data: Any, _flags: Any, reason: Any, properties: Any) -> None:
        with self._news:
            self._answer = reason
            self._window = min(_WINDOW, getattr(properties, "ReceiveMaximum", _WINDOW))
            self._largest = getattr(properties, "MaximumPacketSize", None)
            self._news.notify_all()

    def _on_disconnect(self, _client: Any, _data: Any, flags: Any, reason: Any, _properties: Any) -> None:
        said = flags.is_disconnect_packet_from_server or reason.value not in (0, _UNSPECIFIED)
        with self._news:
            self.lost = self.lost or "the server hung up" + (f": {reason.getName()}" if said else "")
            self._news.notify_all()

    def _on_publish(self, _client: Any, _data: Any, mid: int, reason: Any, _properties: Any) -> None:
        with self._news:
            self._acks[mid] = reason.value if reason.is_failure else 0
            self._news.notify_all()

    def _on_subscribe(self, _client: Any, _data: Any, mid: int, reasons: Any, _properties: Any) -> None:
        with self._news:
            self._grants[mid] = [not reason.is_failure for reason in reasons]
            self._news.notify_all()

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        if (received := self.received) is not None:
            received(message.topic, message.payload, message.retain)


class _TidySocket(ssl.SSLSocket):
    """Closed when nothing comes of it, which the library forgets."""

    def do_handshake(self, block: bool = False) -> None:
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise
