"""``privacy:`` - which objects no picture may show."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from pipeline.config.fields import Fraction, Label, Seconds, Section, listed

__all__ = ["Privacy"]


class Privacy(Section):
    """Which objects are hidden in every picture that leaves the process."""

    labels: Annotated[tuple[Label, ...], Field(min_length=1), listed("[person]")] = Field(
        description="Labels of the objects that are hidden."
    )
    mode: Literal["blur", "pixelate", "fill"] = Field(
        default="blur", description="How; of these fill alone cannot be undone in part."
    )
    margin: Fraction = Field(
        default=0.1, description="What is hidden is larger than the box by this share, on each side, 0..1."
    )
    hold_s: Seconds = Field(
        default=1.0,
        description="Where an object was last seen stays hidden for so long after it is lost, seconds.",
    )

    def options(self) -> dict[str, Any]:
        """The fields as plain data."""
        return self.model_dump()
