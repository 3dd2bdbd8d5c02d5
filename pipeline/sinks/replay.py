"""Answer requests for events of the past; ``docs/stream.md`` is the protocol."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from pipeline.eventlog.reader import LogReader, Match, Page

__all__ = ["SCHEMA", "Replay", "Request"]

log = logging.getLogger(__name__)

SCHEMA = "framewire.replay/1"

_LIMIT = 500
_WORDS_MAX = 256
_REPLY_BYTES = 2**20

_Number = Annotated[int, Meta(ge=0, le=2**62)]
_Words = Annotated[tuple[Annotated[str, Meta(max_length=256)], ...], Meta(max_length=_WORDS_MAX)]
_Seconds = Annotated[float, Meta(ge=0, le=253_402_300_799)]
_Moment = Annotated[datetime, Meta(tz=True)]


class Request(msgspec.Struct, frozen=True):
    """What a client asks; fields that are not known are ignored.

    Attributes:
        schema: `SCHEMA`.
        id: Comes back in the reply.
        do: ``events`` or ``latest``.
        first: ``from``: the first event that is wanted.
        since: The same as the time of its commit: UTC seconds, or ISO 8601 with a zone.
        log: Id of the log that ``from`` is a number of; empty for whichever there is.
        until: Number after the last event that is wanted.
        limit: Most events of one reply.
        sources: Only events of these sources; empty for all, here and below.
        types: Only these types.
        labels: Only these labels.
        zones: Only in or at these zones.
    """

    schema: Literal["framewire.replay/1"]
    id: _Number
    do: Literal["events", "latest"]
    first: _Number | None = msgspec.field(default=None, name="from")
    since: _Moment | _Seconds | None = None
    log: Annotated[str, Meta(max_length=64)] = ""
    until: _Number | None = None
    limit: Annotated[int, Meta(ge=1, le=1000)] = _LIMIT
    sources: _Words = ()
    types: _Words = ()
    labels: _Words = ()
    zones: _Words = ()


class _Asked(msgspec.Struct):
    """What must be there for an answer to make sense."""

    schema: str
    id: _Number


class Replay:
    """Answers from one log; for one thread.

    Args:
        path: The log.
        following: Gives the number that the next event will have; more than the file shows while its disk is
            full.
    """

    def __init__(self, path: Path, following: Callable[[], int] = lambda: 0) -> None:
        self._reader = LogReader(path)
        self._following = following

    def close(self) -> None:
        """Close the log."""
        self._reader.close()

    def answer(self, body: bytes) -> Sequence[bytes] | None:
        """The parts of the reply, in the encoding of the request; None to what is none."""
        plain = body[:1] == b"{"
        decode: Any = msgspec.json.decode if plain else msgspec.msgpack.decode
        try:
            asked = decode(body, type=_Asked)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        header: dict[str, Any] = {"schema": SCHEMA, "id": asked.id}
        records: list[bytes] = []
        try:
            if not asked.schema.startswith("framewire.replay/"):
                return None
            request = decode(body, type=Request)
            page, continued = self._page(request)
            records = [record for _, record in page.records]
            header |= {"log": page.log_id, "oldest": page.oldest, "next": max(page.next, self._following())}
            header |= {"from": page.first, "to": page.end, "count": len(records)}
            if continued:
                header["continued"] = True
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            header |= {"count": 0, "error": str(error)}
        except sqlite3.Error as error:
            log.error("cannot replay from the event log: %s", error)
            header |= {"count": 0, "error": "the event log cannot be read now"}
        if plain:
            encoded = (msgspec.json.encode(msgspec.msgpack.decode(record)) for record in records)
            return [msgspec.json.encode(header), *encoded]
        return [msgspec.msgpack.encode(header), *records]

    def _page(self, request: Request) -> tuple[Page, bool]:
        """What is asked for, and whether it goes on from another log."""
        match = Match(request.sources, request.types, request.labels, request.zones)
        if request.do == "latest":
            return self._reader.latest(match), False
        first, continued = request.first, False
        if first is None and request.since is not None:
            since = request.since
            first = self._reader.since(since.timestamp() if isinstance(since, datetime) else since)
        elif first is not None and request.log:
            first, continued = self._reader.resolve(request.log, first)
        page = self._reader.page(
            first, end=request.until, limit=request.limit, max_bytes=_REPLY_BYTES, match=match
        )
        return page, continued
