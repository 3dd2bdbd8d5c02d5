"""Events as rows of a database."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from pipeline.config.fields import Seconds, Switch, Text
from pipeline.config.sinks.base import LoginSink, without_login

__all__ = ["PostgresSink"]

_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}(\.[A-Za-z_][A-Za-z0-9_]{0,62})?")


class PostgresSink(LoginSink):
    """Deliver events to a table of PostgreSQL."""

    kind: ClassVar[str] = "postgres"
    url: Text = Field(alias="postgres", description="The database: postgresql://HOST:5432/NAME.")
    table: Text = Field(default="framewire_events", description="TABLE, or SCHEMA.TABLE.")
    create: Switch = Field(default=True, description="Make the table if there is none.")
    sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = Field(
        default="prefer", description="How the connection is secured, in the words of libpq."
    )
    ca_file: Text | None = Field(
        default=None, description="Certificates to trust with verify-ca and verify-full, PEM."
    )
    timeout_s: Annotated[Seconds, Field(gt=0)] = Field(
        default=10.0, description="How long an answer may take, seconds."
    )

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        if re.search(r"[?&](ssl)?password=", value, re.IGNORECASE):
            raise ValueError("must have no password in it; give username: and password:")
        return without_login(value, ("postgresql", "postgres"), "postgresql://10.0.0.5:5432/cameras")

    @field_validator("table")
    @classmethod
    def _table(cls, value: str) -> str:
        if _TABLE.fullmatch(value) is None:
            raise ValueError("must be TABLE or SCHEMA.TABLE, of letters, digits and `_`")
        return value
