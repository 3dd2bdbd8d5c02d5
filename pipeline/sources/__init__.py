"""Where pictures come from; one adapter per kind, imported only when it is used."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from pipeline.errors import ConfigError
from pipeline.sources.base import Picture, Pixels, Source
from pipeline.sources.locate import check_source, detect_kind

if TYPE_CHECKING:
    from pipeline.sources.packets import PacketRing

__all__ = ["CONNECTIONS", "SOURCES", "Picture", "Source", "build_source", "check_source", "detect_kind"]

#: Adapter of each kind, as ``module:Class``; a URL's kind is found by `detect_kind`.
SOURCES = {
    "file": "pipeline.sources.file:FileSource",
    "images": "pipeline.sources.images:ImageSource",
    "synthetic": "pipeline.sources.synthetic:SyntheticSource",
}
#: One connection to each kind of live source; `pipeline.sources.live.camera.LiveSource` makes them.
CONNECTIONS = {
    "device": "pipeline.sources.live.stream:StreamConnection",
    "push": "pipeline.sources.live.push:PushConnection",
    "stream": "pipeline.sources.live.stream:StreamConnection",
}


def build_source(
    name: str,
    url: str,
    *,
    pixels: Pixels,
    realtime: bool = False,
    awake: Callable[[], bool] | None = None,
    recorder: PacketRing | None = None,
    **options: Any,
) -> Source:
    """Make the source that a URL names, without opening it.

    Args:
        name: Name of the source.
        url: As for `detect_kind`.
        pixels: ``exact`` for full-size BGR, ``fast`` for the decoder's planes where it has them.
        realtime: Deliver a recording at its own pace, as a camera would.
        awake: Whether pictures are wanted now; a live source need not decode others.
        recorder: Keeps the packets of a live stream for clips; a kind of source that has none passes it over.
        **options: Arguments of the adapter, such as ``threads`` for files.

    Raises:
        ConfigError: the URL is of no known kind, or the adapter has no such option.
    """
    kind = detect_kind(url)
    live = kind in CONNECTIONS
    module, _, attribute = (CONNECTIONS if live else SOURCES)[kind].partition(":")
    adapter = getattr(importlib.import_module(module), attribute)
    known = set(inspect.signature(adapter).parameters) - {"name", "url", "pixels"}
    if awake is not None and "awake" in known:
        options["awake"] = awake
    if recorder is not None and "recorder" in known:
        options["recorder"] = recorder
    for option in options:
        if option not in known:
            raise ConfigError(
                f"sources.{name}: {kind} sources have no option {option!r}",
                hint=f"it can be {', '.join(sorted(known))}" if known else "they have no options",
                source=name,
            )
    if live:
        from pipeline.sources.live.camera import LiveSource

        return LiveSource(name, lambda: adapter(name, url, pixels=pixels, **options))
    source = cast(Source, adapter(name, url, pixels=pixels, **options))
    if realtime:
        from pipeline.sources.paced import Paced  # only what is used is loaded

        return Paced(source)
    return source
