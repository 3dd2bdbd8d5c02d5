"""MQTT, and Home Assistant by it."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.fields import Count, Seconds, Switch, Text
from pipeline.config.sinks.base import LoginSink, without_login

__all__ = ["MqttSink"]

_TOPIC = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
_ADDRESS = re.compile(r"mqtts?://([^\[\]:/?#]+|\[[0-9A-Fa-f:.]+\])(:(\d{1,5}))?/?")
#: Without these, Home Assistant would show what is not so.
_NEEDED = ("start", "end", "source")


class MqttSink(LoginSink):
    """Deliver events to an MQTT server, and show their states in Home Assistant."""

    kind: ClassVar[str] = "mqtt"
    url: Text = Field(
        alias="mqtt", description="The server: mqtt://HOST:1883, or mqtts://HOST:8883 with TLS."
    )
    prefix: Text = Field(
        default="framewire",
        description="Topics are PREFIX/<source>/<type>/<label>; two runs on one server need two prefixes.",
    )
    ca_file: Text | None = Field(
        default=None, description="Certificates to trust, PEM; left out: those of this system."
    )
    cert_file: Text | None = Field(default=None, description="Our own certificate, PEM, if the server asks.")
    key_file: Text | None = Field(default=None, description="Its key, PEM; left out: it is in the same file.")
    protocol: Literal["5", "3.1.1"] = Field(
        default="5", description="Version of MQTT; with 3.1.1 a server cannot say that it refuses an event."
    )
    client_id: Text | None = Field(
        default=None, description="Name on the server, of which there can be one; left out: made up."
    )
    discovery: Switch = Field(
        default=True, description="Keep states as retained messages and tell Home Assistant of them."
    )
    discovery_prefix: Text = Field(
        default="homeassistant", description="Prefix of discovery as set in Home Assistant."
    )
    commands: Switch = Field(
        default=False,
        description="Obey PREFIX/<source>/detection/set (ON, OFF) and …/confidence/set (0 to 1).",
    )
    keepalive_s: Annotated[Count, Field(le=65535)] = Field(
        default=30, description="After so long, and half as much again, the server says that we are gone."
    )
    timeout_s: Annotated[Seconds, Field(gt=0)] = Field(
        default=10.0, description="How long an acknowledgement may take, seconds."
    )

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        without_login(value, ("mqtt", "mqtts"), "mqtt://10.0.0.5:1883")
        match = _ADDRESS.fullmatch(value)
        if match is None or int(match[3] or 1) not in range(1, 65536):
            raise ValueError("must be host and port alone, such as mqtt://10.0.0.5:1883")
        return value

    @field_validator("protocol", mode="before")
    @classmethod
    def _protocol(cls, value: Any) -> Any:
        return "5" if value == 5 else value  # In YAML, 5 is a number and 3.1.1 is none.

    @field_validator("prefix", "discovery_prefix")
    @classmethod
    def _topic(cls, value: str) -> str:
        if _TOPIC.fullmatch(value) is None:
            raise ValueError("must be of letters, digits, `_`, `.` and `-`, with `/` between levels")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.url.startswith("mqtt:") and (self.ca_file or self.cert_file or self.key_file):
            raise ValueError("has certificates and no TLS; write mqtts://HOST:8883")
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("has a key_file and no cert_file; add cert_file:")
        if self.discovery and self.types and not set(_NEEDED) <= set(self.types):
            raise ValueError(
                f"leaves out events that discovery needs; add {', '.join(_NEEDED)} to types:, "
                "or write discovery: false"
            )
        if self.discovery and self.zones:
            raise ValueError(
                "has zones:, and discovery needs the whole life of an object; leave zones: out, "
                "or write discovery: false"
            )
        return self
