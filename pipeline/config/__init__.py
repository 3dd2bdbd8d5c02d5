"""The config: a YAML file in, a frozen `Config` out. Parses and checks; probes nothing, starts nothing.

``document`` reads the text and remembers line numbers, ``model`` and its neighbours (``source``, ``track``,
``scene``, ``privacy``, ``stages``, ``publish``, ``metrics``, ``run``) hold the sections, ``loading`` joins
the two and puts what is wrong into words.
"""

from __future__ import annotations

from pipeline.config.clips import Clips
from pipeline.config.credentials import redact, redact_url, redacted_argv
from pipeline.config.eventlog import EventLog
from pipeline.config.loading import InvalidConfigError, Problem, from_mapping, load
from pipeline.config.metrics import Metrics
from pipeline.config.model import Cascade, Config, Events, Model
from pipeline.config.naming import name_sources
from pipeline.config.privacy import Privacy
from pipeline.config.publish import Sink
from pipeline.config.run import Restart, Run
from pipeline.config.scene import Ground, Line, Mask, Zone
from pipeline.config.sinks.base import DeliveredSink
from pipeline.config.sinks.files import JsonlSink
from pipeline.config.sinks.pictures import ContactSheetSink, HeatmapSink, VideoSink
from pipeline.config.sinks.zmq import ZmqSink
from pipeline.config.source import Motion, Source
from pipeline.config.stages import STAGES, InferStage, PublishStage, Stage, Stages
from pipeline.config.track import Closing, Track
from pipeline.config.variables import expand

__all__ = [
    "STAGES",
    "Cascade",
    "Clips",
    "Closing",
    "Config",
    "ContactSheetSink",
    "DeliveredSink",
    "EventLog",
    "Events",
    "Ground",
    "HeatmapSink",
    "InferStage",
    "InvalidConfigError",
    "JsonlSink",
    "Line",
    "Mask",
    "Metrics",
    "Model",
    "Motion",
    "Privacy",
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
    "Zone",
    "expand",
    "from_mapping",
    "load",
    "name_sources",
    "redact",
    "redact_url",
    "redacted_argv",
]
