"""Counts at zones and lines."""

from __future__ import annotations

from pipeline.stages.tallies import Tallies
from tests.helpers import make_event


def test_counts_by_source() -> None:
    tallies = Tallies()
    assert tallies.inside("gate") == {}
    tallies.add(
        [
            make_event("start"),
            make_event("zone", zone="yard", action="enter"),
            make_event("occupancy", track_id=None, zone="yard", count=1),
            make_event("zone", zone="yard", action="loiter"),
            make_event("line", line="door", direction="in"),
            make_event("line", line="door", direction="in"),
            make_event("line", line="door", direction="out"),
            make_event("zone", zone="yard", action="exit"),
            make_event("zone", zone="yard", action="enter", source="back"),
        ]
    )
    assert tallies.inside("gate") == {"yard": 1}
    assert tallies.summary() == {
        "zones": {"gate": {"yard": 1}, "back": {"yard": 1}},
        "lines": {"gate": {"door": {"in": 2, "out": 1}}},
    }
    tallies.add([make_event("occupancy", zone="yard", count=0)])
    assert tallies.inside("gate") == {"yard": 0}
