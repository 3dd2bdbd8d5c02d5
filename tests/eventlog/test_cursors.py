"""Places of sinks in the log, and what they would not take."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path

import pytest

from pipeline.errors import SinkError
from pipeline.eventlog.cursors import Cursors, cursors_path
from tests.eventlog.records import draft


def test_places_are_kept_by_sink(tmp_path: Path) -> None:
    with contextlib.closing(Cursors(tmp_path / "events.db")) as cursors:
        assert cursors.get("mqtt") is None
        cursors.put("mqtt", "log", 3)
        cursors.put("kafka", "log", 9)
        cursors.put("mqtt", "log", 4)
    with contextlib.closing(Cursors(tmp_path / "events.db")) as cursors:
        assert (cursors.get("mqtt"), cursors.get("kafka")) == (("log", 4), ("log", 9))


def test_dead_letters_come_back_whole_and_once(tmp_path: Path) -> None:
    record = draft(zones=["yard"]) | {"sequence": 3, "id": "run-3"}
    with contextlib.closing(Cursors(tmp_path / "events.db")) as cursors:
        cursors.bury("mqtt", "log", record, "too large")
        cursors.bury("mqtt", "log", record, "too large still")
        assert cursors.dead_letters("mqtt") == [(record, "too large still")]
        assert cursors.dead_letters("kafka") == []


def test_threads_do_not_get_in_each_others_way(tmp_path: Path) -> None:
    def work(name: str) -> None:
        with contextlib.closing(Cursors(tmp_path / "events.db")) as cursors:
            for at in range(100):
                cursors.put(name, "log", at)

    threads = [threading.Thread(target=work, args=(f"sink-{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with contextlib.closing(Cursors(tmp_path / "events.db")) as cursors:
        assert [cursors.get(f"sink-{n}") for n in range(4)] == [("log", 99)] * 4


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    cursors_path(tmp_path / "events.db").mkdir()
    with pytest.raises(SinkError, match="cannot use"):
        Cursors(tmp_path / "events.db")
