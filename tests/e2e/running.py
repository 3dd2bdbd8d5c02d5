"""Real runs in tests: real processes, a real clip, and what must hold after each of them."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from pipeline.config import Config, from_mapping
from pipeline.runtime.plan import RestartPolicy
from pipeline.runtime.run import Finished, Run
from pipeline.runtime.rundir import runtime_root
from pipeline.sources.synthetic import SyntheticSource
from pipeline.transport.shm import PREFIX, shm_dir

#: Quick to bring back, so that tests do not wait; otherwise as in a real run.
QUICK = RestartPolicy(budget=5, backoff_s=0.05, silent_s=5.0, busy_s=20.0)


def make_clip(path: Path, frames: int = 120, *, fps: int = 25) -> Path:
    """An H.264 clip with B-frames of the synthetic scene."""
    source = SyntheticSource("scene", f"synthetic://?frames={frames}&width=320&height=192", pixels="exact")
    source.open()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 320, 192, "yuv420p"
        stream.options = {"preset": "ultrafast", "bf": "2", "g": "12", "crf": "12"}
        stream.time_base = Fraction(1, fps)
        while (picture := source.read()) is not None:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture.planes[0]), format="bgr24")
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    source.close()
    return path


def config_for(out: Path, sources: Mapping[str, Any], **sections: Any) -> Config:
    """A config for the fake model that writes to ``out``."""
    run = {"out": str(out), **sections.pop("run", {})}
    model = {"name": "fake", **sections.pop("model", {})}
    return from_mapping({"sources": dict(sources), "model": model, "run": run, **sections}, "test")


def execute(config: Config, tick: Callable[[Run], None] = lambda _: None) -> Finished:
    """Run it, and check what must hold whatever happened: books, shared memory, sockets."""
    finished = Run(config, tick=tick, restart=QUICK).execute()
    assert finished.summary["books_balance"], finished.summary["sources"]
    assert_nothing_left()
    return finished


def assert_nothing_left() -> None:
    """No pool, no books, no socket of any run is left."""
    assert sorted(p.name for p in shm_dir().glob(f"{PREFIX}*")) == []
    root = runtime_root()
    assert (sorted(p.name for p in root.iterdir()) if root.is_dir() else []) == []


def free_port(count: int) -> int:
    """The first of ``count`` free ports in a row on loopback."""
    while True:
        with contextlib.ExitStack() as held:
            sockets = [held.enter_context(socket.socket()) for _ in range(count)]
            sockets[0].bind(("127.0.0.1", 0))
            first: int = sockets[0].getsockname()[1]
            try:
                for at, other in enumerate(sockets[1:], 1):
                    other.bind(("127.0.0.1", first + at))
            except (OSError, OverflowError):
                continue
            return first


def lines(path: Path) -> list[dict[str, Any]]:
    """All records of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_each_frame_once(out: Path, source: str, frames: int) -> list[dict[str, Any]]:
    """Every frame has exactly one record, in order, and events are numbered without gaps."""
    records = [r for r in lines(out / "detections.jsonl") if r["source"] == source]
    assert [r["seq"] for r in records] == list(range(frames))
    events = lines(out / "events.jsonl")
    assert [e["sequence"] for e in events] == list(range(len(events)))
    return records
