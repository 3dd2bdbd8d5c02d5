"""The ZeroMQ stream."""

from __future__ import annotations

import re
from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.fields import Count, Seconds, Switch, Text, is_loopback
from pipeline.config.sinks.base import SinkSection

__all__ = ["ZmqSink"]

_TCP = re.compile(r"tcp://(\[[^\]]+\]|[^:\[\]/\s]+):(\d+|\*)")


class ZmqSink(SinkSection):
    """Publish frames and events to subscribers over ZeroMQ PUB."""

    kind: ClassVar[str] = "zmq"
    address: Text = Field(alias="zmq", description="Where to bind, such as tcp://127.0.0.1:5556.")
    format: Literal["msgpack", "json"] = Field(default="msgpack", description="Encoding of the records.")
    frames: Switch = Field(default=True, description="Publish a record per frame.")
    events: Switch = Field(default=True, description="Publish the life-cycle events of objects and sources.")
    insecure: Switch = Field(
        default=False, description="Allow an address that other hosts can reach, in plain text."
    )
    queue_limit: Count = Field(default=1000, description="Messages that may wait for one slow subscriber.")
    linger_s: Seconds = Field(
        default=2.0, description="How long the end of a run waits for the tail to be sent, seconds."
    )

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        match = _TCP.fullmatch(value)
        if (match and (match[2] == "*" or int(match[2]) <= 65535)) or re.fullmatch(r"ipc://.+", value):
            return value
        raise ValueError("must be tcp://HOST:PORT or ipc://PATH")

    @model_validator(mode="after")
    def _stays_here(self) -> Self:
        match = _TCP.fullmatch(self.address)
        if match and not self.insecure and not is_loopback(match[1].strip("[]")):
            raise ValueError(
                f"publishes at {self.address}, which other hosts can reach, in plain text; "
                "publish at tcp://127.0.0.1:PORT, or add insecure: true if the network is trusted"
            )
        return self
