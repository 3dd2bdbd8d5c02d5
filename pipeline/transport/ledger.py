"""The books of a source, in shared memory: counters that outlive any process that writes them.

Each field has one writer, so no lock is needed, and a ``kill -9`` leaves the last complete value::

    decoded = admitted + sum(dropped)        written by capture
    admitted = published + sum(lost)         written by publish; the remainder by the supervisor at the end
"""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np

from pipeline.errors import TransportError
from pipeline.transport.shm import shm_dir

__all__ = ["DROP_CAUSES", "LOST_CAUSES", "STATES", "Ledger"]

#: Why a decoded frame was not admitted.
DROP_CAUSES = ("superseded", "stale", "rate_limited", "gated", "stopped", "crashed")
#: Why an admitted frame never reached the end.
LOST_CAUSES = (
    "capture_died",
    "preprocess_died",
    "infer_died",
    "postprocess_died",
    "publish_died",
    "stopped",
)
_PLAIN = (
    "decoded",
    "admitted",
    "published",
    "failed",
    "next_publish",
    "next_track_id",
    "epoch",
    "width",
    "height",
    "last_pts_ns",
    "pool",
    "decode_errors",
    "expected",
    "state",
    "ended",
    "event_seq",
    "event_base",
    "event_count",
    "event_digest",
    "event_next",
)
_FIELDS = (*_PLAIN, *(f"dropped_{c}" for c in DROP_CAUSES), *(f"lost_{c}" for c in LOST_CAUSES))
_INDEX = {name: at for at, name in enumerate(_FIELDS)}

#: Values of the field ``state``.
STATES = ("connecting", "running", "stalled", "reconnecting", "ended", "failed")


class Ledger:
    """Counters of one source by name: ``ledger["decoded"] += 1``.

    Besides the books it holds what a restarted stage needs to go on where its predecessor was killed:
    ``next_publish`` (number of the first frame not yet published), ``next_track_id``, ``last_pts_ns`` (of the
    last admitted frame), ``pool`` (which frame pool is in use), ``ended``, of the frame last handed
    to the sinks the numbers of its events (``event_seq`` is that frame's ``seq`` plus one, 0 while they are
    written), and ``event_next``, the number after the last event that all sinks have.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        size = len(_FIELDS) * 8
        try:
            if create:
                path.touch(0o600, exist_ok=False)
                path.write_bytes(bytes(size))
            with path.open("r+b") as file:
                self._buffer = mmap.mmap(file.fileno(), size)
        except (OSError, ValueError) as error:
            raise TransportError(f"cannot open the books {path}: {error}") from error
        self._fields = np.frombuffer(self._buffer, "<i8")

    @classmethod
    def named(cls, name: str, *, create: bool = False) -> Ledger:
        """The ledger of that name in the shared-memory folder."""
        return cls(shm_dir() / name, create=create)

    def __getitem__(self, field: str) -> int:
        return int(self._fields[_INDEX[field]])

    def __setitem__(self, field: str, value: int) -> None:
        self._fields[_INDEX[field]] = value

    def dropped(self) -> dict[str, int]:
        """Frames decoded but not admitted, by cause; causes that never occurred are left out."""
        return {cause: n for cause in DROP_CAUSES if (n := self[f"dropped_{cause}"])}

    def lost(self) -> dict[str, int]:
        """Frames admitted but never published, by cause; causes that never occurred are left out."""
        return {cause: n for cause in LOST_CAUSES if (n := self[f"lost_{cause}"])}

    def in_flight(self) -> int:
        """Frames admitted and not yet accounted for."""
        return self["admitted"] - self["published"] - sum(self.lost().values())

    def balanced(self) -> bool:
        """Whether both equations of the books hold."""
        return self["decoded"] == self["admitted"] + sum(self.dropped().values()) and self.in_flight() == 0

    def close(self) -> None:
        """Unmap it; the file stays."""
        del self._fields
        self._buffer.close()
