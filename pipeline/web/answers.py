"""What the service answers, as its OpenAPI description names it.

Answers are made by `pipeline.tasks.records`; these models only describe them, and a test holds them together.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field

__all__ = [
    "Classes",
    "Detections",
    "Health",
    "LocalizedObject",
    "ModelState",
    "ProblemDetails",
    "Tags",
]

_Share = Annotated[float, Field(ge=0, le=1)]
_Box = Annotated[list[float], Field(min_length=4, max_length=4)]


class _Latency(BaseModel):
    """Where the time went, milliseconds."""

    wait: float = Field(description="In the queue.")
    decode: float = Field(description="From the file to pixels.")
    inference: float = Field(description="Placing the picture, the network, decoding what it gives.")


class _Answer(BaseModel):
    """What all answers have."""

    model: str = Field(description="Name of the model.")
    provider: str = Field(description="Execution provider that ran it.")
    width: int = Field(description="Width of the picture in pixels, upright.")
    height: int = Field(description="Height of the picture in pixels, upright.")
    latency_ms: _Latency


class _Class(BaseModel):
    label: str
    class_id: int
    confidence: _Share


class _Object(_Class):
    box_xyxy: _Box = Field(description="x1, y1, x2, y2 in pixels of the upright picture.")
    box_normalized: _Box = Field(description="The same, divided by width and height: 0..1.")


class Detections(_Answer):
    """All objects, best first."""

    task: Literal["detect"]
    detections: list[_Object]


class LocalizedObject(_Answer):
    """The one object with the most evidence; null when there is none."""

    task: Literal["localize"]
    object: _Object | None


class Classes(_Answer):
    """The likeliest classes of the whole picture, best first."""

    task: Literal["classify"]
    classes: list[_Class]


class _Auto(BaseModel):
    auto: dict[str, Annotated[int, Field(ge=1, le=100)]] = Field(description="Percent by label, best first.")


class Tags(_Answer):
    """Labels with percents."""

    task: Literal["tag"]
    tags: _Auto


class ModelState(BaseModel):
    """A model that the service has open."""

    name: str
    family: str
    provider: str
    classes: int


class Health(BaseModel):
    """That the service is ready, and with what."""

    status: Literal["ok"]
    version: str
    models: dict[str, ModelState] = Field(description="By kind: detector, classifier.")
    requests: int = Field(description="Requests that are being answered, those that wait included.")


class ProblemDetails(BaseModel):
    """An error, RFC 9457."""

    type: str
    title: str
    status: int
    detail: str = Field(description="What is wrong.")
    hint: str | None = Field(default=None, description="What to do about it.")
