"""``framewire run`` as a user or a service manager meets it: signals, bad input, full disks, taken ports."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.e2e.running import assert_nothing_left, lines, make_clip

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

ENDLESS = "synthetic://?frames=0&width=320&height=192"
SHORT = "synthetic://?frames=20&width=320&height=192"


def framewire(*args: str, limit: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *args],
        capture_output=True,
        text=True,
        timeout=100,
        preexec_fn=limit,
        check=False,
    )


def assert_clear_error(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """One error that names what and says what to do; no traceback, no process, no memory left."""
    assert done.returncode == code, done.stderr
    assert done.stderr.count("error: ") == 1, done.stderr
    assert "\n  -> " in done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr
    assert_nothing_left()


@pytest.mark.parametrize(("number", "code"), [("SIGINT", 130), ("SIGTERM", 0), ("SIGHUP", 129)])
def test_a_signal_ends_the_run_in_order(number: str, code: int, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "run", ENDLESS, "--model", "fake", "--out", str(tmp_path)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for_lines(process, tmp_path / "detections.jsonl", 20)
    children = psutil.Process(process.pid).children()
    process.send_signal(getattr(signal, number))
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    assert psutil.wait_procs(children, timeout=5)[1] == []
    summary = json.loads((tmp_path / "summary.json").read_text())
    books = summary["sources"]["synthetic"]
    assert summary["books_balance"]
    assert books["state"] == "ended"
    assert books["lost"] == {}
    assert [r["seq"] for r in lines(tmp_path / "detections.jsonl")] == list(range(books["published"]))
    last = lines(tmp_path / "events.jsonl")[-1]
    assert (last["type"], last["state"], last["reason"]) == ("source", "ended", number)
    assert_nothing_left()


def wait_for_lines(process: subprocess.Popen[str], path: Path, count: int) -> None:
    """Wait until the other process has written so much."""
    for _ in range(600):
        assert process.poll() is None
        if path.exists() and path.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.05)  # It is another process: there is nothing else to wait on.
    raise AssertionError(f"{path.name} has no {count} lines")


def test_a_duration_ends_the_run(tmp_path: Path) -> None:
    done = framewire("run", ENDLESS, "--model", "fake", "--duration", "1", "--out", str(tmp_path), "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert summary["sources"]["synthetic"]["published"] > 0
    assert summary["books_balance"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.mp4", b"", ["empty.mp4", "empty"]),
        ("text.mp4", b"this is a text\n" * 50, ["text.mp4", "not a video"]),
        ("bytes.mp4", bytes(range(256)) * 40, ["bytes.mp4"]),
    ],
)
def test_a_file_that_is_no_video(name: str, content: bytes, words: list[str], tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    done = framewire("run", str(path), "--model", "fake", "--out", str(tmp_path / "out"))
    assert_clear_error(done, 3, *words)


def test_a_missing_file_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "street.mp4").write_bytes(b"x")
    done = framewire("run", str(tmp_path / "stret.mp4"), "--model", "fake")
    assert_clear_error(done, 3, "stret.mp4", "street.mp4")


def test_real_broken_recordings(assets: Path, tmp_path: Path) -> None:
    broken = assets / "videos" / "derived"
    done = framewire("run", str(broken / "audio_only.m4a"), "--model", "fake")
    assert_clear_error(done, 3, "audio_only", "sound only")
    done = framewire("run", str(broken / "truncated_no_moov_car-detection.mp4"), "--model", "fake")
    assert_clear_error(done, 3, "moov")
    cut = broken / "truncated60pct_car-detection.mp4"
    done = framewire("run", str(cut), "--model", "fake", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "cut short" in done.stderr
    assert len(lines(tmp_path / "detections.jsonl")) == 220
    done = framewire("run", str(broken / "reschange_768x576_to_384x288.ts"), "--model", "fake", "--out",
                     str(tmp_path), "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    records = lines(tmp_path / "detections.jsonl")
    assert [(r["epoch"], r["width"]) for r in (records[0], records[-1])] == [(0, 768), (1, 384)]
    assert [r["seq"] for r in records] == list(range(len(records)))


def test_shared_memory_that_is_too_small(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = framewire("run", SHORT, "--model", "fake", limit=limit)
    assert_clear_error(done, 6, "MB", "run.slots")


def test_a_result_file_that_is_full_keeps_the_others(tmp_path: Path) -> None:
    config = tmp_path / "full.yaml"
    config.write_text(
        f'sources: {{scene: "{SHORT}"}}\nmodel: {{name: fake}}\n'
        f"run: {{out: {tmp_path}/out}}\npublish:\n  - {{jsonl: /dev/full, what: detections}}\n"
    )
    done = framewire("run", "-c", str(config))
    assert_clear_error(done, 5, "/dev/full")
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["books_balance"]
    records = lines(tmp_path / "out" / "detections.jsonl")
    assert [r["seq"] for r in records] == list(range(len(records)))


@pytest.mark.parametrize("where", ["publish", "infer"])
def test_a_port_that_is_taken(where: str, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        if where == "publish":
            done = framewire("run", SHORT, "--model", "fake", "--publish", address)
            assert_clear_error(done, 5, address)
        else:
            config = tmp_path / "taken.yaml"
            config.write_text(
                f'sources: {{scene: "{SHORT}"}}\nmodel: {{name: fake}}\n'
                f"stages: {{infer: {{address: '{address}', replicas: 1}}}}\n"
            )
            done = framewire("run", "-c", str(config))
            assert_clear_error(done, 6, address)


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--model", "yolox-nan"], 4, ["yolox-nano"]),
        (["--model", "fake?speed=1"], 4, ["speed"]),
        (["--model", "fake", "--classes", "gren"], 2, ["gren", "green"]),
        (["--model", "fake", "--annotate"], 2, ["--out"]),
        (["--model", "default", "--device", "cuda"], 4, ["cuda"]),
        (["--model", "fake", "--publish", "tcp://0.0.0.0:5556"], 2, ["insecure"]),
    ],
)
def test_options_that_cannot_work(args: list[str], code: int, words: list[str]) -> None:
    if "cuda" in args and shutil.which("nvidia-smi"):
        pytest.skip("this machine may have CUDA")
    assert_clear_error(framewire("run", SHORT, *args), code, *words)


def test_a_damaged_model(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"\x08\x07" + os.urandom(200))
    assert_clear_error(framewire("run", SHORT, "--model", str(model)), 4, "model.onnx")


def test_the_realtime_flag_paces_a_file(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 25)
    done = framewire("run", str(clip), "--model", "fake", "--realtime", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["seconds"] > 0.9, "25 frames at 25 fps"
    assert summary["sources"]["clip"]["decoded"] == 25
    assert summary["books_balance"]
