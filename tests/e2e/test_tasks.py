"""Whole runs of real processes that do something else than detect."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline.runtime.run import Run
from pipeline.sources.synthetic import SyntheticSource
from tests.e2e.running import assert_each_frame_once, config_for, execute, lines

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

FRAMES = 40
SCENE = f"synthetic://?frames={FRAMES}&width=320&height=192&objects=3&seed=5"
CLASSIFIER = "fake?task=classify"


def test_localize_tells_the_surest_object_of_each_frame(tmp_path: Path) -> None:
    best = []
    for task in ("detect", "localize"):
        out = tmp_path / task
        assert execute(config_for(out, {"scene": SCENE}, model={"task": task})).exit_code == 0
        frames = assert_each_frame_once(out, "scene", FRAMES)
        best.append([max(one["confidence"] for one in frame["detections"]) for frame in frames])
    assert best[0] == best[1]
    assert {(frame["task"], len(frame["detections"])) for frame in frames} == {("localize", 1)}
    assert all("track_id" in frame["detections"][0] for frame in frames), "from the first frame on"


def test_nothing_there_is_none_and_not_a_failure(tmp_path: Path) -> None:
    config = config_for(tmp_path, {"scene": SCENE}, model={"task": "localize", "classes": ["blue"]})
    assert execute(config).exit_code == 0
    frames = assert_each_frame_once(tmp_path, "scene", FRAMES)
    assert {(frame["status"], len(frame["detections"])) for frame in frames} == {("ok", 0)}


@pytest.mark.parametrize("task", ["classify", "tag"])
def test_classes_of_whole_frames_as_records_and_events(tmp_path: Path, task: str) -> None:
    config = config_for(
        tmp_path, {"scene": SCENE}, model={"name": CLASSIFIER, "task": task, "top_k": 2, "confidence": 0.01}
    )
    assert execute(config).exit_code == 0
    frames = assert_each_frame_once(tmp_path, "scene", FRAMES)
    for frame in frames:
        assert frame["detections"] == []
        scores = [one["confidence"] for one in frame["classes"]]
        assert 1 <= len(scores) <= 2
        assert scores == sorted(scores, reverse=True)
        if task == "tag":
            percents = {one["label"]: max(1, round(100 * one["confidence"])) for one in frame["classes"]}
            assert frame["tags"]["auto"].keys() == percents.keys()
    events = [event for event in lines(tmp_path / "events.jsonl") if event["type"] != "source"]
    started = [event["track_id"] for event in events if event["type"] == "start"]
    ended = [event["track_id"] for event in events if event["type"] == "end"]
    assert started
    assert sorted(started) == sorted(ended) == sorted(set(started))
    assert not any("box_xyxy" in event for event in events)


def cascade_run(out: Path) -> tuple[Any, dict[str, Any]]:
    """A config with a cascade that tells the colour of the red objects and of no other."""
    colour = {"model": CLASSIFIER, "labels": ["red"], "every_s": 0.0, "confidence": 0.2}
    sections = {"cascades": {"colour": colour}, "stages": {"infer": {"replicas": 1}}}
    return config_for(out, {"scene": SCENE}, **sections), colour


def test_a_cascade_looks_at_the_objects_that_it_was_told_to(tmp_path: Path) -> None:
    config, _ = cascade_run(tmp_path)
    assert execute(config).exit_code == 0
    frames = assert_each_frame_once(tmp_path, "scene", FRAMES)
    said: dict[str, set[str]] = {}
    for frame in frames:
        for one in frame["detections"]:
            label = one.get("attributes", {}).get("colour", {}).get("label", "nothing")
            said.setdefault(one["label"], set()).add(label)
    assert "red" in said["red"]
    assert said["red"] <= {"red", "nothing"}, "nothing until its track is confirmed"
    assert all(labels == {"nothing"} for label, labels in said.items() if label != "red")
    events = [event for event in lines(tmp_path / "events.jsonl") if event.get("label") == "red"]
    assert events[-1]["attributes"]["colour"]["label"] == "red"


def test_a_cascade_comes_back_with_its_stage(tmp_path: Path) -> None:
    """Killed in the middle, postprocess loads its second model again, and no frame is lost."""
    config, _ = cascade_run(tmp_path)
    killed = threading.Event()

    def kill(run: Run) -> None:
        if not killed.is_set() and run.progress()[0].published >= 5:
            os.kill(run.supervisor.pids()["postprocess-0"], signal.SIGKILL)
            killed.set()

    finished = execute(config, kill)
    assert killed.is_set()
    assert (
        finished.summary["restarts"] == {"postprocess": 1} or "postprocess-0" in finished.summary["restarts"]
    )
    frames = assert_each_frame_once(tmp_path, "scene", FRAMES)
    last = [one for frame in frames[-5:] for one in frame["detections"] if one["label"] == "red"]
    assert any("attributes" in one for one in last)


def test_a_model_that_cannot_do_the_task_ends_the_run_at_its_start(tmp_path: Path) -> None:
    finished = execute(config_for(tmp_path, {"scene": SCENE}, model={"task": "classify"}))
    assert finished.exit_code != 0
    assert "classify needs a classifier" in str(finished.outcome.error)


def test_the_scene_has_what_these_tests_look_for() -> None:
    _, class_ids, _ = SyntheticSource("scene", SCENE, pixels="fast").truth(0)
    assert 0 in class_ids
    assert 2 not in class_ids
