"""Where results go: files, video, sockets, servers. Each kind is one module, imported when first built."""

from __future__ import annotations

import inspect
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from pipeline.errors import ConfigError
from pipeline.sinks.base import Publication, Resume, Sink
from pipeline.sinks.connector import Connector

__all__ = ["CONNECTORS", "SINKS", "Publication", "Resume", "Sink", "build_connector", "build_sink"]

#: Every kind of sink that is in the way of the frames, by the word that a config uses.
SINKS: dict[str, str] = {
    "contact_sheet": "pipeline.sinks.contact_sheet:ContactSheetSink",
    "heatmap": "pipeline.sinks.heatmap:HeatmapSink",
    "coco": "pipeline.sinks.coco:CocoSink",
    "csv": "pipeline.sinks.csv:CsvSink",
    "jsonl": "pipeline.sinks.jsonl:JsonlSink",
    "mot": "pipeline.sinks.mot:MotSink",
    "onvif": "pipeline.sinks.onvif:OnvifSink",
    "parquet": "pipeline.sinks.parquet:ParquetSink",
    "stream": "pipeline.sinks.stream:StreamSink",
    "video": "pipeline.sinks.video:VideoSink",
    "zmq": "pipeline.sinks.zmq_pub:ZmqSink",
}

#: Every kind of server that events are delivered to from the event log, by the word that a config uses.
CONNECTORS: dict[str, str] = {
    "kafka": "pipeline.sinks.kafka:KafkaConnector",
    "mqtt": "pipeline.sinks.mqtt:MqttConnector",
    "nats": "pipeline.sinks.nats:NatsConnector",
    "postgres": "pipeline.sinks.postgres:PostgresConnector",
    "redis": "pipeline.sinks.redis:RedisConnector",
    "webhook": "pipeline.sinks.webhook:WebhookConnector",
}


def build_connector(kind: str, **options: Any) -> Connector:
    """Make the client of a server; nothing is connected yet.

    Args:
        kind: A key of `CONNECTORS`.
        options: Keyword arguments of the class.

    Raises:
        ConfigError: there is no such kind, its library is not installed, or an option is wrong.
    """
    connector: Connector = _made(CONNECTORS, "connector", kind, options)
    return connector


def build_sink(kind: str, *, resume: bool = False, **options: Any) -> Sink:
    """Make a sink; nothing is opened yet.

    Args:
        kind: A key of `SINKS`, or ``module:Class`` of your own.
        resume: Go on with what an earlier incarnation wrote in this run; told to sinks that can.
        options: Keyword arguments of the class.

    Raises:
        ConfigError: there is no such kind, it cannot be imported, or an option is unknown or missing.
    """
    sink: Sink = _made(SINKS, "sink", kind, options, resume=resume)
    return sink


def _made(
    table: dict[str, str], what: str, kind: str, options: dict[str, Any], resume: bool | None = None
) -> Any:
    """An instance of the class that the table names."""
    if kind not in table and ":" not in kind:
        near = get_close_matches(kind, table, 1)
        hint = f"write {near[0]!r}" if near else f"use one of {', '.join(table)}, or module:Class"
        raise ConfigError(f"there is no {what} of kind {kind!r}", hint=hint)
    module, _, name = table.get(kind, kind).partition(":")
    try:
        cls = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"cannot import {what} {kind!r}: {error}",
            hint="write module:Class with a module that this Python can import",
        ) from error
    parameters = list(inspect.signature(cls).parameters)
    if resume is not None and "resume" in parameters:
        options["resume"] = resume
    try:
        inspect.signature(cls).bind(**options)
    except TypeError as error:
        unknown = [option for option in options if option not in parameters]
        near = get_close_matches(unknown[0], parameters, 1) if unknown else []
        hint = f"write {near[0]!r}" if near else f"its options are {', '.join(parameters)}"
        raise ConfigError(f"wrong options for {what} {kind!r}: {error}", hint=hint) from error
    return cls(**options)
