"""Sinks that draw: video, contact sheet, heat map."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from pipeline.config.fields import Count, Label, Text, listed
from pipeline.config.sinks.base import SinkSection

__all__ = ["ContactSheetSink", "HeatmapSink", "VideoSink"]


class VideoSink(SinkSection):
    """Write the frames with their boxes drawn on them as MP4."""

    kind: ClassVar[str] = "video"
    path: Text = Field(alias="video", description="The file; with several sources, one file for each.")


class ContactSheetSink(SinkSection):
    """Write one picture with annotated frames side by side."""

    kind: ClassVar[str] = "contact_sheet"
    path: Text = Field(alias="contact_sheet", description="The PNG file.")
    columns: Count = Field(default=3, description="Pictures in a row.")
    rows: Count = Field(default=4, description="Rows of pictures.")
    width: Count = Field(default=1600, description="Width of the whole sheet in pixels.")


class HeatmapSink(SinkSection):
    """Write a picture of where objects were, and the numbers beside it."""

    kind: ClassVar[str] = "heatmap"
    path: Text = Field(alias="heatmap", description="The PNG file; with several sources, one for each.")
    labels: Annotated[tuple[Label, ...], Field(min_length=1), listed("[person]")] | None = Field(
        default=None, description="Labels of the objects that count; left out: all."
    )
    columns: Annotated[Count, Field(ge=4, le=512)] = Field(
        default=96, description="Cells across the picture."
    )
