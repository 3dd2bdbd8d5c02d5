"""Where pictures come from; one adapter per kind, imported only when it is used."""

from __future__ import annotations

import importlib
import inspect
from typing import Any, cast

from pipeline.errors import ConfigError
from pipeline.sources.base import Picture, Pixels, Source
from pipeline.sources.locate import check_source, detect_kind

__all__ = ["SOURCES", "Picture", "Source", "build_source", "check_source", "detect_kind"]

#: Adapter of each kind, as ``module:Class``; a URL's kind is found by `detect_kind`.
SOURCES = {
    "file": "pipeline.sources.file:FileSource",
    "images": "pipeline.sources.images:ImageSource",
    "synthetic": "pipeline.sources.synthetic:SyntheticSource",
}


def build_source(name: str, url: str, *, pixels: Pixels, realtime: bool = False, **options: Any) -> Source:
    """Make the source that a URL names, without opening it.

    Args:
        name: Name of the source.
        url: As for `detect_kind`.
        pixels: ``exact`` for full-size BGR, ``fast`` for the decoder's planes where it has them.
        realtime: Deliver at the recording's own pace, as a camera would.
        **options: Arguments of the adapter, such as ``threads`` for files.

    Raises:
        ConfigError: the URL is of no known kind, or the adapter has no such option.
    """
    kind = detect_kind(url)
    module, _, attribute = SOURCES[kind].partition(":")
    adapter = getattr(importlib.import_module(module), attribute)
    known = set(inspect.signature(adapter).parameters) - {"name", "url", "pixels"}
    for option in options:
        if option not in known:
            raise ConfigError(
                f"sources.{name}: {kind} sources have no option {option!r}",
                hint=f"it can be {', '.join(sorted(known))}" if known else "they have no options",
                source=name,
            )
    source = cast(Source, adapter(name, url, pixels=pixels, **options))
    if realtime:
        from pipeline.sources.paced import Paced  # only what is used is loaded

        return Paced(source)
    return source
