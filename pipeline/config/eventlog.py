"""``event_log:`` - where every event is kept, for how long, and how safely."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.fields import Section, Text

__all__ = ["EventLog"]


class EventLog(Section):
    """Where every event is kept, for subscribers and servers that come later."""

    path: Text | None = Field(
        default=None,
        description="The SQLite file; left out: one for each config in the state folder of this user if "
        "anybody subscribes, else one that goes with the run.",
    )
    keep_days: Annotated[float, Field(gt=0, le=3650)] = Field(
        default=7.0, description="Events are forgotten after so many days."
    )
    max_mb: Annotated[float, Field(ge=1, le=1_000_000)] = Field(
        default=1024.0, description="The oldest events are forgotten when the log is larger than this."
    )
    sync: Literal["normal", "full"] = Field(
        default="normal",
        description="normal: what is broadcast survives every crash of a process; full: a loss of power too, "
        "at the price of a wait for the disk with each event.",
    )
