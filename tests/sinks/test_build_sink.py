from __future__ import annotations

import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import ConfigError
from pipeline.sinks import SINKS, build_sink
from pipeline.sinks.jsonl import JsonlSink


@pytest.mark.parametrize("target", SINKS.values())
def test_every_kind_is_there(target: str) -> None:
    module, _, name = target.partition(":")
    cls = getattr(import_module(module), name)
    assert all(callable(getattr(cls, method)) for method in ("open", "write", "close"))


def test_build(tmp_path: Path) -> None:
    assert isinstance(build_sink("jsonl", path=tmp_path / "x", what="events", resume=False), JsonlSink)
    assert isinstance(build_sink("pipeline.sinks.jsonl:JsonlSink", path=tmp_path / "x"), JsonlSink)


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("jsnol", {}, "there is no sink of kind 'jsnol'\n  -> write 'jsonl'"),
        ("carrier pigeon", {}, "use one of contact_sheet, heatmap, coco, csv, jsonl"),
        ("no.such.module:Sink", {}, "cannot import sink 'no.such.module:Sink'"),
        ("pipeline.sinks.jsonl:Nothing", {}, "cannot import sink"),
        (":Nothing", {}, "cannot import sink"),
        ("jsonl", {"paht": "x"}, "-> write 'path'"),
        ("jsonl", {}, "its options are path, what, max_mb"),
    ],
)
def test_mistakes_say_what_to_write(kind: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_sink(kind, **options)
    assert words in str(caught.value)


def test_importing_the_table_loads_no_sink() -> None:
    code = (
        "import sys, pipeline.sinks, pipeline.sinks.records, pipeline.sinks.jsonl;"
        "bad = {'av', 'cv2', 'zmq', 'supervision', 'onnxruntime'} & set(sys.modules);"
        "sys.exit(repr(bad) if bad else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
