"""The config: a YAML file in, a frozen `Config` out. Parses and checks; probes nothing, starts nothing.

``document`` reads the text and remembers line numbers, ``model`` and its neighbours ``source``, ``publish``
and ``metrics`` hold the sections, ``loading`` joins the two and puts what is wrong into words.
"""

from __future__ import annotations

from pipeline.config.credentials import redact, redact_url, redacted_argv
from pipeline.config.loading import InvalidConfigError, Problem, from_mapping, load
from pipeline.config.metrics import Metrics
from pipeline.config.model import (
    STAGES,
    Cascade,
    Config,
    Events,
    InferStage,
    Model,
    PublishStage,
    Restart,
    Run,
    Stage,
    Stages,
    Track,
)
from pipeline.config.naming import name_sources
from pipeline.config.publish import ContactSheetSink, JsonlSink, Sink, VideoSink, ZmqSink
from pipeline.config.source import Motion, Source
from pipeline.config.variables import expand

__all__ = [
    "STAGES",
    "Cascade",
    "Config",
    "ContactSheetSink",
    "Events",
    "InferStage",
    "InvalidConfigError",
    "JsonlSink",
    "Metrics",
    "Model",
    "Motion",
    "Problem",
    "PublishStage",
    "Restart",
    "Run",
    "Sink",
    "Source",
    "Stage",
    "Stages",
    "Track",
    "VideoSink",
    "ZmqSink",
    "expand",
    "from_mapping",
    "load",
    "name_sources",
    "redact",
    "redact_url",
    "redacted_argv",
]
