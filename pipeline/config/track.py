"""``track:`` and ``closing:`` - how objects are followed, and when one that comes nearer is told."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.fields import Count, Fraction, Label, Seconds, Section, Switch, Text, listed

__all__ = ["Closing", "Track"]

#: Keys that are options of the trackers; left out, each tracker has its own default.
_OPTIONS = ("min_frames", "activation", "high", "min_iou", "class_agnostic")


class Track(Section):
    """How objects are followed from frame to frame."""

    algorithm: Literal["auto", "sort", "bytetrack", "ocsort", "botsort", "none"] = Field(
        default="auto",
        description="The tracker; auto: botsort for moving cameras and with reid, else bytetrack; none gives "
        "detections without ids and no object events.",
    )
    smoothing_s: Seconds = Field(
        default=0.0, description="For localize: how slowly the box follows, seconds; 0 for not at all."
    )
    lost_after_s: Seconds = Field(
        default=2.0, description="An object that is not seen for this long has ended, seconds of video."
    )
    reid: Text | None = Field(
        default=None,
        description="For botsort: a model that tells how an object looks, an ONNX file; left out: none.",
    )
    class_agnostic: Switch = Field(
        default=False, description="Whether an object may go on under another label, as car and truck."
    )
    min_frames: Annotated[Count, Field(le=100)] | None = Field(
        default=None, description="Frames in which a new object must be seen; left out: the tracker's own."
    )
    activation: Fraction | None = Field(
        default=None, description="Score from which a new object begins, 0..1; left out: the tracker's own."
    )
    high: Fraction | None = Field(
        default=None,
        description="Objects with this score or more are matched first, 0..1; left out: the tracker's own.",
    )
    min_iou: Fraction | None = Field(
        default=None,
        description="Least overlap of an object with where it was expected, 0..1; "
        "left out: the tracker's own.",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.reid is not None and self.algorithm not in ("auto", "botsort"):
            raise ValueError(
                f"has reid, but {self.algorithm} does not look at objects; write algorithm: botsort"
            )
        given = list(self.options())
        if self.algorithm == "none" and given:
            raise ValueError(f"has {given[0]}, but algorithm none follows nothing; leave it out")
        if self.algorithm == "sort" and self.high is not None:
            raise ValueError("has high, but sort matches all objects at once; leave it out")
        return self

    def algorithm_for(self, *, moving: bool) -> str:
        """The tracker of one source.

        Args:
            moving: Whether its camera moves.
        """
        if self.algorithm != "auto":
            return self.algorithm
        return "botsort" if moving or self.reid is not None else "bytetrack"

    def options(self) -> dict[str, Any]:
        """Keyword arguments of a tracker that follows many objects, those that were given."""
        given = {name: getattr(self, name) for name in _OPTIONS if name in self.model_fields_set}
        return {name: value for name, value in given.items() if value is not None}


class Closing(Section):
    """When a moving camera tells of objects that it will reach, by the time to contact."""

    labels: Annotated[tuple[Label, ...], Field(min_length=1), listed("[car, truck, bus]")] | None = Field(
        default=None, description="Labels of the objects to tell of; left out: all."
    )
    notice_s: Annotated[Seconds, Field(gt=0)] = Field(
        default=4.0, description="From this time to contact on it is a notice, seconds."
    )
    warning_s: Annotated[Seconds, Field(gt=0)] = Field(
        default=2.7, description="From this time to contact on it is a warning, seconds."
    )
    critical_s: Annotated[Seconds, Field(gt=0)] = Field(
        default=1.5, description="From this time to contact on it is critical, seconds."
    )

    @model_validator(mode="after")
    def _descends(self) -> Self:
        if not self.critical_s <= self.warning_s <= self.notice_s:
            raise ValueError(
                f"has notice_s {self.notice_s:g}, warning_s {self.warning_s:g} and critical_s "
                f"{self.critical_s:g}, which do not descend; write such as 4, 2.7 and 1.5"
            )
        return self

    def options(self) -> dict[str, Any]:
        """Keyword arguments of `pipeline.analytics.closing.Closing`."""
        return self.model_dump()
