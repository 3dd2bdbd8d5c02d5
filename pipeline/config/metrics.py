"""``metrics:`` - where the numbers of a run can be fetched."""

from __future__ import annotations

import re
from typing import Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.fields import Section, Switch, Text, is_loopback

__all__ = ["Metrics"]

_LISTEN = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+)):(\d{1,5})")


class Metrics(Section):
    """Numbers of the run, over HTTP in the format of Prometheus."""

    listen: Text | None = Field(
        default=None, description="HOST:PORT to listen at, such as 127.0.0.1:9464; left out: nowhere."
    )
    insecure: Switch = Field(default=False, description="Allow an address that other hosts can reach.")

    @field_validator("listen")
    @classmethod
    def _host_and_port(cls, value: str | None) -> str | None:
        match = _LISTEN.fullmatch(value) if value is not None else None
        if value is not None and not (match and int(match[3]) <= 65535):
            raise ValueError("must be HOST:PORT, such as 127.0.0.1:9464")
        return value

    @model_validator(mode="after")
    def _stays_here(self) -> Self:
        address = self.address()
        if address is not None and not self.insecure and not is_loopback(address[0]):
            raise ValueError(
                f"listens at {self.listen}, which other hosts can reach; "
                "listen at 127.0.0.1:PORT, or add insecure: true if the network is trusted"
            )
        return self

    def address(self) -> tuple[str, int] | None:
        """Host (an IPv6 address without brackets) and port to listen at; None for nowhere."""
        match = _LISTEN.fullmatch(self.listen or "")
        return (match[1] or match[2], int(match[3])) if match else None
