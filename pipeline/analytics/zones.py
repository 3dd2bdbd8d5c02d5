"""Zones: which objects are in them, for how long, and how many.

What is told, by presentation time, and always in a frame that exists. "Inside" is the anchor of an object's
box within the polygon, boundary included; who is not seen keeps the state that it had.

- ``enter``: in the frame in which the object has been inside for ``enter_s`` without a break; at once when
  that is 0, and for an object that starts inside too. Until then the whole filter must hold in each frame in
  which it is seen. From then on its labels alone decide, so that a score or a size that dips ends no stay.
- ``exit``: in the frame in which it has been seen outside for ``exit_s`` without a break, or when the object
  leaves the scene, which ``reason`` says. Back before that, it has never been away. Its ``dwell_s`` is from
  the first frame inside to the last. Who comes back later enters anew.
- ``loiter``: once in each stay, in the first frame in which the object is inside and has been in, since the
  first frame inside, for ``dwell_s`` or longer.
- ``occupancy``: how many are in, when that has changed and held; those in a short way outside count.
- ``crowd``: ``start`` once there have been ``crowd`` or more in for ``crowd_s``, ``end`` once there have been
  fewer for as long.

Between two frames nothing is made up: an object that was inside in the one and is outside in the next was
outside from the next on, however many frames were dropped between them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.analytics.areas import Polygon, anchor_of, check_points, matches, to_pixels
from pipeline.analytics.objects import Fact, Observer, TrackedObject
from pipeline.errors import ConfigError
from pipeline.messages import EventType, FrameHeader, Scene, Zone

__all__ = ["Zones"]

#: A count that never holds still is told after so many times the time that it should have held.
_PATIENCE = 4


@dataclass(slots=True)
class _Stay:
    """One object that is in a zone, or about to be.

    Attributes:
        item: The object.
        first_ns: First frame inside.
        last_ns: Last frame inside.
        away_ns: First frame outside since; None while inside.
        entered: Whether ``enter`` has been told.
        loitered: Whether ``loiter`` has.
    """

    item: TrackedObject
    first_ns: int
    last_ns: int
    away_ns: int | None = None
    entered: bool = False
    loitered: bool = False

    @property
    def dwell_s(self) -> float:
        return (self.last_ns - self.first_ns) / 1e9


@dataclass(slots=True)
class _Area:
    """One zone, who is in it, and what has been told of its numbers.

    Attributes:
        zone: The zone.
        polygon: Its area in pixels.
        stays: By track id.
        counts: How many are in, by label, as of the last frame.
        since_ns: Since when.
        told: What was told last.
        differs_ns: Since when that is no longer so; None while it is.
        crowded: Whether ``start`` of a crowd was told last.
        turned_ns: Since when that is no longer so; None while it is.
    """

    zone: Zone
    polygon: Polygon | None = None
    stays: dict[int, _Stay] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    since_ns: int = 0
    told: dict[str, int] = field(default_factory=dict)
    differs_ns: int | None = None
    crowded: bool = False
    turned_ns: int | None = None


class Zones(Observer):
    """All zones of one source. Keeps ``zones`` and ``entered_zones`` of the objects up to date.

    Facts of an object are ``zone``: ``zone``, ``action``, ``dwell_s``, and ``reason`` where a stay ended for
    another reason than the object's own way. ``occupancy`` and ``crowd`` have ``zone``, ``count`` and
    ``counts`` (by label), a crowd its ``action`` too; a zone is empty until its first ``occupancy``. The
    motion of a moving camera changes nothing: a zone is a part of the picture.

    Args:
        scene: What is drawn in the picture.
        settle_s: For how long a count must have held before it is told, seconds; 0 for at once. One that goes
            on changing is told after four times as long.

    Raises:
        ConfigError: a zone is none, or a time is negative or not finite.
    """

    def __init__(self, scene: Scene, *, settle_s: float = 0.5) -> None:
        _check_time("settle_s", settle_s)
        self._settle_ns = _ns(settle_s)
        self._areas = {name: _area(name, zone) for name, zone in scene.zones.items()}
        self._now_ns = 0
        self._size = (0, 0)

    def adopt(self, scene: Scene) -> list[Fact]:
        """Go on with other zones, between two frames.

        Who is in a zone stays in it when a zone of that name is there again; the new polygon, filter and
        times decide from the next frame on.

        Args:
            scene: What is drawn now.

        Returns:
            Exits, with ``reason`` ``scene``, and ends of crowds, of the zones that are gone.

        Raises:
            ConfigError: as when made; all is left as it was.
        """
        areas = {name: _area(name, zone) for name, zone in scene.zones.items()}
        facts: list[Fact] = []
        for name, old in self._areas.items():
            new = areas.get(name)
            if new is not None:
                old.zone, old.polygon = new.zone, None
                areas[name] = old
                continue
            facts += [_exit(name, stay, "scene") for stay in old.stays.values() if stay.entered]
            if old.crowded:
                facts.append(_numbers("crowd", name, {}, action="end"))
        self._areas = areas
        return facts

    def begin(self, header: FrameHeader, motion: NDArray[np.float64] | None) -> None:
        """A frame begins; see `Observer`."""
        self._now_ns = header.pts_ns
        size = (header.width, header.height)
        for area in self._areas.values():
            if area.polygon is None or size != self._size:
                area.polygon = Polygon(to_pixels(area.zone.polygon, area.zone.coordinates, *size))
        self._size = size

    def see(self, item: TrackedObject) -> list[Fact]:
        """An object was seen in this frame.

        Returns:
            Its exits, then what happened in the other zones, both in the order of the scene.
        """
        exits: list[Fact] = []
        others: list[Fact] = []
        for name, area in self._areas.items():
            stay = area.stays.get(item.track_id)
            if self._inside(area, item, stay is not None and stay.entered):
                others += self._stays(name, area, item, stay)
            elif stay is not None:
                exits += self._strays(name, area, stay)
        return exits + others

    def leave(self, item: TrackedObject, reason: str) -> list[Fact]:
        """An object has gone: it exits all zones that it is in, for that reason."""
        stays = [(name, area.stays.pop(item.track_id, None)) for name, area in self._areas.items()]
        return [_exit(name, stay, reason) for name, stay in stays if stay is not None and stay.entered]

    def finish(self, items: Collection[TrackedObject]) -> list[Fact]:
        """All objects have been told.

        Returns:
            Occupancy and crowds, in the order of the scene.
        """
        facts: list[Fact] = []
        for name, area in self._areas.items():
            counts = dict(Counter(stay.item.label for stay in area.stays.values() if stay.entered))
            facts += self._occupancy(name, area, counts)
            facts += self._crowd(name, area, counts)
        return facts

    def close(self) -> list[Fact]:
        """Nothing more comes: no zone is occupied or crowded any more."""
        facts: list[Fact] = []
        for name, area in self._areas.items():
            if area.told:
                facts.append(_numbers("occupancy", name, {}))
            if area.crowded:
                facts.append(_numbers("crowd", name, {}, action="end"))
        return facts

    def _inside(self, area: _Area, item: TrackedObject, entered: bool) -> bool:
        zone = area.zone
        only = zone.only
        if entered:
            if only.labels is not None and item.label not in only.labels:
                return False
        elif not matches(only, item.label, item.score, item.box, *self._size):
            return False
        assert area.polygon is not None
        return area.polygon.contains(*anchor_of(item.box, zone.anchor))

    def _stays(self, name: str, area: _Area, item: TrackedObject, stay: _Stay | None) -> list[Fact]:
        """It is inside."""
        now, zone = self._now_ns, area.zone
        if stay is None:
            stay = area.stays[item.track_id] = _Stay(item, now, now)
        stay.item, stay.last_ns, stay.away_ns = item, now, None
        facts: list[Fact] = []
        if not stay.entered and now - stay.first_ns >= _ns(zone.enter_s):
            stay.entered = True
            item.zones.append(name)
            if name not in item.entered_zones:
                item.entered_zones.append(name)
            facts.append(_zone_fact(name, stay, "enter"))
        due = zone.dwell_s is not None and now - stay.first_ns >= _ns(zone.dwell_s)
        if stay.entered and not stay.loitered and due:
            stay.loitered = True
            facts.append(_zone_fact(name, stay, "loiter"))
        return facts

    def _strays(self, name: str, area: _Area, stay: _Stay) -> list[Fact]:
        """It is outside, and was inside before."""
        if stay.away_ns is None:
            stay.away_ns = self._now_ns
        if stay.entered and self._now_ns - stay.away_ns < _ns(area.zone.exit_s):
            return []
        del area.stays[stay.item.track_id]
        return [_exit(name, stay)] if stay.entered else []

    def _occupancy(self, name: str, area: _Area, counts: dict[str, int]) -> list[Fact]:
        now = self._now_ns
        if counts != area.counts:
            area.counts, area.since_ns = counts, now
        if counts == area.told:
            area.differs_ns = None
            return []
        if area.differs_ns is None:
            area.differs_ns = now
        held, waited = now - area.since_ns, now - area.differs_ns
        if held < self._settle_ns and waited < _PATIENCE * self._settle_ns:
            return []
        area.told, area.differs_ns = counts, None
        return [_numbers("occupancy", name, counts)]

    def _crowd(self, name: str, area: _Area, counts: dict[str, int]) -> list[Fact]:
        limit = area.zone.crowd
        crowded = limit is not None and sum(counts.values()) >= limit
        if crowded == area.crowded:
            area.turned_ns = None
            return []
        if area.turned_ns is None:
            area.turned_ns = self._now_ns
        if self._now_ns - area.turned_ns < _ns(area.zone.crowd_s):
            return []
        area.crowded, area.turned_ns = crowded, None
        return [_numbers("crowd", name, counts, action="start" if crowded else "end")]


def _zone_fact(name: str, stay: _Stay, action: str, **more: Any) -> Fact:
    return Fact("zone", stay.item, {"zone": name, "action": action, "dwell_s": stay.dwell_s, **more})


def _exit(name: str, stay: _Stay, reason: str = "") -> Fact:
    stay.item.zones.remove(name)
    return _zone_fact(name, stay, "exit", **({"reason": reason} if reason else {}))


def _numbers(kind: EventType, name: str, counts: dict[str, int], **more: Any) -> Fact:
    fields = {"zone": name, "count": sum(counts.values()), "counts": dict(sorted(counts.items())), **more}
    return Fact(kind, None, fields)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)


def _area(name: str, zone: Zone) -> _Area:
    where = f"zones.{name}"
    check_points(f"{where}.polygon", zone.polygon, zone.coordinates, 3)
    for what in ("enter_s", "exit_s", "dwell_s", "crowd_s"):
        value = getattr(zone, what)
        if value is not None:
            _check_time(f"{where}.{what}", value)
    if zone.crowd is not None and zone.crowd < 1:
        raise ConfigError(f"{where}.crowd is {zone.crowd}", hint="write a number of objects, 1 or more")
    return _Area(zone)


def _check_time(where: str, value: float) -> None:
    if not 0 <= value < float("inf"):
        raise ConfigError(f"{where} is {value}", hint="write a number of seconds, 0 or more")
