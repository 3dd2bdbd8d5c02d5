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
    replay: Text | None = Field(
        default=None,
        description="Where to answer for past events; left out: the port after, or beside the path.",
    )
    keys: Text | None = Field(
        default=None,
        description="Folder of the keys of those who may subscribe, as `framewire keys` makes it; left out: "
        "plain text, open to all on this machine.",
    )
    insecure: Switch = Field(
        default=False, description="Allow an address that other hosts can reach without keys."
    )
    queue_limit: Count = Field(default=1000, description="Messages that may wait for one slow subscriber.")
    linger_s: Seconds = Field(
        default=2.0, description="How long the end of a run waits for the tail to be sent, seconds."
    )

    @field_validator("address", "replay")
    @classmethod
    def _address(cls, value: str | None) -> str | None:
        if value is None:
            return None
        match = _TCP.fullmatch(value)
        if (match and (match[2] == "*" or int(match[2]) <= 65535)) or re.fullmatch(r"ipc://.+", value):
            return value
        raise ValueError("must be tcp://HOST:PORT or ipc://PATH")

    @model_validator(mode="after")
    def _stays_here(self) -> Self:
        for address in (self.address, self.replay or ""):
            match = _TCP.fullmatch(address)
            if match and not self.insecure and not self.keys and not is_loopback(match[1].strip("[]")):
                raise ValueError(
                    f"publishes at {address}, which other hosts can reach, in plain text; publish at "
                    "tcp://127.0.0.1:PORT, add keys: FOLDER, or insecure: true if the network is trusted"
                )
        return self
