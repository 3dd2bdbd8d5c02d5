"""A camera that is lost and comes back, through whole pipelines in one thread."""

from __future__ import annotations

import itertools

import pytest

from pipeline.errors import SourceLostError
from pipeline.messages import Frame
from pipeline.runtime.control import PeerDied, Stop
from tests.runtime.test_worker_lines import Line
from tests.sources.live.scripted import Step
from tests.stages.rig import Rig
from tests.stages.stepwise import read_stepwise, scripted

LOST = SourceLostError("the camera closed the connection", reason="network")
#: Three pictures are read at each look and the newest is kept, so each epoch below gives a frame or two.
CAMERA: tuple[list[Step], ...] = (
    [*[(0.04 * n, 0) for n in range(6)], LOST],
    [LOST],
    [*[(0.04 * n, 0) for n in range(6)], *[(0.24 + 0.04 * n, 1) for n in range(6)], None],
)


@pytest.fixture(autouse=True)
def _stepwise(monkeypatch: pytest.MonkeyPatch) -> None:
    read_stepwise(monkeypatch)


def line_of(*cuts: int) -> Line:
    made = Line(Rig(scripted(*CAMERA), slots=4), *cuts)  # type: ignore[arg-type]
    for worker in made.workers:
        worker._next_tick = 0.0
    return made


def run(line: Line) -> None:
    """To the end; every step looks around, as a fifth of a second passes between any two in real life."""
    for _ in range(300):
        for worker in line.workers:
            worker._next_tick = 0.0
            worker.step()
        if line.capture.finished:
            return
    raise AssertionError("it does not come to an end")


def story(line: Line) -> list[str]:
    found = []
    for item in line.sink.items:
        if item.header is not None:
            found.append(f"frame {item.header.seq}@{item.header.epoch}")
        found += [event["state"] for event in item.events if event["type"] == "source"]
    return found


@pytest.mark.parametrize("cuts", [(), (1,), (0, 1, 2, 3), (0, 2)])
def test_frames_and_states_come_out_in_the_order_in_which_they_happened(cuts: tuple[int, ...]) -> None:
    line = line_of(*cuts)
    run(line)
    found = story(line)
    assert [word for word in found if not word.startswith("frame")] == [
        "connecting", "running", "reconnecting", "running", "ended",
    ]  # fmt: skip
    assert found[:2] == ["connecting", "running"]
    lost = found.index("reconnecting")
    assert all(word.endswith("@0") for word in found[2:lost])
    epochs = [int(word[-1]) for word in found[lost:] if word.startswith("frame")]
    assert epochs == sorted(epochs)
    assert set(epochs) <= {0, 1, 2}
    assert epochs[-1] == 2, "the second connection, and a change of size in it"
    ledger = line.rig.ledger
    assert ledger.balanced()
    assert ledger["decoded"] == 18
    assert [e["sequence"] for e in line.sink.events] == list(range(len(line.sink.events)))
    seqs = line.sink.seqs
    assert seqs == list(range(ledger["admitted"]))
    assert line.rig.attach_pool(1).free() == 4, "every lease is home"


def test_objects_end_with_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    line = line_of()
    run(line)
    kinds = [(e["type"], e.get("reason"), e.get("state")) for e in line.sink.events]
    opened = [e["track_id"] for e in line.sink.events if e["type"] == "start"]
    closed = [e["track_id"] for e in line.sink.events if e["type"] == "end"]
    assert sorted(opened) == sorted(closed), f"each that was begun is ended once: {kinds}"
    assert len(set(opened)) == len(opened)


@pytest.mark.parametrize("at", range(1, 12))
def test_a_death_behind_a_camera_loses_frames_and_no_state(at: int) -> None:
    line = line_of(0, 1, 2, 3)
    for _ in range(at):
        for worker in line.workers:
            worker._next_tick = 0.0
            worker.step()
    line.workers[0].obey(PeerDied("infer-0", "infer_died"))
    run(line)
    assert line.rig.ledger.balanced()
    assert [word for word in story(line) if not word.startswith("frame")] == [
        "connecting", "running", "reconnecting", "running", "ended",
    ]  # fmt: skip
    numbers = [e["sequence"] for e in line.sink.events]
    assert all(b == a + 1 for a, b in itertools.pairwise(numbers))


def test_a_camera_that_is_stopped_ends() -> None:
    line = line_of()
    line.workers[0].step()
    line.workers[0].obey(Stop("removed"))
    run(line)
    last = line.sink.events[-1]
    assert (last["state"], last["reason"]) == ("ended", "removed")
    assert line.rig.ledger.balanced()
    assert not any(isinstance(message, Frame) for message in (line.capture.receive(),))
