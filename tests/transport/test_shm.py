"""Slots: leases, generations, and what is left when a writer or a reader dies."""

from __future__ import annotations

import errno
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from pipeline.errors import PoolError, StaleSlotError
from pipeline.messages import Blob
from pipeline.transport.shm import FREE, LEASED, WRITING, Pools, SlotPool, shm_dir
from tests.helpers import names_in, unique


def written(pool: SlotPool, value: int, descriptor: bytes = b"") -> Blob:
    """A leased slot that holds ``value``."""
    slot = pool.acquire()
    assert slot is not None
    pool.array(slot, (4,), "uint8")[...] = value
    blob = pool.blob(slot, (4,), "uint8")
    pool.commit(slot, descriptor)
    return blob


def test_life_of_a_lease() -> None:
    pool = SlotPool.in_memory("p", 2, 16)
    assert pool.free() == 2
    slot = pool.acquire()
    assert slot is not None
    blob = pool.blob(slot, (4,), "uint8")
    assert not pool.valid(blob), "nobody may believe a slot that is being written"
    assert pool.release(blob) is False, "nor give it back"
    pool.commit(slot, b"what it is")
    assert pool.valid(blob)
    assert pool.leased() == [(slot, b"what it is")]
    assert pool.free() == 1
    assert pool.release(blob) is True
    assert (pool.free(), pool.leased()) == (2, [])


def test_release_twice_and_release_of_a_recycled_slot_do_nothing() -> None:
    pool = SlotPool.in_memory("p", 1, 16)
    old = written(pool, 1)
    assert pool.release(old)
    assert not pool.release(old)
    new = written(pool, 2)
    assert old.generation < new.generation
    assert not pool.release(old), "the slot belongs to somebody else now"
    assert pool.valid(new)
    assert pool.release(new)


def test_a_full_pool_gives_nothing_and_slots_are_taken_in_turn() -> None:
    pool = SlotPool.in_memory("p", 3, 16)
    blobs = [written(pool, n) for n in range(3)]
    assert [blob.slot for blob in blobs] == [0, 1, 2]
    assert pool.acquire() is None
    pool.release(blobs[1])
    assert written(pool, 9).slot == 1
    with pytest.raises(PoolError, match="all 3 slots of p are leased"), pool.writing():
        raise AssertionError("not reached")


def test_writing_commits_at_the_end_and_frees_on_the_way_out() -> None:
    pool = SlotPool.in_memory("p", 1, 16)

    def fail() -> None:
        with pool.writing():
            raise ValueError("the writer failed")

    for _ in range(2):
        with pytest.raises(ValueError, match="the writer failed"):
            fail()
        assert pool.free() == 1
    with pool.writing() as slot:
        blob = pool.blob(slot, (4,), "uint8")
    assert pool.valid(blob)


def test_a_view_of_a_recycled_slot_is_refused_before_and_noticed_after() -> None:
    pools = Pools()
    pool = pools.add(SlotPool.in_memory("p", 1, 16))
    blob = written(pool, 7)
    view = pools.view(blob)
    assert view.tolist() == [7, 7, 7, 7]
    pools.check(blob)
    pool.release(blob)
    pools.check(blob)  # given back, but nobody has written there since
    written(pool, 8)
    with pytest.raises(StaleSlotError, match="slot 0 of p was recycled while it was read"):
        pools.check(blob)
    with pytest.raises(StaleSlotError, match="slot 0 of p was recycled"):
        pools.view(blob)
    assert pools.release(blob) is False


def test_a_slot_that_is_being_rewritten_is_noticed_at_once() -> None:
    pools = Pools()
    pool = pools.add(SlotPool.in_memory("p", 1, 16))
    blob = written(pool, 7)
    pool.release(blob)
    pool.acquire()
    with pytest.raises(StaleSlotError):
        pools.check(blob)


def test_inline_blobs_need_no_check() -> None:
    Pools().check(Blob((3,), "uint8", "", 0))


@pytest.mark.parametrize(
    ("slot", "shape", "dtype", "offset"),
    [(0, (4097,), "uint8", 0), (0, (1,), "float32", 4094), (2, (1,), "uint8", 0), (-1, (1,), "uint8", 0),
     (0, (1,), "uint8", -1), (0, (2**40, 2**40), "uint8", 0), (0, (-1,), "uint8", 0)],
)  # fmt: skip
def test_what_does_not_fit_a_slot(slot: int, shape: tuple[int, ...], dtype: str, offset: int) -> None:
    pool = SlotPool.in_memory("p", 2, 4096)
    with pytest.raises(PoolError, match="does not fit slot"):
        pool.array(slot, shape, dtype, offset)


