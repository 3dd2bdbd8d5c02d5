"""Sinks that write records to files."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.fields import Count, Seconds, Switch, Text
from pipeline.config.sinks.base import SinkSection

__all__ = ["CocoSink", "CsvSink", "JsonlSink", "MotSink", "OnvifSink", "ParquetSink", "RotatedSink"]

_PATH = "The file; a relative path starts at run.out."


class RotatedSink(SinkSection):
    """A file that makes room for a new one from time to time."""

    max_mb: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="A file that would be larger is put away; left out: any size."
    )
    every_s: Annotated[Seconds, Field(ge=1)] | None = Field(
        default=None,
        description="The file is put away when the clock (UTC) comes to a multiple of that: 3600 each hour, "
        "86400 each day; left out: never.",
    )
    keep: Count | None = Field(default=None, description="How many old files stay; left out: all.")
    compress: Switch = Field(default=False, description="Compress old files with gzip.")

    @model_validator(mode="after")
    def _rotates(self) -> Self:
        if (self.keep is not None or self.compress) and self.max_mb is None and self.every_s is None:
            raise ValueError("has keep or compress, but no file gets old; add max_mb: or every_s:")
        return self


class JsonlSink(RotatedSink):
    """Write records to a file, one JSON object a line."""

    kind: ClassVar[str] = "jsonl"
    path: Text = Field(alias="jsonl", description=_PATH)
    what: Literal["detections", "events"] = Field(default="events", description="Which records to write.")


class CsvSink(RotatedSink):
    """Write a row for each object of each frame, or for each event."""

    kind: ClassVar[str] = "csv"
    path: Text = Field(alias="csv", description=_PATH)
    what: Literal["detections", "events"] = Field(default="detections", description="Which records to write.")


class ParquetSink(SinkSection):
    """Write Parquet files of detections or events."""

    kind: ClassVar[str] = "parquet"
    path: Text = Field(alias="parquet", description="The folder; a relative path starts at run.out.")
    what: Literal["detections", "events"] = Field(default="detections", description="Which records to write.")
    rows: Count = Field(default=50_000, description="Most rows of one file.")
    every_s: Annotated[Seconds, Field(ge=1)] = Field(
        default=300.0, description="A file is finished after so long, seconds."
    )


class CocoSink(SinkSection):
    """Write the frames and their objects as COCO JSON, at the end of the run."""

    kind: ClassVar[str] = "coco"
    path: Text = Field(alias="coco", description=_PATH)


class MotSink(SinkSection):
    """Write tracked objects in the layout of MOTChallenge."""

    kind: ClassVar[str] = "mot"
    path: Text = Field(alias="mot", description="The file; with several sources, one file for each.")


class OnvifSink(SinkSection):
    """Write metadata as ONVIF cameras send it, in XML."""

    kind: ClassVar[str] = "onvif"
    path: Text = Field(alias="onvif", description="The file; with several sources, one file for each.")
