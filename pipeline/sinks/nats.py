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

#: The stream does not take a message of this size (JetStream's ``err_code``).
_TOO_LARGE_FOR_THE_STREAM = 10054
#: What headers add at most, the name of the stream aside: the server counts them, and nats-py does not.
_HEADERS_BYTES = 256
#: So long a connection may take to close: one whose TLS failed never does.
_CLOSE_S = 0.5

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
        if credentials_file is not None:
            library("nkeys", "nats")
        self._url, self._stream, self._subject = url, stream, subject
        self._username, self._password, self._password_file = username, password, password_file
        self._token, self._credentials_file, self._ca_file = token, credentials_file, ca_file
        self._timeout_s = timeout_s
        self._runner: asyncio.Runner | None = None
        self._client: Any = None
        self._stream_of: Any = None
        self._gone: asyncio.Event | None = None
        self._log_id = ""
        self._trouble = ""

    def connect(self, session: Session) -> None:
        """See `Connector.connect`."""
        self.close()
        self._log_id = session.log_id
        self._trouble = ""
        password = secret_of(self._password, self._password_file)
        self._runner = asyncio.Runner()
        try:
            self._run(self._connect(password), "cannot connect to")
        except UnreachableError:
            self.close()
            raise

    def send(self, records: Sequence[dict[str, Any]]) -> None:
        """See `Connector.send`."""
        self._trouble = ""
        self._run(self._send(records), "lost")

    def check(self) -> None:
        """Answer the server's pings, which nobody reads while there is nothing to send; see `Listening`."""
        self._run(self._look(), "lost")

    def close(self) -> None:
        """See `Connector.close`."""
        if self._runner is None:
            return
        runner, self._runner = self._runner, None
        client, self._client = self._client, None
        try:
            if client is not None:
                runner.run(asyncio.wait_for(client.close(), min(self._timeout_s, _CLOSE_S)))
        except (TimeoutError, OSError, self._errors.Error):
            pass  # It has gone already.
        finally:
            runner.close()

    def _run(self, work: Coroutine[Any, Any, T], what: str) -> T:
        assert self._runner is not None
        try:
            return self._runner.run(work)
        except (OSError, TimeoutError, self._errors.Error) as error:
            raise UnreachableError(f"{what} {self._url}: {self._said(error)}") from error

    async def _connect(self, password: str | None) -> None:
        gone = self._gone = asyncio.Event()

        async def note(error: Exception) -> None:
            # Connecting again is the delivery's business; this may be what is behind a timeout.
            self._trouble = self._trouble or str(error)

        async def closed() -> None:
            gone.set()

        options: dict[str, Any] = {
            "user": self._username, "password": password, "token": self._token,
            "user_credentials": self._credentials_file, "name": "framewire", "allow_reconnect": False,
            "connect_timeout": self._timeout_s, "error_cb": note, "closed_cb": closed,
            "disconnected_cb": closed, "max_reconnect_attempts": 1, "reconnect_time_wait": 0,
        }  # fmt: skip
        client = self._library.Client
        if self._url.startswith("tls:") or self._ca_file is not None:
            options["tls"] = tls_context(self._ca_file)
            client = _secured(client, self._errors.SecureConnWantedError)
        # Known before it is connected: what fails half-way is closed as well.
        self._client = client()
        await asyncio.wait_for(self._client.connect(self._url, **options), self._timeout_s + 1)
        self._stream_of = self._client.jetstream(timeout=self._timeout_s)
        try:
            try:
                await self._stream_of.stream_info(self._stream)
            except self._js_errors.NotFoundError:
                await self._stream_of.add_stream(name=self._stream, subjects=[f"{self._subject}.>"])
        except (self._js_errors.ServiceUnavailableError, self._errors.NoRespondersError) as error:
            raise UnreachableError(f"{self._url}: JetStream is not available; is it on?") from error

    async def _look(self) -> None:
        # A few turns of the loop: what has come is read, and answered.
        for _ in range(5):
            await asyncio.sleep(0)
        if self._client is None or not self._client.is_connected:
            raise ConnectionError("the connection is lost")

    def _said(self, error: BaseException) -> str:
        description = getattr(error, "description", None)
        text = str(description or str(error) or type(error).__name__)
        return text if not self._trouble or self._trouble in text else f"{text} ({self._trouble})"

    async def _send(self, records: Sequence[dict[str, Any]]) -> None:
        payloads = [msgspec.json.encode(record) for record in records]
        room = self._client.max_payload - _HEADERS_BYTES - len(self._stream)
        # Nothing is sent behind what is too large.
        fits = next((at for at, payload in enumerate(payloads) if len(payload) > room), len(payloads))
        answers = [
            asyncio.ensure_future(
                self._stream_of.publish(
                    subject_of(self._subject, record),
                    payload,
                    timeout=self._timeout_s,
                    stream=self._stream,
                    headers={"Nats-Msg-Id": f"{self._log_id}-{record['sequence']}"},
                )
            )
            for record, payload in zip(records[:fits], payloads, strict=False)
        ]
        assert self._gone is not None
        gone = asyncio.ensure_future(self._gone.wait())
        done = 0
        try:
            for answer in answers:
                # An acknowledgement that cannot come any more is not waited for.
                await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not answer.done():
                    raise ConnectionError("the connection is lost")
                answer.result()
                done += 1
        except self._js_errors.NoStreamResponseError as error:
            raise UnreachableError(
                f"{self._url}: no stream takes {self._subject}.>; is JetStream on?", done=done
            ) from error
        except (OSError, TimeoutError, self._errors.Error) as error:
            large = getattr(error, "err_code", None) == _TOO_LARGE_FOR_THE_STREAM
            kind = RefusedError if large else UnreachableError
            raise kind(f"{self._url}: {self._said(error)}", done=done) from error
        finally:
            for waiting in (gone, *answers):
                waiting.cancel()
            await asyncio.gather(gone, *answers, return_exceptions=True)
        if fits < len(records):
            raise RefusedError(
                f"the event has {len(payloads[fits])} bytes, and the server takes {self._client.max_payload}",
                done=fits,
            )


def _secured(client: Any, error: type[Exception]) -> Any:
    """A client that says nothing to a server that offers no TLS; nats-py would show it the password."""

    class Secured(client):  # type: ignore[misc]
        async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
            if initial_connection and not info.get("tls_required"):
                raise error
            await super()._process_info(info, initial_connection)

    return Secured
