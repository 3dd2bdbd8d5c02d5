"""What all kinds of sink share, and what those share that are delivered from the event log."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Self

from pydantic import BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from pipeline.config.fields import Count, Label, Seconds, Section, SourceName, Text, listed

__all__ = ["DELIVERY", "DeliveredSink", "LoginSink", "Secret", "SinkSection", "without_login"]


class SinkSection(Section):
    """One entry of ``publish:``; the first field's key in YAML is the kind."""

    model_config = ConfigDict(serialize_by_alias=True)
    kind: ClassVar[str]

    @property
    def target(self) -> str:
        """Where it goes: what was written next to its kind."""
        return next(
            str(getattr(self, name))
            for name, field in type(self).model_fields.items()
            if field.alias == self.kind
        )

    def options(self) -> dict[str, Any]:
        """The fields as keyword arguments of the sink's constructor; secrets are plain in them."""
        return {
            key: value.get_secret_value() if isinstance(value, SecretStr) else value
            for key, value in self.model_dump(by_alias=False).items()
        }


class DeliveredSink(SinkSection):
    """A sink that gets events from the event log: in order, at least once, when its server can take them."""

    name: SourceName | None = Field(
        default=None,
        description="What this sink is called in metrics and in the event log; left out: its kind.",
    )
    types: Annotated[tuple[Text, ...], listed("[start, end]")] = Field(
        default=(), description="Only events of these types; left out: all."
    )
    sources: Annotated[tuple[SourceName, ...], listed("[gate]")] = Field(
        default=(), description="Only events of these sources; left out: all."
    )
    labels: Annotated[tuple[Label, ...], listed("[person]")] = Field(
        default=(), description="Only events of objects with these labels; left out: all, and those of none."
    )
    zones: Annotated[tuple[Text, ...], listed("[driveway]")] = Field(
        default=(), description="Only events in or at these zones; left out: all."
    )
    attempts: Count = Field(
        default=5,
        description="How often an event that the server refuses is sent before it becomes a dead letter.",
    )
    retry_max_s: Annotated[Seconds, Field(gt=0)] = Field(
        default=60.0, description="Longest wait between two attempts, seconds; the first is half a second."
    )
    drain_s: Seconds = Field(
        default=5.0,
        description="How long the end of a run waits for what is not delivered yet, seconds; the rest waits "
        "in the event log for the next run.",
    )

    def options(self) -> dict[str, Any]:
        """The fields as keyword arguments of the connector's constructor."""
        return {key: value for key, value in super().options().items() if key not in DELIVERY}

    def delivery(self) -> dict[str, Any]:
        """The fields as keyword arguments of `pipeline.sinks.delivery.Delivery`."""
        chosen = {key: value for key, value in super().options().items() if key in DELIVERY}
        return chosen | {"name": self.name or self.kind}


#: Fields that are the delivery's, and not the connector's.
DELIVERY = frozenset(DeliveredSink.model_fields)


def _secret(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value
    if not isinstance(value, str):
        raise ValueError("must be text; put it in quotes")
    if not value.strip():
        raise ValueError("must not be empty; write the secret, or leave the key out")
    return value


Secret = Annotated[SecretStr, BeforeValidator(_secret)]


class LoginSink(DeliveredSink):
    """A server that wants to know who we are."""

    username: Text | None = Field(default=None, description="User name on the server.")
    password: Secret | None = Field(
        default=None, description="Its password, written plainly; best as ${NAME}."
    )
    password_file: Text | None = Field(
        default=None, description="A file with the password on its only line, read for each connection."
    )

    @model_validator(mode="after")
    def _one_password(self) -> Self:
        if self.password is not None and self.password_file is not None:
            raise ValueError("has a password and a password_file; keep one of them")
        if (self.password or self.password_file) and self.username is None:
            raise ValueError("has a password and no username; add username:")
        return self


def without_login(url: str, schemes: tuple[str, ...], example: str) -> str:
    """Check the URL of a server.

    Args:
        url: What was written.
        schemes: What it may begin with.
        example: One that is right.

    Raises:
        ValueError: it is none of these, or there is a login in it.
    """
    match = re.fullmatch(r"([a-z][a-z0-9+.-]*)://([^/?#\s]+)([/?#]\S*)?", url)
    if match is None or match[1] not in schemes:
        raise ValueError(f"must be a URL such as {example}")
    if "@" in match[2]:
        raise ValueError("must have no login in it; give username: and password:")
    return url
