"""Zones, lines, snapshots and privacy through real processes; zones that change while the run goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipeline.runtime.run import Run
from tests.e2e.running import QUICK, config_for, execute, lines
from tests.e2e.scenes import Scene

HALF = {"polygon": [[0, 0], [0.5, 0], [0.5, 1], [0, 1]], "exit_s": 0}
MIDDLE = {"from": [0.5, 1], "to": [0.5, 0], "left": "west", "right": "east", "margin": 0}
SCENE = "synthetic://?frames=250&width=320&height=192&objects=3"


def drawn(**changes: Any) -> dict[str, Any]:
    return {"zones": {"s": {"half": HALF}}, "lines": {"s": {"door": MIDDLE}}} | changes


def of(events: list[dict[str, Any]], kind: str, track_id: int) -> list[dict[str, Any]]:
    return [e for e in events if e["type"] == kind and e.get("track_id") == track_id]


def flips(way: list[tuple[int, bool]]) -> list[tuple[int, bool]]:
    """Where it became the other."""
    return [now for before, now in pairwise(way) if now[1] != before[1]]


def test_what_objects_do_is_what_their_boxes_did(tmp_path: Path) -> None:
    out = tmp_path / "out"
    config = config_for(out, {"s": SCENE}, run={"snapshots": True, "heatmap": True}, **drawn())
    finished = execute(config)
    events, frames = lines(out / "events.jsonl"), lines(out / "detections.jsonl")
    assert [e["sequence"] for e in events] == list(range(len(events)))
    ways: dict[int, list[tuple[int, float]]] = {}
    for frame in frames:
        for one in frame["detections"]:
            if "track_id" in one:
                x1, _, x2, _ = one["box_normalized"]
                ways.setdefault(one["track_id"], []).append((frame["seq"], (x1 + x2) / 2))
    assert len(ways) >= 3
    crossed = 0
    for track_id, way in ways.items():
        told = [(e["seq"], e["direction"] == "west") for e in of(events, "line", track_id)]
        beside = flips([(seq, x < 0.5) for seq, x in way if abs(x - 0.5) > 1e-5])
        assert told == beside, "each crossing, in the frame in which it was over, to the right side"
        moves = [(e["seq"], e["action"] == "enter") for e in of(events, "zone", track_id)]
        inside = [(seq, x <= 0.5) for seq, x in way]
        first = [(inside[0][0], True)] if inside[0][1] else []
        last = [(moves[-1][0], False)] if moves and inside[-1][1] else []
        assert moves == [*first, *flips(inside), *last]
        crossed += len(beside)
        (end,) = of(events, "end", track_id)
        assert (out / end["snapshot"]).stat().st_size > 0
        assert end["object_id"].endswith(f"-s-{track_id}")
    assert crossed >= 3
    counts = finished.summary["sources"]["s"]["lines"]["door"]
    assert sum(counts.values()) == crossed
    assert (out / "heatmap.png").is_file()
    assert str(out / "snapshots") in finished.summary["files"]


def test_no_picture_shows_who_is_to_be_hidden(tmp_path: Path) -> None:
    """All that leaves the process: the video shows no colour of an object, the record has its boxes."""
    plain, out = tmp_path / "plain", tmp_path / "out"
    for folder, more in (
        (plain, {}),
        (out, {"privacy": {"labels": ["red", "green", "blue"], "mode": "fill"}}),
    ):
        execute(config_for(folder, {"s": SCENE.replace("250", "25")}, run={"annotate": True}, **more))

    def colours(path: Path) -> float:
        with av.open(str(path)) as container:
            pictures = [frame.to_ndarray(format="bgr24").astype(int) for frame in container.decode(video=0)]
        inside = []
        for picture, frame in zip(pictures, lines(path.parent / "detections.jsonl"), strict=True):
            for one in frame["detections"]:
                x1, y1, x2, y2 = (int(side) for side in one["box_xyxy"])
                y, x = (y1 + y2) // 2, (x1 + x2) // 2
                middle = picture[y - 2 : y + 2, x - 2 : x + 2]
                inside.append(float(np.ptp(middle.mean(axis=(0, 1)))))
        assert inside
        return float(np.mean(inside))

    assert colours(plain / "annotated.mp4") > 60
    assert colours(out / "annotated.mp4") < 20


def test_zones_change_while_the_run_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    source = {"s": {"url": SCENE.replace("250", "0"), "realtime": True}}
    wanted = [config_for(out, source, **drawn())]

    def events() -> list[dict[str, Any]]:
        return lines(out / "events.jsonl") if (out / "events.jsonl").exists() else []

    def entered(zone: str) -> Callable[[], bool]:
        return lambda: any(e["type"] == "zone" and e["zone"] == zone for e in events())

    def play(run: Run) -> Iterator[tuple[str, Callable[[], bool]]]:
        yield "half", entered("half")
        whole = {"polygon": [[0, 0], [1, 0], [1, 1], [0, 1]]}
        wanted.append(config_for(out, source, **drawn(zones={"s": {"whole": whole}})))
        run.reload()
        yield "whole", entered("whole")

    scene = Scene(play)
    run = Run(wanted[0], tick=scene, reread=lambda: wanted[-1], restart=QUICK)
    finished = run.execute()
    assert not scene.failed
    told = events()
    assert {e["epoch"] for e in told if e["type"] == "start"} == {0}, "the source was not read anew"
    assert finished.summary["restarts"] == {}
    half, whole = (
        [e for e in told if e["type"] == "zone" and e["zone"] == zone] for zone in ("half", "whole")
    )
    first = whole[0]["seq"]
    before = {e["track_id"] for e in told if e["type"] == "start" and e["seq"] < first}
    assert before & {e["track_id"] for e in whole if e["action"] == "enter"}, "the same ids, in the new zone"
    assert all(e["action"] == "exit" for e in half if e.get("reason") == "scene")
    assert all(e["seq"] <= first for e in half)
