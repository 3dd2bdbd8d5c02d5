"""Events as HTTP requests."""

from __future__ import annotations

import base64
import contextlib
import re
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from pipeline.config.fields import Count, Seconds, Text
from pipeline.config.sinks.base import DeliveredSink, Secret, without_login

__all__ = ["WebhookSink"]

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_TEXT = re.compile(r"([\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?)?")
#: Set by us, by HTTP itself, or by what signs.
_OURS = ("authorization", "content-length", "content-type", "host", "transfer-encoding", "webhook-id",
         "webhook-signature", "webhook-timestamp")  # fmt: skip


class WebhookSink(DeliveredSink):
    """Deliver events as HTTP POST requests, CloudEvents by default, signed if there is a secret."""

    kind: ClassVar[str] = "webhook"
    url: Text = Field(alias="webhook", description="Where to post: https://HOST/PATH.")
    format: Literal["cloudevents", "json"] = Field(
        default="cloudevents", description="CloudEvents 1.0 in JSON, or the record alone."
    )
    batch: Annotated[Count, Field(le=200)] = Field(
        default=1, description="Most events in one request; more than 1 posts a JSON array."
    )
    secret: Secret | None = Field(
        default=None, description="Signs requests (HMAC-SHA256, Standard Webhooks); best as ${NAME}."
    )
    secret_file: Text | None = Field(default=None, description="A file with the secret on its only line.")
    token: Secret | None = Field(default=None, description="Sent as Authorization: Bearer; best as ${NAME}.")
    token_file: Text | None = Field(default=None, description="A file with the token on its only line.")
    headers: dict[Text, str] | None = Field(default=None, description="Further headers of each request.")
    ca_file: Text | None = Field(
        default=None, description="Certificates to trust, PEM; left out: those of this system."
    )
    timeout_s: Annotated[Seconds, Field(gt=0)] = Field(
        default=10.0, description="How long a request may take in all, seconds."
    )

    @field_validator("url")
    @classmethod
    def _url(cls, value: str) -> str:
        without_login(value, ("http", "https"), "https://hooks.example/cameras")
        with contextlib.suppress(ValueError):
            if urlsplit(value).port != 0:
                return value
        raise ValueError("must have a port from 1 to 65535, or none, such as https://hooks.example/cameras")

    @field_validator("headers")
    @classmethod
    def _headers(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        for name, text in (value or {}).items():
            if _HEADER.fullmatch(name) is None or _TEXT.fullmatch(text) is None:
                raise ValueError(f"has {name!r}, which is no header; write NAME: TEXT, of ASCII")
            if name.lower() in _OURS:
                raise ValueError(f"sets {name}, which is set already; use token: or secret: for that")
        return value

    @model_validator(mode="after")
    def _one_of_each(self) -> Self:
        for key in ("secret", "token"):
            if getattr(self, key) is not None and getattr(self, f"{key}_file") is not None:
                raise ValueError(f"has {key} and {key}_file; keep one of them")
        secret = self.secret.get_secret_value() if self.secret is not None else ""
        if secret.startswith("whsec_") and not _is_base64(secret.removeprefix("whsec_")):
            raise ValueError("has a secret that is no base64 behind whsec_; copy all of it")
        return self


def _is_base64(text: str) -> bool:
    try:
        return base64.b64decode(text, validate=True) != b""
    except ValueError:
        return False
