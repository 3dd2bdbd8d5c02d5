"""The event log: numbers without gaps, all or nothing, nothing twice, and the oldest goes first."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pipeline.errors import SinkError
from pipeline.eventlog.database import meta, put_meta
from pipeline.eventlog.log import EventLog
from pipeline.eventlog.reader import LogReader, Match
from tests.eventlog.records import draft
from tests.stages.desk import kill


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log" / "events.db"


def contents(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with contextlib.closing(LogReader(path)) as reader:
        first = 0
        while True:
            page = reader.page(first)
            found += [msgspec.msgpack.decode(record) for _, record in page.records]
            if page.end >= page.next:
                return found
            first = page.end


def test_numbers_rise_by_one_over_commits_sources_and_runs(path: Path) -> None:
    with EventLog(path, "monday") as log:
        first = log.commit("gate", "event", 1, [draft(), draft("end")])
        second = log.commit("yard", "event", 1, [draft(source="yard")])
        assert first is not None
        assert second is not None
        assert [r["sequence"] for r in (*first, *second)] == [0, 1, 2]
        assert [r["id"] for r in (*first, *second)] == ["monday-0", "monday-1", "monday-2"]
        assert (log.first, log.next, log.oldest) == (0, 3, 0)
        log_id = log.log_id
    with EventLog(path, "tuesday") as log:
        assert (log.first, log.next, log.log_id) == (3, 3, log_id)
        third = log.commit("gate", "event", 1, [draft()])
        assert third is not None, "it is another run's frame 1"
        assert third[0]["id"] == "tuesday-3"
    assert [r["sequence"] for r in contents(path)] == [0, 1, 2, 3]


def test_what_comes_again_is_not_committed_again(path: Path) -> None:
    with EventLog(path, "run") as log:
        log.commit("gate", "event", 1, [draft()])
        assert log.commit("gate", "event", 1, [draft()]) is None
        log.commit("gate", "change", 1, [draft("source")])
        assert log.commit("gate", "event", 1, [draft()]) is None, "changes have keys of their own"
        kill(log)
    with EventLog(path, "run") as log:
        assert log.first == 0, "the run goes on"
        assert log.commit("gate", "event", 1, [draft()]) is None
        assert log.commit("gate", "event", 2, [draft()]) is not None
        assert log.commit("gate", "event", 3, []) == ()
    assert [r["sequence"] for r in contents(path)] == [0, 1, 2]


def test_broken_off_anywhere_a_commit_is_whole_or_not_there(path: Path) -> None:
    for point in range(1, 9):
        shutil.rmtree(path.parent, ignore_errors=True)
        log = EventLog(path, "run")
        log.commit("gate", "event", 1, [draft()])
        left = [point]

        def stop(left: list[int] = left) -> int:
            left[0] -= 1
            return left[0] <= 0

        log._database.set_progress_handler(stop, 5)
        log.commit("gate", "event", 2, [draft(), draft()])
        log._database.set_progress_handler(None, 5)
        kill(log)
        with EventLog(path, "run") as again:
            whole = again.next == 3
            assert whole or again.next == 1
            assert (again.commit("gate", "event", 2, [draft(), draft()]) is None) == whole
            assert again.next == 3
        assert [r["sequence"] for r in contents(path)] == [0, 1, 2]


_WRITER = """
import sys
from pipeline.eventlog.log import EventLog
from tests.eventlog.records import draft
log = EventLog(sys.argv[1], "run")
for key in range(log.next + 1, 1_000_000):
    records = log.commit("gate", "event", key, [draft(pad="x" * 300)])
    sys.stdout.write(f"{records[0]['sequence']}\\n")
    sys.stdout.flush()
