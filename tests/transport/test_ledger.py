"""The books of a source: by name, in shared memory, and true after any death."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import TransportError
from pipeline.messages import State
from pipeline.transport.journal import SourceState
from pipeline.transport.ledger import DROP_CAUSES, LOST_CAUSES, STATES, Books, Ledger
from tests.helpers import make_ledger, unique


def test_fresh_books_are_empty_and_balance() -> None:
    ledger = make_ledger()
    assert (ledger["decoded"], ledger["admitted"], ledger["published"]) == (0, 0, 0)
    assert (ledger.dropped(), ledger.lost(), ledger.in_flight()) == ({}, {}, 0)
    assert ledger.balanced()
    assert STATES[ledger["state"]] == "connecting"
    ledger.close()


def test_both_equations() -> None:
    ledger = make_ledger(decoded=10, admitted=7, dropped_superseded=2, published=4, lost_infer_died=1)
    assert not ledger.balanced()
    ledger["dropped_crashed"] = 1
    assert ledger.in_flight() == 2
    assert not ledger.balanced()
    ledger["lost_stopped"] += 2
    assert ledger.balanced()
    assert ledger.dropped() == {"superseded": 2, "crashed": 1}
    assert ledger.lost() == {"infer_died": 1, "stopped": 2}
    ledger["decoded"] += 1
    assert not ledger.balanced()
    ledger.close()


def test_another_process_sees_each_write_and_it_outlives_the_writer() -> None:
    name = unique("books")
    writer = Ledger.named(name, create=True)
    reader = Ledger.named(name)
    writer["last_pts_ns"] = 2**62
    assert reader["last_pts_ns"] == 2**62
    writer.close()
    assert reader["last_pts_ns"] == 2**62
    again = Ledger.named(name)
    again["last_pts_ns"] = -1
    assert reader["last_pts_ns"] == -1
    again.close()
    reader.close()


FIELDS = (
    "decoded", "admitted", "published", "event_next", "own_key", "own_at_us",
    *(f"dropped_{cause}" for cause in DROP_CAUSES), *(f"lost_{cause}" for cause in LOST_CAUSES),
)  # fmt: skip


@given(st.lists(st.tuples(st.sampled_from(FIELDS), st.integers(-(2**63), 2**63 - 1)), max_size=20))
@settings(deadline=None, max_examples=30)
def test_fields_do_not_share_a_place(writes: list[tuple[str, int]]) -> None:
    ledger = make_ledger()
    expected = dict.fromkeys(FIELDS, 0) | dict(writes)
    for field, value in writes:
        ledger[field] = value
    assert {field: ledger[field] for field in FIELDS} == expected
    ledger.close()


def test_a_name_that_is_no_field() -> None:
    ledger = make_ledger()
    with pytest.raises(KeyError):
        ledger["publshed"] = 1
    ledger.close()


def test_books_that_cannot_be_opened(shm: Path) -> None:
    with pytest.raises(TransportError, match=r"cannot open the books .*none"):
        Ledger.named("none")
    (shm / "short").write_bytes(b"\0" * 8)
    with pytest.raises(TransportError, match=r"cannot open the books .*short"):
        Ledger.named("short")
    made = Ledger.named("twice", create=True)
    with pytest.raises(TransportError, match=r"cannot open the books .*twice"):
        Ledger.named("twice", create=True)
    made.close()
    assert (shm / "twice").stat().st_mode & 0o777 == 0o600


def test_states_by_their_number_are_those_of_the_messages() -> None:
    assert get_args(State) == STATES
    assert STATES[:2] == ("connecting", "running"), "a book that is all zero is of one that connects"


# --- the books of a run ----------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Monotonic time, in the one place of this list."""
    now = [1000.0]
    monkeypatch.setattr("pipeline.transport.ledger.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_books_of_a_run_are_found_as_sources_are_added(clock: list[float]) -> None:
    prefix = unique("run-")
    books = Books(prefix)
    assert books.all() == {}
    made = {name: Ledger.named(prefix + name, create=True) for name in ("gate", "yard_2", "a-b")}
    Ledger.named(unique("other"), create=True).close()
    assert books.all() == {}, "the folder is not read at every look"
    clock[0] += 1.0
    assert sorted(books.all()) == ["a-b", "gate", "yard_2"]
    made["gate"]["decoded"] = 7
    made["gate"].journal.write(SourceState("running"))
    found = books.of("gate")
    assert (found["decoded"], len(found.journal)) == (7, 1)
    assert found is books.all()["gate"], "mapped once"
    late = Ledger.named(prefix + "late", create=True)
    assert books.of("late") is books.all()["late"], "who is asked for is there at once"
    books.close()
    for ledger in (*made.values(), late):
        ledger.close()


def test_books_that_are_being_made_are_not_seen(shm: Path, clock: list[float]) -> None:
    prefix = unique("run-")
    (shm / f"{prefix}gate.new").write_bytes(b"half")
    books = Books(prefix)
    assert books.all() == {}
    with pytest.raises(TransportError, match="cannot open the books"):
        books.of("gate")
    clock[0] += 1.0
    Ledger.named(prefix + "gate", create=True).close()
    assert list(books.all()) == ["gate"]
    books.close()


def test_a_prefix_is_no_pattern(shm: Path) -> None:
    for name in ("run[1]-gate", "run1-yard"):
        Ledger.named(name, create=True).close()
    books = Books("run[1]-")
    assert list(books.all()) == ["gate"]
    books.close()
