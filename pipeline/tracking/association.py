"""Which box belongs to which track: similarities, gates and the best assignment."""

from __future__ import annotations

from typing import Any

import numpy as np
from lap import lapjvc
from numpy.typing import NDArray

__all__ = ["Pairs", "assign", "cosine_similarity"]

Floats = NDArray[np.float64]
#: Rows and columns of a matrix that belong together, int64 (k,) each.
Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


def assign(similarity: Floats, lowest: float) -> Pairs:
    """One column for each row, so that the similarities of all pairs add up to the most.

    Only pairs above ``lowest`` count. Most tracks meet only one object and most objects only one track: such
    pairs are the answer already, and only the rest, where several compete, is solved as an assignment problem
    (Jonker and Volgenant, "A shortest augmenting path algorithm for dense and sparse linear assignment
    problems", Computing 38, 1987; from the package ``lapx``).

    Args:
        similarity: float64 (n, m), finite; more is likelier.
        lowest: Bound of the similarity, exclusive, 0 or more.

    Returns:
        Rows and columns of the pairs, by ascending row.
    """
    possible = similarity > lowest
    rows, columns = possible.nonzero()
    if len(rows) < 2:
        return rows, columns
    contested = np.bincount(rows)[rows] > 1
    contested |= np.bincount(columns)[columns] > 1
    if not contested.any():
        return rows, columns
    # A row or column of an uncontested pair is in no other pair, so the others can be cut out.
    some_rows, some_columns = np.unique(rows[contested]), np.unique(columns[contested])
    corner = similarity[some_rows[:, None], some_columns]
    corner[corner <= lowest] = 0.0
    best_rows, best_columns = lapjvc(-corner, return_cost=False)
    chosen = corner[best_rows, best_columns] > 0.0
    rows = np.concatenate([rows[~contested], some_rows[best_rows[chosen]]])
    columns = np.concatenate([columns[~contested], some_columns[best_columns[chosen]]])
    order = rows.argsort()
    return rows[order], columns[order]


def cosine_similarity(a: NDArray[Any], b: NDArray[Any]) -> Floats:
    """Cosine of every row of ``a`` with every row of ``b``, both of length 1 or 0.

    Args:
        a: (n, d).
        b: (m, d).

    Returns:
        float64 (n, m), -1..1; NaN where either row is of zeros, for nothing is known there.
    """
    cosine = np.asarray(a @ b.T, np.float64)
    np.clip(cosine, -1.0, 1.0, out=cosine)
    cosine[~a.any(axis=1)] = np.nan
    cosine[:, ~b.any(axis=1)] = np.nan
    return cosine
