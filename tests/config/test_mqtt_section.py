"""The section of an MQTT sink: what it takes, and what it says of what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from pipeline.config.sinks.mqtt import MqttSink
from pipeline.sinks.mqtt import MqttConnector

PASSWORD = "s3cret-word"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"mqtt": "http://a"}, "must be a URL such as mqtt://"),
        ({"mqtt": "mqtt://me:secret@a:1883"}, "give username: and password:"),
        ({"mqtt": "mqtt://a:99999"}, "must be host and port alone"),
        ({"mqtt": "mqtt://a/topic"}, "must be host and port alone"),
        ({"mqtt": "mqtt://a", "ca_file": "x.pem"}, "write mqtts://"),
        ({"mqtt": "mqtts://a", "key_file": "x.pem"}, "add cert_file:"),
        ({"mqtt": "mqtt://a", "prefix": "a/#"}, "must be of letters"),
        ({"mqtt": "mqtt://a", "protocol": "4"}, "'5' or '3.1.1'"),
        ({"mqtt": "mqtt://a", "types": ["start"]}, "add start, end, source to types:"),
        ({"mqtt": "mqtt://a", "zones": ["yard"]}, "leave zones: out"),
        ({"mqtt": "mqtt://a", "password": "x"}, "add username:"),
    ],
)  # fmt: skip
def test_sections_that_are_wrong(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as wrong:
        MqttSink.model_validate(given)
    assert says in str(wrong.value)
    assert "secret" not in str(wrong.value)


@pytest.mark.parametrize(
    "given",
    [
        {"mqtt": "mqtt://a"},
        {"mqtt": "mqtt://a", "protocol": 5},
        {"mqtt": "mqtts://[::1]:8883", "ca_file": "ca.pem", "cert_file": "us.pem"},
        {"mqtt": "mqtt://a:1883", "username": "cam", "password": PASSWORD, "prefix": "site/cellar"},
        {"mqtt": "mqtt://a", "types": ["start"], "zones": ["yard"], "discovery": False},
    ],
)
def test_sections_that_are_right(given: dict[str, Any]) -> None:
    section = MqttSink.model_validate(given)
    make: Callable[..., MqttConnector] = MqttConnector
    make(**section.options()).close()
    assert PASSWORD not in repr(section)
