"""What a changed config means for a run that goes on: which sources come, go or change. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.config import Config

__all__ = ["Changes", "compare"]


@dataclass(frozen=True, slots=True)
class Changes:
    """The difference between two configs.

    Attributes:
        added: Names of new sources.
        removed: Names of sources that are gone.
        changed: Names of sources that are read in another way.
        redrawn: Names of sources, there before and after, whose zones, lines, masks or ground are others.
        restart: Keys whose new value holds only after a restart, as ``section.key``.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    redrawn: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.redrawn or self.restart)


#: Sections that can change while a run goes on.
_LIVE = {"sources", "zones", "lines", "masks", "ground"}


def compare(old: Config, new: Config) -> Changes:
    """What has to be done to get from one config to the other."""
    before, after = old.sources, new.sources
    return Changes(
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=tuple(name for name in after if name in before and after[name] != before[name]),
        redrawn=tuple(name for name in after if name in before and old.scene(name) != new.scene(name)),
        restart=tuple(_differing("", old.model_dump(exclude=_LIVE), new.model_dump(exclude=_LIVE))),
    )


def _differing(prefix: str, old: Any, new: Any) -> list[str]:
    if old == new:
        return []
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [prefix]
    return [
        key
        for name in dict.fromkeys((*old, *new))
        for key in _differing(f"{prefix}.{name}" if prefix else str(name), old.get(name), new.get(name))
    ]
