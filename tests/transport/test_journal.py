"""The journal of a source: a ring that one process writes and others read, whatever dies in between."""

from __future__ import annotations

from collections import deque
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.messages import State
from pipeline.transport.journal import JOURNAL_BYTES, Journal, SourceState
from pipeline.transport.ledger import STATES, Ledger
from tests.helpers import make_ledger, unique

KEPT = 64


def fresh() -> Journal:
    return Journal(np.zeros(JOURNAL_BYTES, np.uint8))


def change(number: int, **fields: Any) -> SourceState:
    """The ``number``-th change of a test, from 1."""
    given: dict[str, Any] = {"state": STATES[number % len(STATES)], "at": float(number), "seq": number}
    return SourceState(**(given | fields))


def test_a_fresh_journal_is_empty() -> None:
    journal = fresh()
    assert (len(journal), journal.since(0), journal.last()) == (0, [], None)


def test_what_was_written_comes_back_whole() -> None:
    journal = fresh()
    states: list[State] = ["connecting", "running", "stalled", "reconnecting", "ended", "failed"]
    said = [
        SourceState(state, "network", f"in state {state}", 1_769_852_400.25, 2**62, 2**40, 2**50 + at)
        for at, state in enumerate(states)
    ]
    for entry in said:
        journal.write(entry)
    assert journal.since(0) == list(enumerate(said, 1))
    assert journal.since(4) == list(enumerate(said, 1))[4:]
    assert journal.since(6) == journal.since(99) == []
    assert journal.last() == said[-1]


@given(
    st.lists(st.one_of(st.none(), st.integers(0, 3)), min_size=1, max_size=300),
    st.lists(st.text(max_size=300), min_size=1, max_size=5),
)
@settings(deadline=None, max_examples=50)
def test_readers_see_each_change_once_and_the_last_64_at_least(
    actions: list[int | None], messages: list[str]
) -> None:
    """None writes; a number lets that reader look. A model of plain lists says what must be seen."""
    journal = fresh()
    written: deque[int] = deque(maxlen=KEPT)
    seen = dict.fromkeys(range(4), 0)
    for reader in actions:
        if reader is None:
            number = len(journal) + 1
            text = messages[number % len(messages)].encode("utf-8", "replace").decode()
            journal.write(change(number, message=text))
            written.append(number)
            continue
        found = journal.since(seen[reader])
        assert [number for number, _ in found] == [n for n in written if n > seen[reader]]
        assert all(entry.seq == number for number, entry in found)
        seen[reader] = len(journal)
    last = journal.last()
    assert (last.seq if last is not None else None) == (written[-1] if written else None)


@pytest.mark.parametrize(
    "message",
    ["x" * 239, "x" * 240, "x" * 241, "x" * 5000, "ü" * 240, "камера" * 60, "門" * 240, "📷" * 1000],
    ids=lambda message: f"{message[0]}{len(message)}",
)
def test_a_long_message_is_cut_and_nothing_else(message: str) -> None:
    journal = fresh()
    full = SourceState("reconnecting", "network", message, 1.5, 2**63 - 1, 2**31, 2**40)
    journal.write(full)
    last = journal.last()
    assert last is not None
    assert msgspec.structs.replace(last, message="") == msgspec.structs.replace(full, message="")
    assert last.message
    assert message.startswith(last.message.removesuffix("…"))
    if len(message) <= 240 and message.isascii():
        assert last.message == message


def test_a_reason_that_is_no_word_does_not_break_the_writer() -> None:
    journal = fresh()
    journal.write(SourceState("ended", "stopped because " * 60, "m" * 240))
    last = journal.last()
    assert last is not None
    assert last.state == "ended"


def test_another_mapping_of_the_same_file_reads_it_and_a_new_writer_goes_on() -> None:
    name = unique("books")
    writer, reader = Ledger.named(name, create=True), Ledger.named(name)
    writer.journal.write(change(1))
    assert reader.journal.since(0) == [(1, change(1))]
    writer.close()
    again = Ledger.named(name)
    again.journal.write(change(2))
    assert reader.journal.since(1) == [(2, change(2))]
    again.close()
    reader.close()


