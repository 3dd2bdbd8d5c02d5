"""Assignment with a gate, and similarities."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.tracking.association import assign, cosine_similarity


@pytest.mark.parametrize(
    ("similarity", "lowest", "pairs"),
    [
        pytest.param([[0.9, 0.0], [0.0, 0.8]], 0.1, [(0, 0), (1, 1)], id="nothing to decide"),
        pytest.param([[0.0, 0.7], [0.6, 0.0]], 0.1, [(0, 1), (1, 0)], id="crosswise"),
        pytest.param([[0.9, 0.8], [0.8, 0.1]], 0.1, [(0, 1), (1, 0)], id="the sum, not the best first"),
        pytest.param([[0.9, 0.3], [0.4, 0.0]], 0.2, [(0, 0)], id="one good pair before two poor ones"),
        pytest.param([[0.9, 0.8]], 0.1, [(0, 0)], id="one track, two objects"),
        pytest.param([[0.5], [0.6]], 0.1, [(1, 0)], id="two tracks, one object"),
        pytest.param([[0.3, 0.2]], 0.3, [], id="the bound itself is out"),
        pytest.param([[0.2, 0.2], [0.2, 0.9]], 0.5, [(1, 1)], id="the bound decides before the sum"),
        pytest.param([[0.0, 0.0]], 0.0, [], id="nothing in common"),
        pytest.param(
            [[0.9, 0.0, 0.0, 0.0], [0.0, 0.5, 0.6, 0.0], [0.0, 0.6, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]],
            0.1,
            [(0, 0), (1, 2), (2, 1)],
            id="one alone, two that compete, one with nothing",
        ),
    ],
)
def test_pairs(
    similarity: Sequence[Sequence[float]], lowest: float, pairs: Sequence[tuple[int, int]]
) -> None:
    rows, columns = assign(np.array(similarity), lowest)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == pairs


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_nothing(shape: tuple[int, int]) -> None:
    rows, columns = assign(np.zeros(shape), 0.1)
    assert (len(rows), len(columns)) == (0, 0)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 100_000))
def test_no_other_choice_adds_up_to_more(seed: int) -> None:
    rng = np.random.default_rng(seed)
    shape = tuple(int(n) for n in rng.integers(1, 6, 2))
    similarity = np.where(rng.random(shape) < 0.5, np.round(rng.random(shape), 1 + seed % 3), 0.0)
    lowest = float(rng.choice([0.0, 0.2, 0.5]))
    rows, columns = assign(similarity, lowest)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert len(set(columns.tolist())) == len(columns)
    assert (similarity[rows, columns] > lowest).all()
    allowed = np.where(similarity > lowest, similarity, 0.0)
    wide = allowed if shape[0] <= shape[1] else allowed.T
    best = max(
        sum(wide[i, j] for i, j in enumerate(order))
        for order in itertools.permutations(range(wide.shape[1]), wide.shape[0])
    )
    assert similarity[rows, columns].sum() == pytest.approx(best)


def test_cosine_of_the_unknown_is_nan() -> None:
    a = np.array([[1.0, 0.0], [0.0, 0.0]])
    b = np.array([[0.6, 0.8], [-1.0, 0.0], [0.0, 0.0]])
    cosine = cosine_similarity(a, b)
    np.testing.assert_allclose(cosine, [[0.6, -1.0, np.nan], [np.nan] * 3])
