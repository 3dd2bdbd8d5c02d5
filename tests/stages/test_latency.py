"""Percentiles from histograms: right to the width of a bucket, and merged without loss."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.stages.latency import Histogram, Latencies

MS = 1_000_000
durations = st.lists(st.integers(1000, 3_600_000 * MS), min_size=1, max_size=200)


@given(durations, st.sampled_from([1, 50, 95, 99, 100]))
@settings(deadline=None)
def test_percentiles_are_right_to_a_bucket(values: list[int], percent: int) -> None:
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    exact_ms = float(np.percentile(values, percent, method="inverted_cdf")) / MS
    assert histogram.percentile_ms(percent) == pytest.approx(exact_ms, rel=0.023, abs=0.001)
    assert histogram.total() == len(values)


@given(durations, durations)
@settings(deadline=None)
def test_merging_is_the_same_as_counting_together(one: list[int], two: list[int]) -> None:
    merged, together = Histogram(), Histogram()
    for values in (one, two):
        part = Histogram()
        for value in values:
            part.add(value)
            together.add(value)
        merged.merge(part.counts())
    assert merged.counts() == together.counts()


def test_nothing_and_the_extremes() -> None:
    histogram = Histogram()
    assert histogram.summary() == {"p50": 0.0, "p95": 0.0, "p99": 0.0}
    for value in (-5, 0, 1, 999):
        histogram.add(value)
    assert histogram.percentile_ms(100) == 0.001
    histogram.add(10**18)  # thirty years: the last bucket holds it
    assert histogram.total() == 5
    assert histogram.percentile_ms(100) > 3.6e6


def test_percentiles_do_not_fall() -> None:
    histogram = Histogram()
    for value in np.random.default_rng(0).integers(1000, 10**10, 500).tolist():
        histogram.add(value)
    found = [histogram.percentile_ms(percent) for percent in range(1, 101)]
    assert found == sorted(found)


def test_by_name_and_across_a_process_edge() -> None:
    one, two = Latencies(), Latencies()
    one.add("infer.service", 20 * MS)
    one.add("infer.service", 40 * MS)
    two.add("total", 70 * MS)
    carried = msgspec.msgpack.decode(msgspec.msgpack.encode(one.counts()))
    two.merge(carried)
    assert sorted(two.by_name) == ["infer.service", "total"]
    assert two.by_name["infer.service"].total() == 2
    assert two.by_name["infer.service"].percentile_ms(50) == pytest.approx(20, rel=0.023)
    assert two.by_name["infer.service"].percentile_ms(100) == pytest.approx(40, rel=0.023)
