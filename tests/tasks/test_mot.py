"""MOTChallenge files, and scores that are those of TrackEval."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.errors import ConfigError, SourceNotFoundError
from pipeline.tasks.mot import (
    detections_by_frame,
    find_sequences,
    read_rows,
    track_detections,
    write_rows,
)
from pipeline.tracking import build_tracker

pytest.importorskip("trackers.eval")

from pipeline.tasks.mot_plot import write_report
from pipeline.tasks.mot_scores import METRICS, score_mot


def sequence(folder: Path, truth: str, *, length: int = 4, name: str = "SEQ-1") -> Path:
    """A sequence as MOTChallenge lays it out."""
    (folder / name / "gt").mkdir(parents=True)
    (folder / name / "gt" / "gt.txt").write_text(truth)
    (folder / name / "seqinfo.ini").write_text(f"[Sequence]\nframeRate=10\nseqLength={length}\n")
    return folder


#: Two objects, each 10 x 20, that walk to the right for four frames.
WALK = "".join(f"{f},{i},{100 * i + 2 * f},50,10,20,1,-1,-1,-1\n" for f in range(1, 5) for i in (1, 2))


@pytest.mark.parametrize("group", ["MOT17-train/Lif_T", "MOT15-train/sample_tracker (TUD only)"])
def test_every_number_of_trackeval_comes_out_again(assets: Path, group: str) -> None:
    folder = assets / "mot"
    expected = json.loads((folder / "expected_metrics_trackeval.json").read_text())[group]
    modern = group.startswith("MOT17")
    sequences, results = {}, {}
    for run in expected:
        name = run.rsplit("-", 1)[0] if modern else run
        (sequences[run],) = find_sequences(folder / ("MOT17-train" if modern else "MOT15-train") / name)
        file = folder / "MOT17-train/_trackers/Lif_T" / f"{run}.txt"
        results[run] = read_rows(file if modern else sequences[run].folder / "sample_tracker" / "test.txt")
        assert sequences[run].distractors == modern
    _, scores = score_mot(sequences, results)
    for run, numbers in expected.items():
        assert set(numbers) == set(METRICS)
        for metric, number in numbers.items():
            assert scores[run].values[metric] == pytest.approx(number, abs=1e-6), (run, metric)


def test_perfect_results_and_a_switch(tmp_path: Path) -> None:
    sequences = {one.name: one for one in find_sequences(sequence(tmp_path, WALK))}
    rows = read_rows(tmp_path / "SEQ-1" / "gt" / "gt.txt")
    total, each = score_mot(sequences, {"SEQ-1": rows})
    assert [total.values[name] for name in ("HOTA", "MOTA", "IDF1", "IDSW")] == [1, 1, 1, 0]
    assert each["SEQ-1"].curves["HOTA"].shape == (19,)
    late = rows[:, 0] >= 3
    rows[late, 1] = 3 - rows[late, 1]  # the two are taken for each other
    total, _ = score_mot(sequences, {"SEQ-1": rows})
    assert [total.values[name] for name in ("IDSW", "FP", "FN")] == [2, 0, 0]
    assert total.values["IDF1"] == 0.5
    total, _ = score_mot(sequences, {"SEQ-1": rows[:0]})
    assert [total.values[name] for name in ("HOTA", "FN")] == [0, 8]


def test_results_on_distractors_count_neither_way(tmp_path: Path) -> None:
    """From MOT16 on: a static person (7) who is found is no error, one who is not is none either."""
    truth = "1,1,0,0,10,10,1,1,1.0\n1,2,50,50,10,10,1,7,1.0\n1,3,80,80,10,10,0,1,0.5\n"
    (one,) = find_sequences(sequence(tmp_path, truth, length=1))
    assert one.distractors
    found = read_rows(one.truth)
    for rows, false in ((found[:1], 0), (found[:2], 0), (found, 1)):
        total, _ = score_mot({"a": one}, {"a": rows})
        assert [total.values[name] for name in ("FN", "FP")] == [0, false], (
            "what is marked 0 is not looked for"
        )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("1,1,2,3,4\n", r"gt\.txt:1 is no row"),
        ("1,1,0,0,5,5,1,1,1\n\n2,x,0,0,5,5,1\n", r"gt\.txt:3 is no row"),
        ("0,1,0,0,5,5,1,1,1\n", r"gt\.txt:1 is no row"),
        ("1,1,nan,0,5,5,1,1,1\n", r"gt\.txt:1 is no row"),
    ],
)
def test_damaged_rows_are_named(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        find_sequences(sequence(tmp_path, content))


def test_folders_that_have_none(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="there is no sequence"):
        find_sequences(tmp_path)
    sequence(tmp_path, WALK)
    (tmp_path / "SEQ-1" / "seqinfo.ini").write_text("[Sequence]\nframeRate=10\n")
    with pytest.raises(ConfigError, match="how long"):
        find_sequences(tmp_path)
    (tmp_path / "SEQ-1" / "seqinfo.ini").unlink()
    with pytest.raises(SourceNotFoundError, match=r"seqinfo\.ini"):
        find_sequences(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: {}, "there is no result for a"),
        (lambda rows: {"a": np.vstack([rows, rows[:1]])}, "has an id twice in frame 1"),
        (lambda rows: {"a": rows + np.eye(1, 10) * 9}, "has a frame 13, the sequence 4"),
    ],
)
def test_a_wrong_result_is_no_score_of_zero(tmp_path: Path, change: Any, said: str) -> None:
    (one,) = find_sequences(sequence(tmp_path, WALK))
    with pytest.raises(ConfigError, match=said):
        score_mot({"a": one}, change(read_rows(one.truth)))


def test_detections_through_a_tracker_and_back(tmp_path: Path) -> None:
    sequence(tmp_path, WALK)
    rows = read_rows(tmp_path / "SEQ-1" / "gt" / "gt.txt")
    frames = detections_by_frame(rows, 4)
    assert [len(one) for one in frames] == [2] * 4
    found = track_detections(frames, 10.0, build_tracker("bytetrack", min_frames=1))
    write_rows(tmp_path / "out" / "a.txt", found)
    again = read_rows(tmp_path / "out" / "a.txt")
    np.testing.assert_allclose(again[:, :6], rows[:, :6])
    assert sorted(set(again[:, 1])) == [1, 2]


def test_the_report_stands_alone(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (one,) = find_sequences(sequence(tmp_path, WALK))
    rows = {"<b>": read_rows(one.truth)}
    scores = score_mot({"<b>": one}, rows)
    write_report(tmp_path / "r.html", {"bytetrack": scores}, {"bytetrack": rows})
    page = (tmp_path / "r.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "&lt;b&gt;" in page
    assert 'src="http' not in page
    assert "100.0" in page
