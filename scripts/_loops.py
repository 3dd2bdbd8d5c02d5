"""The loops that the pipeline is measured against, each in a process of its own.

``python -m scripts._loops KIND MODEL SOURCE FRAMES THREADS``: gets warm, writes ``ready``, waits for a line
on stdin, works, writes its result as one line of JSON. Kinds:

- ``bare``: the network alone on one prepared tensor, without spinning threads. Nothing that runs the model
  frame by frame with so many threads can be faster.
- ``naive``: one process with the defaults of all libraries: OpenCV reads and scales full-size BGR, ONNX
  Runtime takes all cores, supervision suppresses, trackers tracks. Our head decodes, so that any model fits.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort  # type: ignore[import-untyped]
import psutil

from pipeline.errors import FramewireError
from pipeline.models.onnx import OnnxRunner
from pipeline.models.store import resolve
from scripts._bench import noise
from scripts._stamps import rate, steady

__all__ = ["measure"]

ROOT = Path(__file__).resolve().parents[1]


def measure(kind: str, model: str, source: Path, frames: int, threads: int, *, at_once: int = 1) -> list[Any]:
    """Run ``at_once`` processes of one kind, started together when all are warm; what each measured."""
    command = [sys.executable, "-m", "scripts._loops", kind, model, str(source), str(frames), str(threads)]
    running = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(at_once)
    ]
    for process in running:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise SystemExit(f"the {kind} loop did not start; what it said is above")
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [json.loads(process.communicate()[0]) for process in running]


def _session(path: Path, threads: int | None) -> Any:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _start() -> float:
    print("ready", flush=True)
    sys.stdin.readline()
    return time.process_time()


def _result(stamps: Sequence[int], cpu_s: float) -> dict[str, Any]:
    return {
        "fps": rate(steady(stamps, 0)),
        "cpu_ms": 1e3 * cpu_s / len(stamps),
        "rss_mb": _peak_mb(),
    }


def _peak_mb() -> float:
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    return psutil.Process().memory_info().rss / 2**20


def _bare(model: str, frames: int, threads: int) -> dict[str, Any]:
    session = _session(resolve(model).path, threads)
    runner = OnnxRunner(model, device="cpu")
    spec = runner.open()
    runner.close()
    size = (spec.input_height, spec.input_width)
    shape = (1, 3, *size) if spec.input_layout == "nchw" else (1, *size, 3)
    feed = {session.get_inputs()[0].name: noise(shape, spec.input_dtype)}
    for _ in range(10):
        session.run(None, feed)
    began = _start()
    stamps = []
    for _ in range(frames):
        session.run(None, feed)
        stamps.append(time.monotonic_ns())
    return _result(stamps, time.process_time() - began)


def _naive(model: str, source: Path) -> dict[str, Any]:
    import cv2
    import supervision as sv
    from trackers import ByteTrackTracker

    from pipeline.heads import load_head
    from pipeline.vision.letterbox import plan, to_source

    runner = OnnxRunner(model, device="cpu")
    spec = runner.open()
    runner.close()
    session = _session(resolve(model).path, None)
    name, head, tracker = session.get_inputs()[0].name, load_head(spec.family), ByteTrackTracker()
    video = cv2.VideoCapture(str(source))
    began = _start()
    stamps = []
    while True:
        more, bgr = video.read()
        if not more:
            break
        where = plan(bgr.shape[1], bgr.shape[0], spec.input_width, spec.input_height, spec.letterbox)
        canvas = np.full((spec.input_height, spec.input_width, 3), spec.pad_value, np.uint8)
        scaled = cv2.resize(bgr, (where.width, where.height))
        canvas[where.y : where.y + where.height, where.x : where.x + where.width] = scaled
        if spec.channels == "rgb":
            canvas = np.ascontiguousarray(canvas[:, :, ::-1])
        tensor: Any = canvas
        if spec.input_dtype != "uint8":
            tensor = ((canvas.astype(np.float32) - spec.mean) / spec.std).astype(spec.input_dtype)
        tensor = tensor[None] if spec.input_layout == "nhwc" else tensor.transpose(2, 0, 1)[None]
        outputs = session.run(list(spec.output_names), {name: np.ascontiguousarray(tensor)})
        found = head.decode(outputs, spec, 0.4)
        boxes = to_source(found.boxes_xyxy, where.map)
        detections = sv.Detections(xyxy=boxes, confidence=found.scores, class_id=found.class_ids)
        tracker.update(detections.with_nms(head.nms_iou or 1.0))
        stamps.append(time.monotonic_ns())
    return _result(stamps, time.process_time() - began)


def main() -> int:
    """One loop, as its command line says."""
    kind, model, source, frames, threads = sys.argv[1:]
    try:
        result = _bare(model, int(frames), int(threads)) if kind == "bare" else _naive(model, Path(source))
    except FramewireError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
