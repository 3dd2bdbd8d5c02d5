"""Pools of fixed-size slots in shared memory, with leases and generations.

A pool is a file that is mapped by several processes. One process owns it and writes slots; others read
them, and the last one gives the lease back. Each slot has a control block::

    generation  u64   odd while the owner writes, even when complete; rises with each use
    state       u32   FREE, WRITING or LEASED
    attempts    u32   how often the slot was sent
    length      u32   bytes of the descriptor that follows
    descriptor        the encoded message that goes with the slot

The descriptor makes a lease survive its owner: after ``kill -9`` the next incarnation finds in the pool
what was under way, pixels included, and sends it again. Readers check the generation before and after
use, so a slot that was recycled under them is noticed, never believed.

Plain files (in /dev/shm where there is one) are used rather than `multiprocessing.shared_memory`: its
resource tracker removes segments behind our back, and only a file can be allocated up front, which turns
a full /dev/shm into an error at start instead of a bus error in the middle of the night.
"""

from __future__ import annotations

import contextlib
import errno
import math
import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PoolError, StaleSlotError
from pipeline.messages import Blob

__all__ = ["FREE", "LEASED", "PREFIX", "WRITING", "Pools", "SlotPool", "shm_dir"]

PREFIX = "framewire-"
FREE, WRITING, LEASED = 0, 1, 2

_MAGIC = 0x314C4F4F50574600  # "\0FWPOOL1", little-endian
_HEADER = 4096
_CONTROL = 1024
_DESCRIPTOR_MAX = _CONTROL - 32
_PAGE = 4096


def shm_dir() -> Path:
    """Where pools live: ``FRAMEWIRE_SHM_DIR``, else /dev/shm, else the temporary folder."""
    chosen = os.environ.get("FRAMEWIRE_SHM_DIR")
    if chosen:
        return Path(chosen)
    posix = Path("/dev/shm")  # noqa: S108 - not a predictable temporary name, the system's shared memory
    return posix if posix.is_dir() else Path(tempfile.gettempdir())


