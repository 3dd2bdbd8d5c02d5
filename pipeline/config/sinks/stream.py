"""Annotated video as a live stream."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from pipeline.config.fields import Count, Seconds, SourceName, Switch, Text
from pipeline.config.sinks.base import Secret, SinkSection

__all__ = ["StreamSink"]

_URL = re.compile(r"(rtsps?|rtmps?|srt)://[^\s/]+(/\S*)?")


class StreamSink(SinkSection):
    """Send the frames with their boxes drawn on them to a media server, or write them as HLS."""

    kind: ClassVar[str] = "stream"
    url: Text = Field(
        alias="stream",
        description="rtsp://HOST/PATH, rtmp://HOST/APP, srt://HOST:PORT, or for HLS a path that ends in "
        ".m3u8, which starts at run.out; `{source}` in it stands for the name of the source.",
    )
    source: SourceName | None = Field(
        default=None, description="The source that is sent; needed when there are several and no `{source}`."
    )
    name: SourceName | None = Field(
        default=None,
        description="What this sink is called in metrics; left out: stream, or stream-<source>.",
    )
    key: Secret | None = Field(default=None, description="A stream key, put behind the URL; best as ${NAME}.")
    max_fps: Annotated[float, Field(gt=0, le=120)] = Field(
        default=15.0, description="Most pictures a second."
    )
    width: Annotated[Count, Field(ge=64)] | None = Field(
        default=None, description="Wider pictures are scaled to this width in pixels; left out: they stay."
    )
    bitrate_kbps: Count | None = Field(
        default=None, description="Bits a second, in thousands; left out: constant quality."
    )
    preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium"] = Field(
        default="ultrafast", description="Of libx264: the slower, the fewer bits and the more CPU time."
    )
    gop_s: Annotated[Seconds, Field(ge=0.2, le=60)] = Field(
        default=2.0, description="Seconds from keyframe to keyframe, and length of a segment of HLS."
    )
    list_size: Annotated[Count, Field(ge=2)] = Field(
        default=6, description="Segments in the playlist of HLS; older ones are deleted."
    )
    transport: Literal["tcp", "udp"] = Field(default="tcp", description="How RTSP sends its packets.")
    tls_verify: Switch = Field(
        default=True,
        description="Whether a server's certificate must be valid; rtmps needs false, it cannot be checked.",
    )
    ca_file: Text | None = Field(
        default=None, description="Certificates to trust with rtsps, PEM; left out: those of this system."
    )
    stall_s: Annotated[Seconds, Field(ge=1, le=300)] = Field(
        default=10.0, description="A server that takes nothing for so long is connected to again, seconds."
    )

    @field_validator("url")
    @classmethod
    def _target(cls, value: str) -> str:
        if re.search(r"\{(?!source\})", value):
            raise ValueError("must have no braces but {source}")
        if _URL.fullmatch(value) or ("://" not in value and value.endswith(".m3u8")):
            return value
        raise ValueError(
            "must be rtsp://HOST/PATH, rtmp://HOST/APP, srt://HOST:PORT, or a path that ends in .m3u8"
        )

    @model_validator(mode="after")
    def _can_be_kept(self) -> Self:
        if self.url.startswith("rtmps:") and self.tls_verify:
            raise ValueError(
                "is rtmps, whose certificate FFmpeg does not check; add tls_verify: false if the network to "
                "it is trusted, or use rtsps"
            )
        if self.key is not None and "://" not in self.url:
            raise ValueError("has a key and no server; leave key out")
        if "://" not in self.url and self.gop_s < 1:  # A playlist counts in whole seconds.
            raise ValueError("is HLS, whose segments last a second at least; give a gop_s of 1 or more")
        return self
