"""Which classes are there, frame by frame."""

from __future__ import annotations

import pytest

from pipeline.errors import ConfigError
from pipeline.messages import Detections
from pipeline.tracking.presence import ClassPresence


def frame(*class_ids: int) -> Detections:
    return Detections([[0, 0, 10, 10]] * len(class_ids), [0.9] * len(class_ids), class_ids)


def test_a_class_keeps_its_id_while_it_stays() -> None:
    tracker = ClassPresence(first_id=4, lost_s=1.0)
    seen = [
        (0.0, (2,)), (0.5, (2, 9)), (1.0, ()), (1.5, (9, 2)), (2.6, (2,)), (2.7, (9,)),
    ]  # fmt: skip
    ids = []
    for time_s, class_ids in seen:
        found = tracker.update(frame(*class_ids), time_s).track_ids
        assert found is not None
        ids.append(found.tolist())
    assert ids == [[4], [4, 5], [], [5, 4], [6], [7]]
    assert tracker.next_id == 8


def test_a_reset_forgets_but_never_gives_an_id_twice() -> None:
    tracker = ClassPresence()
    tracker.update(frame(0), 0.0)
    tracker.reset()
    found = tracker.update(frame(0), 0.1).track_ids
    assert found is not None
    assert found.tolist() == [2]


def test_a_bad_time_is_refused() -> None:
    with pytest.raises(ConfigError, match="lost_s"):
        ClassPresence(lost_s=float("nan"))
