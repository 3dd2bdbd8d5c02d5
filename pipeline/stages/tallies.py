"""What has been counted at the zones and lines of each source, from the events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from pipeline.messages import Event

__all__ = ["Tallies"]


class Tallies:
    """Objects in zones now, and who has entered and crossed so far."""

    def __init__(self) -> None:
        self._inside: dict[str, dict[str, int]] = {}
        self._entered: dict[str, Counter[str]] = {}
        self._crossed: dict[str, dict[str, Counter[str]]] = {}

    def add(self, events: Iterable[Event]) -> None:
        """Count events, each once."""
        for event in events:
            zone, line = event.zone, event.line
            if event.type == "occupancy" and zone is not None:
                self._inside.setdefault(event.source, {})[zone] = event.count or 0
            elif event.type == "zone" and zone is not None and event.action == "enter":
                self._entered.setdefault(event.source, Counter())[zone] += 1
            elif event.type == "line" and line is not None and event.direction is not None:
                ways = self._crossed.setdefault(event.source, {}).setdefault(line, Counter())
                ways[event.direction] += 1

    def inside(self, source: str) -> dict[str, int]:
        """Objects in each zone of a source that has ever held one."""
        return self._inside.get(source, {})

    def summary(self) -> dict[str, Any]:
        """``zones``: how often each was entered; ``lines``: crossings by direction; both by source."""
        return {
            "zones": {source: dict(zones) for source, zones in self._entered.items()},
            "lines": {
                source: {line: dict(ways) for line, ways in lines.items()}
                for source, lines in self._crossed.items()
            },
        }
