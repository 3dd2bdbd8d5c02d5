"""Wire types: what stages say to each other. Frozen msgspec Structs, nothing heavier than numpy.

Coordinates are pixels of the source frame unless a name says otherwise; boxes are ``xyxy`` with
exclusive ``x2, y2``. Times ending in ``_ns`` are integers; ``captured_ns`` is the monotonic clock of
the capturing host, which all processes of one host share.

A frame's way through the stages is ``Frame -> ModelInput -> ModelOutput -> Result``; each carries the
same `FrameHeader`, so that joins are by ``(source, epoch, seq)`` and never by "latest".
"""

from __future__ import annotations

from pipeline.messages.events import Event, EventType
from pipeline.messages.found import Attribute, Classes, Detections
from pipeline.messages.frames import Blob, Clock, FrameHeader, LetterboxMap, Span, State, Status
from pipeline.messages.scene import Anchor, Coordinates, Filter, Ground, Line, Mask, Point, Scene, Zone
from pipeline.messages.specs import ModelSpec, Task
from pipeline.messages.steps import EndOfStream, Frame, Lost, Message, ModelInput, ModelOutput, Result
from pipeline.messages.tuning import Tuning

__all__ = [
    "WIRE_VERSION",
    "Anchor",
    "Attribute",
    "Blob",
    "Classes",
    "Clock",
    "Coordinates",
    "Detections",
    "EndOfStream",
    "Event",
    "EventType",
    "Filter",
    "Frame",
    "FrameHeader",
    "Ground",
    "LetterboxMap",
    "Line",
    "Lost",
    "Mask",
    "Message",
    "ModelInput",
    "ModelOutput",
    "ModelSpec",
    "Point",
    "Result",
    "Scene",
    "Span",
    "State",
    "Status",
    "Task",
    "Tuning",
    "Zone",
]

WIRE_VERSION = 1