"""


def test_kill_9_loses_nothing_that_was_told_and_has_nothing_twice(path: Path) -> None:
    told: list[int] = []
    for lines in (40, 300, 7):
        process = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True
        )
        with process:
            assert process.stdout is not None
            told += [int(process.stdout.readline()) for _ in range(lines)]
            process.send_signal(signal.SIGKILL)
            # What is in the pipe was told as well.
            told += [int(line) for line in process.stdout if line.endswith("\n")]
    found = [r["sequence"] for r in contents(path)]
    assert found == list(range(len(found)))
    assert set(told) <= set(found)
    assert len(set(told)) == len(told)


@pytest.mark.parametrize("limit", ["age", "size"])
def test_the_oldest_are_forgotten_and_numbers_stay(path: Path, limit: str) -> None:
    now = [1000.0]
    log = EventLog(
        path, "run", keep_s=100 if limit == "age" else None,
        max_bytes=400_000 if limit == "size" else 2**30, clock=lambda: now[0],
    )  # fmt: skip
    with log:
        for key in range(1, 1201):
            log.commit("gate", "event", key, [draft(pad="x" * 500)])
            now[0] += 0.1
        for _ in range(10):
            log._looked_at = -1e9
            assert log.tick() == []
        assert 0 < log.oldest < log.next == 1200
        if limit == "age":
            assert log.oldest == pytest.approx(200, abs=3)
        else:
            assert log.stats()["bytes"] <= 400_000
        assert [r["sequence"] for r in contents(path)] == list(range(log.oldest, 1200))
        with contextlib.closing(log.reader()) as reader:
            page = reader.page(5)
            assert page.first == page.oldest == log.oldest, "whoever wants 5 is told where it begins now"
        assert log.dropped == 0, "as it was told to"
        now[0] += 1e6
        for _ in range(10):
            log._looked_at = -1e9
            log.tick()
        assert (log.next - log.oldest, log.next) == (
            (1, 1200) if limit == "age" else (log.next - log.oldest, 1200)
        )
    with EventLog(path, "next") as again:
        assert again.next == 1200, "the last one stays, for its number"


def test_the_last_values(path: Path) -> None:
    with EventLog(path, "run") as log:
        log.commit("gate", "event", 1, [
            draft("source", state="running"), draft("start", track_id=1), draft("start", track_id=2),
            draft("occupancy", zone="yard", count=1), draft("update", track_id=1, zones=["yard"]),
            draft("end", track_id=2), draft("occupancy", zone="yard", count=0),
            draft("camera", state="moving"), draft("clip"),
        ])  # fmt: skip
        with contextlib.closing(log.reader()) as reader:
            page = reader.latest()
            values = [msgspec.msgpack.decode(record) for _, record in page.records]
            assert [(v["type"], v["sequence"]) for v in values] == [
                ("source", 0), ("update", 4), ("occupancy", 6), ("camera", 7),
            ]  # fmt: skip
            assert page.next == page.end == 9, "from there on it goes on"
            assert [s for s, _ in reader.latest(Match(zones=("yard",))).records] == [4, 6]
    with EventLog(path, "next") as log, contextlib.closing(log.reader()) as reader:
        left = [msgspec.msgpack.decode(record)["type"] for _, record in reader.latest().records]
        assert left == ["source"], "nobody follows the objects of a run that is over"
        assert [(r["type"], r["track_id"]) for r in log.left_open] == [("update", 1)], "this one had no end"


def test_two_runs_cannot_write_one_log(path: Path) -> None:
    with EventLog(path, "one"), pytest.raises(SinkError, match="another run writes") as caught:
        EventLog(path, "two")
    assert "event_log.path" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"sources: {}\n", "is no event log"), (b"SQLite format 3\0" + b"\1" * 84, "is no event log")],
)
def test_a_file_that_is_something_else_is_left_alone(path: Path, content: bytes, message: str) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(SinkError, match=message):
        EventLog(path, "run")
    assert path.read_bytes() == content


def test_a_newer_log_is_left_alone(path: Path) -> None:
    EventLog(path, "run").close()
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA user_version = 9")
    with pytest.raises(SinkError, match="newer framewire"):
        EventLog(path, "run")


def test_a_damaged_log_is_put_aside_and_a_new_one_begins(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with EventLog(path, "run") as log:
        log.commit("gate", "event", 1, [draft(pad="x" * 9000)])
        old = log.log_id
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with EventLog(path, "run") as log:
        assert log.log_id != old
        assert log.next == 0
        assert log.commit("gate", "event", 1, [draft()]) is not None
    assert "damaged" in caplog.text
    assert [p for p in path.parent.iterdir() if ".damaged-" in p.name]


def test_after_a_loss_of_power_the_log_has_another_id_which_continues(path: Path) -> None:
    with EventLog(path, "run") as log:
        log.commit("gate", "event", 1, [draft()] * 5)
        old = log.log_id
    with EventLog(path, "run") as log:
        assert log.log_id == old
        put_meta(log._database, "open", "another boot")
        kill(log)
    with EventLog(path, "run") as log, contextlib.closing(log.reader()) as reader:
        assert log.log_id != old
        assert reader.resolve(old, 9) == (5, True), "5 to 8 were broadcast, and are gone"
        assert reader.resolve(old, 3) == (3, True)
        assert reader.resolve(log.log_id, 3) == (3, False)
        assert reader.resolve("unheard of", 3) == (0, False)


@pytest.fixture
def short_files() -> Iterator[None]:
    """No file may be longer than 1.5 MB: to SQLite a disk that fails, in a process that goes on."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_500_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("short_files")
