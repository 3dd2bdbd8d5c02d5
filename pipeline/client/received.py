"""What a subscriber receives: one record of the public wire format, and its fields with types."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from pipeline.errors import MessageError
from pipeline.schemas import VERSION, parse_topic, topic

__all__ = ["Event", "MalformedError", "Received", "event_of", "parse", "parse_message"]

_SCHEMA = re.compile(r"framewire\.([a-z_]+)/(\d+)")


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an event with their types, as ``docs/events.md`` describes them; None is "not known".

    Fields that this release does not know are left out here; `Received.record` has them.
    """

    sequence: int
    id: str
    type: str
    source: str
    at: datetime
    epoch: int = 0
    seq: int = 0
    pts_ns: int = 0
    clock: str | None = None
    model: str | None = None
    provider: str | None = None
    label: str | None = None
    track_id: int | None = None
    object_id: str | None = None
    confidence: float | None = None
    top_confidence: float | None = None
    box_xyxy: tuple[float, float, float, float] | None = None
    box_normalized: tuple[float, float, float, float] | None = None
    first_seen: datetime | None = None
    last_seen: datetime | None = None
    duration_s: float | None = None
    frames: int | None = None
    attributes: dict[str, dict[str, Any]] = {}
    zones: tuple[str, ...] = ()
    entered_zones: tuple[str, ...] = ()
    stationary: bool | None = None
    speed_mps: float | None = None
    distance_m: float | None = None
    zone: str | None = None
    line: str | None = None
    action: str | None = None
    direction: str | None = None
    dwell_s: float | None = None
    ttc_s: float | None = None
    severity: str | None = None
    count: int | None = None
    counts: dict[str, int] = {}
    state: str | None = None
    reason: str | None = None
    message: str | None = None
    snapshot: str | None = None


class Received(msgspec.Struct, frozen=True):
    """One record.

    Attributes:
        topic: The topic it came under; of a replayed event, the one under which it was published.
        kind: ``frame``, or the type of the event: ``start``, ``update``, ``end``, ``source``.
        record: Its content, as ``docs/events.md`` describes it; fields that a newer publisher adds included.
        log: Id of the event log that the event's `sequence` counts in; empty for frames.
        snapshot: Whether it is a last value from before the start, as ``snapshot=True`` asks for.
    """

    topic: str
    kind: str
    record: dict[str, Any]
    log: str = ""
    snapshot: bool = False

    @property
    def source(self) -> str:
        """Name of the source."""
        return str(self.record["source"])

    @property
    def label(self) -> str:
        """Class name of the object that an event is about; empty for others."""
        return str(self.record.get("label", ""))

    @property
    def sequence(self) -> int | None:
        """Number of an event in its log; None for frames."""
        number = self.record.get("sequence")
        return number if isinstance(number, int) else None

    @property
    def zone(self) -> str:
        """The zone that the event is about; empty for others."""
        return str(self.record.get("zone", ""))

    @property
    def zones(self) -> tuple[str, ...]:
        """The zones that the object of the event is in."""
        return tuple(self.record.get("zones", ()))

    @property
    def at(self) -> datetime:
        """When the frame was taken that the record is about, or that caused the event; with its zone, UTC.

        Raises:
            MessageError: the record has no such time.
        """
        text = self.record.get("at") or self.record.get("captured_at")
        try:
            return msgspec.convert(text, datetime)
        except msgspec.ValidationError as error:
            raise MessageError(f"{self.topic} has no time: {error}") from error

    @property
    def event(self) -> Event:
        """The record as an `Event`, whose fields have types.

        Raises:
            MessageError: it is a frame, or a field is not what it should be.
        """
        try:
            return msgspec.convert(self.record, Event)
        except msgspec.ValidationError as error:
            raise MessageError(f"{self.topic} is not an event as we know it: {error}") from error


class MalformedError(ValueError):
    """Not a message of ours at all."""


def parse_message(parts: Sequence[bytes]) -> Received:
    """Read one message.

    Args:
        parts: Topic and payload, which is JSON if it begins with ``{``, else msgpack.

    Raises:
        MessageError: it is not a message of ours, or of a version that we do not know.
    """
    try:
        return parse(parts)
    except MalformedError as error:
        raise MessageError(f"not a framewire message: {error}") from error


def parse(parts: Sequence[bytes]) -> Received:
    """Read one message of two parts.

    Raises:
        MalformedError: it is not a message of ours.
        MessageError: it is of a version that we do not know.
    """
    if len(parts) != 2:
        raise MalformedError(f"{len(parts)} parts instead of topic and payload")
    try:
        name = parts[0].decode()
        source, kind, _ = parse_topic(name)
        decode = msgspec.json.decode if parts[1][:1] == b"{" else msgspec.msgpack.decode
        record = decode(parts[1], type=dict[str, Any])
    except (ValueError, msgspec.DecodeError) as error:
        raise MalformedError(str(error)) from error
    schema = _SCHEMA.fullmatch(str(record.get("schema")))
    if schema is None or schema[1] != kind or record.get("source") != source:
        raise MalformedError(f"topic {name!r} and content do not belong together")
    _check_version(name, schema)
    return Received(name, kind, record)


def event_of(record: Any, log: str, snapshot: bool = False) -> Received:
    """The event of the log that a record is.

    Raises:
        MalformedError: it is none of ours.
        MessageError: it is of a version that we do not know.
    """
    schema = _SCHEMA.fullmatch(str(record.get("schema"))) if isinstance(record, dict) else None
    if schema is None or not isinstance(record.get("source"), str) or schema[1] != record.get("type"):
        raise MalformedError("not a record of an event")
    label = record.get("label", "")
    if not isinstance(label, str):
        raise MalformedError("its label is no text")
    name = topic(record["source"], schema[1], label)
    _check_version(name, schema)
    return Received(name, schema[1], record, log, snapshot)


def _check_version(name: str, schema: re.Match[str]) -> None:
    if int(schema[2]) != VERSION:
        raise MessageError(
            f"{name} carries {schema[0]!r}; this subscriber reads version {VERSION}",
            hint="use the same framewire version here as where the pipeline runs",
        )
