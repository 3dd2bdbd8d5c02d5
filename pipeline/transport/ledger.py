"""The books of a source, in shared memory: counters that outlive any process that writes them.

Each field has one writer, so no lock is needed, and a ``kill -9`` leaves the last complete value::

    decoded = admitted + sum(dropped)        written by capture
    admitted = published + sum(lost)         written by publish; the remainder by the supervisor at the end
"""

from __future__ import annotations

import glob
import mmap
import os
import time
from pathlib import Path
from typing import get_args

import numpy as np

from pipeline.errors import TransportError
from pipeline.messages import State
from pipeline.transport.journal import JOURNAL_BYTES, Journal
from pipeline.transport.shm import shm_dir

__all__ = ["DROP_CAUSES", "LOST_CAUSES", "STATES", "Books", "Ledger"]

_LOOK_S = 1.0

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
    "event_next",
    "state_told",
    "absent_ms",
    "absent_after",
    "closing",
    "taken_before",
    "own_key",
    "own_at_us",
    "skipped",
    "live",
    "alive_ns",
    "heard_ns",
    "wants_ns",
    "turn_ns",
    "clocked",
    "clock_offset_us",
    "drift_ppb",
)
_FIELDS = (*_PLAIN, *(f"dropped_{c}" for c in DROP_CAUSES), *(f"lost_{c}" for c in LOST_CAUSES))
_INDEX = {name: at for at, name in enumerate(_FIELDS)}

#: Values of the field ``state``.
STATES: tuple[State, ...] = get_args(State)


class Ledger:
    """Counters of one source by name: ``ledger["decoded"] += 1``.

    Besides the books it holds what a restarted stage needs to go on where its predecessor was killed:
    ``next_publish`` (number of the first frame not yet published), ``next_track_id``, ``last_pts_ns`` (of the
    last admitted frame), ``pool`` (which frame pool is in use), ``ended``, ``event_next``, the number after
    the last event that was given one, ``state_told``, how many entries of the journal are published, and
    ``absent_ms``, since when capture is told to be absent (``absent_after`` so many entries). ``closing`` is
    1 when capture says that the source has ended, and ``taken_before`` how many pictures it had taken when it
    was added once more.

    Of a live source it tells ``skipped`` (coded pictures not decoded on purpose), ``alive_ns`` (when capture
    last looked around), ``heard_ns`` (when data last came), ``wants_ns`` (since when a picture waits to be
    admitted, 0 for none), ``turn_ns`` (when one was last admitted), and of its clock, where ``clocked`` is 1,
    the offset to this host's in microseconds and the drift in parts per billion.

    Attributes:
        journal: The changes of its state.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        fields = len(_FIELDS) * 8
        size = fields + JOURNAL_BYTES
        try:
            if create:
                scratch = path.with_name(f"{path.name}.new")  # Others may see it as soon as it has its name.
                scratch.touch(0o600, exist_ok=True)
                scratch.write_bytes(bytes(size))
                os.link(scratch, path)
                scratch.unlink()
            with path.open("r+b") as file:
                self._buffer = mmap.mmap(file.fileno(), size)
        except (OSError, ValueError) as error:
            raise TransportError(f"cannot open the books {path}: {error}") from error
        self._fields = np.frombuffer(self._buffer, "<i8", len(_FIELDS))
        self.journal = Journal(np.frombuffer(self._buffer, np.uint8, JOURNAL_BYTES, fields))

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
        self.journal.close()
        del self._fields
        self._buffer.close()


class Books:
    """The books of all sources of a run, also of those that are added while it goes on.

    Args:
        prefix: What the names of these ledgers in the shared-memory folder begin with.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._ledgers: dict[str, Ledger] = {}
        self._look_at = 0.0

    def of(self, source: str) -> Ledger:
        """The books of a source, mapped once.

        Raises:
            TransportError: it has none.
        """
        ledger = self._ledgers.get(source)
        if ledger is None:
            ledger = self._ledgers[source] = Ledger.named(self._prefix + source)
        return ledger

    def all(self) -> dict[str, Ledger]:
        """The books of all sources, by name; new ones are noticed within a second."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + _LOOK_S
            for path in sorted(shm_dir().glob(glob.escape(self._prefix) + "*")):
                if not path.suffix:  # A name ending in .new is still being made.
                    self.of(path.name.removeprefix(self._prefix))
        return self._ledgers

    def close(self) -> None:
        """Unmap them."""
        for ledger in self._ledgers.values():
            ledger.close()
        self._ledgers.clear()
