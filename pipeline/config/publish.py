"""``publish:`` - where results go. Each entry names one kind of sink by its key, next to its options."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import BeforeValidator, Discriminator, Tag

from pipeline.config.sinks.base import SinkSection
from pipeline.config.sinks.brokers import KafkaSink, NatsSink, RedisSink
from pipeline.config.sinks.files import CocoSink, CsvSink, JsonlSink, MotSink, OnvifSink, ParquetSink
from pipeline.config.sinks.mqtt import MqttSink
from pipeline.config.sinks.pictures import ContactSheetSink, HeatmapSink, VideoSink
from pipeline.config.sinks.postgres import PostgresSink
from pipeline.config.sinks.stream import StreamSink
from pipeline.config.sinks.webhook import WebhookSink
from pipeline.config.sinks.zmq import ZmqSink

__all__ = ["SINK_KINDS", "Sink"]

SINK_KINDS: dict[str, type[SinkSection]] = {
    cls.kind: cls
    for cls in (
        ZmqSink, JsonlSink, CsvSink, ParquetSink, CocoSink, MotSink, OnvifSink, VideoSink, StreamSink,
        ContactSheetSink, HeatmapSink, MqttSink, KafkaSink, NatsSink, RedisSink, WebhookSink, PostgresSink,
    )
}  # fmt: skip


def _kinds(value: dict[str, Any]) -> list[str]:
    """The kinds that an entry names; a key such as `stream` may also be an option of another kind."""
    named = [key for key in value if key in SINK_KINDS]
    options = {option for kind in named for option in SINK_KINDS[kind].model_fields}
    return [kind for kind in named if kind not in options]


def _one_kind(value: Any) -> Any:
    if isinstance(value, SinkSection):
        return value
    known = ", ".join(SINK_KINDS)
    if not isinstance(value, dict):
        raise ValueError(f"must be one sink, such as {{jsonl: events.jsonl}}; there are {known}")
    kinds = _kinds(value)
    if len(kinds) > 1:
        raise ValueError(f"names {' and '.join(kinds)} at once; give each a list entry (`- `) of its own")
    if not kinds:
        near = next((m[0] for key in value if (m := get_close_matches(key, SINK_KINDS, 1))), None)
        wrong = ", ".join(f"`{key}`" for key in value) or "nothing"
        raise ValueError(
            f"names no kind of sink ({wrong}); " + (f"write `{near}`" if near else f"there are {known}")
        )
    return value


def _kind(value: Any) -> str | None:
    if isinstance(value, SinkSection):
        return value.kind
    return next(iter(_kinds(value)), None)


if TYPE_CHECKING:
    Sink = SinkSection
else:
    #: One entry of ``publish:``.
    Sink = Annotated[
        Union[tuple(Annotated[cls, Tag(kind)] for kind, cls in SINK_KINDS.items())],  # noqa: UP007
        Discriminator(_kind),
        BeforeValidator(_one_kind),
    ]
