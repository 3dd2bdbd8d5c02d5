"""Read the event log: pages, filters, holes, times."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.eventlog.log import EventLog
from pipeline.eventlog.reader import LogReader, Match
from tests.eventlog.records import draft
from tests.stages.desk import kill

EVENTS = [
    draft("source", "gate", state="running"),
    draft("start", "gate", label="car", zones=["yard", "street"]),
    draft("zone", "gate", label="person", zone="yard", action="enter"),
    draft("start", "front_door", label="person"),
    draft("occupancy", "gate", zone="street", count=1),
    draft("end", "gate", label="car"),
]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    now = [0.0]

    def clock() -> float:
        now[0] += 10.0
        return now[0]

    with EventLog(tmp_path / "events.db", "run", clock=clock) as made:
        for key, event in enumerate(EVENTS, 1):
            made.commit(str(event["source"]), "event", key, [dict(event)])
        yield made


@pytest.fixture
def reader(log: EventLog) -> Iterator[LogReader]:
    with contextlib.closing(log.reader()) as made:
        yield made


def numbers(reader: LogReader, **match: tuple[str, ...]) -> list[int]:
    return [sequence for sequence, _ in reader.page(0, match=Match(**match)).records]


@pytest.mark.parametrize(
    ("match", "found"),
    [
        ({}, [0, 1, 2, 3, 4, 5]),
        ({"sources": ("gate",)}, [0, 1, 2, 4, 5]),
        ({"sources": ("front",)}, []),
        ({"types": ("start", "end")}, [1, 3, 5]),
        ({"labels": ("person",)}, [2, 3]),
        ({"zones": ("yard",)}, [1, 2]),
        ({"zones": ("street", "yard")}, [1, 2, 4]),
        ({"zones": ("yar",)}, []),
        ({"sources": ("gate",), "types": ("start",), "labels": ("car",), "zones": ("street",)}, [1]),
        ({"sources": ("'; DROP TABLE events; --",)}, []),
    ],
)
def test_filters(reader: LogReader, match: dict[str, tuple[str, ...]], found: list[int]) -> None:
    assert numbers(reader, **match) == found


@pytest.mark.parametrize(
    ("at", "first"), [(0, 0), (10, 0), (10.5, 1), (20, 1), (59.9, 5), (60, 5), (61, 6), (1e9, 6)]
)
def test_since(reader: LogReader, at: float, first: int) -> None:
    assert reader.since(at) == first


@pytest.mark.parametrize(
    ("first", "end", "limit", "page"),
    [
        (0, None, 100, (0, 6, [0, 1, 2, 3, 4, 5])),
        (0, None, 2, (0, 2, [0, 1])),
        (2, 4, 100, (2, 4, [2, 3])),
        (4, 2, 100, (4, 4, [])),
        (None, None, 100, (6, 6, [])),
        (99, None, 100, (99, 99, [])),
    ],
)
def test_pages(
    reader: LogReader, first: int | None, end: int | None, limit: int, page: tuple[int, int, list[int]]
) -> None:
    found = reader.page(first, end=end, limit=limit)
    assert (found.first, found.end, [s for s, _ in found.records]) == page
    assert (found.oldest, found.next) == (0, 6)


def test_a_page_is_bounded_in_bytes_and_never_empty_for_that(reader: LogReader) -> None:
    page = reader.page(0, max_bytes=1)
    assert ([s for s, _ in page.records], page.end) == ([0], 1)


@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=5),
    st.integers(1, 4), st.sampled_from([(), ("car",)]),
)  # fmt: skip
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whoever_reads_page_by_page_gets_all_there_is_once(
    tmp_path_factory: pytest.TempPathFactory, runs: list[tuple[int, int]], limit: int, labels: tuple[str, ...]
) -> None:
    """Where a disk was full the log has holes: a reader is told where it goes on."""
    path = tmp_path_factory.mktemp("log") / "events.db"
    kept: list[int] = []
    at_least = key = 0
    for count, gap in runs:
        log = EventLog(path, "run", at_least=at_least)
        for _ in range(count):
            key += 1
            records = log.commit("gate", "event", key, [draft(label="car" if key % 2 else "person")])
            assert records is not None
            if not labels or records[0]["label"] in labels:
                kept.append(records[0]["sequence"])
        at_least = log.next + gap
        kill(log)
    with contextlib.closing(LogReader(path)) as reader:
        found: list[int] = []
        first = 0
        for _ in range(200):
            page = reader.page(first, limit=limit, match=Match(labels=labels))
            assert page.first >= first
            assert page.end >= page.first
            found += [sequence for sequence, _ in page.records]
            first = page.end
            if first >= page.next:
                break
        assert found == kept
        assert first == page.next


def test_a_hole_is_told_as_a_later_beginning(tmp_path: Path) -> None:
    path = tmp_path / "events.db"
    log = EventLog(path, "run")
    log.commit("gate", "event", 1, [draft(), draft()])
    kill(log)
    log = EventLog(path, "run", at_least=7)
    log.commit("gate", "event", 2, [draft()])
    with contextlib.closing(log.reader()) as reader:
        before, after = reader.page(0), reader.page(2)
        assert ([s for s, _ in before.records], before.first, before.end) == ([0, 1], 0, 2)
        assert ([s for s, _ in after.records], after.first, after.end) == ([7], 7, 8)
    log.close()
