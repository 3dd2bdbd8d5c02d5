"""Envelopes of CloudEvents 1.0: what the specification demands of attributes, for records of all kinds."""

from __future__ import annotations

import re
from copy import deepcopy
from datetime import datetime
from typing import Any
from urllib.parse import unquote

import pytest

from pipeline.sinks.cloudevents import BATCH, ONE, cloud_event
from tests.servers.programs import records

#: RFC 3986: what may stand in the path of a URI reference.
_PATH = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-F]{2})*")


@pytest.mark.parametrize(
    ("fields", "subject"),
    [
        ({}, None),
        ({"object_id": "run-gate-3", "zone": "yard"}, "run-gate-3"),
        ({"schema": "framewire.occupancy/1", "type": "occupancy", "zone": "H\u00f6he 2"}, "H\u00f6he 2"),
        ({"schema": "framewire.source/1", "type": "source", "source": "~"}, None),
        ({"source": "front door/50% #1 \u8eca"}, None),
    ],
)
def test_attributes(fields: dict[str, Any], subject: str | None) -> None:
    (record,) = records(7, 1, **fields)
    before = deepcopy(record)
    event = cloud_event(record, "00ff00ff00ff00ff")
    assert all(re.fullmatch("[a-z0-9]{1,20}", name) for name in event)
    assert all(event[name] for name in ("specversion", "id", "source", "type"))
    assert all(isinstance(value, str) and value for name, value in event.items() if name != "data")
    assert event.get("subject") == subject
    assert _PATH.fullmatch(event["source"])
    assert unquote(event["source"]) == f"/framewire/{record['source']}"
    assert event["type"] == f"framewire.{record['type']}.v1"
    assert datetime.fromisoformat(event["time"]).utcoffset() is not None
    assert event["data"] == record == before


def test_what_is_sent_again_is_the_same_and_nothing_else_is() -> None:
    def names(log_id: str) -> set[tuple[str, str]]:
        events = [cloud_event(record, log_id) for record in records(0, 50)]
        return {(event["source"], event["id"]) for event in events}

    assert names("cafe") == names("cafe")
    assert len(names("cafe") | names("beef")) == 100


def test_the_order_of_sequence_is_that_of_the_events() -> None:
    numbers = [0, 9, 10, 99, 100, 2**31, 2**63 - 1]
    made = [cloud_event(records(n, 1)[0], "cafe")["sequence"] for n in numbers]
    assert made == sorted(made)
    assert [int(text) for text in made] == numbers


def test_media_types() -> None:
    assert ONE.startswith("application/cloudevents+json;")
    assert BATCH.startswith("application/cloudevents-batch+json;")
