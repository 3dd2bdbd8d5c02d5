from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from pydantic import BaseModel

from pipeline.config import Config
from pipeline.config.publish import SINK_KINDS
from pipeline.config.schema import schema_text

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = ROOT / "configs" / "schema.json"


def test_the_checked_in_schema_is_fresh() -> None:
    assert SCHEMA.read_text(encoding="utf-8") == schema_text(), (
        "configs/schema.json is stale; type: python -m pipeline.config configs/schema.json"
    )


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(schema_text()))


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_examples_fit_the_schema(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# yaml-language-server: $schema=schema.json\n")
    jsonschema.validate(yaml.safe_load(text), json.loads(schema_text()))


@pytest.mark.parametrize(
    ("document", "fine"),
    [
        ({"sources": {"a": "a.mp4"}}, True),
        ({"sources": {"a": {"url": "a.mp4"}}, "stages": {"infer": {"replicas": "auto"}}}, True),
        ({"publish": [{"zmq": "tcp://127.0.0.1:5556", "format": "json"}]}, True),
        ({"model": {"input_size": 416}}, True),
        ({"modle": {}}, False),
        ({"model": {"confidence": 2}}, False),
        ({"publish": [{"zqm": "x"}]}, False),
        ({"groups": [["preprocess", "tracking"]]}, False),
    ],
)
def test_what_an_editor_would_say(document: object, fine: bool) -> None:
    assert jsonschema.Draft202012Validator(json.loads(schema_text())).is_valid(document) is fine


def sections(model: type[BaseModel]) -> list[type[BaseModel]]:
    """A section and all below it."""
    found = [model]
    for field in model.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += sections(field.annotation)
    return found


SECTIONS: list[type[BaseModel]] = [*sections(Config), *SINK_KINDS.values()]


@pytest.mark.parametrize("model", SECTIONS)
def test_every_field_has_a_sentence(model: type[BaseModel]) -> None:
    assert model.__doc__
    for name, field in model.model_fields.items():
        assert field.description, f"{model.__name__}.{name}"
        assert field.description.endswith("."), f"{model.__name__}.{name}"
