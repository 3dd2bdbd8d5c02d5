"""``run:`` - one run: how long, how fast, what it leaves behind, and what happens when a process dies."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from pipeline.config.fields import Count, Seconds, Section, Switch, Text

__all__ = ["Restart", "Run"]


class Restart(Section):
    """What happens when a stage process dies."""

    budget: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=5, description="Restarts allowed within window_s; 0: none."
    )
    window_s: Seconds = Field(default=60.0, description="The time over which restarts are counted, seconds.")
    backoff_s: Seconds = Field(
        default=0.1, description="Wait before the first restart, seconds; doubles with each."
    )
    backoff_max_s: Seconds = Field(default=5.0, description="Longest wait before a restart, seconds.")

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.backoff_max_s < self.backoff_s:
            raise ValueError("has a backoff_max_s below its backoff_s; write a larger backoff_max_s")
        return self


class Run(Section):
    """One run: how long, how fast, and what it leaves behind."""

    out: Text | None = Field(
        default=None, description="Folder for detections, events, summary and pictures; left out: none."
    )
    annotate: Switch = Field(default=False, description="Write annotated.mp4 to the out folder.")
    contact_sheet: Switch = Field(default=False, description="Write contact-sheet.png to the out folder.")
    snapshots: Switch = Field(
        default=False, description="Write the best picture of each object to the out folder."
    )
    heatmap: Switch = Field(
        default=False, description="Write a picture of where objects were to the out folder, for each source."
    )
    keep_days: Annotated[float, Field(gt=0, le=36500)] | None = Field(
        default=None, description="Snapshots and clips go after so many days; left out: they stay."
    )
    keep_gb: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="The oldest snapshots and clips go when they are more than this; left out: any.",
    )
    realtime: Switch = Field(
        default=False,
        description="Play files at their own speed and drop frames that come too late, as a camera would.",
    )
    duration_s: Annotated[Seconds, Field(gt=0)] | None = Field(
        default=None,
        description="Stop after this long, seconds; left out: at the end of the files, or never.",
    )
    slots: Annotated[Count, Field(ge=2, le=1024)] = Field(
        default=8,
        description="Frames of one source that may be under way at once; each takes a slot of shared memory.",
    )
    restart: Restart = Field(default_factory=Restart, description="What happens when a stage process dies.")
    stop_timeout_s: Annotated[Seconds, Field(gt=0)] = Field(
        default=15.0, description="An ordered stop may take this long before processes are killed, seconds."
    )

    @model_validator(mode="after")
    def _somewhere_to_write(self) -> Self:
        wanted = [key for key in ("annotate", "contact_sheet", "snapshots", "heatmap") if getattr(self, key)]
        if wanted and self.out is None:
            raise ValueError(f"has {wanted[0]} but no folder to write to; add out: DIR (or type --out DIR)")
        return self
