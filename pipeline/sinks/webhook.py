"""Deliver events as HTTP requests."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from pipeline.sinks.client import library, secret_of, tls_context
from pipeline.sinks.cloudevents import BATCH, ONE, cloud_event
from pipeline.sinks.connector import RefusedError, Session, UnreachableError

__all__ = ["WebhookConnector", "signature"]

#: What says "not now", beside all from 500 on; and what an operator can mend on the server or here.
_NOT_NOW = (401, 403, 404, 407, 408, 421, 425, 429)
#: Of an answer so much is read; what it says does not matter.
_ANSWER_MAX = 64 * 1024
_PREFIX = "whsec_"


def signature(secret: str, webhook_id: str, timestamp: int, body: bytes) -> str:
    """The header ``webhook-signature`` of Standard Webhooks (https://www.standardwebhooks.com), version 1.

    Args:
        secret: The shared secret; after ``whsec_`` it is base64, else taken as it is.
        webhook_id: The header ``webhook-id``.
        timestamp: The header ``webhook-timestamp``, UTC seconds.
        body: The body.

    Raises:
        ValueError: what follows ``whsec_`` is no base64.
    """
    key = secret.encode()
    if secret.startswith(_PREFIX):
        try:
            key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
        except binascii.Error as error:
            raise ValueError("what follows whsec_ is no base64") from error
    signed = hmac.new(key, f"{webhook_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(signed.digest()).decode()


class WebhookConnector:
    """Posts events in order, one request at a time; any 2xx is an acknowledgement.

    408, 425, 429 and all from 500 on are tried again, and so are 401, 403, 404, 407 and 421, for an operator
    can mend those; other answers refuse the event. Redirects are not followed: what is signed for one address
    is not for another.

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
        ConfigError: the library is not installed.
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
        self._url, self._format, self._batch = url, format, batch
        self._secret, self._secret_file = secret, secret_file
        self._token, self._token_file = token, token_file
        self._headers = dict(headers or {})
        self._ca_file, self._timeout_s = ca_file, timeout_s
        self._runner: asyncio.Runner | None = None
        self._client: Any = None
        self._log_id = ""
        self._signs_with: str | None = None

    def connect(self, session: Session) -> None:
        """See `Connector.connect`; the connection itself is made by the first request."""
        self.close()
        self._log_id = session.log_id
        self._signs_with = secret_of(self._secret, self._secret_file)
        token = secret_of(self._token, self._token_file)
        headers = {"user-agent": "framewire", **self._headers}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        verify: Any = True if self._ca_file is None else tls_context(self._ca_file)
        # Asynchronous for one reason: only so can a request be broken off as a whole.
        self._runner = asyncio.Runner()
        self._client = self._library.AsyncClient(
            headers=headers, verify=verify, timeout=self._timeout_s, follow_redirects=False
        )

    def send(self, records: Sequence[dict[str, Any]]) -> None:
        """See `Connector.send`."""
        done, size = 0, self._batch
        while done < len(records):
            part = records[done : done + size]
            status, message = self._post(part, done)
            if 200 <= status < 300:
                done += len(part)
            elif status == 413 and len(part) > 1:
                size = len(part) // 2
            elif status in _NOT_NOW or status >= 500:
                raise UnreachableError(f"{self._url} answers {status}{message}", done=done)
            elif len(part) > 1:
                size = 1  # Which of them is refused, only one by one can tell.
            else:
                raise RefusedError(f"{self._url} answers {status}{message}", done=done)

    def close(self) -> None:
        """See `Connector.close`."""
        runner, self._runner = self._runner, None
        if runner is not None:
            runner.run(self._client.aclose())
            runner.close()
            self._client = None

    def _post(self, records: Sequence[dict[str, Any]], done: int) -> tuple[int, str]:
        """Post some events; the status of the answer, and what to say of it."""
        body, headers = self._request(records)
        assert self._runner is not None
        try:
            status, location = self._runner.run(asyncio.wait_for(self._ask(body, headers), self._timeout_s))
        except TimeoutError as error:
            raise UnreachableError(f"{self._url} does not answer in time", done=done) from error
        except (self._library.HTTPError, self._library.InvalidURL, OSError) as error:
            raise UnreachableError(f"{self._url}: {error or type(error).__name__}", done=done) from error
        if 300 <= status < 400 and location:
            return status, f", which leads elsewhere: post to {location} if that is right"
        return status, ""

    async def _ask(self, body: bytes, headers: dict[str, str]) -> tuple[int, str]:
        async with self._client.stream("POST", self._url, content=body, headers=headers) as answer:
            read = 0
            async for piece in answer.aiter_raw():  # Read, so that the connection can be used again.
                read += len(piece)
                if read > _ANSWER_MAX:
                    break
            return int(answer.status_code), str(answer.headers.get("location", ""))

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
            try:
                signed = signature(self._signs_with, name, now, body)
            except ValueError as error:
                raise UnreachableError(f"the secret of the webhook cannot be used: {error}") from error
            headers |= {
                "webhook-id": name,
                "webhook-timestamp": str(now),
                "webhook-signature": signed,
            }
        return body, headers
