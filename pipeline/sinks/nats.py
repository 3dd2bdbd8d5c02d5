"""Deliver events to a stream of NATS JetStream."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import msgspec

from pipeline.sinks.client import library, secret_of, tls_context
from pipeline.sinks.connector import RefusedError, Session, UnreachableError

__all__ = ["NatsConnector", "subject_of"]

#: ``.`` separates, ``*`` and ``>`` are wildcards, and white space ends a subject; ``%`` escapes.
_RESERVED = re.compile(r"[.*>%\s\x00-\x1f\x7f]")

T = TypeVar("T")


def subject_of(prefix: str, record: dict[str, Any]) -> str:
    """The subject of an event: ``PREFIX.<source>.<type>``, and ``.<label>`` where it has one."""
    words = [record["source"], record["type"], *([record["label"]] if record.get("label") else [])]
    return ".".join([prefix, *(_RESERVED.sub(_escape, word) for word in words)])


def _escape(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


class NatsConnector:
    """Publishes each event as JSON and waits for the stream's acknowledgement.

    ``Nats-Msg-Id`` is the id of the event log and the sequence, so that the stream leaves out by itself what
    is sent again within its window (two minutes unless it was made with another one).

    Args:
        url: ``nats://HOST:PORT`` or ``tls://HOST:PORT``.
        stream: The stream, made if there is none.
        subject: First word of the subjects.
        username: User name; None for none.
        password: Its password.
        password_file: A file with the password.
        token: A token instead.
        credentials_file: A ``.creds`` file instead.
        ca_file: Certificates to trust.
        timeout_s: How long an acknowledgement may take.

    Raises:
        ConfigError: the library is not installed.
    """

    def __init__(
        self,
        url: str,
        stream: str = "FRAMEWIRE",
        subject: str = "framewire",
        username: str | None = None,
        password: str | None = None,
        password_file: str | None = None,
        token: str | None = None,
        credentials_file: str | None = None,
        ca_file: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self._library = library("nats.aio.client", "nats")
        self._errors = library("nats.errors", "nats")
        self._js_errors = library("nats.js.errors", "nats")
        self._url, self._stream, self._subject = url, stream, subject
        self._username, self._password, self._password_file = username, password, password_file
        self._token, self._credentials_file, self._ca_file = token, credentials_file, ca_file
        self._timeout_s = timeout_s
        self._runner: asyncio.Runner | None = None
        self._client: Any = None
        self._stream_of: Any = None
        self._gone: asyncio.Event | None = None
        self._log_id = ""

    def connect(self, session: Session) -> None:
        """See `Connector.connect`."""
        self.close()
        self._log_id = session.log_id
        password = secret_of(self._password, self._password_file)
        self._runner = asyncio.Runner()
        try:
            self._run(self._connect(password), "cannot connect to")
        except UnreachableError:
            self.close()
            raise

    def send(self, records: Sequence[dict[str, Any]]) -> None:
        """See `Connector.send`."""
        self._run(self._send(records), "lost")

    def close(self) -> None:
        """See `Connector.close`."""
        if self._runner is None:
            return
        runner, self._runner = self._runner, None
        client, self._client = self._client, None
        try:
            if client is not None:
                runner.run(asyncio.wait_for(client.close(), self._timeout_s))
        except (TimeoutError, OSError, self._errors.Error):
            pass  # It has gone already.
        finally:
            runner.close()

    def _run(self, work: Coroutine[Any, Any, T], what: str) -> T:
        assert self._runner is not None
        try:
            return self._runner.run(work)
        except (OSError, TimeoutError, self._errors.Error) as error:
            raise UnreachableError(f"{what} {self._url}: {error or type(error).__name__}") from error

    async def _connect(self, password: str | None) -> None:
        gone = self._gone = asyncio.Event()

        async def quiet(_: Exception) -> None:
            """Connecting again is the delivery's business, and it says what is wrong."""

        async def closed() -> None:
            gone.set()

        options: dict[str, Any] = {
            "user": self._username, "password": password, "token": self._token,
            "user_credentials": self._credentials_file, "name": "framewire", "allow_reconnect": False,
            "connect_timeout": self._timeout_s, "error_cb": quiet, "closed_cb": closed,
            "disconnected_cb": closed, "max_reconnect_attempts": 1, "reconnect_time_wait": 0,
        }  # fmt: skip
        if self._url.startswith("tls:") or self._ca_file is not None:
            options["tls"] = tls_context(self._ca_file)
        # Known before it is connected: what fails half-way is closed as well.
        self._client = self._library.Client()
        await asyncio.wait_for(self._client.connect(self._url, **options), self._timeout_s + 1)
        self._stream_of = self._client.jetstream(timeout=self._timeout_s)
        try:
            await self._stream_of.stream_info(self._stream)
        except self._js_errors.NotFoundError:
            await self._stream_of.add_stream(name=self._stream, subjects=[f"{self._subject}.>"])

    async def _send(self, records: Sequence[dict[str, Any]]) -> None:
        answers = [
            asyncio.ensure_future(
                self._stream_of.publish(
                    subject_of(self._subject, record),
                    msgspec.json.encode(record),
                    timeout=self._timeout_s,
                    stream=self._stream,
                    headers={"Nats-Msg-Id": f"{self._log_id}-{record['sequence']}"},
                )
            )
            for record in records
        ]
        assert self._gone is not None
        gone = asyncio.ensure_future(self._gone.wait())
        done = 0
        try:
            for answer in answers:
                # An acknowledgement that cannot come any more is not waited for.
                await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not answer.done():
                    raise UnreachableError(f"{self._url}: the connection is lost", done=done)
                answer.result()
                done += 1
        except self._errors.MaxPayloadError as error:
            raise RefusedError(f"the event is larger than the server takes: {error}", done=done) from error
        except self._js_errors.NoStreamResponseError as error:
            raise UnreachableError(
                f"{self._url}: no stream takes {self._subject}.>; is JetStream on?", done=done
            ) from error
        except (OSError, TimeoutError, self._errors.Error) as error:
            raise UnreachableError(f"{self._url}: {error or type(error).__name__}", done=done) from error
        finally:
            for waiting in (gone, *answers):
                waiting.cancel()
            await asyncio.gather(gone, *answers, return_exceptions=True)
