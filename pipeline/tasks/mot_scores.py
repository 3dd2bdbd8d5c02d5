"""HOTA, CLEAR and identity scores of tracks, by ``trackers.eval``, prepared as TrackEval prepares them.

- HOTA: Luiten et al., "HOTA: A Higher Order Metric for Evaluating Multi-Object Tracking", IJCV 129, 2021.
- MOTA, MOTP, FP, FN, IDSW, MT, ML, Frag: Bernardin and Stiefelhagen, "Evaluating Multiple Object Tracking
  Performance: The CLEAR MOT Metrics", 2008.
- IDF1, IDP, IDR: Ristani et al., "Performance Measures and a Data Set for Multi-Target, Multi-Camera
  Tracking", 2016.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError
from pipeline.tasks.mot import MotSequence, read_rows
from pipeline.vision.boxes import iou_matrix

__all__ = ["METRICS", "MotScores", "need_mot_scorer", "score_mot"]

Rows = NDArray[np.float64]
#: In the order in which they are shown; from FP on they are counts.
METRICS = (
    "HOTA", "DetA", "AssA", "LocA", "MOTA", "MOTP", "IDF1", "IDP", "IDR", "Rcll", "Prcn",
    "FP", "FN", "IDSW", "Frag", "MT", "ML",
)  # fmt: skip
_OTHER_NAMES = {"Rcll": "CLR_Re", "Prcn": "CLR_Pr", "FP": "CLR_FP", "FN": "CLR_FN"}
_PEDESTRIAN = 1
#: Person on a vehicle, static person, distractor, reflection: whoever finds them is neither right nor wrong.
_DISTRACTORS = (2, 7, 8, 12)
_SAME = 0.5


@dataclass(frozen=True, slots=True)
class MotScores:
    """Scores of one sequence, or of several together.

    Attributes:
        values: By the names of `METRICS`; shares of 1, and counts.
        curves: HOTA, DetA and AssA at the localisation thresholds 0.05, 0.1, … 0.95.
    """

    values: dict[str, float]
    curves: dict[str, NDArray[np.float64]]


def need_mot_scorer() -> ModuleType:
    """The module that scores: to be called before a tracker runs for long.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import trackers.eval
    except ImportError as error:
        raise ConfigError(
            "scoring tracks needs the package trackers, which is not installed",
            hint="pip install 'framewire[eval]'",
        ) from error
    module: ModuleType = trackers.eval
    return module


def score_mot(
    sequences: Mapping[str, MotSequence], results: Mapping[str, Rows]
) -> tuple[MotScores, dict[str, MotScores]]:
    """Score results against the truth of their sequences.

    Args:
        sequences: The sequences by a name each.
        results: Rows of `pipeline.tasks.mot` for each of them.

    Returns:
        The scores of all together, with each object counted once, and those of each.

    Raises:
        ConfigError: a sequence has no result, a result is of a frame that is not there, an id comes twice in
            a frame, or what scores is not installed.
    """
    judge = need_mot_scorer()
    raw: dict[str, tuple[dict[str, Any], ...]] = {}
    for name, sequence in sequences.items():
        if name not in results:
            raise ConfigError(
                f"there is no result for {name}", hint=f"a missing one is no score of 0: {name}.txt"
            )
        truth_ids, result_ids, similarities = _prepared(name, sequence, results[name])
        raw[name] = (
            judge.compute_hota_metrics(truth_ids, result_ids, similarities),
            judge.compute_clear_metrics(truth_ids, result_ids, similarities),
            judge.compute_identity_metrics(truth_ids, result_ids, similarities),
        )
    together = (
        judge.aggregate_hota_metrics([one[0] for one in raw.values()]),
        judge.aggregate_clear_metrics([one[1] for one in raw.values()]),
        judge.aggregate_identity_metrics([one[2] for one in raw.values()]),
    )
    return _scores(together), {name: _scores(one) for name, one in raw.items()}


def _scores(raw: tuple[dict[str, Any], ...]) -> MotScores:
    found = {name: value for part in raw for name, value in part.items()}
    values = {name: float(found[_OTHER_NAMES.get(name, name)]) for name in METRICS}
    hits, misses, extra = (
        np.asarray(raw[0][f"HOTA_{kind}_array"], np.float64) for kind in ("TP", "FN", "FP")
    )
    det_a = hits / np.maximum(1, hits + misses + extra)
    ass_a = np.asarray(raw[0]["AssA_array"], np.float64)
    curves = {"HOTA": np.sqrt(det_a * ass_a), "DetA": det_a, "AssA": ass_a}
    return MotScores(values, curves)


def _prepared(name: str, sequence: MotSequence, results: Rows) -> tuple[list[Any], list[Any], list[Any]]:
    """Ids and similarities frame by frame, without what counts neither way.

    The steps of TrackEval's MotChallenge2DBox: a result that matches a distractor best is left out, then all
    truth that is no pedestrian or is marked as not to be considered.
    """
    truth = read_rows(sequence.truth)
    last = int(max(results[:, 0].max(initial=0), 0))
    if last > sequence.length:
        raise ConfigError(
            f"the result for {name} has a frame {last}, the sequence {sequence.length}",
            hint="frames count from 1; check that it is of this sequence",
        )
    from scipy.optimize import linear_sum_assignment

    numbers: tuple[dict[int, int], dict[int, int]] = ({}, {})
    frames: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    for frame in range(1, sequence.length + 1):
        real, found = (rows[rows[:, 0] == frame] for rows in (truth, results))
        for kind, rows in (("truth", real), ("result", found)):
            if len(np.unique(rows[:, 1])) < len(rows):
                raise ConfigError(
                    f"the {kind} of {name} has an id twice in frame {frame}", hint="check the file"
                )
        similarity = iou_matrix(_corners(real), _corners(found)).astype(np.float64)
        if sequence.distractors:
            scores = np.where(similarity < _SAME - np.finfo(float).eps, 0.0, similarity)
            rows, columns = linear_sum_assignment(-scores)
            matched = scores[rows, columns] > np.finfo(float).eps
            away = columns[matched & np.isin(real[rows, 7], _DISTRACTORS)]
            found, similarity = np.delete(found, away, 0), np.delete(similarity, away, 1)
        counts = real[:, 6] != 0
        if sequence.distractors:
            counts &= real[:, 7] == _PEDESTRIAN
        real, similarity = real[counts], similarity[counts]
        for ids, rows, known in zip(frames, (real, found), numbers, strict=False):
            ids.append(np.array([known.setdefault(int(one), len(known)) for one in rows[:, 1]], np.intp))
        frames[2].append(similarity)
    return frames


def _corners(rows: Rows) -> Rows:
    return np.column_stack([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]])
