"""The end of a run in numbers."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from pipeline.runtime.report import merge_latencies, summarise
from pipeline.stages.latency import Latencies
from pipeline.transport.journal import SourceState
from pipeline.transport.ledger import STATES, Ledger
from tests.helpers import SPEC, make_ledger

MS = 1_000_000


def summary(
    ledgers: dict[str, Ledger], said: dict[str, list[dict[str, Any]]] | None = None, **changes: Any
) -> Any:
    fields: dict[str, Any] = {
        "spec": SPEC, "seconds": 2.0, "restarts": {}, "run_id": "run", "extra_files": [],
    }  # fmt: skip
    made = summarise(ledgers=ledgers, summaries=said or {}, **(fields | changes))
    return json.loads(json.dumps(msgspec.to_builtins(made)))  # it becomes a file


def latencies(**durations_ms: int) -> dict[str, Any]:
    made = Latencies()
    for name, duration_ms in durations_ms.items():
        made.add(name.replace("_", "."), duration_ms * MS)
    return {"latency": made.counts()}


def test_the_books_of_each_source() -> None:
    gate = make_ledger(
        decoded=12, admitted=10, published=9, failed=1, dropped_superseded=2, lost_infer_died=1,
        state=STATES.index("ended"), decode_errors=3,
    )  # fmt: skip
    yard = make_ledger(decoded=3, admitted=3, published=3, state=STATES.index("failed"))
    yard.journal.write(SourceState("failed", "codec", "the file is cut"))
    made = summary(
        {"gate": gate, "yard": yard},
        restarts={"infer-0": 1},
    )
    assert made["sources"]["gate"] == {
        "decoded": 12, "admitted": 10, "published": 9, "dropped": {"superseded": 2},
        "lost": {"infer_died": 1}, "failed": 1, "decode_errors": 3, "fps": 4.5, "state": "ended",
    }  # fmt: skip
    told = made["sources"]["yard"]
    assert (told["state"], told["reason"], told["message"]) == ("failed", "codec", "the file is cut")
    assert made["books_balance"] is True
    assert made["restarts"] == {"infer-0": 1}
    assert made["model"] == {"name": "fake", "sha256": "", "family": "fake", "input": [64, 48]}
    assert (made["version"], made["run_id"], made["provider"], made["seconds"]) == (1, "run", "fake", 2.0)


@pytest.mark.parametrize("field", ["decoded", "admitted", "published"])
def test_books_that_do_not_balance_are_said_so(field: str) -> None:
    ledger = make_ledger(decoded=3, admitted=3, published=3)
    ledger[field] += 1
    assert summary({"gate": ledger})["books_balance"] is False


def test_all_incarnations_count() -> None:
    said = {
        "publish-0": [
            {
                "objects": {"car": 2},
                "files": ["a.jsonl"],
                **latencies(infer_service=20, infer_wait=5, total=40),
            },
            {
                "objects": {"car": 1, "person": 4},
                "files": ["a.jsonl", "b.mp4"],
                **latencies(infer_service=80),
            },
        ],
        "infer-0": [{"stale": 1}],
    }
    made = summary({"gate": make_ledger()}, said, extra_files=["summary.json"])
    assert made["objects"] == {"person": 4, "car": 3}
    assert made["files"] == ["a.jsonl", "b.mp4", "summary.json"]
    infer = made["latency_ms"]["infer"]
    assert infer["p50"] == pytest.approx(20, rel=0.03)
    assert infer["p99"] == pytest.approx(80, rel=0.03)
    assert infer["wait"]["p50"] == pytest.approx(5, rel=0.03)
    assert made["latency_ms"]["total"]["p50"] == pytest.approx(40, rel=0.03)
    assert merge_latencies(said).by_name["infer.service"].total() == 2


def test_a_run_that_never_began() -> None:
    made = summary({"gate": make_ledger()}, spec=None, seconds=0.0)
    assert (made["model"], made["provider"], made["latency_ms"], made["objects"]) == ({}, "", {}, {})
    assert made["sources"]["gate"]["fps"] == 0.0
    assert made["sources"]["gate"]["state"] == "connecting"
