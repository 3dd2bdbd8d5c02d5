"""``python -m pipeline.config FILE``: write the JSON Schema of a config."""

from __future__ import annotations

import sys
from pathlib import Path

from pipeline.config.schema import schema_text

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("usage: python -m pipeline.config configs/schema.json")
    Path(sys.argv[1]).write_text(schema_text(), encoding="utf-8")
