"""Message brokers: Kafka, NATS JetStream, Redis Streams."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.fields import Count, Seconds, Text
from pipeline.config.sinks.base import LoginSink, Secret, without_login

__all__ = ["KafkaSink", "NatsSink", "RedisSink"]

_HOST = r"(?:\[[0-9A-Fa-f:.%]+\]|[^\s\[\],@/:?#]+)(?::\d+)?"
_HOSTS = re.compile(rf"{_HOST}(,{_HOST})*")
_NATS = re.compile(rf"(nats|tls)://{_HOST}/?")
_SUBJECT = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_KAFKA_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_STREAM = re.compile(r"[A-Za-z0-9_-]{1,255}")
_REDIS = re.compile(rf"rediss?://{_HOST}(/\d*)?|unix:///[^\s@?]+(\?db=\d+)?")
_PORT = re.compile(r":(\d+)(?=[/,]|$)")
_Timeout = Annotated[Seconds, Field(gt=0)]


def _ports_fit(value: str) -> None:
    for port in _PORT.findall(value):
        if not 0 < int(port) < 65536:
            raise ValueError(f"must have ports from 1 to 65535, and has {port}")


class KafkaSink(LoginSink):
    """Deliver events to a topic of Apache Kafka, or what speaks its protocol."""

    kind: ClassVar[str] = "kafka"
    servers: Text = Field(alias="kafka", description="Bootstrap servers: HOST:PORT,HOST:PORT.")
    topic: Text = Field(
        default="framewire.events", description="The topic; the key of a message is its source."
    )
    security: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = Field(
        default="plaintext", description="How the connection is secured."
    )
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field(
        default="SCRAM-SHA-512", description="How user name and password are shown, with sasl_…."
    )
    ca_file: Text | None = Field(
        default=None, description="Certificates to trust, PEM; left out: those of this system."
    )
    compression: Literal["none", "gzip", "lz4", "zstd", "snappy"] = Field(
        default="none", description="Compression of what is sent."
    )
    timeout_s: _Timeout = Field(default=10.0, description="How long an acknowledgement may take, seconds.")

    @field_validator("servers")
    @classmethod
    def _servers(cls, value: str) -> str:
        if "@" in value:
            raise ValueError("has a login in it; write HOST:PORT, and give username: and password:")
        if _HOSTS.fullmatch(value) is None:
            raise ValueError("must be servers, such as 10.0.0.5:9092 or one:9092,two:9092")
        _ports_fit(value)
        return value

    @field_validator("topic")
    @classmethod
    def _topic(cls, value: str) -> str:
        if _KAFKA_TOPIC.fullmatch(value) is None or value in (".", ".."):
            raise ValueError("must be a topic of letters, digits, `.`, `_` and `-`")
        return value

    @model_validator(mode="after")
    def _login_fits(self) -> Self:
        if self.security.startswith("sasl") != (self.username is not None):
            raise ValueError(
                "needs a username with security: sasl_… and has none without; write both, or neither"
            )
        if self.username is not None and self.password is None and self.password_file is None:
            raise ValueError("has a username and no password; add password: or password_file:")
        if self.ca_file is not None and not self.security.endswith("ssl"):
            raise ValueError("has a ca_file and no TLS; write security: ssl, or sasl_ssl with a username")
        return self


class NatsSink(LoginSink):
    """Deliver events to a stream of NATS JetStream."""

    kind: ClassVar[str] = "nats"
    url: Text = Field(alias="nats", description="The server: nats://HOST:4222, or tls://HOST:4222.")
    stream: Text = Field(
        default="FRAMEWIRE", description="The stream; it is made if there is none, and never changed."
    )
    subject: Text = Field(default="framewire", description="Subjects are SUBJECT.<source>.<type>.<label>.")
    token: Secret | None = Field(default=None, description="A token instead of a user name.")
    credentials_file: Text | None = Field(default=None, description="A .creds file instead of a user name.")
    ca_file: Text | None = Field(
        default=None, description="Certificates to trust, PEM; left out: those of this system."
    )
    timeout_s: _Timeout = Field(default=10.0, description="How long an acknowledgement may take, seconds.")

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        without_login(value, ("nats", "tls"), "nats://10.0.0.5:4222")
        if _NATS.fullmatch(value) is None:
            raise ValueError("must be nats://HOST:PORT or tls://HOST:PORT")
        _ports_fit(value)
        return value

    @field_validator("subject")
    @classmethod
    def _words(cls, value: str) -> str:
        if _SUBJECT.fullmatch(value) is None:
            raise ValueError("must be of letters, digits, `_` and `-`, with `.` between")
        return value

    @field_validator("stream")
    @classmethod
    def _word(cls, value: str) -> str:
        if _STREAM.fullmatch(value) is None:
            raise ValueError("must be a name of letters, digits, `_` and `-`, such as FRAMEWIRE")
        return value

    @model_validator(mode="after")
    def _one_login(self) -> Self:
        given = [key for key in ("username", "token", "credentials_file") if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"has {' and '.join(given)}; keep one of them")
        return self


class RedisSink(LoginSink):
    """Deliver events to a stream of Redis, or Valkey."""

    kind: ClassVar[str] = "redis"
    url: Text = Field(
        alias="redis", description="The server: redis://HOST:6379/0, rediss://… with TLS, or unix:///PATH."
    )
    stream: Text = Field(default="framewire:events", description="Key of the stream.")
    max_length: Count | None = Field(
        default=100_000, description="About so many events stay in the stream; null: all."
    )
    ca_file: Text | None = Field(
        default=None, description="Certificates to trust, PEM; left out: those of this system."
    )
    timeout_s: _Timeout = Field(default=10.0, description="How long an answer may take, seconds.")

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        if not value.startswith("unix:"):
            without_login(value, ("redis", "rediss"), "redis://10.0.0.5:6379/0")
        if _REDIS.fullmatch(value) is None:
            # What follows a `?` would be options of the library, a password among them.
            raise ValueError("must be redis://HOST:PORT/DB, rediss://HOST:PORT/DB or unix:///PATH?db=DB")
        _ports_fit(value.partition("unix:")[0])
        return value

    @model_validator(mode="after")
    def _certificates_fit(self) -> Self:
        if self.ca_file is not None and not self.url.startswith("rediss:"):
            raise ValueError("has a ca_file and no TLS; write rediss://HOST:PORT/DB")
        return self
