"""What the metrics of a run say, family by family."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from pipeline import __version__
from pipeline.messages import State
from pipeline.runtime.metrics import BOUNDS_S, View, families
from pipeline.stages.latency import Latencies
from pipeline.transport.journal import SourceState
from pipeline.transport.ledger import DROP_CAUSES, LOST_CAUSES, STATES, Ledger
from tests.helpers import SPEC, make_ledger

MS = 1_000_000
Labels = dict[str, str]


class Fixed(Collector):
    def __init__(self, found: list[Metric]) -> None:
        self.found = found

    def collect(self) -> list[Metric]:
        return self.found


def page(view: View) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Fixed(list(families(view))))
    return generate_latest(registry).decode()


def values(view: View, name: str) -> list[tuple[Labels, float]]:
    """Labels and values of one sample name, read back from the text."""
    samples = (s for family in text_string_to_metric_families(page(view)) for s in family.samples)
    return [(sample.labels, sample.value) for sample in samples if sample.name == name]


def value(view: View, name: str, **labels: str) -> float:
    found = [number for given, number in values(view, name) if labels.items() <= given.items()]
    assert len(found) == 1, f"{name}{labels}: {found}"
    return found[0]


def said(**durations_ms: list[float]) -> dict[str, list[dict[str, Any]]]:
    made = Latencies()
    for name, durations in durations_ms.items():
        for duration in durations:
            made.add(name.replace("_", ".").replace("AT", "@"), int(duration * MS))
    return {"publish-0": [{"latency": made.counts(), "objects": {"car": 1}}]}


@pytest.mark.parametrize(
    ("metric", "field"),
    [
        ("framewire_frames_decoded_total", "decoded"),
        ("framewire_frames_admitted_total", "admitted"),
        ("framewire_frames_published_total", "published"),
        ("framewire_frames_failed_total", "failed"),
        ("framewire_frames_skipped_total", "skipped"),
        ("framewire_decode_errors_total", "decode_errors"),
    ],
)
def test_each_counter_is_a_field_of_the_books(metric: str, field: str) -> None:
    view = View({"gate": make_ledger(**{field: 7}), "yard": make_ledger()})
    assert values(view, metric) == [({"source": "gate"}, 7), ({"source": "yard"}, 0)]


def test_drops_and_losses_by_cause_from_zero_on() -> None:
    ledger = make_ledger(
        decoded=20, admitted=12, published=9, dropped_stale=3, dropped_gated=5, lost_stopped=1
    )
    view = View({"gate": ledger})
    dropped = {labels["cause"]: n for labels, n in values(view, "framewire_frames_dropped_total")}
    assert dropped == dict.fromkeys(DROP_CAUSES, 0.0) | {"stale": 3, "gated": 5}
    lost = {labels["cause"]: n for labels, n in values(view, "framewire_frames_lost_total")}
    assert lost == dict.fromkeys(LOST_CAUSES, 0.0) | {"stopped": 1}
    assert value(view, "framewire_in_flight_frames", source="gate") == 2


class Moving(Ledger):
    """Books in which a frame is admitted and published before each look."""

    def __getitem__(self, field: str) -> int:
        if field in ("decoded", "admitted", "published"):
            for name in ("decoded", "admitted", "published"):
                self[name] = super().__getitem__(name) + 1
        return super().__getitem__(field)


def test_books_read_while_they_are_written_never_show_more_out_than_in() -> None:
    view = View({"gate": Moving.named(f"fwtest-moving-{os.getpid()}", create=True)})
    text = page(view)
    found = {
        name: float(re.search(rf"^framewire_frames_{name}_total.* (\S+)$", text, re.MULTILINE)[1])  # type: ignore[index]
        for name in ("published", "admitted", "decoded")
    }
    assert found["published"] <= found["admitted"] <= found["decoded"]


@pytest.mark.parametrize("state", STATES)
def test_one_state_is_1_and_the_others_0(state: State) -> None:
    view = View({"gate": make_ledger(state=STATES.index(state))})
    found = {labels["state"]: number for labels, number in values(view, "framewire_source_state")}
    assert found == {name: float(name == state) for name in STATES}


def test_what_is_known_of_a_live_source_only() -> None:
    live = make_ledger(
        live=1, heard_ns=time.monotonic_ns() - 3000 * MS, clocked=1, clock_offset_us=-1500, drift_ppb=25_000
    )
    live.journal.write(SourceState("connecting"))
    live.journal.write(SourceState("running"))
    view = View({"gate": live, "film": make_ledger()})
    assert value(view, "framewire_source_state_changes_total", source="gate") == 2
    assert 3 <= value(view, "framewire_source_silence_seconds", source="gate") < 60
    assert values(view, "framewire_source_clock_offset_seconds") == [({"source": "gate"}, -0.0015)]
    assert values(view, "framewire_source_clock_drift_ratio") == [({"source": "gate"}, 25e-6)]
    assert [labels for labels, _ in values(view, "framewire_source_silence_seconds")] == [{"source": "gate"}]


def test_latency_is_a_histogram_by_stage_and_kind() -> None:
    view = View({}, said(infer_wait=[0.5], infer_service=[4.0, 15.0, 40.0, 20_000.0], total=[50.0]))
    name = "framewire_latency_seconds"
    at = {"stage": "infer", "kind": "service"}
    below = {labels["le"]: n for labels, n in values(view, f"{name}_bucket") if at.items() <= labels.items()}
    assert [*below] == [*(str(bound) for bound in BOUNDS_S), "+Inf"]
    assert (below["0.002"], below["0.005"], below["0.02"], below["0.05"], below["10.0"]) == (0, 1, 2, 3, 3)
    assert below["+Inf"] == value(view, f"{name}_count", **at) == 4
    assert value(view, f"{name}_sum", **at) == pytest.approx(20.059, rel=0.011)
    assert value(view, f"{name}_bucket", stage="infer", kind="wait", le="0.001") == 1
    assert {labels["stage"] for labels, _ in values(view, f"{name}_count")} == {"infer"}


def test_latency_of_each_source_and_of_all_incarnations_together() -> None:
    first, second = (
        said(totalATgate=[50.0])["publish-0"],
        said(totalATgate=[70.0], totalATyard=[2.0])["publish-0"],
    )
    view = View({}, {"publish-0": [*first, *second, {}]})
    found = {labels["source"]: n for labels, n in values(view, "framewire_frame_latency_seconds_count")}
    assert found == {"gate": 2, "yard": 1}
    assert value(view, "framewire_frame_latency_seconds_sum", source="gate") == pytest.approx(0.12, rel=0.011)


@given(st.lists(st.integers(1000, 40_000 * MS), min_size=1, max_size=60))
def test_every_duration_is_below_the_bounds_above_it(durations_ns: list[int]) -> None:
    made = Latencies()
    for duration_ns in durations_ns:
        made.add("infer.service", duration_ns)
    view = View({}, {"publish-0": [{"latency": made.counts()}]})
    at: Labels = {"stage": "infer", "kind": "service"}
    assert value(view, "framewire_latency_seconds_sum", **at) == pytest.approx(
        sum(durations_ns) / 1e9, rel=0.012
    )
    for labels, count in values(view, "framewire_latency_seconds_bucket"):
        bound_ns = math.inf if labels["le"] == "+Inf" else float(labels["le"]) * 1e9
        assert sum(d <= bound_ns / 1.012 for d in durations_ns) <= count
        assert count <= sum(d <= bound_ns * 1.012 for d in durations_ns)


def test_workers() -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as gone:
        gone.wait()
    view = View({}, restarts={"capture": 2, "infer": 0}, pids={"capture": os.getpid(), "infer": gone.pid})
    assert values(view, "framewire_worker_restarts_total") == [
        ({"worker": "capture"}, 2),
        ({"worker": "infer"}, 0),
    ]
    memory, cpu = "framewire_worker_resident_memory_bytes", "framewire_worker_cpu_seconds_total"
    assert [labels["worker"] for labels, _ in values(view, memory)] == ["capture"]
    assert 2**20 < value(view, memory, worker="capture") < 2**40
    assert 0 < value(view, cpu, worker="capture") <= time.process_time() + 0.02


def test_build() -> None:
    assert values(View({}), "framewire_build_info") == [
        ({"version": __version__, "model": "", "provider": ""}, 1)
    ]
    assert values(View({}, spec=SPEC), "framewire_build_info")[0][0]["provider"] == "fake"


def test_a_name_is_escaped() -> None:
    name = 'the "gate"\n\\back'
    assert value(View({name: make_ledger(decoded=1)}), "framewire_frames_decoded_total", source=name) == 1


def full_view() -> View:
    ledger = make_ledger(heard_ns=1, clocked=1)
    publisher = {
        "event_log": dict.fromkeys(("next", "oldest", "bytes", "degraded", "pending", "dropped"), 1),
        "sinks": {
            "mqtt": dict.fromkeys(
                ("delivered", "retries", "dead_letters", "missed", "behind", "connected"), 1
            ),
            "zmq": dict.fromkeys(("replays", "malformed", "accepted", "refused"), 1),
        },
    }
    summaries = {**said(infer_wait=[1], totalATgate=[2]), "publish": [publisher]}
    return View({"gate": ledger}, summaries, {"a": 0}, {"a": os.getpid()}, SPEC)


def test_every_family_has_help_and_a_name_with_its_unit() -> None:
    for family in families(full_view()):
        assert family.documentation.endswith(".")
        assert family.samples, family.name
        exposed = family.name + ("_total" if family.type == "counter" else "")
        assert re.fullmatch(
            r"framewire_[a-z_]+_(total|seconds|bytes|frames|ratio|info|state|events|sequence|connected|degraded)",
            exposed,
        ), exposed


def test_what_sinks_say_is_added_up_over_incarnations_and_of_the_rest_the_last_word_counts() -> None:
    summaries: dict[str, list[dict[str, Any]]] = {
        "publish-0": [
            {"sinks": {"mqtt": {"delivered": 3, "behind": 9}}, "event_log": {"next": 5, "dropped": 2}},
            {"sinks": {"mqtt": {"delivered": 4, "behind": 1}}, "event_log": {"next": 8, "dropped": 0}},
        ]
    }
    view = View({}, summaries)
    assert value(view, "framewire_sink_delivered_total", sink="mqtt") == 7
    assert value(view, "framewire_sink_behind_events", sink="mqtt") == 1
    assert value(view, "framewire_event_log_next_sequence") == 8
    assert value(view, "framewire_event_log_dropped_total") == 2


def test_the_guide_lists_exactly_these() -> None:
    guide = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text("utf-8")
    rows = re.findall(r"^\| `(framewire_\w+)` \| (\w+) \| (.*?) \|", guide, re.MULTILINE)
    listed = {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    told = {
        family.name + ("_total" if family.type == "counter" else ""): (
            family.type,
            set(family.samples[0].labels) - {"le"},
        )
        for family in families(full_view())
    }
    assert listed == told
    for cause in (*DROP_CAUSES, *LOST_CAUSES, *STATES):
        assert f"`{cause}`" in guide
