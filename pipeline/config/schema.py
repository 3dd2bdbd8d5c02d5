"""The JSON Schema of a config, for editors that complete and check YAML."""

from __future__ import annotations

import json

from pipeline.config.model import Config

__all__ = ["schema_text"]


def schema_text() -> str:
    """The text of ``configs/schema.json``."""
    schema = Config.model_json_schema(mode="validation")
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "framewire config",
        "$comment": "Made by `python -m pipeline.config configs/schema.json`; do not edit.",
    }
    return json.dumps({**schema, **head}, indent=2, sort_keys=True) + "\n"
