"""Message brokers: Kafka, NATS JetStream, Redis Streams."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.fields import Count, Seconds, Text
from pipeline.config.sinks.base import LoginSink, Secret, without_login

__all__ = ["KafkaSink", "NatsSink", "RedisSink"]

_HOSTS = re.compile(r"[^\s,@/:]+(:\d+)?(,[^\s,@/:]+(:\d+)?)*|\[[^\]\s]+\](:\d+)?")
_SUBJECT = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_KAFKA_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_Timeout = Annotated[Seconds, Field(gt=0)]


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
        if _HOSTS.fullmatch(value) is None:
            raise ValueError("must be servers, such as 10.0.0.5:9092 or one:9092,two:9092")
        return value

    @field_validator("topic")
    @classmethod
    def _topic(cls, value: str) -> str:
        if _KAFKA_TOPIC.fullmatch(value) is None:
            raise ValueError("must be a topic of letters, digits, `.`, `_` and `-`")
        return value

    @model_validator(mode="after")
    def _login_fits(self) -> Self:
        if self.security.startswith("sasl") != (self.username is not None):
            raise ValueError(
                "needs a username with security: sasl_… and has none without; write both, or neither"
            )
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
        return without_login(value, ("nats", "tls"), "nats://10.0.0.5:4222")

    @field_validator("subject", "stream")
    @classmethod
    def _words(cls, value: str) -> str:
        if _SUBJECT.fullmatch(value) is None:
            raise ValueError("must be of letters, digits, `_` and `-`, with `.` between")
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
        if re.fullmatch(r"unix:///[^\s@]+", value):
            return value
        return without_login(value, ("redis", "rediss"), "redis://10.0.0.5:6379/0")
