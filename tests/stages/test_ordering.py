"""In order again, exactly once each, whatever order they come in."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.stages.ordering import InOrder


@pytest.mark.parametrize(
    ("offered", "given_out"),
    [
        ([0, 1, 2], [[0], [1], [2]]),
        ([2, 1, 0], [[], [], [0, 1, 2]]),
        ([1, 1, 0, 0, 1], [[], [], [0, 1], [], []]),
        ([5], [[]]),
    ],
)
def test_what_comes_out_when(offered: list[int], given_out: list[list[int]]) -> None:
    order: InOrder[int] = InOrder()
    out = []
    for seq in offered:
        order.offer(seq, seq)
        out.append(list(order.ready()))
    assert out == given_out


def test_starts_where_it_is_told_to_and_knows_what_is_wanted() -> None:
    order: InOrder[str] = InOrder(7)
    assert not order.offer(6, "before")
    assert order.offer(8, "early")
    assert not order.offer(8, "again")
    assert (order.fresh(6), order.fresh(7), order.fresh(8), order.fresh(9)) == (False, True, False, True)
    assert len(order) == 1
    assert order.offer(7, "now")
    assert list(order.ready()) == ["now", "early"]
    assert (order.next_seq, len(order)) == (9, 0)
    assert not order.fresh(8)


@given(st.integers(0, 30), st.integers(0, 2**32), st.integers(1, 3))
def test_any_order_with_repeats_comes_out_once_each(count: int, seed: int, times: int) -> None:
    seqs = list(range(count)) * times
    random.Random(seed).shuffle(seqs)
    order: InOrder[int] = InOrder()
    out: list[int] = []
    for seq in seqs:
        order.offer(seq, seq)
        out += order.ready()
    assert out == list(range(count))
    assert len(order) == 0
