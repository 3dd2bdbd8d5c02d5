"""The kinds of sink in a config are those that exist, and take the options that a config offers."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

import pytest

from pipeline.config import from_mapping
from pipeline.config.publish import SINK_KINDS
from pipeline.config.sinks.base import DELIVERY, DeliveredSink
from pipeline.errors import ConfigError
from pipeline.sinks import CONNECTORS, SINKS
from pipeline.transport.pub import is_local

#: What the run adds to the options of a config.
BY_THE_RUN = {"sources", "resume"}


def test_kinds_are_the_sinks() -> None:
    assert set(SINK_KINDS) == {*SINKS, *CONNECTORS}
    assert {kind for kind, cls in SINK_KINDS.items() if issubclass(cls, DeliveredSink)} == set(CONNECTORS)


@pytest.mark.parametrize("kind", SINK_KINDS)
def test_options_are_the_constructors(kind: str) -> None:
    module, _, name = {**SINKS, **CONNECTORS}[kind].partition(":")
    parameters = inspect.signature(getattr(import_module(module), name)).parameters
    fields = {k: v for k, v in SINK_KINDS[kind].model_fields.items() if kind in SINKS or k not in DELIVERY}
    assert set(fields) == set(parameters) - BY_THE_RUN
    for key, field in fields.items():
        if not field.is_required():
            assert field.default == parameters[key].default, f"{kind}.{key} has two defaults"


def test_options_and_kind() -> None:
    entries: list[dict[str, Any]] = [{"zmq": "tcp://127.0.0.1:5556", "format": "json"}, {"jsonl": "e.jsonl"}]
    zmq, jsonl = from_mapping({"publish": entries}, "test").publish
    assert (zmq.kind, jsonl.kind) == ("zmq", "jsonl")
    assert zmq.options()["address"] == "tcp://127.0.0.1:5556"
    assert jsonl.options().items() >= {"path": "e.jsonl", "what": "events"}.items()


@pytest.mark.parametrize(
    "address",
    ["tcp://127.0.0.1:1", "tcp://localhost:5", "tcp://[::1]:5", "tcp://*:5", "tcp://0.0.0.0:5", "tcp://cam:5",
     "ipc:///tmp/x", "tcp://127.0.0.1:*", "tcp://10.0.0.1:5", "tcp://lo:5", "tcp://eth0:5"],
)  # fmt: skip
def test_the_publisher_agrees_on_what_is_local(address: str) -> None:
    entry = {"zmq": address}
    if is_local(address):
        from_mapping({"publish": [entry]}, "test")
    else:
        with pytest.raises(ConfigError, match="other hosts can reach"):
            from_mapping({"publish": [entry]}, "test")
    from_mapping({"publish": [{**entry, "insecure": True}]}, "test")


@pytest.mark.parametrize(
    "entry", [{"redis": "redis://10.0.0.5", "stream": "x"}, {"stream": "X", "nats": "nats://10.0.0.5"}]
)
def test_an_option_may_be_called_like_a_kind(entry: dict[str, Any]) -> None:
    (sink,) = from_mapping({"publish": [entry]}, "test").publish
    assert sink.kind in ("redis", "nats")
