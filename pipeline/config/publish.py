"""``publish:`` - where results go. Each entry names one kind of sink by its key, next to its options."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from pipeline.config.fields import Count, Label, Seconds, Section, Switch, Text, is_loopback, listed

__all__ = ["SINK_KINDS", "ContactSheetSink", "HeatmapSink", "JsonlSink", "Sink", "VideoSink", "ZmqSink"]

_TCP = re.compile(r"tcp://(\[[^\]]+\]|[^:\[\]/\s]+):(\d+|\*)")


class _Sink(Section):
    """What all kinds share; the first field's key in YAML is the kind."""

    model_config = ConfigDict(serialize_by_alias=True)
    kind: ClassVar[str]

    def options(self) -> dict[str, Any]:
        """The fields as keyword arguments of the sink's constructor."""
        return self.model_dump(by_alias=False)


class ZmqSink(_Sink):
    """Publish frames and events to subscribers over ZeroMQ PUB."""

    kind: ClassVar[str] = "zmq"
    address: Text = Field(alias="zmq", description="Where to bind, such as tcp://127.0.0.1:5556.")
    format: Literal["msgpack", "json"] = Field(default="msgpack", description="Encoding of the records.")
    frames: Switch = Field(default=True, description="Publish a record per frame.")
    events: Switch = Field(default=True, description="Publish the life-cycle events of objects and sources.")
    insecure: Switch = Field(
        default=False, description="Allow an address that other hosts can reach, in plain text."
    )
    queue_limit: Count = Field(default=1000, description="Messages that may wait for one slow subscriber.")
    linger_s: Seconds = Field(
        default=2.0, description="How long the end of a run waits for the tail to be sent, seconds."
    )

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        match = _TCP.fullmatch(value)
        if (match and (match[2] == "*" or int(match[2]) <= 65535)) or re.fullmatch(r"ipc://.+", value):
            return value
        raise ValueError("must be tcp://HOST:PORT or ipc://PATH")

    @model_validator(mode="after")
    def _stays_here(self) -> Self:
        match = _TCP.fullmatch(self.address)
        if match and not self.insecure and not is_loopback(match[1].strip("[]")):
            raise ValueError(
                f"publishes at {self.address}, which other hosts can reach, in plain text; "
                "publish at tcp://127.0.0.1:PORT, or add insecure: true if the network is trusted"
            )
        return self


class JsonlSink(_Sink):
    """Write records to a file, one JSON object a line."""

    kind: ClassVar[str] = "jsonl"
    path: Text = Field(alias="jsonl", description="The file; a relative path starts at run.out.")
    what: Literal["detections", "events"] = Field(default="events", description="Which records to write.")


class VideoSink(_Sink):
    """Write the frames with their boxes drawn on them as MP4."""

    kind: ClassVar[str] = "video"
    path: Text = Field(alias="video", description="The file; with several sources, one file for each.")


class ContactSheetSink(_Sink):
    """Write one picture with annotated frames side by side."""

    kind: ClassVar[str] = "contact_sheet"
    path: Text = Field(alias="contact_sheet", description="The PNG file.")
    columns: Count = Field(default=3, description="Pictures in a row.")
    rows: Count = Field(default=4, description="Rows of pictures.")
    width: Count = Field(default=1600, description="Width of the whole sheet in pixels.")


class HeatmapSink(_Sink):
    """Write a picture of where objects were, and the numbers beside it."""

    kind: ClassVar[str] = "heatmap"
    path: Text = Field(alias="heatmap", description="The PNG file; with several sources, one for each.")
    labels: Annotated[tuple[Label, ...], Field(min_length=1), listed("[person]")] | None = Field(
        default=None, description="Labels of the objects that count; left out: all."
    )
    columns: Annotated[Count, Field(ge=4, le=512)] = Field(
        default=96, description="Cells across the picture."
    )


SINK_KINDS: dict[str, type[_Sink]] = {
    cls.kind: cls for cls in (ZmqSink, JsonlSink, VideoSink, ContactSheetSink, HeatmapSink)
}


def _one_kind(value: Any) -> Any:
    if isinstance(value, _Sink):
        return value
    known = ", ".join(SINK_KINDS)
    if not isinstance(value, dict):
        raise ValueError(f"must be one sink, such as {{jsonl: events.jsonl}}; there are {known}")
    kinds = [key for key in value if key in SINK_KINDS]
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
    if isinstance(value, _Sink):
        return value.kind
    return next((key for key in value if key in SINK_KINDS), None)


#: One entry of ``publish:``.
Sink = Annotated[
    Annotated[ZmqSink, Tag("zmq")]
    | Annotated[JsonlSink, Tag("jsonl")]
    | Annotated[VideoSink, Tag("video")]
    | Annotated[ContactSheetSink, Tag("contact_sheet")]
    | Annotated[HeatmapSink, Tag("heatmap")],
    Discriminator(_kind),
    BeforeValidator(_one_kind),
]
