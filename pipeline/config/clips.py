"""``clips:`` - video of what happens, cut out of what the camera sends."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from pipeline.config.fields import Label, Seconds, Section, SourceName, Switch, Text, listed

__all__ = ["Clips"]


class Clips(Section):
    """A clip of each event, with what was before and after it, not encoded anew."""

    types: Annotated[tuple[Text, ...], Field(min_length=1), listed("[start]")] = Field(
        default=("start",), description="Types of events that begin a clip."
    )
    labels: Annotated[tuple[Label, ...], listed("[person]")] = Field(
        default=(), description="Only of objects with these labels; left out: all."
    )
    zones: Annotated[tuple[Text, ...], listed("[driveway]")] = Field(
        default=(), description="Only in or at these zones; left out: all."
    )
    sources: Annotated[tuple[SourceName, ...], listed("[gate]")] = Field(
        default=(), description="Only of these sources; left out: all."
    )
    pre_s: Annotated[Seconds, Field(le=120)] = Field(
        default=5.0, description="What is wanted from before the event, seconds; it begins with a keyframe."
    )
    post_s: Annotated[Seconds, Field(le=600)] = Field(
        default=10.0, description="What is wanted from after the last event of the objects in it, seconds."
    )
    max_s: Annotated[Seconds, Field(ge=1, le=3600)] = Field(
        default=120.0, description="A clip that would be longer is followed by another, seconds."
    )
    ring_mb: Annotated[float, Field(ge=1, le=4096)] = Field(
        default=64.0, description="Shared memory for the newest packets of each live source, megabytes."
    )
    unmasked: Switch = Field(
        default=False,
        description="true: clips may show what privacy and masks hide, for they are the camera's own.",
    )

    def options(self) -> dict[str, Any]:
        """The fields as keyword arguments of `pipeline.sinks.clips.Clips`."""
        return self.model_dump(exclude={"ring_mb", "unmasked"})