def test_a_descriptor_that_does_not_fit() -> None:
    pool = SlotPool.in_memory("p", 1, 16)
    slot = pool.acquire()
    assert slot is not None
    pool.commit(slot, b"x" * 992)
    with pytest.raises(PoolError, match="descriptor of 993 bytes does not fit \\(992\\)"):
        pool.commit(slot, b"x" * 993)


@pytest.mark.parametrize("slots", [1, 4, 5, 64])
@pytest.mark.parametrize("slot_bytes", [1, 4096, 4097])
def test_slots_are_aligned_apart_and_as_large_as_asked(slots: int, slot_bytes: int) -> None:
    pool = SlotPool.in_memory("p", slots, slot_bytes)
    arrays = [pool.array(slot, (slot_bytes,), "uint8") for slot in range(slots)]
    for slot, array in enumerate(arrays):
        array[...] = slot
    assert [int(a.min()) for a in arrays] == [int(a.max()) for a in arrays] == list(range(slots))
    starts = [a.__array_interface__["data"][0] for a in arrays]
    assert {b - a for a, b in itertools.pairwise(starts)} <= {pool.slot_bytes}
    assert pool.slot_bytes % 4096 == 0
    assert SlotPool.size_of(slots, slot_bytes) >= slots * slot_bytes


def test_a_second_mapping_sees_the_same_and_may_give_leases_back() -> None:
    owner = SlotPool.create(unique(), 2, 16)
    other = SlotPool.attach(owner.name)
    pools = Pools()
    pools.add(other)
    blob = written(owner, 5, b"five")
    assert pools.view(blob).tolist() == [5, 5, 5, 5]
    assert other.leased() == [(blob.slot, b"five")]
    assert other.attempt(blob.slot) == 1
    assert owner.attempt(blob.slot) == 2
    assert pools.release(blob) is True
    assert owner.free() == 2
    assert owner.attempt(written(owner, 6).slot) == 1, "attempts start again with each use"
    pools.close()
    owner.close()


def test_a_writer_that_died_leaves_complete_leases_and_a_free_slot() -> None:
    owner = SlotPool.create(unique(), 3, 16)
    done = written(owner, 1, b"done")
    torn = owner.acquire()
    assert torn is not None
    owner.array(torn, (4,), "uint8")[:2] = 9  # killed here
    again = SlotPool.attach(owner.name)
    assert again.leased() == [(done.slot, b"done")]
    assert again.free() == 2
    new = written(again, 2)
    assert again.valid(done)
    assert again.valid(new)
    again.close()
    owner.close()


def test_files_are_private_and_complete(shm: Path) -> None:
    pool = SlotPool.create(unique(), 2, 10_000)
    assert pool.path is not None
    status = pool.path.stat()
    assert status.st_mode & 0o777 == 0o600
    assert status.st_size == SlotPool.size_of(2, 10_000)
    with pytest.raises(PoolError, match=r"cannot create .*: File exists"):
        SlotPool.create(pool.name, 2, 10)
    pool.unlink()
    pool.unlink()
    assert names_in(shm) == []
    assert pool.free() == 2, "who has it mapped keeps it"
    pool.close()


def test_a_pool_that_is_gone_and_files_that_are_no_pools(shm: Path) -> None:
    with pytest.raises(StaleSlotError, match="pool framewire-none is gone"):
        SlotPool.attach("framewire-none")
    (shm / "empty").touch()
    (shm / "other").write_bytes(b"\1" * 8192)
    with pytest.raises(PoolError, match="cannot map"):
        SlotPool.attach("empty")
    with pytest.raises(PoolError, match="other is not a framewire pool"):
        SlotPool.attach("other")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM, errno.EFBIG])
