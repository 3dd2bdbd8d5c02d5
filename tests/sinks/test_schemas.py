from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pipeline import schemas
from pipeline.errors import ConfigError

DOCS = Path(__file__).parents[2] / "docs" / "events.md"

SUMMARY: dict[str, Any] = {
    "version": 1,
    "model": {"name": "default", "sha256": "0" * 64, "family": "nanodet", "input": [416, 416]},
    "provider": "CPUExecutionProvider",
    "sources": {
        "gate": {
            "decoded": 10, "admitted": 8, "published": 8, "dropped": {"superseded": 2}, "lost": {},
            "fps": 9.7, "state": "ended", "reason": "end_of_file",
        },
        "yard": {
            "decoded": 0, "admitted": 0, "published": 0, "dropped": {}, "lost": {}, "fps": None,
            "state": "failed",
        },
    },
    "latency_ms": {
        "infer": {"p50": 20.0, "p95": 22.5, "p99": 30.0}, "total": {"p50": None, "p95": None, "p99": None},
    },
    "objects": {"car": 3},
    "files": ["out/events.jsonl"],
}  # fmt: skip


@pytest.mark.parametrize("name", schemas.names())
def test_schemas_are_themselves_valid(name: str) -> None:
    schema = schemas.load(name)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"].endswith(name)


def test_names() -> None:
    assert schemas.names() == ["framewire.event.1", "framewire.frame.1", "summary.1"]


def test_an_unknown_schema_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"framewire\.event\.1"):
        schemas.load("framewire.events.1")


def test_summary() -> None:
    validator = jsonschema.Draft202012Validator(schemas.load("summary.1"))
    validator.validate(SUMMARY)
    assert not validator.is_valid(SUMMARY | {"version": 2})
    assert not validator.is_valid(SUMMARY | {"objects": {"car": -1}})


def test_the_records_in_the_docs_fit_their_schemas() -> None:
    blocks = re.findall(r"```json\n(.*?)```", DOCS.read_text("utf-8"), re.DOTALL)
    kinds = []
    for block in blocks:
        record = json.loads(block)
        kinds.append(record["schema"])
        name = "framewire.frame.1" if record["schema"] == "framewire.frame/1" else "framewire.event.1"
        jsonschema.Draft202012Validator(schemas.load(name)).validate(record)
    assert set(kinds) == {"framewire.frame/1", "framewire.end/1", "framewire.source/1"}


@pytest.mark.parametrize("name", ["framewire.event.1", "framewire.frame.1"])
def test_the_docs_name_every_field(name: str) -> None:
    text = DOCS.read_text("utf-8")
    missing = [
        field
        for field in schemas.load(name)["properties"]
        if f"`{field}`" not in text and f'"{field}"' not in text
    ]
    assert not missing
