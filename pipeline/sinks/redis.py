"""Deliver events to a stream of Redis (``XADD``)."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec

from pipeline.sinks.client import library, secret_of
from pipeline.sinks.connector import Session, UnreachableError

__all__ = ["RedisConnector"]

#: So many entries are looked at: twice the most that a batch has.
_LOOK_BACK = 400


class RedisConnector:
    """Appends each event to a stream: ``event`` is the record as JSON, the other fields are to choose by.

    Those are ``sequence``, ``id``, ``log``, ``type`` and ``source``. Entries get their ids from the server,
    which rise however often the event log begins anew; made of ``sequence`` they would fall back, and Redis
    would refuse them. One transaction (``MULTI``) holds a batch: all is there, or nothing. A connection that
    broke has left open which; so before anything is sent on a new one, the newest entries are looked at, and
    what is among them is not sent again. An event comes twice only where others write to the same stream, and
    wrote hundreds of entries in between; ``log`` and ``sequence`` tell.

    Args:
        url: ``redis://HOST:PORT/DB``, ``rediss://…`` or ``unix:///PATH``.
        stream: Key of the stream.
        max_length: About so many entries stay; None for all.
        username: User name; None for none.
        password: Its password.
        password_file: A file with the password.
        ca_file: Certificates to trust.
        timeout_s: How long an answer may take.

    Raises:
        ConfigError: the library is not installed.
    """

    def __init__(
        self,
        url: str,
        stream: str = "framewire:events",
        max_length: int | None = 100_000,
        username: str | None = None,
        password: str | None = None,
        password_file: str | None = None,
        ca_file: str | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        self._library = library("redis", "redis")
        library("redis.backoff", "redis")
        library("redis.retry", "redis")
        self._url, self._stream, self._max_length = url, stream, max_length
        self._username, self._password, self._password_file = username, password, password_file
        self._ca_file, self._timeout_s = ca_file, timeout_s
        self._client: Any = None
        self._log_id = ""
        self._unsure = True

    def connect(self, session: Session) -> None:
        """See `Connector.connect`."""
        self.close()
        self._log_id = session.log_id
        options: dict[str, Any] = {
            "username": self._username,
            "password": secret_of(self._password, self._password_file),
            "socket_timeout": self._timeout_s,
            "client_name": "framewire",
            # The delivery tries again, and waits longer than a library would.
            "retry": self._library.retry.Retry(self._library.backoff.NoBackoff(), 0),
        }
        if not self._url.startswith("unix:"):
            options["socket_connect_timeout"] = self._timeout_s
        if self._url.startswith("rediss:"):
            options |= {"ssl_ca_certs": self._ca_file, "ssl_check_hostname": True}
        try:
            self._client = self._library.Redis.from_url(self._url, **options)
            self._client.ping()
        except (self._library.RedisError, OSError, ValueError) as error:
            self.close()
            raise UnreachableError(f"cannot connect to {self._url}: {error}") from error
        self._unsure = True

    def send(self, records: Sequence[dict[str, Any]]) -> None:
        """See `Connector.send`."""
        try:
            there = self._newest() if self._unsure else set()
            self._unsure = False
            pipeline = self._client.pipeline(transaction=True)
            for record in records:
                if str(record["sequence"]).encode() in there:
                    continue
                fields = {
                    "sequence": record["sequence"], "id": record["id"], "log": self._log_id,
                    "type": record["type"], "source": record["source"],
                    "event": msgspec.json.encode(record),
                }  # fmt: skip
                pipeline.xadd(self._stream, fields, maxlen=self._max_length, approximate=True)
            pipeline.execute()
        except (self._library.RedisError, OSError) as error:
            # There is nothing in an event that Redis could refuse: full, read-only, the key is no stream ...
            # all of that somebody can mend. It repeats the command, which is long and says nothing.
            said = str(error).rpartition("caused error: ")[2]
            raise UnreachableError(f"{self._url}: {said}") from error

    def close(self) -> None:
        """See `Connector.close`."""
        if self._client is not None:
            with contextlib.suppress(self._library.RedisError, OSError):
                self._client.close()
            self._client = None

    def _newest(self) -> set[bytes]:
        """Which events of our log are among the newest entries, by their ``sequence``."""
        entries: Any = self._client.xrevrange(self._stream, count=_LOOK_BACK)
        ours = self._log_id.encode()
        return {
            fields[b"sequence"]
            for _, fields in entries
            if fields.get(b"log") == ours and b"sequence" in fields
        }