def test_too_little_memory_is_said_with_numbers(
    shm: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(fd: int, offset: int, length: int) -> None:
        raise OSError(number, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(PoolError, match=r"has [\d.]+ MB free, this pool needs 8\.0 MB") as raised:
        SlotPool.create(unique(), 8, 2**20)
    assert "--shm-size" in raised.value.hint
    assert "run.slots" in raised.value.hint
    assert "FRAMEWIRE_SHM_DIR" in raised.value.hint
    assert names_in(shm) == [], "the file that failed is gone"


def test_other_failures_to_allocate(shm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, offset: int, length: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(PoolError, match=r"cannot allocate .*: Input/output error"):
        SlotPool.create(unique(), 1, 1)
    assert names_in(shm) == []
    monkeypatch.setenv("FRAMEWIRE_SHM_DIR", str(shm / "nowhere"))
    with pytest.raises(PoolError, match="cannot create") as raised:
        SlotPool.create(unique(), 1, 1)
    assert "FRAMEWIRE_SHM_DIR" in raised.value.hint


def test_where_pools_live(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FRAMEWIRE_SHM_DIR", str(tmp_path))
    assert shm_dir() == tmp_path
    monkeypatch.delenv("FRAMEWIRE_SHM_DIR")
    assert shm_dir().is_dir()


def test_pools_attach_on_first_use_and_forget_what_was_removed() -> None:
    owner = SlotPool.create(unique(), 1, 16)
    blob = written(owner, 3)
    pools = Pools()
    assert not pools.owns(blob)
    assert pools.view(blob).tolist() == [3, 3, 3, 3]
    mapped = pools.get(owner.name)
    assert pools.get(owner.name) is mapped
    owner.unlink()
    assert pools.get(owner.name) is mapped, "frames under way can still be read"
    second = SlotPool.create(unique(), 1, 16)
    pools.get(second.name)  # the next new pool is the occasion to drop the old one
    with pytest.raises(StaleSlotError, match="is gone"):
        pools.view(blob)
    assert pools.release(blob) is False
    pools.close()
    owner.close()
    second.close()


def test_owned_pools_are_those_whose_leases_end_with_the_next_hop() -> None:
    pools = Pools()
    pools.add(SlotPool.in_memory("ours", 1, 16), owned=True)
    pools.add(SlotPool.in_memory("frames", 1, 16))
    assert pools.owns(Blob((1,), "uint8", "ours", 0))
    assert not pools.owns(Blob((1,), "uint8", "frames", 0))
    assert not pools.owns(Blob((1,), "uint8", "", 0))


def test_a_view_may_outlive_its_pool() -> None:
    pool = SlotPool.create(unique(), 1, 16)
    blob = written(pool, 4)
    view = pool.array(blob.slot, blob.shape, blob.dtype)
    pool.close()
    pool.unlink()
    assert view.tolist() == [4, 4, 4, 4]


class PoolMachine(RuleBasedStateMachine):
    """Any order of taking, completing, dying and giving back, against a plain model of the same."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = SlotPool.in_memory("p", 3, 16)
        self.writing: dict[int, int] = {}
        self.leases: dict[int, tuple[Blob, int]] = {}
        self.dead: list[Blob] = []
        self.count = 0

    @rule()
    def acquire(self) -> None:
        slot = self.pool.acquire()
        if len(self.writing) + len(self.leases) == 3:
            assert slot is None
            return
        assert slot is not None
        assert slot not in self.writing
        assert slot not in self.leases
        self.count = (self.count + 1) % 256
        self.pool.array(slot, (4,), "uint8")[...] = self.count
        self.writing[slot] = self.count

    @precondition(lambda self: self.writing)
    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.writing)))
        self.leases[slot] = (self.pool.blob(slot, (4,), "uint8"), self.writing.pop(slot))
        self.pool.commit(slot, bytes([slot]))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        slot = data.draw(st.sampled_from(sorted(self.leases)))
        blob, _ = self.leases.pop(slot)
        assert self.pool.release(blob)
        self.dead.append(blob)

    @precondition(lambda self: self.dead)
    @rule(data=st.data())
    def release_again(self, data: st.DataObject) -> None:
        assert not self.pool.release(data.draw(st.sampled_from(self.dead)))

    @rule()
    def owner_dies(self) -> None:
        assert dict(self.pool.leased()) == {slot: bytes([slot]) for slot in self.leases}
        self.writing.clear()

    @invariant()
    def books(self) -> None:
        assert self.pool.free() == 3 - len(self.writing) - len(self.leases)
        for blob, value in self.leases.values():
            assert blob.generation % 2 == 0
            assert self.pool.valid(blob)
            assert set(self.pool.array(blob.slot, blob.shape, blob.dtype).tolist()) == {value}
        assert not any(self.pool.valid(blob) for blob in self.dead if blob.slot in self.writing)
        for slot, (blob, _) in self.leases.items():
            assert all(d.generation < blob.generation for d in self.dead if d.slot == slot)


TestPoolMachine = PoolMachine.TestCase
TestPoolMachine.settings = settings(deadline=None, max_examples=25, stateful_step_count=25)


def test_states_are_apart() -> None:
    assert len({FREE, WRITING, LEASED}) == 3
    assert np.zeros(1, np.uint32)[0] == FREE, "a fresh file is all free"
