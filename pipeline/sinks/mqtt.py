"""Deliver events to an MQTT server, and the states that Home Assistant shows."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Sequence
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import msgspec

from pipeline.errors import FramewireError
from pipeline.sinks.client import library, secret_of, tls_context
from pipeline.sinks.connector import RefusedError, Session, UnreachableError
from pipeline.sinks.homeassistant import AVAILABILITY, OFFLINE, ONLINE, Home, Retained, topic_of
from pipeline.sinks.mqtt_link import SENT, Link, Message

__all__ = ["MqttConnector"]

log = logging.getLogger(__name__)

#: What a server has kept of us comes in one go; after so long without more of it, that was it.
_QUIET_S, _RESTORE_S = 0.2, 2.0
#: A server that hangs up so often on one and the same event, sent alone, refuses it.
_HANG_UPS = 3
#: The acknowledgement is an error, but one that passes: quota exceeded.
_PASSING = (0x97,)
_FAREWELL_S = 2.0


class MqttConnector:
    """Publishes each event as JSON with QoS 1 and waits for its acknowledgement.

    Topics are ``PREFIX/<source>/<type>/<label>``. ``PREFIX/availability`` is ``online`` while we are
    connected, and ``offline`` by our Last Will when we are not; it, the states, and the messages that make
    Home Assistant show them are retained, and said again after each connection. With version 5 an event has
    the user properties ``log`` and ``sequence``, and a server's refusal is seen. Version 3.1.1 knows no
    refusal: what an access list forbids is acknowledged like all else. There is no QoS 0, with which nobody
    knows what has arrived, and no QoS 2, of which the library does not tell refusals.

    Args:
        url: ``mqtt://HOST:PORT``, or ``mqtts://…`` with TLS; ports 1883 and 8883 when left out.
        prefix: First level or levels of the topics.
        username: User name; None for none.
        password: Its password.
        password_file: A file with the password.
        ca_file: Certificates to trust.
        cert_file: Our own certificate.
        key_file: Its key.
        protocol: Version of MQTT.
        client_id: Our name on the server, of which there can be one; None lets chance decide.
        discovery: Whether to tell Home Assistant of entities, and keep their states.
        discovery_prefix: First level of its discovery topics.
        commands: Whether to obey ``PREFIX/<source>/detection/set`` and ``…/confidence/set``.
        keepalive_s: After so long, half as much again, the server knows that we are gone.
        timeout_s: How long the server may keep silent while we wait for it.

    Raises:
        ConfigError: the library is not installed.
    """

    def __init__(
        self,
        url: str,
        prefix: str = "framewire",
        username: str | None = None,
        password: str | None = None,
        password_file: str | None = None,
        ca_file: str | None = None,
        cert_file: str | None = None,
        key_file: str | None = None,
        protocol: Literal["5", "3.1.1"] = "5",
        client_id: str | None = None,
        discovery: bool = True,
        discovery_prefix: str = "homeassistant",
        commands: bool = False,
        keepalive_s: int = 30,
        timeout_s: float = 10.0,
    ) -> None:
        library("paho.mqtt.client", "mqtt")
        self._url, self._prefix = url, prefix
        self._username, self._password, self._password_file = username, password, password_file
        self._certificates = (ca_file, cert_file, key_file)
        self._link_options: dict[str, Any] = {
            "protocol": protocol, "client_id": client_id, "keepalive_s": keepalive_s, "timeout_s": timeout_s,
        }  # fmt: skip
        self._discovery = discovery_prefix if discovery else None
        self._commands, self._timeout_s = commands, timeout_s
        self._availability = f"{prefix}/{AVAILABILITY}"
        self._session: Session | None = None
        self._home: Home | None = None
        self._link: Link | None = None
        self._tasks: queue.SimpleQueue[tuple[str, bytes] | None] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None
        # Held while states are read and said: the newest has to be the last that the server gets.
        self._telling = threading.Lock()
        self._alone: int | None = None
        self._hang_ups = 0
        self._refused: set[str] = set()

    def connect(self, session: Session) -> None:
        """See `Connector.connect`."""
        self.close()
        self._session = session
        parts = urlsplit(self._url)
        secure = parts.scheme == "mqtts"
        self._tasks = queue.SimpleQueue()
        link = self._link = Link(will=Retained(self._availability, OFFLINE), **self._link_options)
        try:
            link.open(
                parts.hostname or "",
                parts.port or (8883 if secure else 1883),
                login=(self._username, secret_of(self._password, self._password_file)),
                tls=tls_context(*self._certificates) if secure else None,
            )
            fresh = self._home is None
            with self._telling:
                home = self._home = self._home or Home(
                    self._prefix, self._discovery, session.run_id, self._commands
                )
                if fresh and self._discovery is not None:
                    self._restore(link, home)
                home.know(session.sources())
                link.received = self._received
                self._subscribe(link)
                self._tell(link, [Retained(self._availability, ONLINE), *home.everything()])
        except UnreachableError as error:
            self._link = None
            link.close(goodbye=False)
            raise UnreachableError(f"{self._url}: {error.message}") from error
        self._worker = threading.Thread(
            target=self._work, args=(link, session, self._tasks), name="mqtt-commands", daemon=True
        )
        self._worker.start()
        self._read(home.sources)

    def send(self, records: Sequence[dict[str, Any]]) -> None:
        """See `Connector.send`."""
        link, home = self._link, self._home
        assert link is not None
        assert home is not None
        messages = [self._message(record) for record in records]
        # What was refused, or cut the connection, goes alone: nothing overtakes it a second time.
        first = 1 if self._alone == records[0]["sequence"] else 0
        codes = link.publish(messages[:first])
        if not any(codes):
            codes += link.publish(messages[first:], stop=True)
        done = next((i for i, code in enumerate(codes) if code != 0), len(codes))
        if done:
            self._alone, self._hang_ups = None, 0
            with self._telling:
                before = home.sources
                for record in records[:done]:
                    home.see(record)
                try:
                    self._tell(link, home.changed())
                except UnreachableError as error:
                    raise UnreachableError(f"{self._url}: {error.message}", done=done) from error
            self._read(home.sources - before)
        if done < len(records):
            self._fail(link, records[done], messages[done], codes[done], done)

    def check(self) -> None:
        """Whether we are still connected: also while there is nothing to send, commands are to be heard.

        Raises:
            UnreachableError: not any more.
        """
        if self._link is None or self._link.lost:
            reason = self._link.lost if self._link is not None else ""
            raise UnreachableError(f"{self._url}: {reason or 'not connected'}")

    def close(self) -> None:
        """See `Connector.close`."""
        link, self._link = self._link, None
        worker, self._worker = self._worker, None
        if worker is not None:
            self._tasks.put(None)
        if link is not None:
            link.received = None
            farewell = Message(self._availability, OFFLINE, retain=True)
            # Without a goodbye the server says our will, which is the same.
            limit_s = min(_FAREWELL_S, self._timeout_s)
            link.close(goodbye=not any(link.publish([farewell], timeout_s=limit_s)))
        if worker is not None and worker is not threading.current_thread():
            worker.join(_FAREWELL_S)

    def _message(self, record: dict[str, Any]) -> Message:
        assert self._session is not None
        where = topic_of(self._prefix, record["source"], record["type"], record.get("label", ""))
        said = (("log", self._session.log_id), ("sequence", str(record["sequence"])))
        return Message(where, msgspec.json.encode(record), properties=said)

    def _fail(self, link: Link, record: dict[str, Any], message: Message, code: int, done: int) -> None:
        alone = self._alone == record["sequence"]
        self._alone = record["sequence"]
        if code > 0:
            what = f"{self._url} refuses an event under {message.topic}: {link.words(code)}"
            raise (UnreachableError if code in _PASSING else RefusedError)(what, done=done)
        if code == SENT and link.lost and alone:
            self._hang_ups += 1
            if self._hang_ups >= _HANG_UPS:
                raise RefusedError(
                    f"{self._url} hangs up on an event of {len(message.payload)} bytes", done=done
                )
        reason = link.lost or f"no acknowledgement came within {self._timeout_s:g} s"
        raise UnreachableError(f"{self._url}: {reason}", done=done)

    def _tell(self, link: Link, states: Sequence[Retained]) -> None:
        """Say states; one that is refused costs a warning, and no event.

        Raises:
            UnreachableError: the connection is lost; the next one says them all again.
        """
        codes = link.publish([Message(state.topic, state.payload, retain=True) for state in states])
        if any(code < 0 for code in codes):
            raise UnreachableError(link.lost or f"no answer within {self._timeout_s:g} s")
        for state, code in zip(states, codes, strict=True):
            if code > 0 and state.topic not in self._refused:
                self._refused.add(state.topic)
                log.warning("%s refuses the state %s: %s", self._url, state.topic, link.words(code))

    def _restore(self, link: Link, home: Home) -> None:
        """Learn what the server kept of us: a process that was killed knew what is present."""
        kept: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        link.received = lambda topic, payload, retained: kept.put((topic, payload)) if retained else None
        topics = [f"{self._prefix}/+/{what}" for what in (AVAILABILITY, "objects/+", "zones/+")]
        if not any(link.subscribe(topics)):
            return
        until = time.monotonic() + _RESTORE_S
        with contextlib.suppress(queue.Empty):
            while time.monotonic() < until:
                home.restore(*kept.get(timeout=_QUIET_S))
        link.received = None
        link.unsubscribe(topics)

    def _subscribe(self, link: Link) -> None:
        # Our own availability: a will that comes late, of a connection that was lost, is to be put right.
        topics = [self._availability]
        if self._discovery is not None:
            topics.append(f"{self._discovery}/status")
        if self._commands:
            topics += [f"{self._prefix}/+/{what}/set" for what in ("detection", "confidence")]
        for topic, granted in zip(topics, link.subscribe(topics), strict=True):
            if not granted and topic not in self._refused:
                self._refused.add(topic)
                log.warning("%s refuses the subscription to %s", self._url, topic)

    def _received(self, topic: str, payload: bytes, retained: bool) -> None:
        """Put a message aside, for the network's thread has better to do; one that was retained is old."""
        if not retained:
            self._tasks.put((topic, payload))

    def _read(self, sources: set[str]) -> None:
        """Have the settings of sources read and said."""
        if self._commands:
            for source in sorted(sources):
                self._tasks.put((topic_of(self._prefix, source, "detection", "get"), b""))

    def _work(self, link: Link, session: Session, tasks: queue.SimpleQueue[tuple[str, bytes] | None]) -> None:
        while (task := tasks.get()) is not None and not link.lost:
            topic, payload = task
            home = self._home
            assert home is not None
            try:
                if topic == self._availability:
                    if payload == OFFLINE:
                        self._tell(link, [Retained(topic, ONLINE)])
                elif topic == f"{self._discovery}/status":
                    if payload == ONLINE:
                        self._read(home.sources)
                        with self._telling:
                            self._tell(link, home.everything())
                else:
                    self._obey(link, session, home, topic, payload)
            except UnreachableError as error:
                log.debug("%s: %s", self._url, error)

    def _obey(self, link: Link, session: Session, home: Home, topic: str, payload: bytes) -> None:
        """Do what a command says, and say how its source is set then."""
        source, what, verb = (unquote(level) for level in topic.removeprefix(f"{self._prefix}/").split("/"))
        command: dict[str, Any] = {"do": "tune", "name": source}
        if verb == "set":
            try:
                session.control(command | _wanted(what, payload))
            except (ValueError, FramewireError) as error:
                reason = error.message if isinstance(error, FramewireError) else str(error)
                log.warning("%s: nothing is changed: %s", topic, reason)
        try:
            now = session.control(command)
            tuned = (source, bool(now["enabled"]), float(now["confidence"]))
        except (FramewireError, KeyError, TypeError, ValueError) as error:
            log.debug("%s: its settings cannot be read: %s", source, error)
            return
        with self._telling:
            home.tuned(*tuned)
            self._tell(link, home.changed())


def _wanted(what: str, payload: bytes) -> dict[str, Any]:
    """What a command asks for.

    Args:
        what: ``detection`` or ``confidence``.
        payload: ``ON`` or ``OFF``; a number from 0 to 1.

    Raises:
        ValueError: it is none of these; says what to send.
    """
    text = payload[:100].decode("utf-8", "replace").strip()
    if what == "detection":
        if text.upper() not in ("ON", "OFF"):
            raise ValueError(f"{text!r} is neither ON nor OFF")
        return {"enabled": text.upper() == "ON"}
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise ValueError(f"{text!r} is no number from 0 to 1")
    return {"confidence": number}
