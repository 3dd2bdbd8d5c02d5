"""Whole runs of real processes: placements, links, replicas, freshness, several sources, failing frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.client import Subscriber
from pipeline.sources.synthetic import SyntheticSource
from pipeline.vision.boxes import iou_matrix
from tests.e2e.running import (
    assert_each_frame_once,
    config_for,
    execute,
    free_port,
    lines,
    make_clip,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

FRAMES = 60
SCENE = f"synthetic://?frames={FRAMES}&width=320&height=192&objects=3&seed=5"


def detections(out: Path, source: str = "scene") -> list[list[dict[str, Any]]]:
    """Detections of each frame, ids and all."""
    return [r["detections"] for r in assert_each_frame_once(out, source, FRAMES)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Any]]]:
    """What five processes over ipc find in the scene."""
    out = tmp_path_factory.mktemp("plain")
    assert execute(config_for(out, {"scene": SCENE})).exit_code == 0
    return detections(out)


def test_the_pipeline_finds_what_is_there(plain: list[list[dict[str, Any]]]) -> None:
    scene = SyntheticSource("scene", SCENE, pixels="fast")
    for index, found in enumerate(plain):
        truth, class_ids, _ = scene.truth(index)
        assert len(found) <= len(truth)
        iou = iou_matrix(np.array([d["box_xyxy"] for d in found]).reshape(-1, 4), truth)
        best = iou.argmax(axis=1)
        whole = [d["confidence"] == 1.0 for d in found]  # The others are partly covered.
        assert (iou.max(axis=1)[whole] > 0.8).all()
        assert [found[i]["class_id"] for i in range(len(found))] == class_ids[best].tolist()


@pytest.mark.parametrize(
    "sections",
    [
        pytest.param({"stages": {"infer": {"address": "tcp", "replicas": 1}}}, id="infer behind tcp"),
        pytest.param({"stages": {"infer": {"address": "tcp", "replicas": 2}}}, id="two behind tcp"),
        pytest.param({"groups": [["preprocess", "infer"]]}, id="preprocess+infer"),
        pytest.param({"groups": [["preprocess", "infer"], ["postprocess", "publish"]]}, id="two groups"),
        pytest.param({"groups": [["preprocess", "infer", "postprocess", "publish"]]}, id="all but capture"),
        pytest.param(
            {"groups": [["capture", "preprocess", "infer", "postprocess", "publish"]]}, id="one process"
        ),
        pytest.param({"groups": [["capture", "preprocess"]]}, id="capture+preprocess"),
        pytest.param(
            {"stages": {stage: {"replicas": 2} for stage in ("preprocess", "infer", "postprocess")}},
            id="two of each",
        ),
    ],
)  # fmt: skip
def test_every_placement_gives_the_same_results(
    sections: dict[str, Any], plain: list[list[dict[str, Any]]], tmp_path: Path
) -> None:
    infer = sections.get("stages", {}).get("infer", {})
    if infer.get("address") == "tcp":
        address = f"tcp://127.0.0.1:{free_port(infer['replicas'])}"
        sections = {"stages": {"infer": {**infer, "address": address}}}
    finished = execute(config_for(tmp_path, {"scene": SCENE}, **sections))
    assert finished.exit_code == 0, finished.outcome.error
    assert detections(tmp_path) == plain


def test_several_sources_keep_to_themselves(plain: list[list[dict[str, Any]]], tmp_path: Path) -> None:
    config = config_for(
        tmp_path, {"a": SCENE, "b": SCENE, "c": SCENE}, stages={"postprocess": {"replicas": 2}}
    )
    finished = execute(config)
    assert finished.exit_code == 0
    for source in "abc":
        records = [r for r in lines(tmp_path / "detections.jsonl") if r["source"] == source]
        assert [r["seq"] for r in records] == list(range(FRAMES))
        # The same scene gives the same ids in each: no counter is shared.
        assert [r["detections"] for r in records] == plain
    events = lines(tmp_path / "events.jsonl")
    assert [e["sequence"] for e in events] == list(range(len(events)))


def test_a_live_source_keeps_the_newest_and_counts_what_it_superseded(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 50)
    config = config_for(
        tmp_path / "out",
        {"clip": str(clip)},
        model={"name": "fake?ms=150"},
        stages={"infer": {"replicas": 1}},
        run={"realtime": True},
    )
    finished = execute(config)
    books = finished.summary["sources"]["clip"]
    assert finished.exit_code == 0
    assert books["decoded"] == 50
    assert set(books["dropped"]) == {"superseded"}
    assert books["dropped"]["superseded"] > 20
    assert books["published"] == 50 - books["dropped"]["superseded"]
    records = lines(tmp_path / "out" / "detections.jsonl")
    assert [r["seq"] for r in records] == list(range(books["published"]))
    pts = [r["pts_ns"] for r in records]
    assert pts == sorted(set(pts)), "each frame is newer than the one before"
    assert pts[-1] == 49 * 40_000_000, "the newest frame always gets through"
    # One frame in work and one waiting: the age of a result does not grow with the length of the stream.
    # Unbounded it would be 50 frames of 150 ms less 2 s of video, 5.5 s, at the end.
    totals = [r["latency_ms"]["total"] for r in records]
    assert np.median(totals[-5:]) < 2000


def test_a_failed_frame_is_not_an_empty_one(tmp_path: Path) -> None:
    config = config_for(
        tmp_path, {"scene": SCENE}, model={"name": "fake?fail_every=10"}, stages={"infer": {"replicas": 1}}
    )
    finished = execute(config)
    records = assert_each_frame_once(tmp_path, "scene", FRAMES)
    failed = [r for r in records if r["status"] == "failed"]
    assert [r["seq"] for r in failed] == list(range(9, FRAMES, 10))
    assert all("fails on frame" in r["reason"] and r["detections"] == [] for r in failed)
    assert finished.summary["sources"]["scene"]["failed"] == len(failed)
    assert finished.summary["sources"]["scene"]["published"] == FRAMES


def test_one_bad_source_does_not_stop_the_others(tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("this is not a video")
    finished = execute(config_for(tmp_path / "out", {"good": SCENE, "bad": str(bad)}))
    assert finished.exit_code == 3
    assert finished.summary["sources"]["good"]["published"] == FRAMES
    assert finished.summary["sources"]["bad"]["state"] == "failed"
    assert finished.summary["sources"]["bad"]["reason"] == "codec"
    assert "bad.mp4" in finished.summary["sources"]["bad"]["message"]


def test_a_subscriber_in_another_process_hears_frames_and_events(tmp_path: Path) -> None:
    address = f"ipc://{tmp_path}/pub"
    scene = SCENE.replace(f"frames={FRAMES}", "frames=400")
    config = config_for(tmp_path, {"scene": scene}, publish=[{"zmq": address}])
    heard = []
    with Subscriber(address, timeout_s=0.0) as subscriber:

        def listen(_: object) -> None:
            while (item := subscriber.receive(0)) is not None:
                heard.append(item)

        execute(config, listen)
        listen(None)
    kinds = {item.kind for item in heard}
    assert {"frame", "start", "end", "source"} <= kinds
    last = heard[-1]
    assert (last.kind, last.record["state"]) == ("source", "ended")
    seqs = [item.record["seq"] for item in heard if item.kind == "frame"]
    assert seqs == list(range(seqs[0], 400)), "nothing is lost between the first that was heard and the end"
