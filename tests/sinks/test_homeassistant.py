"""What Home Assistant is told: payloads with the keys that its documentation asks for, and true states."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from pipeline.sinks.homeassistant import Home, Retained, topic_of

#: By component: keys that must be there, and those that we may use besides; from the documentation of
#: Home Assistant's MQTT binary_sensor, sensor, switch and number.
REQUIRED = {
    "binary_sensor": {"state_topic"},
    "sensor": {"state_topic"},
    "switch": {"command_topic"},
    "number": {"command_topic"},
}
SHARED = {
    "availability",
    "availability_mode",
    "device",
    "entity_category",
    "name",
    "origin",
    "qos",
    "unique_id",
}
ALLOWED = {
    "binary_sensor": {"state_topic", "payload_on", "payload_off", "device_class", "value_template"},
    "sensor": {"state_topic", "state_class", "unit_of_measurement", "value_template"},
    "switch": {"command_topic", "state_topic"},
    "number": {"command_topic", "state_topic", "min", "max", "step", "mode"},
}
DEVICE = {"identifiers", "name", "manufacturer", "model", "sw_version", "via_device"}
CLASSES = {"running", "connectivity", "occupancy"}
#: Home Assistant's own pattern of a discovery topic.
TOPIC = re.compile(
    r"homeassistant/(?P<component>\w+)/(?P<node>[a-zA-Z0-9_-]+)/(?P<object>[a-zA-Z0-9_-]+)/config"
)


def event(sequence: int, type: str, source: str = "gate", run: str = "run", **more: Any) -> dict[str, Any]:  # noqa: A002
    if "track_id" in more:
        more = {"label": "person", "object_id": f"{run}-{source}-{more['track_id']}"} | more
    return {"sequence": sequence, "id": f"{run}-{sequence}", "type": type, "source": source} | more


def told(messages: list[Retained]) -> dict[str, Any]:
    return {
        where: json.loads(payload) if payload[:1] == b"{" else payload.decode() for where, payload in messages
    }


def home(prefix: str = "framewire", *, commands: bool = False, run: str = "run") -> Home:
    return Home(prefix, "homeassistant", run, commands)


def test_topics() -> None:
    assert topic_of("fw", "gate", "start", "person") == "fw/gate/start/person"
    assert topic_of("a/b", "gate", "source") == "a/b/gate/source"
    assert topic_of("fw", "gate", "end", "a/+#b") == "fw/gate/end/a%2F%2B%23b"


@pytest.mark.parametrize("prefix", ["framewire", "site/cellar.2"])
def test_payloads_have_what_the_documentation_asks_for(prefix: str) -> None:
    one = home(prefix, commands=True)
    one.see(event(1, "source", state="running"))
    one.see(event(2, "start", track_id=1))
    one.see(event(3, "start", track_id=2, label="traffic light"))
    one.see(event(4, "occupancy", zone="Einfahrt (süd)", count=1, counts={"person": 1}))
    said = told(one.everything())
    configs = {where: payload for where, payload in said.items() if where.startswith("homeassistant/")}
    kinds = [where.split("/")[1] for where in configs]
    # The run; of the source its connection, two labels and a zone, the counts of these, and what can be set.
    assert (kinds.count("binary_sensor"), kinds.count("sensor")) == (1 + 1 + 3, 3)
    assert (kinds.count("switch"), kinds.count("number")) == (1, 1)
    hubs = set()
    for where, payload in configs.items():
        match = TOPIC.fullmatch(where)
        assert match is not None, where
        component = match["component"]
        assert REQUIRED[component] <= set(payload) <= SHARED | ALLOWED[component], where
        assert {"name", "unique_id", "device", "origin"} <= set(payload)
        assert payload["origin"]["name"] == "framewire"
        assert {"identifiers", "name"} <= set(payload["device"]) <= DEVICE
        assert payload.get("device_class", "occupancy") in CLASSES
        assert payload.get("availability_mode", "all") == "all"
        assert all(set(one) == {"topic"} for one in payload.get("availability", []))
        # Whatever an entity waits for is said: its state, and its availability.
        watched = [one["topic"] for one in payload.get("availability", [])]
        if component in ("binary_sensor", "sensor"):
            watched.append(payload["state_topic"])
        assert set(watched) <= {*said, f"{prefix}/availability"}, where
        hubs |= {payload["device"].get("via_device", prefix)}
    assert hubs == {prefix}
    assert len({payload["unique_id"] for payload in configs.values()}) == len(configs)
    assert said[f"{prefix}/gate/objects/traffic light"]["count"] == 1


def test_entities_come_before_their_states() -> None:
    one = home()
    one.see(event(1, "start", track_id=1))
    where = [item.topic for item in one.changed()]
    last_config = max(i for i, name in enumerate(where) if name.startswith("homeassistant/"))
    assert where.index("framewire/gate/objects/person") > last_config
    assert one.changed() == []


LIVES = [
    event(1, "source", state="running"),
    event(2, "start", track_id=1),
    event(3, "start", track_id=2),
    event(4, "update", track_id=1),
    event(5, "occupancy", zone="yard", count=2, counts={"person": 2}),
    event(6, "end", track_id=1),
    event(7, "occupancy", zone="yard", count=1, counts={"person": 1}),
]


@pytest.mark.parametrize("again_from", range(len(LIVES)))
def test_events_told_again_change_nothing(again_from: int) -> None:
    one = home()
    for record in [*LIVES, *LIVES[again_from:]]:
        one.see(record)
    said = told(one.everything())
    assert said["framewire/gate/objects/person"] == {"count": 1, "objects": ["run-gate-2"], "run": "run"}
    assert said["framewire/gate/zones/yard"]["count"] == 1
    assert said["framewire/gate/availability"] == "online"


@pytest.mark.parametrize(
    ("state", "count", "available"),
    [
        ("stalled", 1, "offline"),
        ("reconnecting", 0, "offline"),
        ("ended", 0, "offline"),
        ("running", 1, "online"),
    ],
)
def test_a_lost_source_has_nothing_in_it(state: str, count: int, available: str) -> None:
    one = home()
    for record in [*LIVES, event(8, "source", state=state)]:
        one.see(record)
    said = told(one.everything())
    assert said["framewire/gate/availability"] == available
    assert said["framewire/gate/objects/person"]["count"] == count
    assert said["framewire/gate/zones/yard"]["count"] == count


def test_events_that_are_no_business_of_it() -> None:
    one = home()
    before = one.everything()
    one.see(event(1, "log", source="~", state="degraded"))
    one.see(event(2, "start", run="earlier", track_id=9))
    assert one.everything() == before


def test_a_label_that_changes_counts_once() -> None:
    one = home()
    one.see(event(1, "start", track_id=1, label="car"))
    one.see(event(2, "update", track_id=1, label="truck"))
    said = told(one.everything())
    counts = [said[f"framewire/gate/objects/{label}"]["count"] for label in ("car", "truck")]
    assert counts == [0, 1]


def test_states_outlive_the_process_and_not_the_run() -> None:
    first = home()
    for record in LIVES:
        first.see(record)
    kept = [item for item in first.everything() if item.topic.startswith("framewire/")]
    same, later = home(), home(run="later")
    for item in kept:
        same.restore(*item)
        later.restore(*item)
    here, gone = told(same.everything()), told(later.everything())
    assert here == told(first.everything())
    assert [gone[f"framewire/gate/{what}"]["count"] for what in ("objects/person", "zones/yard")] == [0, 0]
    for junk in (b"", b"12", b"{}", b"\xff", b'{"run": 5}'):
        for where in (
            "framewire/x/objects/person",
            "framewire/x/availability",
            "framewire",
            "else/x/zones/y",
        ):
            same.restore(where, junk)
    assert told(same.everything()) == here


def test_a_thousand_labels_make_a_hundred_entities() -> None:
    one = home()
    for number in range(300):
        one.see(event(number, "start", track_id=number, label=f"class_{number}"))
    topics = [item.topic for item in one.everything()]
    assert sum(where.startswith("framewire/gate/objects/") for where in topics) == 300
    assert sum("/sensor/" in where for where in topics) == 100


def test_without_discovery_there_is_availability_only() -> None:
    one = Home("framewire", None, "run")
    for record in LIVES:
        one.see(record)
    assert told(one.everything()) == {"framewire/gate/availability": "online"}


def test_settings_are_said_again() -> None:
    one = home(commands=True)
    one.tuned("gate", False, 0.25)
    one.changed()
    one.tuned("gate", False, 0.25)
    assert told(one.changed()) == {
        "framewire/gate/detection/state": "OFF",
        "framewire/gate/confidence/state": "0.25",
    }
