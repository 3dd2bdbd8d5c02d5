"""Sinks that write records to files."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from pipeline.config.fields import Text
from pipeline.config.sinks.base import SinkSection

__all__ = ["JsonlSink"]


class JsonlSink(SinkSection):
    """Write records to a file, one JSON object a line."""

    kind: ClassVar[str] = "jsonl"
    path: Text = Field(alias="jsonl", description="The file; a relative path starts at run.out.")
    what: Literal["detections", "events"] = Field(default="events", description="Which records to write.")