def _allocate(path: Path, size: int) -> None:
    """Make the file with all its pages present, or fail in words."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise PoolError(
            f"cannot create {path}: {error.strerror}", hint="set FRAMEWIRE_SHM_DIR to a folder you may write"
        ) from error
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(fd, 0, size)
        else:
            os.ftruncate(fd, size)
    except OSError as error:
        path.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.ENOMEM, errno.EFBIG):
            free = os.statvfs(path.parent)
            have = free.f_bavail * free.f_frsize
            raise PoolError(
                f"{path.parent} has {have / 2**20:.1f} MB free, this pool needs {size / 2**20:.1f} MB",
                hint="make it larger (docker run --shm-size=512m; mount -o remount,size=512m /dev/shm), "
                "lower run.slots, or set FRAMEWIRE_SHM_DIR",
            ) from error
        raise PoolError(f"cannot allocate {path}: {error.strerror}") from error
    finally:
        os.close(fd)


class SlotPool:
    """One pool, seen from one process.

    Make one with `create` (its owner), `attach` (any other process) or `in_memory` (the double: the same
    code over private memory).
    """

    def __init__(self, name: str, buffer: mmap.mmap | bytearray, path: Path | None) -> None:
        self.name = name
        self.path = path
        self._buffer = buffer
        head = np.frombuffer(buffer, "<u8", 4)
        if int(head[0]) != _MAGIC:
            raise PoolError(f"{name} is not a framewire pool")
        self.slots = int(head[1])
        self.slot_bytes = int(head[2])
        self._data = int(head[3])
        table = np.frombuffer(buffer, np.uint8, self.slots * _CONTROL, _HEADER).reshape(self.slots, _CONTROL)
        self._table = table
        self._generation = table[:, 0:8].view("<u8")[:, 0]
        self._state = table[:, 8:12].view("<u4")[:, 0]
        self._attempts = table[:, 12:16].view("<u4")[:, 0]
        self._length = table[:, 16:20].view("<u4")[:, 0]
        self._next = 0

    @staticmethod
    def _layout(slots: int, slot_bytes: int) -> tuple[int, int, int]:
        data = -(-(_HEADER + slots * _CONTROL) // _PAGE) * _PAGE
        stride = -(-slot_bytes // _PAGE) * _PAGE
        return data, stride, data + slots * stride

    @classmethod
    def size_of(cls, slots: int, slot_bytes: int) -> int:
        """Bytes that such a pool takes."""
        return cls._layout(slots, slot_bytes)[2]

    @classmethod
    def create(cls, name: str, slots: int, slot_bytes: int) -> SlotPool:
        """Make a pool of ``slots`` slots of at least ``slot_bytes`` bytes, all free.

        Raises:
            PoolError: it exists already or does not fit.
        """
        size = cls.size_of(slots, slot_bytes)
        path = shm_dir() / name
        _allocate(path, size)
        buffer = cls._map(path)
        cls._format(buffer, slots, slot_bytes)
        return cls(name, buffer, path)

    @classmethod
    def in_memory(cls, name: str, slots: int, slot_bytes: int) -> SlotPool:
        """The same in private memory, for stages that share a process, and for tests."""
        buffer = bytearray(cls.size_of(slots, slot_bytes))
        cls._format(buffer, slots, slot_bytes)
        return cls(name, buffer, None)

    @classmethod
    def attach(cls, name: str) -> SlotPool:
        """Map a pool that another process owns.

        Raises:
            StaleSlotError: there is no such pool (any more).
        """
        path = shm_dir() / name
        try:
            buffer = cls._map(path)
        except FileNotFoundError as error:
            raise StaleSlotError(f"pool {name} is gone") from error
        except (OSError, ValueError) as error:
            raise PoolError(f"cannot map {path}: {error}") from error
        return cls(name, buffer, path)

    @staticmethod
    def _map(path: Path) -> mmap.mmap:
        with path.open("r+b") as file:
            return mmap.mmap(file.fileno(), 0)

    @classmethod
    def _format(cls, buffer: mmap.mmap | bytearray, slots: int, slot_bytes: int) -> None:
        data, stride, _ = cls._layout(slots, slot_bytes)
        np.frombuffer(buffer, "<u8", 4)[:] = (_MAGIC, slots, stride, data)

    def free(self) -> int:
        """How many slots are free."""
        return int(np.count_nonzero(self._state == FREE))

    def acquire(self) -> int | None:
        """Take a free slot for writing; None when all are leased. For the owner only."""
        for step in range(self.slots):
            slot = (self._next + step) % self.slots
            if self._state[slot] == FREE:
                self._next = (slot + 1) % self.slots
                self._state[slot] = WRITING
                self._generation[slot] = (int(self._generation[slot]) + 1) | 1
                self._attempts[slot] = 0
                self._length[slot] = 0
                return slot
        return None

    def array(self, slot: int, shape: tuple[int, ...], dtype: str, offset: int = 0) -> NDArray[Any]:
        """A writable view of part of a slot, shape and dtype as given, ``offset`` bytes into it."""
        start = self._data + slot * self.slot_bytes + offset
        count = math.prod(shape)  # exact: a shape may come from another host
        size = count * np.dtype(dtype).itemsize
        whole = offset >= 0 and min(shape, default=0) >= 0 and offset + size <= self.slot_bytes
        if not 0 <= slot < self.slots or not whole:
            raise PoolError(f"{shape} {dtype} at {offset} does not fit slot {slot} of {self.name}")
        return np.frombuffer(self._buffer, dtype, count, start).reshape(shape)

    def blob(self, slot: int, shape: tuple[int, ...], dtype: str, offset: int = 0) -> Blob:
        """What a message says of that array: valid from `commit` until the lease is returned."""
        return Blob(shape, dtype, self.name, slot, (int(self._generation[slot]) + 1) & ~1, offset)

    def commit(self, slot: int, descriptor: bytes = b"") -> None:
        """The slot is complete: lease it out, with the message that goes with it."""
        if len(descriptor) > _DESCRIPTOR_MAX:
            raise PoolError(f"a descriptor of {len(descriptor)} bytes does not fit ({_DESCRIPTOR_MAX})")
        self._table[slot, 32 : 32 + len(descriptor)] = np.frombuffer(descriptor, np.uint8)
        self._length[slot] = len(descriptor)
        self._generation[slot] = (int(self._generation[slot]) + 1) & ~1
        self._state[slot] = LEASED

    @contextlib.contextmanager
    def writing(self) -> Iterator[int]:
        """Acquire a slot, commit it at the end, free it if the writer raises.

        Raises:
            PoolError: all slots are leased; the credits of the link should have prevented it.
        """
        slot = self.acquire()
        if slot is None:
            raise PoolError(f"all {self.slots} slots of {self.name} are leased")
        try:
            yield slot
        except BaseException:
            self._state[slot] = FREE
            raise
        self.commit(slot)

    def valid(self, blob: Blob) -> bool:
        """Whether the slot still holds what the Blob was made for."""
        return 0 <= blob.slot < self.slots and int(self._generation[blob.slot]) == blob.generation

    def release(self, blob: Blob) -> bool:
        """Return the lease; False when the slot has moved on already. Any process may call it."""
        if not self.valid(blob) or self._state[blob.slot] != LEASED:
            return False
        self._state[blob.slot] = FREE
        return True

    def leased(self) -> list[tuple[int, bytes]]:
        """(slot, descriptor) of all leases. A slot that died in the middle of writing is freed."""
        self._state[self._state == WRITING] = FREE
        return [
            (int(slot), self._table[slot, 32 : 32 + int(self._length[slot])].tobytes())
            for slot in np.flatnonzero(self._state == LEASED)
        ]

    def attempt(self, slot: int) -> int:
        """Count one more sending of the slot; how many there were."""
        self._attempts[slot] += 1
        return self.attempts(slot)

    def attempts(self, slot: int) -> int:
        """How often the slot was sent."""
        return int(self._attempts[slot])

    def close(self) -> None:
        """Unmap it. The file stays: whoever made the run removes it."""
        del self._table, self._generation, self._state, self._attempts, self._length
        if isinstance(self._buffer, mmap.mmap):
            # A view that outlives the pool keeps the mapping alive; it goes with the view.
            with contextlib.suppress(BufferError):
                self._buffer.close()

    def unlink(self) -> None:
        """Remove the file; processes that have it mapped keep their mapping."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)


