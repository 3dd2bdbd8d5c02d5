"""``stages:`` - how many processes run each stage, and where."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from pipeline.config.fields import Section, Switch, Text, is_loopback

__all__ = ["STAGES", "InferStage", "PublishStage", "Stage", "Stages"]

#: The five stages, in pipeline order.
STAGES = ("capture", "preprocess", "infer", "postprocess", "publish")
_ADDRESS = re.compile(r"tcp://(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+)):(\d{1,5})")


def _replicas(value: Any) -> Any:
    if value == "auto":
        return value
    if isinstance(value, str) and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 64:
        raise ValueError("must be a whole number from 1 to 64, or auto")
    return value


class Stage(Section):
    """How one stage is run."""

    replicas: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1, description="How many processes run this stage."
    )

    @field_validator("replicas", mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        if value == "auto":
            raise ValueError("must be a whole number from 1 to 64; only infer takes auto")
        return _replicas(value)


class PublishStage(Section):
    """How results are published: always by one process, which numbers the events without gaps."""

    replicas: Literal[1] = Field(default=1, description="Always 1.")

    @field_validator("replicas", mode="before")
    @classmethod
    def _one(cls, value: Any) -> Any:
        if isinstance(value, bool) or value not in (1, "1"):
            raise ValueError("must be 1, because event numbers are without gaps; leave it out")
        return 1


class InferStage(Section):
    """How inference is run."""

    replicas: Annotated[Annotated[int, Field(ge=1, le=64)] | Literal["auto"], BeforeValidator(_replicas)] = (
        Field(
            default="auto", description="How many processes run inference; auto decides by device and cores."
        )
    )
    address: Text = Field(
        default="ipc",
        description="ipc on this host, or tcp://HOST:PORT, pixels inline; each replica the next port.",
    )
    insecure: Switch = Field(
        default=False,
        description="Allow an address that other hosts can reach, in plain text and open to all.",
    )
    batch: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1,
        description="Frames of all sources in one inference at most; on a CPU more than 1 gains nothing.",
    )

    @field_validator("batch", mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        if isinstance(value, bool):  # pydantic would take `true` for 1
            raise ValueError("must be a whole number from 1 to 64")
        return value

    @field_validator("address")
    @classmethod
    def _ipc_or_tcp(cls, value: str) -> str:
        match = _ADDRESS.fullmatch(value)
        if value != "ipc" and not (match and 1 <= int(match[3]) <= 65535):
            raise ValueError("must be ipc, or tcp://HOST:PORT such as tcp://127.0.0.1:5601")
        return value

    @model_validator(mode="after")
    def _stays_here(self) -> Self:
        match = _ADDRESS.fullmatch(self.address)
        if match and not self.insecure and not is_loopback(match[1] or match[2]):
            raise ValueError(
                f"listens at {self.address}, where other hosts can reach it, in plain text and open to all; "
                "listen at tcp://127.0.0.1:PORT, or add insecure: true if the network is trusted"
            )
        return self


class Stages(Section):
    """Processes per stage. Capture is not here: it runs once per source."""

    preprocess: Stage = Field(default_factory=Stage, description="Frame to model input.")
    infer: InferStage = Field(default_factory=InferStage, description="Model input to raw model output.")
    postprocess: Stage = Field(
        default_factory=Stage,
        description="Raw output to tracked objects; each source stays with one replica.",
    )
    publish: PublishStage = Field(
        default_factory=PublishStage, description="Results to subscribers and files."
    )
