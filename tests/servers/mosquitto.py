"""A real MQTT server, mosquitto, and a plain client that listens to it."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.servers.certs import Certificate
from tests.servers.programs import Program, need

__all__ = ["Heard", "Listener", "Mosquitto"]

_LIMIT_S = 15.0


@dataclass(frozen=True, slots=True)
class Heard:
    """A message as the listener got it; ``properties`` are the user properties of version 5."""

    topic: str
    payload: bytes
    retain: bool
    properties: dict[str, str]


class Mosquitto(Program):
    """The server on loopback; it forgets everything when it ends.

    Args:
        folder: Where its configuration lies.
        users: Passwords by user name; without any, everybody is let in.
        acl: Text of its access list.
        tls: Its certificate; None for plain text.
        more: Further lines of its configuration.
    """

    def __init__(
        self,
        folder: Path,
        *,
        users: Mapping[str, str] | None = None,
        acl: str = "",
        tls: Certificate | None = None,
        more: str = "",
    ) -> None:
        program = need("mosquitto", "mosquitto")
        folder.mkdir(parents=True, exist_ok=True)
        self.tls = tls
        lines = ["user root", more]
        if users:
            passwords = folder / "passwords"
            passwords.touch(0o600)
            for user, password in users.items():
                subprocess.run(
                    [need("mosquitto_passwd", "mosquitto"), "-b", str(passwords), user, password], check=True
                )
            lines += [f"password_file {passwords}", "allow_anonymous false"]
        else:
            lines.append("allow_anonymous true")
        if acl:
            (folder / "acl").write_text(acl)
            (folder / "acl").chmod(0o600)
            lines.append(f"acl_file {folder / 'acl'}")

        def command(port: int) -> list[str]:
            listener = [f"listener {port} 127.0.0.1"]
            if tls is not None:
                listener += [f"certfile {tls.cert}", f"keyfile {tls.key}", f"cafile {tls.cert}"]
            (folder / "mosquitto.conf").write_text("\n".join([*lines, *listener, ""]))
            return [program, "-c", str(folder / "mosquitto.conf")]

        super().__init__(command, folder)

    def pause(self) -> None:
        """SIGSTOP: connections stay open, and nothing comes."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT after `pause`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    @property
    def url(self) -> str:
        """Its address, as a config names it."""
        return f"{'mqtts' if self.tls else 'mqtt'}://127.0.0.1:{self.port}"


class Listener:
    """A client that writes down what it gets, in order; a context manager.

    Args:
        server: The server.
        topics: What to subscribe to, with QoS 0: the server then has written to us what it acknowledges.
        user: User name; "" for none.
        password: Its password.
    """

    def __init__(self, server: Mosquitto, *topics: str, user: str = "", password: str = "") -> None:
        mqtt = pytest.importorskip("paho.mqtt.client")
        self.heard: list[Heard] = []
        self._server, self._topics = server, topics
        self._news = threading.Condition()
        self._ready = False
        self._client: Any = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
        self._client.reconnect_delay_set(1, 1)
        if user:
            self._client.username_pw_set(user, password)
        if server.tls is not None:
            self._client.tls_set(str(server.tls.cert))
        self._client.on_connect = lambda client, *_: client.subscribe([(topic, 0) for topic in topics])
        self._client.on_subscribe = self._on_subscribe
        self._client.on_message = self._on_message

    def __enter__(self) -> Self:
        self._client.connect("127.0.0.1", self._server.port)
        self._client.loop_start()
        with self._news:
            assert self._news.wait_for(lambda: self._ready, _LIMIT_S), "no subscription"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def wait(self, until: Callable[[list[Heard]], bool], limit_s: float = _LIMIT_S) -> list[Heard]:
        """Wait until what was heard is enough, and return it."""
        with self._news:
            enough = self._news.wait_for(lambda: until(self.heard), limit_s)
            tail = [(one.topic, one.payload[:80]) for one in self.heard[-20:]]
            assert enough, f"{len(self.heard)} messages within {limit_s} s, the last: {tail}"
            return list(self.heard)

    def wait_for(self, topic: str, field: str, value: object) -> None:
        """Wait until the newest message under a topic is JSON in which a field has this value."""
        self.wait(
            lambda heard: (
                [json.loads(one.payload)[field] for one in heard if one.topic == topic][-1:] == [value]
            )
        )

    def wait_last(self, topic: str, payload: bytes) -> None:
        """Wait until the newest message under a topic has this payload."""
        self.wait(lambda heard: [one.payload for one in heard if one.topic == topic][-1:] == [payload])

    def say(self, topic: str, payload: str, *, retain: bool = False) -> None:
        """Publish, and wait until the server has it."""
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(_LIMIT_S)

    def _on_subscribe(self, *_: Any) -> None:
        with self._news:
            self._ready = True
            self._news.notify_all()

    def _on_message(self, _client: Any, _data: Any, message: Any) -> None:
        properties = dict(getattr(message.properties, "UserProperty", []))
        with self._news:
            self.heard.append(Heard(message.topic, message.payload, message.retain, properties))
            self._news.notify_all()
