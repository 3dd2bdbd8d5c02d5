"""What workers and supervisor say to each other, on their own sockets, apart from the data."""

from __future__ import annotations

from typing import Any

import msgspec

from pipeline.errors import BY_NAME, FramewireError, MessageError, SourceError
from pipeline.messages import ModelSpec

__all__ = [
    "Beat", "Begin", "Command", "Fault", "Finished", "Go", "Opened", "PeerDied", "Ready", "Report", "Said",
    "Stop", "decode_command", "decode_report", "encode", "error_of", "fault_of",
]  # fmt: skip


class Opened(msgspec.Struct, frozen=True, tag="opened"):
    """The heavy set-up is done. ``spec`` comes from the worker that holds ``infer``."""

    pid: int
    spec: ModelSpec | None = None
    notes: tuple[str, ...] = ()


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """The worker listens; frames may come."""


class Beat(msgspec.Struct, frozen=True, tag="beat"):
    """Alive. ``busy_s``: for how long the current message has been worked on."""

    busy_s: float
    summary: dict[str, Any]


class Fault(msgspec.Struct, frozen=True, tag="fault"):
    """Something is wrong; ``fatal`` if starting again would not help. ``reason`` is a source's."""

    error: str
    message: str
    hint: str
    stage: str
    source: str
    fatal: bool
    reason: str = ""


class Said(msgspec.Struct, frozen=True, tag="said"):
    """A log record."""

    level: int
    text: str


class Finished(msgspec.Struct, frozen=True, tag="finished"):
    """All done, about to exit."""

    summary: dict[str, Any]


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """The model is known."""

    spec: ModelSpec


class Go(msgspec.Struct, frozen=True, tag="go"):
    """All are ready: open the sources."""


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """For capture: read no more. For the others: nothing more will come."""

    reason: str


class PeerDied(msgspec.Struct, frozen=True, tag="peer_died"):
    """A worker has died; what was sent to it has to be sent again."""

    worker: str
    cause: str


Report = Opened | Ready | Beat | Fault | Said | Finished
Command = Begin | Go | Stop | PeerDied

_encoder = msgspec.msgpack.Encoder()
_reports = msgspec.msgpack.Decoder(Report)
_commands = msgspec.msgpack.Decoder(Command)


def encode(message: Report | Command) -> bytes:
    """Bytes of a control message."""
    return _encoder.encode(message)


def decode_report(body: bytes) -> Report:
    """What a worker said.

    Raises:
        MessageError: it is not a report.
    """
    try:
        report: Report = _reports.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MessageError(f"not a report: {error}") from error
    return report


def decode_command(body: bytes) -> Command:
    """What the supervisor said.

    Raises:
        MessageError: it is not a command.
    """
    try:
        command: Command = _commands.decode(body)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise MessageError(f"not a command: {error}") from error
    return command


def fault_of(error: FramewireError, *, stage: str = "", fatal: bool = True) -> Fault:
    """An error as data that can cross a process edge."""
    reason = error.reason if isinstance(error, SourceError) else ""
    return Fault(
        type(error).__name__, error.message, error.hint, error.stage or stage, error.source, fatal, reason
    )


def error_of(fault: Fault) -> FramewireError:
    """The error that a `Fault` stands for."""
    kind = BY_NAME.get(fault.error, FramewireError)
    error = kind(fault.message, hint=fault.hint, stage=fault.stage, source=fault.source)
    if isinstance(error, SourceError):
        error.reason = fault.reason
    return error
