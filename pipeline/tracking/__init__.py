"""State without I/O and without a clock: which object of this frame is which of the last."""

from __future__ import annotations

import difflib
import importlib
import inspect
from typing import Any, cast

from pipeline.errors import ConfigError
from pipeline.tracking.base import Tracker

__all__ = ["TRACKERS", "Tracker", "build_tracker"]

#: Tracker of each algorithm, as ``module:Class``.
TRACKERS = {
    "botsort": "pipeline.tracking.botsort:BotSort",
    "bytetrack": "pipeline.tracking.bytetrack:ByteTrack",
    "none": "pipeline.tracking.none:NoTracker",
    "ocsort": "pipeline.tracking.ocsort:OCSort",
    "presence": "pipeline.tracking.presence:ClassPresence",
    "single": "pipeline.tracking.single:SingleObject",
    "sort": "pipeline.tracking.sort:Sort",
}


def build_tracker(algorithm: str, **options: Any) -> Tracker:
    """Make a tracker for one source.

    Args:
        algorithm: A key of `TRACKERS`.
        **options: Arguments of the tracker; ``first_id`` fits all.

    Raises:
        ConfigError: there is no such algorithm or option, or a value is out of its range.
    """
    if algorithm not in TRACKERS:
        near = difflib.get_close_matches(algorithm, TRACKERS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"it can be {', '.join(sorted(TRACKERS))}"
        raise ConfigError(f"track.algorithm: there is no {algorithm!r}", hint=hint)
    module, _, attribute = TRACKERS[algorithm].partition(":")
    factory = getattr(importlib.import_module(module), attribute)
    known = inspect.signature(factory).parameters
    for option in options:
        if option not in known:
            raise ConfigError(
                f"track.{option}: {algorithm} has no such option",
                hint=f"it can be {', '.join(sorted(known))}",
            )
    return cast(Tracker, factory(**options))
