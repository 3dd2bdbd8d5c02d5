"""publish killed at any point: every frame, event and change of state reaches the files once, numbered so."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PosixPath
from typing import Any

import pytest

from pipeline.eventlog.log import EventLog
from pipeline.messages import EndOfStream, Message, Result, State
from pipeline.sinks.base import Publication, Sink
from pipeline.sinks.jsonl import JsonlSink
from pipeline.transport.ledger import Ledger
from tests.helpers import (
    Fuse,
    FusedLedger,
    KilledError,
    ListSink,
    make_event,
    make_header,
    make_result,
    unique,
)
from tests.stages.desk import Desk, end, say


@dataclass(frozen=True)
class Said:
    """A change of state that capture journals; told by the next tick."""

    state: State
    reason: str = ""
    at: float = 0.0
    seq: int = 0


def result(seq: int, *events: Any, epoch: int = 0, **changes: Any) -> Result:
    return make_result(header=make_header(seq, epoch=epoch), events=events, **changes)


#: What postprocess and capture say of one camera: it is lost once, and stalls once.
STORY: list[Message | Said] = [
    Said("connecting", at=1),
    Said("running", at=2),
    result(0),
    result(1, make_event("start", 1, seq=1), make_event("start", 2, seq=1)),
    result(2, status="failed", lost="infer_died", reason="infer died"),
    result(3, make_event("end", 2, seq=3), make_event("start", 3, seq=3)),
    Said("reconnecting", "network", at=3, seq=4),
    Said("running", at=4, seq=4),
    # Its tracker ends what publish has ended already, and begins anew.
    result(
        4,
        make_event("end", 1, seq=4, reason="epoch_changed"),
        make_event("end", 3, seq=4, reason="epoch_changed"),
        make_event("start", 4, seq=4, epoch=1),
        epoch=1,
    ),
    result(5, status="failed", reason="infer: refused", epoch=1),
    Said("stalled", "timeout", at=5, seq=6),
    Said("running", at=6, seq=6),
    result(6, make_event("update", 4, seq=6, epoch=1), epoch=1),
    result(7, make_event("start", 5, seq=7, epoch=1), make_event("end", 4, seq=7, epoch=1), epoch=1),
    end(8, events=(make_event("end", 5, seq=7, epoch=1, reason="end_of_file"),)),
]
FRAMES = 8
EVENTS = [
    ("connecting", 0, ""), ("running", 0, ""), ("start", 1, ""), ("start", 2, ""), ("end", 2, ""),
    ("start", 3, ""), ("end", 1, "source_lost"), ("end", 3, "source_lost"), ("reconnecting", 0, "network"),
    ("running", 0, ""), ("start", 4, ""), ("stalled", 0, "timeout"), ("running", 0, ""), ("update", 4, ""),
    ("start", 5, ""), ("end", 4, ""), ("end", 5, "end_of_file"), ("ended", 0, "end_of_file"),
]  # fmt: skip


class FusedSink(JsonlSink):
    """A real file whose writer may be killed before and after each write."""

    fuse = Fuse()

    def write(self, item: Publication) -> None:
        self.fuse.burn()
        super().write(item)
        self.fuse.burn()


class FusedPath(PosixPath):
    """The file of open objects; its writer may be killed before and after it takes its name."""

    fuse = Fuse()

    def replace(self, target: Any) -> Any:
        self.fuse.burn()
        replaced = super().replace(target)
        self.fuse.burn()
        return replaced


class FusedLog(EventLog):
    """The event log; its writer may be killed before and after each commit."""

    fuse = Fuse()

    def commit(self, *args: Any) -> tuple[dict[str, Any], ...] | None:
        self.fuse.burn()
        committed = super().commit(*args)
        self.fuse.burn()
        return committed


class Story:
    """Publishes the story; a restarted publish gets again what the books do not show as published.

    Args:
        folder: Where the files go.
        fuse: When publish is killed.
        meanwhile: While publish is down, capture goes on and journals what comes next.
    """

    def __init__(self, folder: Path, fuse: Fuse, *, meanwhile: bool = False) -> None:
        folder.mkdir()
        self.folder, self.fuse = folder, fuse
        self.meanwhile = meanwhile
        ledger = FusedLedger.named(unique("books"), create=True)
        assert isinstance(ledger, FusedLedger)
        ledger["admitted"] = ledger["decoded"] = FRAMES
        ledger.fuse = fuse
        self.ledger: Ledger = ledger
        self.said = 0
        self.desk = self._start(resume=False)
        for at in range(len(STORY)):
            try:
                self._play(at)
            except KilledError:
                self._restart(at)
        self.desk.stage.close()

    def _start(self, *, resume: bool) -> Desk:
        sinks: list[Sink] = []
        for what in ("detections", "events"):
            sink = FusedSink(self.folder / f"{what}.jsonl", what, resume=resume)
            sink.fuse = self.fuse
            sinks.append(sink)
        FusedPath.fuse = self.fuse
        FusedLog.fuse = self.fuse
        return Desk(
            *sinks, ledgers={"gate": self.ledger}, open_objects=FusedPath(self.folder / "open"),
            log=self.folder / "events.db", log_class=FusedLog,
        )  # fmt: skip

    def _restart(self, at: int) -> None:
        self.desk.kill()
        for sink in self.desk.sinks:
            sink.close()
        if self.meanwhile:
            for later in range(at + 1, len(STORY)):
                if isinstance(STORY[later], Said):
                    self._say(later)
                    break
        self.desk = self._start(resume=True)
        self.desk.stage.tick()
        for item in STORY[: at + 1]:
            if not isinstance(item, Said) and _seq(item) >= self.ledger["next_publish"]:
                self.desk.give(item)

    def _play(self, at: int) -> None:
        item = STORY[at]
        if isinstance(item, Said):
            self._say(at)
            self.desk.stage.tick()
        else:
            self.desk.give(item)

    def _say(self, at: int) -> None:
        item = STORY[at]
        assert isinstance(item, Said)
        if at >= self.said:
            say(self.ledger, item.state, item.reason, seq=item.seq, at=item.at, late=True)
            self.said = at + 1

    def lines(self, what: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / f"{what}.jsonl").read_text().splitlines()]


def _seq(message: Message) -> int:
    assert isinstance(message, Result | EndOfStream)
    return message.seq if isinstance(message, EndOfStream) else message.header.seq


def keys(events: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(e.get("state") or e["type"], e.get("track_id", 0), e.get("reason", "")) for e in events]


@pytest.mark.parametrize("meanwhile", [False, True], ids=["camera waits", "camera goes on"])
def test_killed_at_any_point_every_frame_and_event_is_published_once(tmp_path: Path, meanwhile: bool) -> None:
    whole = Fuse()
    assert keys(Story(tmp_path / "whole", whole).lines("events")) == EVENTS
    assert whole.passed > 150
    wrong: dict[str, list[str]] = {"frames": [], "events": [], "numbers": [], "books": []}
    for point in range(whole.passed):
        story = Story(tmp_path / str(point), Fuse(point), meanwhile=meanwhile)
        ledger, events = story.ledger, story.lines("events")
        if [r["seq"] for r in story.lines("detections")] != list(range(FRAMES)):
            wrong["frames"].append(f"{point}: {[r['seq'] for r in story.lines('detections')]}")
        # An object that was open is interrupted by nothing here: postprocess was not killed.
        found, expected = keys(events), list(EVENTS)
        if meanwhile:  # A change of state may come before a frame that has to be sent again.
            found.sort(), expected.sort()
        if found != expected:
            wrong["events"].append(f"{point}: {found}")
        if [e["sequence"] for e in events] != list(range(len(EVENTS))):
            wrong["numbers"].append(f"{point}: {[e['sequence'] for e in events]}")
        if not ledger.balanced() or (ledger["published"], ledger.lost()) != (FRAMES - 1, {"infer_died": 1}):
            wrong["books"].append(f"{point}: published {ledger['published']}, lost {ledger.lost()}")
    assert wrong == {"frames": [], "events": [], "numbers": [], "books": []}


class DiesInAccount(Ledger):
    """Books whose publisher is killed when all sinks have frame 1, and the books do not."""

    def __setitem__(self, field: str, value: int) -> None:
        if (field, value) == ("published", 2) and not self["failed"]:
            super().__setitem__("failed", 1)  # Once.
            raise KilledError
        super().__setitem__(field, value)


def test_publish_and_postprocess_killed_within_the_same_frame(tmp_path: Path) -> None:
    """The sinks have frame 1, the books do not; it comes again from a tracker that knows nothing."""
    ledger = DiesInAccount.named(unique("books"), create=True)
    say(ledger, "running", late=True)
    first, second = ListSink(), ListSink()
    path = tmp_path / "open"
    before = Desk(first, ledgers={"gate": ledger}, open_objects=path, log=tmp_path / "log")
    with pytest.raises(KilledError):
        before.give(result(0, make_event("start", 1)), result(1, make_event("start", 2, seq=1)))
    assert ledger["next_publish"] == 1
    before.kill()
    after = Desk(second, ledgers={"gate": ledger}, open_objects=path, log=tmp_path / "log")
    after.give(result(1, make_event("start", 3, seq=1), resumed=True), result(2, make_event("end", 3, seq=2)))
    assert keys(second.events) == [
        ("end", 1, "interrupted"), ("end", 2, "interrupted"), ("start", 3, ""), ("end", 3, ""),
    ]  # fmt: skip
    assert [e["sequence"] for e in (*first.events, *second.events)] == list(range(7))
