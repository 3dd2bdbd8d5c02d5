"""Deliver events as HTTP requests."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import logging
import re
import time
from collections.abc import Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from pipeline.errors import ConfigError
from pipeline.sinks.client import library, secret_of, tls_context
from pipeline.sinks.cloudevents import BATCH, ONE, cloud_event
from pipeline.sinks.connector import RefusedError, Session, UnreachableError

__all__ = ["WebhookConnector", "patience", "signature"]

#: What says "not now", beside all from 500 on; and what an operator can mend on the server or here.
_NOT_NOW = (401, 403, 404, 407, 408, 421, 425, 429)
#: Of an answer so much is read; what it says does not matter.
_ANSWER_MAX = 64 * 1024
#: A server that asks for more patience (Retry-After) is asked again after so long.
_PATIENCE_MAX_S = 300.0
_PREFIX = "whsec_"
#: What a header may hold. Of the rest the library makes errors that quote it, and it may be a secret.
_SENDABLE = re.compile(r"([\x21-\x7e]([\x20-\x7e\t]*[\x21-\x7e])?)?")


def signature(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """The header ``webhook-signature`` of Standard Webhooks (https://www.standardwebhooks.com), version 1.

    Args:
        secret: The shared secret; after ``whsec_`` it is base64, else taken as it is.
        webhook_id: The header ``webhook-id``.
        timestamp: The header ``webhook-timestamp``, UTC seconds.
        body: The body.

    Raises:
        ValueError: what follows ``whsec_`` is no base64, or nothing.
    """
    signed = hmac.new(_key(secret), f"{webhook_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(signed.digest()).decode()


def _key(secret: str) -> bytes:
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("what follows whsec_ is no base64") from error
    if not key:
        raise ValueError("nothing follows whsec_")
    return key


def patience(asked: str, now: float) -> float:
    """Seconds that a ``Retry-After`` asks for (RFC 9110, 10.2.3: a number, or a date); 300 at most.

    Args:
        asked: The header.
        now: UTC seconds.

    Returns:
        0 for what is neither, and for what has passed.
    """
    if re.fullmatch(r"[0-9]{1,9}", asked):
        return min(float(asked), _PATIENCE_MAX_S)
    try:
        until = parsedate_to_datetime(asked)
    except (ValueError, TypeError):
        return 0.0
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return min(max(0.0, until.timestamp() - now), _PATIENCE_MAX_S)


def _origin(url: str) -> str:
    """Scheme, host and port: the rest of a webhook's URL is often as good as a password."""
    parts = urlsplit(url)
    _ = parts.port  # Raises ValueError when it is none.
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


class WebhookConnector:
    """Posts events in order, one request at a time; any 2xx is an acknowledgement.

    408, 425, 429 and all from 500 on are tried again, and so are 401, 403, 404, 407 and 421, for an operator
    can mend those; other answers refuse the event. Redirects are told and not followed: what is signed for
    one address is not for another. When the server asks for patience (``Retry-After``), nothing is posted
    until then, or for five minutes.

    Args:
        url: Where to post.
        format: ``cloudevents`` or ``json``.
        batch: Most events in one request.
        secret: Signs the requests; None for none.
        secret_file: A file with the secret.
        token: Sent as bearer token; None for none.
        token_file: A file with the token.
        headers: Further headers.
        ca_file: Certificates to trust.
        timeout_s: How long a request may take in all.

    Raises:
        ConfigError: the library is not installed, or the URL is none.
    """

    def __init__(
        self,
        url: str,
        format: Literal["cloudevents", "json"] = "cloudevents",  # noqa: A002  (a config key)
        batch: int = 1,
        secret: str | None = None,
        secret_file: str | None = None,
        token: str | None = None,
        token_file: str | None = None,
        headers: Mapping[str, str] | None = None,
        ca_file: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self._library = library("httpx", "webhook")
        # It logs every request, with its whole URL.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        try:
            self._where = _origin(url)
        except ValueError as error:
            raise ConfigError(
                f"the URL of a webhook cannot be used: {error}", hint="write https://HOST:PORT/PATH"
            ) from error
        self._url, self._format, self._batch = url, format, batch
        self._secret, self._secret_file = secret, secret_file
        self._token, self._token_file = token, token_file
        self._headers = dict(headers or {})
        self._ca_file, self._timeout_s = ca_file, timeout_s
        self._runner: asyncio.Runner | None = None
        self._client: Any = None
        self._log_id = ""
        self._signs_with: str | None = None
        self._not_before, self._asked = 0.0, ""

    def connect(self, session: Session) -> None:
        """See `Connector.connect`; the connection itself is made by the first request."""
        self.close()
        self._log_id = session.log_id
        self._wait_as_asked()
        self._signs_with = secret_of(self._secret, self._secret_file)
        if self._signs_with is not None:
            try:
                _key(self._signs_with)
            except ValueError as error:
                raise UnreachableError(f"the secret of the webhook cannot be used: {error}") from error
        token = secret_of(self._token, self._token_file)
        headers = {"user-agent": "framewire", **self._headers}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        for name, text in headers.items():
            if _SENDABLE.fullmatch(text) is None:
                what = "the token" if name == "authorization" else f"the header {name}"
                raise UnreachableError(
                    f"{what} of the webhook cannot be sent; it must be a line of ASCII, no blanks at its ends"
                )
        # Asynchronous for one reason: only so can a request be broken off as a whole. The context is ours,
        # for without one the library trusts a list of its own instead of this system's.
        self._client = self._library.AsyncClient(
            headers=headers,
            verify=tls_context(self._ca_file),
            timeout=self._timeout_s,
            follow_redirects=False,
        )
        self._runner = asyncio.Runner()

    def send(self, records: Sequence[dict[str, Any]]) -> None:
        """See `Connector.send`."""
        self._wait_as_asked()
        done, size = 0, self._batch
        while done < len(records):
            part = records[done : done + size]
            status, answered, patience_s = self._post(part, done)
            if 200 <= status < 300:
                done += len(part)
            elif status == 413 and len(part) > 1:
                size = len(part) // 2
            elif status in _NOT_NOW or status >= 500 or 300 <= status < 400:
                self._not_before, self._asked = time.monotonic() + patience_s, answered
                raise UnreachableError(answered, done=done)
            elif len(part) > 1:
                size = 1  # Which of them is refused, only one by one can tell.
            else:
                raise RefusedError(answered, done=done)

    def close(self) -> None:
        """See `Connector.close`."""
        runner, client = self._runner, self._client
        self._runner = self._client = None
        if runner is None:
            return
        try:
            with contextlib.suppress(TimeoutError, OSError, self._library.HTTPError):
                runner.run(asyncio.wait_for(client.aclose(), self._timeout_s))
        finally:
            runner.close()

    def _wait_as_asked(self) -> None:
        """Fail in the words of the answer, so that whoever logs what is new stays quiet meanwhile."""
        if time.monotonic() < self._not_before:
            raise UnreachableError(self._asked)

    def _post(self, records: Sequence[dict[str, Any]], done: int) -> tuple[int, str, float]:
        """Post some events; the status of the answer, what to say of it, and the seconds that it asks for."""
        body, headers = self._request(records)
        assert self._runner is not None
        try:
            status, told = self._runner.run(asyncio.wait_for(self._ask(body, headers), self._timeout_s))
        except (TimeoutError, self._library.TimeoutException) as error:
            raise UnreachableError(f"{self._where} does not answer in time", done=done) from error
        except (self._library.HTTPError, self._library.InvalidURL, OSError) as error:
            said = str(error)[:200] or type(error).__name__
            raise UnreachableError(f"{self._where}: {said}", done=done) from error
        answered = f"{self._where} answers {status}"
        if 300 <= status < 400 and (location := told.get("location", "")):
            with contextlib.suppress(ValueError):
                answered += f", which leads elsewhere: post to {_origin(location)[:200]!r} if that is right"
        return status, answered, patience(told.get("retry-after", ""), time.time())

    async def _ask(self, body: bytes, headers: dict[str, str]) -> tuple[int, Any]:
        async with self._client.stream("POST", self._url, content=body, headers=headers) as answer:
            read = 0
            async for piece in answer.aiter_raw():  # Read, so that the connection can be used again.
                read += len(piece)
                if read > _ANSWER_MAX:
                    break
            return int(answer.status_code), answer.headers

    def _request(self, records: Sequence[dict[str, Any]]) -> tuple[bytes, dict[str, str]]:
        first, last = records[0]["sequence"], records[-1]["sequence"]
        if self._format == "json":
            bodies: list[dict[str, Any]] = list(records)
            kind = "application/json"
        else:
            bodies = [cloud_event(record, self._log_id) for record in records]
            kind = BATCH if self._batch > 1 else ONE
        body = msgspec.json.encode(bodies if self._batch > 1 else bodies[0])
        headers = {"content-type": kind}
        if self._signs_with is not None:
            name = f"{self._log_id}-{first}" + (f"-{last}" if last != first else "")
            now = int(time.time())
            signed = signature(self._signs_with, name, now, body)
            headers |= {
                "webhook-id": name,
                "webhook-timestamp": str(now),
                "webhook-signature": signed,
            }
        return body, headers
