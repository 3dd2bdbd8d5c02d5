"""What Home Assistant is told over MQTT: its discovery messages, and the states they point at. Pure.

The words of the payloads are those of Home Assistant's documentation of MQTT discovery and of its MQTT
``binary_sensor``, ``sensor``, ``switch`` and ``number``. Every message made here is to be retained.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec

from pipeline import __version__
from pipeline.schemas import TOPIC_ROOT, topic
from pipeline.sinks.records import OF_THE_RUN

__all__ = ["AVAILABILITY", "OFFLINE", "ONLINE", "Home", "Retained", "topic_of"]

AVAILABILITY = "availability"
ONLINE, OFFLINE = b"online", b"offline"
_UP_AND_DOWN = {"payload_on": ONLINE.decode(), "payload_off": OFFLINE.decode()}

#: More labels or zones of one source than this get states, but no entities: nobody wants a thousand of them.
_MOST = 100
#: Nothing that was seen before is there any more when a source is in one of these states.
_GONE = ("reconnecting", "ended", "failed")
#: A source that says this has pictures.
_SEEING = ("start", "update")
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_COUNT = "{{ value_json.count }}"
_PRESENT = "{{ 'ON' if value_json.count > 0 else 'OFF' }}"


class Retained(NamedTuple):
    """A message that the server is to keep."""

    topic: str
    payload: bytes


def topic_of(prefix: str, source: str, type: str, label: str = "") -> str:  # noqa: A002  (as in schemas)
    """The MQTT topic of a record: that of `pipeline.schemas.topic`, under ``prefix``, without a last slash.

    MQTT compares whole levels, so the slash that keeps ``front`` from ``front_door`` is not needed here.
    """
    return f"{prefix}/{topic(source, type, label).removeprefix(TOPIC_ROOT)[:-1]}"


class Home:
    """The states of a run as events tell them, and the entities that show them.

    What is present is kept as a set of ``object_id``, so an event that is told twice changes nothing.
    Records of other runs change nothing either: their objects have nobody left who would tell their end.

    Args:
        prefix: First level or levels of our topics.
        discovery_prefix: That of Home Assistant's; None for no entities and no states but availability.
        run_id: Id of the run.
        commands: Whether sources get a switch and a number.
    """

    def __init__(
        self, prefix: str, discovery_prefix: str | None, run_id: str, commands: bool = False
    ) -> None:
        self._prefix, self._discovery, self._run_id, self._commands = (
            prefix,
            discovery_prefix,
            run_id,
            commands,
        )
        self._configs: dict[str, bytes] = {}
        self._states: dict[str, bytes] = {}
        self._changed: dict[str, None] = {}
        self._sources: set[str] = set()
        self._running: dict[str, bool] = {}
        self._objects: dict[tuple[str, str], set[str]] = {}
        self._zones: dict[tuple[str, str], dict[str, Any]] = {}
        if discovery_prefix is not None:
            self._config("binary_sensor", "", "running", "Running", {
                "device_class": "running", "entity_category": "diagnostic",
                "state_topic": f"{prefix}/{AVAILABILITY}", **_UP_AND_DOWN,
            })  # fmt: skip

    @property
    def sources(self) -> set[str]:
        """Names of the sources known so far."""
        return set(self._sources)

    def know(self, sources: Iterable[str]) -> None:
        """There are these sources; their state stays unknown until an event tells it."""
        for source in sources:
            if source not in self._sources and source != OF_THE_RUN:
                self._sources.add(source)
                self._source_configs(source)

    def see(self, record: dict[str, Any]) -> None:
        """Take one event record."""
        source, type_ = record["source"], record["type"]
        if source == OF_THE_RUN or not record["id"].startswith(f"{self._run_id}-"):
            return
        self.know((source,))
        if type_ == "source":
            self._run(source, record["state"] == "running")
            if record["state"] in _GONE:
                self._clear(source)
            return
        if type_ in _SEEING:
            self._run(source, True)
        if self._discovery is None:
            return
        if type_ == "occupancy":
            self._zone(source, record["zone"], record["count"], record.get("counts", {}))
        elif label := record.get("label"):
            self._object(source, label, str(record.get("object_id", record.get("track_id"))), type_ != "end")

    def restore(self, where: str, payload: bytes) -> None:
        """Take a state that the server has kept from before this process: of this run, or of an earlier one.

        What an earlier run says is present is gone now. What is no state of ours changes nothing.
        """
        levels = [unquote(level) for level in where.removeprefix(f"{self._prefix}/").split("/")]
        if len(levels) == 2 and levels[1] == AVAILABILITY and payload in (ONLINE, OFFLINE):
            if levels[0] not in self._running:
                self.know(levels[:1])
                self._run(levels[0], payload == ONLINE)
            return
        if len(levels) != 3 or self._discovery is None:
            return
        try:
            kept = msgspec.json.decode(payload, type=_Kept)
        except msgspec.DecodeError:
            return
        source, what, name = levels
        ours = kept.run == self._run_id
        self.know((source,))
        if what == "objects" and (source, name) not in self._objects:
            self._objects[source, name] = set(kept.objects) if ours else set()
            self._count(source, name)
        elif what == "zones" and (source, name) not in self._zones:
            self._zone(source, name, kept.count if ours else 0, kept.counts if ours else {})

    def tuned(self, source: str, enabled: bool, confidence: float) -> None:
        """How a source is set now; said also when that is not new, to whoever wanted it otherwise."""
        for what, said in (("detection", "ON" if enabled else "OFF"), ("confidence", f"{confidence:g}")):
            where = topic_of(self._prefix, source, what, "state")
            self._states[where] = said.encode()
            self._changed[where] = None

    def changed(self) -> list[Retained]:
        """What is new since this was asked the last time; entities come before their states."""
        found = [Retained(key, self._message(key)) for key in self._changed]
        self._changed.clear()
        return found

    def everything(self) -> list[Retained]:
        """All there is to say: for a server that has forgotten, and a Home Assistant that asks."""
        self._changed.clear()
        return [Retained(*item) for item in (*self._configs.items(), *self._states.items())]

    def _message(self, key: str) -> bytes:
        return self._configs[key] if key in self._configs else self._states[key]

    def _state(self, key: str, payload: bytes) -> None:
        if self._states.get(key) != payload:
            self._states[key] = payload
            self._changed[key] = None

    def _run(self, source: str, running: bool) -> None:
        if source not in self._running:
            self._config("binary_sensor", source, "connectivity", "Connection", {
                "device_class": "connectivity", "entity_category": "diagnostic",
                "state_topic": self._available(source), **_UP_AND_DOWN, **self._availability(),
            })  # fmt: skip
        self._running[source] = running
        self._state(self._available(source), ONLINE if running else OFFLINE)

    def _object(self, source: str, label: str, who: str, here: bool) -> None:
        known = (source, label) in self._objects
        present = self._objects.setdefault((source, label), set())
        if here and who not in present:
            # An object may change its label on the way; it is present once.
            for (there, other), them in self._objects.items():
                if there == source and who in them:
                    them.discard(who)
                    self._count(there, other)
        elif known and here == (who in present):
            return
        (present.add if here else present.discard)(who)
        self._count(source, label)

    def _clear(self, source: str) -> None:
        for (there, label), present in self._objects.items():
            if there == source:
                present.clear()
                self._count(source, label)
        for there, zone in list(self._zones):
            if there == source:
                self._zone(source, zone, 0, {})

    def _count(self, source: str, label: str) -> None:
        present = sorted(self._objects[source, label])
        self._show(source, "objects", label, {"count": len(present), "objects": present})

    def _zone(self, source: str, zone: str, count: int, counts: dict[str, int]) -> None:
        self._zones[source, zone] = {"count": count, "counts": counts}
        self._show(source, "zones", zone, self._zones[source, zone])

    def _show(self, source: str, what: str, name: str, state: dict[str, Any]) -> None:
        """A state with a count, and the two entities that show it."""
        where = topic_of(self._prefix, source, what, name)
        if where not in self._states:
            known = sum(key.startswith(topic_of(self._prefix, source, what) + "/") for key in self._states)
            if known < _MOST:
                key = f"{what}_{name}"
                shared = {"state_topic": where, **self._availability(source)}
                shown = {"device_class": "occupancy", "value_template": _PRESENT}
                self._config("binary_sensor", source, key, f"{name} present", shown | shared)
                shown = {
                    "state_class": "measurement",
                    "unit_of_measurement": "objects",
                    "value_template": _COUNT,
                }
                self._config("sensor", source, f"{key}_count", f"{name} count", shown | shared)
        self._state(where, msgspec.json.encode({**state, "run": self._run_id}))

    def _source_configs(self, source: str) -> None:
        if not self._commands:
            return
        for component, key, name, more in (
            ("switch", "detection", "Detection", {}),
            ("number", "confidence", "Confidence", {"min": 0, "max": 1, "step": 0.01, "mode": "slider"}),
        ):
            self._config(component, source, key, name, {
                "command_topic": topic_of(self._prefix, source, key, "set"),
                "state_topic": topic_of(self._prefix, source, key, "state"),
                "entity_category": "config", **more, **self._availability(),
            })  # fmt: skip

    def _config(self, component: str, source: str, key: str, name: str, more: dict[str, Any]) -> None:
        """One entity, on the device of its source, or of the run where ``source`` is empty."""
        if self._discovery is None:
            return
        device_id = f"{self._prefix}/{source}" if source else self._prefix
        device: dict[str, Any] = {
            "identifiers": [device_id],
            "name": source or ("framewire" if self._prefix == "framewire" else f"framewire {self._prefix}"),
            "manufacturer": "framewire",
            "model": "video source" if source else "video pipeline",
            "sw_version": __version__,
        }
        if source:
            device["via_device"] = self._prefix
        payload = {
            "name": name, "unique_id": f"{device_id}/{key}", **more, "qos": 1,
            "device": device, "origin": {"name": "framewire", "sw_version": __version__},
        }  # fmt: skip
        where = f"{self._discovery}/{component}/{_word(device_id)}/{_word(key)}/config"
        self._configs[where] = msgspec.json.encode(payload)
        self._changed[where] = None

    def _available(self, source: str) -> str:
        return topic_of(self._prefix, source, AVAILABILITY)

    def _availability(self, source: str = "") -> dict[str, Any]:
        topics = [f"{self._prefix}/{AVAILABILITY}", *([self._available(source)] if source else [])]
        return {"availability": [{"topic": one} for one in topics], "availability_mode": "all"}


class _Kept(msgspec.Struct):
    run: str
    count: int = 0
    counts: dict[str, int] = {}
    objects: list[str] = []


def _word(text: str) -> str:
    """A level that Home Assistant takes in a discovery topic: other characters give way to a checksum."""
    if _PLAIN.fullmatch(text):
        return text
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '_', text)}_{zlib.crc32(text.encode()):08x}"
