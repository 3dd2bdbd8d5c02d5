"""``zones:``, ``lines:``, ``masks:`` and ``ground:`` - what an operator draws into the pictures of a source.

What the keys mean while a run goes on is said by `pipeline.messages.scene`, to whose structs these translate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from itertools import combinations
from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from pipeline.config.fields import Count, Fraction, Label, Seconds, Section, Text, listed
from pipeline.config.points import Point, check_polygon, spell_point, turn

__all__ = ["Ground", "Line", "Mask", "Zone", "check_sources", "problem_at", "scene_of"]

#: More say nothing more, and each side is held against each other.
_MOST_CORNERS = 200

#: As thin as this, three points of a calibration are on one line; `pipeline.analytics.ground` says the same.
_THIN = 0.003

_Polygon = Annotated[tuple[Point, ...], listed("[[0, 0.5], [1, 0.5], [1, 1]]")]
_Four = Annotated[tuple[Point, ...], listed("[[0.4, 0.5], [0.6, 0.5], [0.8, 0.9], [0.2, 0.9]]")]
_Aspect = Annotated[float, Field(gt=0, le=1000)]


def problem_at(loc: tuple[str | int, ...], text: str) -> ValidationError:
    """An error of a value below the section that is being checked, so that its own line is named.

    Args:
        loc: Keys on the way from the section to the value.
        text: What is wrong, and after ``; `` what to write instead.
    """
    error = PydanticCustomError("value_error", "{error}", {"error": text})
    return ValidationError.from_exception_data(
        "config", [InitErrorDetails(type=error, loc=loc, input=None)], hide_input=True
    )


class _Drawn(Section):
    """What all that is drawn shares. ``coordinates`` comes first: the points are checked against it."""

    coordinates: Literal["normalized", "pixels"] = Field(
        default="normalized",
        description="normalized: shares of the picture, 0..1 from its top left; pixels: of the source's own.",
    )


class _Shape(_Drawn):
    """An area of the picture."""

    polygon: _Polygon = Field(
        description="Its corners, [x, y] each, in the order of walking around it; three or more."
    )
    anchor: Literal["bottom", "center"] = Field(
        default="bottom",
        description="The point of a box that must be inside: the middle of its lower edge, or of the box.",
    )

    @field_validator("polygon")
    @classmethod
    def _area(cls, value: tuple[Point, ...], info: ValidationInfo) -> tuple[Point, ...]:
        if len(value) > 1 and value[0] == value[-1]:
            value = value[:-1]  # as GeoJSON closes a ring
        if len(value) < 3:
            raise ValueError(f"has {_count(len(value))}; give three or more, [x, y] each")
        if len(value) > _MOST_CORNERS:
            raise ValueError(f"has {len(value)} corners; give {_MOST_CORNERS} at most")
        for index, point in enumerate(value):
            _inside(point, info, index)
        check_polygon(value)
        return value


class _Filtered(Section):
    """Which objects count."""

    labels: Annotated[tuple[Label, ...], Field(min_length=1), listed("[person, car]")] | None = Field(
        default=None, description="Labels of the objects that count; left out: all."
    )
    confidence: Fraction = Field(default=0.0, description="Objects that score less do not count, 0..1.")
    min_area: Fraction = Field(
        default=0.0, description="Smallest box that counts, as a share of the picture's area, 0..1."
    )
    max_area: Fraction = Field(
        default=1.0, description="Largest box that counts, as a share of the picture's area, 0..1."
    )
    min_aspect: _Aspect | None = Field(
        default=None, description="Smallest width divided by height that counts; left out: any."
    )
    max_aspect: _Aspect | None = Field(
        default=None, description="Largest width divided by height that counts; left out: any."
    )

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        for low, high in (("min_area", "max_area"), ("min_aspect", "max_aspect")):
            least, most = getattr(self, low), getattr(self, high)
            if least is not None and most is not None and least > most:
                raise ValueError(
                    f"has a {low} of {least:g} over its {high} of {most:g}, so that nothing counts; "
                    f"write a smaller {low}"
                )
        return self

    def only(self) -> dict[str, Any]:
        """As `pipeline.messages.Filter` takes it."""
        names = ("labels", "confidence", "min_area", "max_area", "min_aspect", "max_aspect")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class Zone(_Shape, _Filtered):
    """An area in which objects are counted and timed."""

    enter_s: Seconds = Field(
        default=0.0, description="An object is in after so long inside without a break, seconds."
    )
    exit_s: Seconds = Field(
        default=0.5, description="It is out after so long outside without a break, seconds."
    )
    dwell_s: Annotated[Seconds, Field(gt=0)] | None = Field(
        default=None, description="It loiters once it has been in for so long, seconds; left out: never."
    )
    crowd: Count | None = Field(
        default=None, description="From so many objects on the zone is crowded; left out: never."
    )
    crowd_s: Seconds = Field(
        default=1.0, description="For so long there must be that many, or fewer again, seconds."
    )

    @model_validator(mode="after")
    def _crowd_of_how_many(self) -> Self:
        if self.crowd is None and "crowd_s" in self.model_fields_set:
            raise ValueError("has crowd_s but no crowd; add such as crowd: 5, or leave it out")
        return self

    def plain(self) -> dict[str, Any]:
        """As `pipeline.messages.Zone` takes it."""
        times = {"enter_s": self.enter_s, "exit_s": self.exit_s, "dwell_s": self.dwell_s}
        crowd = {"crowd": self.crowd, "crowd_s": self.crowd_s}
        return {**_area(self), "only": self.only(), **times, **crowd}


class Line(_Drawn, _Filtered):
    """A line whose crossing is an event. Who walks from `from` to `to` has `left` at the left hand."""

    model_config = ConfigDict(serialize_by_alias=True)

    start: Point = Field(alias="from", description="One end, [x, y].")
    end: Point = Field(alias="to", description="The other end, [x, y].")
    left: Text = Field(
        default="out",
        description="Name of the side at the left hand of who walks from `from` to `to`, as the picture "
        "shows it: the direction of an object that gets there.",
    )
    right: Text = Field(default="in", description="Name of the side at the right hand.")
    anchor: Literal["bottom", "center"] = Field(
        default="bottom",
        description="The point of a box that must cross: the middle of its lower edge, or of the box.",
    )
    margin: Annotated[Fraction, Field(lt=1)] = Field(
        default=0.05, description="How far beyond the line it must get, as a share of its box's height, 0..1."
    )

    @field_validator("start", "end")
    @classmethod
    def _in_picture(cls, value: Point, info: ValidationInfo) -> Point:
        _inside(value, info)
        return value

    @model_validator(mode="after")
    def _two_of_each(self) -> Self:
        if self.start == self.end:
            raise ValueError("starts where it ends; give from and to two points apart from each other")
        if self.left == self.right:
            raise ValueError(
                f"has one name for both sides, {self.left}; write such as left: out and right: in"
            )
        return self

    def plain(self) -> dict[str, Any]:
        """As `pipeline.messages.Line` takes it."""
        names = ("start", "end", "left", "right", "coordinates", "anchor", "margin")
        return {**{name: getattr(self, name) for name in names}, "only": self.only()}


class Mask(_Shape):
    """An area that is not looked at, or not shown."""

    hides: Literal["detections", "picture", "both"] = Field(
        default="detections",
        description="detections: objects in it do not exist; picture: it is hidden in all pictures; both.",
    )

    def plain(self) -> dict[str, Any]:
        """As `pipeline.messages.Mask` takes it."""
        return {**_area(self), "hides": self.hides}


class Ground(_Drawn):
    """Four points of the picture whose place on flat ground is known, for speeds and ways in metres."""

    points: _Four = Field(description="Four points of the ground in the picture, no three on one line.")
    metres: _Four = Field(description="The same four on the ground, [x, y] in metres from any point.")

    @field_validator("points", "metres")
    @classmethod
    def _four(cls, value: tuple[Point, ...], info: ValidationInfo) -> tuple[Point, ...]:
        if len(value) != 4:
            raise ValueError(f"has {_count(len(value))}; give four, in the same order in points and metres")
        if info.field_name == "points":
            for index, point in enumerate(value):
                _inside(point, info, index)
        for three in combinations(value, 3):
            if turn(*three, flat=_THIN) == 0:
                row = ", ".join(map(spell_point, three))
                raise ValueError(f"has three points on one line, {row}; take four corners of a rectangle")
        return value

    @model_validator(mode="after")
    def _same_order(self) -> Self:
        # A plane that lies wholly before the camera turns each triangle the same way round, or each over.
        turns = {
            turn(*seen) * turn(*real)
            for seen, real in zip(combinations(self.points, 3), combinations(self.metres, 3), strict=True)
        }
        if len(turns) > 1:
            raise ValueError(
                "does not fit a flat ground: points and metres go round differently; "
                "give both in the same order, such as far left, far right, near right, near left"
            )
        return self

    def plain(self) -> dict[str, Any]:
        """As `pipeline.messages.Ground` takes it."""
        return {"points": self.points, "metres": self.metres, "coordinates": self.coordinates}


def check_sources(named: Iterable[str], sources: Mapping[str, Any]) -> None:
    """Make sure that what is drawn is drawn for a source that is there.

    Args:
        named: Keys below the section.
        sources: The sources by name; nothing is said while there are none, for they may yet be given.

    Raises:
        ValidationError: one is not there.
    """
    for name in named:
        if sources and name not in sources:
            near = get_close_matches(name, sources, 1, cutoff=0.5)
            known = ", ".join(list(sources)[:8]) + (", …" if len(sources) > 8 else "")
            hint = f"write `{near[0]}`" if near else f"the sources are {known}; name one, or leave it out"
            raise problem_at((name,), f"is for a source that is not there; {hint}")


def scene_of(
    zones: Mapping[str, Zone],
    lines: Mapping[str, Line],
    masks: Mapping[str, Mask],
    ground: Ground | None,
    *,
    moving: bool,
) -> dict[str, Any]:
    """All that is drawn for one source, as `pipeline.messages.Scene` takes it."""
    return {
        "zones": {name: zone.plain() for name, zone in zones.items()},
        "lines": {name: line.plain() for name, line in lines.items()},
        "masks": {name: mask.plain() for name, mask in masks.items()},
        "ground": ground.plain() if ground is not None else None,
        "moving": moving,
    }


def _area(shape: _Shape) -> dict[str, Any]:
    return {"polygon": shape.polygon, "coordinates": shape.coordinates, "anchor": shape.anchor}


def _count(points: int) -> str:
    return f"{points} point{'' if points == 1 else 's'}"


def _inside(point: Point, info: ValidationInfo, *loc: int) -> None:
    """Refuse what cannot be in the picture."""
    coordinates = info.data.get("coordinates")
    text = ""
    if min(point) < 0:
        text = f"is {spell_point(point)}, left of the picture or above it; count from its top left, 0 or more"
    elif coordinates == "normalized" and max(point) > 1:
        text = (
            f"is {spell_point(point)}, but points are shares of the picture, 0..1; "
            "add coordinates: pixels, or divide by its width and height"
        )
    if text:
        raise problem_at(loc, text) if loc else ValueError(text)
