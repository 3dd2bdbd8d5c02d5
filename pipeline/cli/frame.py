"""``framewire graph --frame``: a picture of each source, with what is drawn into it and a ruler around it."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from pipeline.config import Config, Source
from pipeline.errors import ConfigError, FramewireError, SourceError
from pipeline.messages import Scene
from pipeline.sinks.picture import write_picture
from pipeline.sources import CONNECTIONS, build_source, check_source
from pipeline.vision.draw_scene import draw_scene, grid_margin

if TYPE_CHECKING:
    from pipeline.sources import Picture

__all__ = ["draw_frames"]

_FORMATS = (".png", ".jpg", ".jpeg")


def draw_frames(config: Config, path: Path, *, only: str | None, at_s: float, timeout_s: float) -> None:
    """Write a picture of each source; a source that gives none does not keep the others from theirs.

    Args:
        config: The config.
        path: The file; with several sources, one for each, with the source's name in it.
        only: Name of the one source to draw; None for all.
        at_s: Of recordings, the first picture at this time or later, seconds.
        timeout_s: How long to wait for a live source, seconds.

    Raises:
        ConfigError: there is no such source, or the file is of no kind that can be written.
        SourceError: a source gives no picture.
        SinkError: the file cannot be written.
    """
    if path.suffix.lower() not in _FORMATS:
        raise ConfigError(
            f"a picture cannot be written as {path.name}", hint=f"type: --frame {path.stem}.png"
        )
    if only is not None and only not in config.sources:
        near = get_close_matches(only, config.sources, 1, cutoff=0.5)
        hint = f"type: --source {near[0]}" if near else f"the sources are {', '.join(config.sources)}"
        raise ConfigError(f"there is no source {only}", hint=hint)
    names = list(config.sources) if only is None else [only]
    problems: list[FramewireError] = []
    for name in names:
        file = path if len(names) == 1 else path.with_stem(f"{path.stem}-{name}")
        try:
            picture = _picture_of(name, config.sources[name], at_s, timeout_s)
        except (ConfigError, SourceError) as error:
            problems.append(error)
            continue
        scene = msgspec.convert(config.scene(name), Scene)
        write_picture(file, grid_margin(draw_scene(picture.planes[0], scene)))
        size = f"{picture.width}x{picture.height}"
        typer.echo(f"{file}: {name}, {size}, at {picture.pts_ns / 1e9:.2f} s; {_told(scene)}")
        for place in _outside(name, scene, picture.width, picture.height):
            typer.echo(f"{place} has points outside of the picture, which is {size} pixels", err=True)
    if config.privacy is not None or any(
        mask.hides != "detections" for masks in config.masks.values() for mask in masks.values()
    ):
        typer.echo("the picture shows what privacy and masks hide in a run: keep it to yourself", err=True)
    for problem in problems[1:]:
        typer.echo(str(problem), err=True)
    if problems:
        raise problems[0]


def _picture_of(name: str, source: Source, at_s: float, timeout_s: float) -> Picture:
    """A whole picture of a source, BGR."""
    url = source.address()
    kind = check_source(url)
    if kind in CONNECTIONS:
        return _live_picture(name, kind, url, source.options(), timeout_s)
    reader = build_source(name, url, pixels="exact", **source.options())
    try:
        reader.open()
        last: Picture | None = None
        while (picture := reader.read()) is not None:
            last = picture
            if picture.pts_ns >= round(at_s * 1e9):
                return picture
    finally:
        reader.close()
    if last is None:
        raise SourceError("holds no picture", source=name, hint="give a video file or a folder of images")
    raise ConfigError(
        f"[{name}] ends at {last.pts_ns / 1e9:.2f} s, before --at {at_s:g}",
        hint=f"type: --at {last.pts_ns / 2e9:.0f}",
    )


def _live_picture(name: str, kind: str, url: str, options: Mapping[str, Any], timeout_s: float) -> Picture:
    """The next whole picture of a live source; unlike a run this tries once, and says why it failed."""
    module, _, attribute = CONNECTIONS[kind].partition(":")
    connection = getattr(importlib.import_module(module), attribute)(name, url, pixels="exact", **options)
    typer.echo(f"{name}: waiting for a picture, {timeout_s:g} s at most …", err=True)
    waited = threading.Timer(timeout_s, connection.interrupt)
    waited.daemon = True
    try:
        connection.open()
        waited.start()
        picture: Picture | None = connection.read()
    finally:
        waited.cancel()
        connection.close()
    if picture is None:
        raise SourceError(
            f"gave no picture in {timeout_s:g} s",
            reason="timeout",
            source=name,
            hint="wait longer: --timeout 60",
        )
    return picture


def _told(scene: Scene) -> str:
    counts = {"zone": len(scene.zones), "line": len(scene.lines), "mask": len(scene.masks)}
    words = [f"{count} {word}{'s' if count > 1 else ''}" for word, count in counts.items() if count]
    if scene.ground is not None:
        words.append("ground")
    return ", ".join(words) or "nothing is drawn yet"


def _outside(source: str, scene: Scene, width: int, height: int) -> list[str]:
    """What was drawn in pixels of a larger picture."""
    drawn = [(f"zones.{source}.{name}", zone.polygon, zone.coordinates) for name, zone in scene.zones.items()]
    drawn += [
        (f"masks.{source}.{name}", mask.polygon, mask.coordinates) for name, mask in scene.masks.items()
    ]
    drawn += [
        (f"lines.{source}.{name}", (line.start, line.end), line.coordinates)
        for name, line in scene.lines.items()
    ]
    if scene.ground is not None:
        drawn.append((f"ground.{source}", scene.ground.points, scene.ground.coordinates))
    return [
        place
        for place, points, coordinates in drawn
        if coordinates == "pixels" and any(x > width or y > height for x, y in points)
    ]