class Pools:
    """The pools that one process has mapped, by name. Attaches on first use."""

    def __init__(self) -> None:
        self._pools: dict[str, SlotPool] = {}
        self._owned: set[str] = set()

    def add(self, pool: SlotPool, *, owned: bool = False) -> SlotPool:
        """Make a pool known; ``owned`` if the leases of its slots end with the next hop."""
        self._pools[pool.name] = pool
        if owned:
            self._owned.add(pool.name)
        return pool

    def owns(self, blob: Blob) -> bool:
        """Whether the lease of this Blob is ours to take back after the next hop."""
        return blob.pool in self._owned

    def get(self, name: str) -> SlotPool:
        """The pool of that name.

        Raises:
            StaleSlotError: it is gone.
        """
        pool = self._pools.get(name)
        if pool is None:
            self._evict()
            pool = self._pools[name] = SlotPool.attach(name)
        return pool

    def _evict(self) -> None:
        """Drop mappings whose file was removed: the run has replaced that pool."""
        for name, pool in list(self._pools.items()):
            if name not in self._owned and pool.path is not None and not pool.path.exists():
                del self._pools[name]
                pool.close()

    def view(self, blob: Blob) -> NDArray[Any]:
        """The array that a Blob names, read in place.

        Raises:
            StaleSlotError: the slot was recycled, or the pool is gone.
        """
        pool = self.get(blob.pool)
        if not pool.valid(blob):
            raise StaleSlotError(f"slot {blob.slot} of {blob.pool} was recycled")
        return pool.array(blob.slot, blob.shape, blob.dtype, blob.offset)

    def check(self, *blobs: Blob) -> None:
        """After reading in place: raise unless all slots still hold what was read.

        Raises:
            StaleSlotError: one was recycled while it was read.
        """
        for blob in blobs:
            if blob.pool and not self.get(blob.pool).valid(blob):
                raise StaleSlotError(f"slot {blob.slot} of {blob.pool} was recycled while it was read")

    def release(self, blob: Blob) -> bool:
        """Return a lease; False when the slot or the pool has moved on."""
        try:
            return self.get(blob.pool).release(blob)
        except StaleSlotError:
            return False

    def close(self) -> None:
        """Unmap all."""
        for pool in self._pools.values():
            pool.close()
        self._pools.clear()
