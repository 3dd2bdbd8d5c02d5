"""The last changes of state of a source, in shared memory: written by capture, read by publish.

Facts about a source do not travel through the pipeline: there they would queue behind frames, and would be
lost with a process that is killed. One writer, any number of readers, no lock: an entry is complete before
the count of entries rises, and a reader that was overtaken notices by the entry's own number.
"""

from __future__ import annotations

import struct

import msgspec
import numpy as np
from numpy.typing import NDArray

from pipeline.messages import State

__all__ = ["JOURNAL_BYTES", "Journal", "SourceState"]

_ENTRIES = 64
_ENTRY = 512
_HEAD = struct.Struct("<QI")  # number of the entry from 1, bytes of its body
_BODY_MAX = _ENTRY - _HEAD.size
_COUNT = 8
_MESSAGE_MAX = 360
_REASON_MAX = 40

#: Bytes of shared memory that a journal takes.
JOURNAL_BYTES = _COUNT + _ENTRIES * _ENTRY


class SourceState(msgspec.Struct, frozen=True):
    """One change of the state of a source.

    Attributes:
        state: The new state.
        reason: Why, in one word: ``auth``, ``not_found``, ``timeout``, ``codec``, ``network``, ``tls``,
            ``crashed``, ``end_of_file``, or what it was stopped by; empty when nothing is wrong.
        message: Why, in a sentence without credentials.
        at: UTC seconds.
        at_ns: Monotonic time.
        epoch: Epoch of the source at that time.
        seq: Number of the first frame that comes after it.
    """

    state: State
    reason: str = ""
    message: str = ""
    at: float = 0.0
    at_ns: int = 0
    epoch: int = 0
    seq: int = 0


class Journal:
    """A ring of the last 64 changes.

    Args:
        memory: uint8 (`JOURNAL_BYTES`,), all zero when new.
    """

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self._count = memory[:_COUNT].view("<u8")
        self._entries = memory[_COUNT:].reshape(_ENTRIES, _ENTRY)
        self._decoder = msgspec.msgpack.Decoder(SourceState)

    def __len__(self) -> int:
        """How many changes there have been since the books were made."""
        return int(self._count[0])

    def write(self, change: SourceState) -> None:
        """Add a change; for the one writer. A long message or reason is cut."""
        body = msgspec.msgpack.encode(change)
        if len(body) > _BODY_MAX:
            message, reason = _cut(change.message, _MESSAGE_MAX), _cut(change.reason, _REASON_MAX)
            body = msgspec.msgpack.encode(msgspec.structs.replace(change, message=message, reason=reason))
        number = len(self) + 1
        entry = self._entries[number % _ENTRIES]
        entry[: _HEAD.size] = np.frombuffer(_HEAD.pack(0, 0), np.uint8)
        entry[_HEAD.size : _HEAD.size + len(body)] = np.frombuffer(body, np.uint8)
        entry[: _HEAD.size] = np.frombuffer(_HEAD.pack(number, len(body)), np.uint8)
        self._count[0] = number

    def since(self, number: int) -> list[tuple[int, SourceState]]:
        """(number, change) of all changes after that number that are still here, oldest first."""
        newest = len(self)
        found = []
        for wanted in range(max(number, newest - _ENTRIES) + 1, newest + 1):
            raw = self._entries[wanted % _ENTRIES].tobytes()
            held, size = _HEAD.unpack_from(raw)
            still, _ = _HEAD.unpack_from(self._entries[wanted % _ENTRIES].tobytes())
            if held == wanted == still:  # Else the writer came round while it was copied.
                found.append((wanted, self._decoder.decode(raw[_HEAD.size : _HEAD.size + size])))
        return found

    def last(self) -> SourceState | None:
        """The newest change, if any."""
        newest = self.since(len(self) - 1) if len(self) else []
        return newest[-1][1] if newest else None

    def close(self) -> None:
        """Let go of the memory."""
        del self._count, self._entries


def _cut(text: str, longest: int) -> str:
    """The text in at most so many bytes of UTF-8."""
    data = text.encode()
    return text if len(data) <= longest else data[: longest - 3].decode(errors="ignore") + "…"