def test_what_cannot_be_written_is_numbered_all_the_same_and_written_later(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with EventLog(path, "run") as log:
        states = []
        for key in range(1, 3001):
            records = log.commit("gate", "event", key, [draft(pad="x" * 1000)])
            assert records is not None
            assert records[0]["sequence"] == key - 1
            states += log.tick()
        assert [(s.state, s.reason) for s in states] == [("degraded", "io_error")]
        assert log.stats()["degraded"] == 1
        held = log.stats()["pending"]
        assert log.commit("gate", "event", 3000, [draft()]) is None, "it is known in memory, too"
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        log._looked_at = -1e9
        log.tick()
        assert log.stats()["pending"] == 0
        log._trouble_at = log._looked_at = -1e9
        assert [s.state for s in log.tick()] == ["recovered"]
        assert log.dropped + len(contents(path)) == log.next == 3000
        kept = [r["sequence"] for r in contents(path)]
        assert kept[-max(held, 1) :] == list(range(3000 - max(held, 1), 3000)), "the newest are there"
    assert caplog.text.count("event log degraded") == 1, "said once"


def test_a_full_disk_costs_the_oldest_events_and_nothing_else(tmp_path: Path) -> None:
    """A real file system of 12 MB; the run that fills it sees every commit succeed."""
    if os.geteuid() or not shutil.which("mount") or not shutil.which("unshare"):
        pytest.skip("only root can mount a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    program = f"""
import sys
sys.path.insert(0, {str(Path.cwd())!r})
from pathlib import Path
from pipeline.eventlog.log import EventLog
from tests.eventlog.records import draft
from tests.eventlog.test_log import contents
with EventLog({str(disk / "events.db")!r}, "run") as log:
    states = []
    for key in range(1, 20001):
        (record,) = log.commit("gate", "event", key, [draft(pad="x" * 600)])
        assert record["sequence"] == key - 1
        states += log.tick()
    assert [(s.state, s.reason) for s in states] == [("degraded", "disk_full")], states
    stats = log.stats()
    assert stats["pending"] == 0, stats
    kept = [r["sequence"] for r in contents(log.path)]
    assert kept == list(range(log.oldest, 20000)), (log.oldest, len(kept))
    assert stats["dropped"] == log.oldest > 1000, stats
    assert len(kept) > 2000, len(kept)
"""
    mounted = f'mount -t tmpfs -o size=12m tmpfs {disk} && exec {sys.executable} -c "$PROGRAM"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", mounted], env={**os.environ, "PROGRAM": program},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "mount" in done.stderr and "Traceback" not in done.stderr:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr


def test_a_log_that_says_goodbye_is_known_as_such(path: Path) -> None:
    log = EventLog(path, "run")
    assert meta(log._database, "open")
    log.close()
    log.close()
    with contextlib.closing(sqlite3.connect(path)) as database:
        assert meta(database, "open") == ""
    assert not list(path.parent.glob("*.reserve"))