def test_it_shares_no_byte_with_the_counters() -> None:
    ledger = make_ledger()
    fields = ["decoded", "event_next", "drift_ppb", "dropped_crashed", "lost_stopped"]
    for field in fields:
        ledger[field] = -1
    assert (len(ledger.journal), ledger.journal.since(0)) == (0, [])
    for number in range(1, 200):
        ledger.journal.write(change(number, message="x" * 400))
    assert [ledger[field] for field in fields] == [-1] * len(fields)
    ledger.close()


class Dies(BaseException):
    """``kill -9`` of the writer."""


class Uncounted:
    """The count, whose writer is killed before it rises."""

    def __init__(self, count: Any) -> None:
        self.count = count

    def __getitem__(self, at: int) -> Any:
        return self.count[at]

    def __setitem__(self, at: int, value: Any) -> None:
        raise Dies


class DyingEntry:
    """An entry whose writer is killed before the n-th store into it."""

    def __init__(self, entry: Any, left: int) -> None:
        self.entry, self.left = entry, left

    def __setitem__(self, where: Any, value: Any) -> None:
        self.left -= 1
        if self.left < 0:
            raise Dies
        self.entry[where] = value


class DyingEntries:
    def __init__(self, entries: Any, left: int) -> None:
        self.entries, self.left = entries, left

    def __getitem__(self, at: int) -> DyingEntry:
        return DyingEntry(self.entries[at], self.left)


@pytest.mark.parametrize("before", [0, 1, 63, 64, 65, 130])
@pytest.mark.parametrize("stores", [0, 1, 2, 3])
def test_a_writer_killed_within_an_entry_leaves_the_others_and_the_next_takes_its_number(
    before: int, stores: int
) -> None:
    memory = np.zeros(JOURNAL_BYTES, np.uint8)
    first = Journal(memory)
    for number in range(1, before + 1):
        first.write(change(number))
    first._entries = DyingEntries(first._entries, stores)  # type: ignore[assignment]
    if stores == 3:  # All of the entry is there, but the count is not.
        first._count = Uncounted(first._count)  # type: ignore[assignment]
    with pytest.raises(Dies):
        first.write(change(before + 1, message="never complete"))
    second = Journal(memory)
    assert len(second) == before
    # The oldest may be gone: its place was being written.
    kept = list(range(max(1, before - KEPT + 2), before + 1))
    assert [n for n, _ in second.since(0)][-len(kept) :] == kept
    assert all(entry == change(n) for n, entry in second.since(0))
    second.write(change(before + 1, message="complete"))
    assert second.last() == change(before + 1, message="complete")


class TornEntry:
    """While a reader copies it, the writer, who is a whole ring ahead, writes the place anew."""

    def __init__(self, journal: Journal, entry: Any) -> None:
        self.journal, self.entry = journal, entry

    def tobytes(self) -> bytes:
        head: bytes = self.entry[:12].tobytes()
        while len(self.journal) < 1 + KEPT:
            self.journal.write(change(len(self.journal) + 1, state="running"))
        body: bytes = self.entry[12:].tobytes()
        return head + body


def test_an_entry_that_was_overtaken_while_it_was_copied_is_left_out() -> None:
    memory = np.zeros(JOURNAL_BYTES, np.uint8)
    reader, writer = Journal(memory), Journal(memory)
    writer.write(change(1, state="running"))
    plain = reader._entries

    class Entries:
        def __getitem__(self, at: int) -> Any:
            return TornEntry(writer, plain[at]) if at == 1 else plain[at]

    reader._entries = Entries()  # type: ignore[assignment]
    found = reader.since(0)
    assert all(entry.seq == number for number, entry in found), "one change under the number of another"
